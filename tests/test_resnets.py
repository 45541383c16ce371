"""The networks of HNC's tables: sizes, map shapes, and that each is global average pooling plus one linear layer."""

from __future__ import annotations

import pytest
import torch

from xai_course.maps import class_activation_map, gap_head
from xai_course.nets import resnets as R

BUILDERS = {
    "resnet20": lambda classes: R.cifar_resnet(20, classes),
    "resnet56": lambda classes: R.cifar_resnet(56, classes),
    "resnet110": lambda classes: R.cifar_resnet(110, classes),
    "densenet_bc": lambda classes: R.densenet_bc(classes),
    "resnext29_8x64": lambda classes: R.resnext29(8, classes),
    "resnext29_16x64": lambda classes: R.resnext29(16, classes),
    **{f"resnet{d}": (lambda classes, d=d: R.torchvision_resnet(f"resnet{d}", classes)) for d in (50, 101, 152)},
}


# (name, classes) -> numbers that training changes, with the 1x1 projection shortcuts of the usual PyTorch CIFAR recipe
PARAMETERS: dict[tuple[str, int], int] = {
    ("resnet20", 100): 278_324,
    ("resnet56", 100): 861_620,
    ("resnet110", 100): 1_736_564,
    ("densenet_bc", 100): 800_032,
    ("resnext29_8x64", 100): 34_518_948,
    ("resnext29_16x64", 100): 68_247_460,
    ("resnet50", 200): 23_917_832,
    ("resnet101", 80): 42_664_080,
    ("resnet101", 1000): 44_549_160,
    ("resnet152", 1000): 60_192_808,
}


@pytest.mark.parametrize(("name", "classes"), PARAMETERS)
def test_parameter_counts(name, classes):
    with torch.device("meta"):  # shapes without memory
        net = BUILDERS[name](classes)
    assert R.count_parameters(net) == PARAMETERS[name, classes]


def test_zero_pad_shortcuts_have_the_papers_smaller_count():
    with torch.device("meta"):
        assert R.count_parameters(R.cifar_resnet(56, 100, shortcut="pad")) == 858_868
        assert R.count_parameters(R.cifar_resnet(110, 100, shortcut="pad")) == 1_733_812


@pytest.mark.parametrize(
    ("build", "size", "maps"),
    [
        (lambda: R.cifar_resnet(8, 7), 32, (64, 8, 8)),
        (lambda: R.cifar_resnet(8, 7, shortcut="pad", statistics=R.CIFAR), 32, (64, 8, 8)),
        (lambda: R.densenet_bc(7, depth=16, growth=4), 32, (16, 8, 8)),
        (lambda: R.resnext29(2, 7, base_width=4), 32, (1024, 8, 8)),
        (lambda: R.torchvision_resnet("resnet18", 7), 64, (512, 2, 2)),
    ],
)
def test_maps_average_to_the_logits(build, size, maps):
    net, images = build().eval(), torch.rand(2, 3, size, size)
    features, head = net.features(images), gap_head(net)
    assert features.shape[1:] == maps
    averaged = class_activation_map(features, head.weight, head.bias).mean(dim=(2, 3))
    torch.testing.assert_close(averaged, net(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("depth", "maps"), [(20, (64, 8, 8)), (110, (64, 8, 8))])
def test_cifar_resnets_end_in_eight_by_eight_maps(depth, maps):
    with torch.device("meta"):
        assert R.cifar_resnet(depth, 100).features(torch.empty(2, 3, 32, 32)).shape == (2, *maps)


def test_densenet_ends_in_342_maps():
    with torch.device("meta"):
        assert R.densenet_bc(100).features(torch.empty(2, 3, 32, 32)).shape == (2, 342, 8, 8)


def test_statistics_are_part_of_the_network():
    torch.manual_seed(0)
    inside = R.cifar_resnet(8, 5, statistics=R.CIFAR).eval()
    torch.manual_seed(0)
    outside, images = R.cifar_resnet(8, 5).eval(), torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in R.CIFAR)
    torch.testing.assert_close(inside(images), outside((images - mean) / std))
    assert R.count_parameters(inside) == R.count_parameters(outside)


def test_torchvision_body_is_torchvision():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    ours = R.torchvision_resnet("resnet18", 1000, statistics=None).eval()
    torch.manual_seed(0)
    theirs, images = resnet18().eval(), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("call", [
    lambda: R.cifar_resnet(21, 10),
    lambda: R.cifar_resnet(20, 10, shortcut="none"),
    lambda: R.densenet_bc(10, depth=99),
    lambda: R.torchvision_resnet("vgg16", 10),
])  # fmt: skip
def test_bad_arguments(call):
    with pytest.raises(ValueError, match="must be"):
        call()
