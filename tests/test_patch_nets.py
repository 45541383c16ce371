"""Networks of patches: Table II's parameter counts, shapes, patch boxes and receptive fields (C20 of the audit)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xai_course.methods.patch_heads import AttentionPooling, DynamicRouting, LossAttention, MeanPooling
from xai_course.nets.convnets import GapClassifier
from xai_course.nets.patch_backbones import (
    BACKBONES,
    Idle,
    Parallel,
    basic_block,
    bottleneck,
    conv,
    field_of,
    inception,
    plain_net,
    vgg_body,
)
from xai_course.nets.patch_nets import MapPatches, patch_backbone, patch_net


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(build, *arguments, **keywords):
    with torch.device("meta"):
        return build(*arguments, **keywords)


# --- Table II, millions of parameters as printed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "official", "count", "printed"),
    [
        ("vgg11", False, 28_149_514, "28.15"),
        ("vgg16", False, 33_646_666, "33.65"),
        ("resnet18", False, 11_173_962, "11.17"),
        # Only bottlenecks that start with a 3x3 convolution have the printed 58.16 M; a standard ResNet-50 has 23.52 M.
        ("resnet50", True, 58_156_618, "58.16"),
        ("resnet50", False, 23_520_842, None),
        ("googlenet", False, 6_166_250, None),
    ],
)
def test_backbone_parameters(name, official, count, printed):
    net = on_meta(plain_net, name, official_bottleneck=official)
    assert parameters(net) == count
    assert printed is None or f"{count / 1e6:.2f}" == printed


@pytest.mark.parametrize(
    ("name", "mean", "attention", "gated", "printed"),
    [
        # Attention prints 30.80 where 30.79 is due: biases in the two head convolutions (1,024) would round to it.
        ("vgg11", 30_728_970, 30_794_763, 30_860_427, ("30.73", "30.80", "30.86")),
        # and 32.73 where 32.74 is due: the last digit is cut, not rounded. No one reading gives both.
        ("resnet18", 32_671_818, 32_737_611, 32_803_275, ("32.67", "32.73", "32.80")),
    ],
)
def test_patch_network_parameters(name, mean, attention, gated, printed):
    net = on_meta(patch_net, name)
    heads = [on_meta(AttentionPooling, net, gated=g) for g in (False, True)]
    assert [parameters(net), *map(parameters, heads)] == [mean, attention, gated]
    assert f"{mean / 1e6:.2f}" == printed[0] and f"{gated / 1e6:.2f}" == printed[2]
    if name == "vgg11":
        assert f"{(attention + 2 * 512) / 1e6:.2f}" == printed[1]
    else:
        assert f"{int(attention / 1e4) / 100:.2f}" == printed[1]


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("vgg11", 100, 30_775_140),
        ("vgg11", 200, 30_826_440),
        ("vgg11", 91, 30_770_523),
        ("resnet18", 100, 32_717_988),
        ("resnet18", 200, 32_769_288),
        ("resnet18", 91, 32_713_371),
        ("resnet50", 10, 46_052_938),
        ("googlenet", 10, 28_184_298),
    ],
)
def test_parameters_for_other_classes_and_backbones(name, classes, count):
    assert parameters(on_meta(patch_net, name, classes)) == count


def test_official_variants_keep_or_explain_their_count():
    assert parameters(on_meta(patch_net, "resnet18", official=True)) == 32_671_818  # an idle BatchNorm is still counted
    assert parameters(on_meta(patch_net, "resnet50", official=True)) == 80_688_714
    assert parameters(on_meta(patch_net, "vgg11", bias=False)) == 30_728_970 - 10
    stem = patch_backbone("resnet18", official=True)[0]
    images = torch.randn(1, 3, 4, 4)
    assert torch.equal(stem[:2](images), stem[0](images)) and isinstance(stem[1], Idle)


@pytest.mark.parametrize(
    ("name", "count"),
    [("vgg11", 9_225_984), ("resnet18", 11_168_832)],
)
def test_body_parameters(name, count):
    assert parameters(on_meta(patch_backbone, name)[0]) == count


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [32, 64])
def test_patch_features_have_the_papers_shape(name, size):
    net = on_meta(patch_net, name, 10, image_size=size)
    images = torch.empty(2, 3, size, size, device="meta")
    assert net.features(images).shape == (2, net.head.in_features, 6, 6)
    assert net.patch_logits(images).shape == (2, 36, 10) and net(images).shape == (2, 10)
    assert net.grid((size, size)) == (6, 6) and net.map_cells((size, size)) == 1024


def test_vgg11_maps_at_64_pixels():
    body = on_meta(patch_backbone, "vgg11", image_size=64)[0]
    x, shapes = torch.empty(1, 3, 64, 64, device="meta"), []
    for layer in body:
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    full = [(64, 64, 64), (128, 64, 64), (256, 64, 64)]
    assert shapes == [*full, (256, 32, 32), *[(512, 32, 32)] * 4]  # the fourth convolution has stride 2


@pytest.mark.parametrize("name", BACKBONES[:-1])
def test_plain_networks_pool(name):
    net = on_meta(plain_net, name, 10)
    images = torch.empty(2, 3, 32, 32, device="meta")
    assert net(images).shape == (2, 10) and net.features(images).shape[-1] <= 8


def test_small_network_trains_on_the_cpu_and_is_seeded():
    a, b = patch_net("small", 5, seed=3), patch_net("small", 5, seed=3)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(a.eval()(images), b.eval()(images))
    a.train()(images).sum().backward()
    assert all(p.grad is not None for p in a.parameters())


def test_patch_logits_are_the_class_activation_maps():
    from xai_course.maps import class_activation_map

    net = patch_net("small", 5, seed=0).eval()
    images = torch.rand(2, 3, 32, 32)
    maps = class_activation_map(net.features(images), net.head.weight, net.head.bias)
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), net.patch_logits(images))


@pytest.mark.parametrize(("strides", "size"), [(0, 9), (1, 17), (2, 33), (3, 65)])
def test_too_small_images_name_the_size_needed(strides, size):
    net = on_meta(patch_net, "resnet18", strides=strides)
    with pytest.raises(ValueError, match=f"at least {size}x{size} .* got 8x8"):
        net.features(torch.empty(1, 3, 8, 8, device="meta"))
    assert net.grid((size, size)) == (1, 1)


def test_table_7_with_three_strides_needs_padding():  # D10: 64 / 2^3 = 8 < 9
    with pytest.raises(ValueError, match="at least 65x65"):
        on_meta(patch_net, "resnet18", strides=3).grid((64, 64))
    assert on_meta(patch_net, "resnet18", strides=3, padding=4).grid((64, 64)) == (2, 2)
    assert on_meta(patch_net, "resnet18", strides=3, padding=4, step=2).grid((64, 64)) == (4, 4)
    grids = {
        (k, s): on_meta(patch_net, "resnet18", strides=k, step=s).grid((64, 64))[0] for k in range(3) for s in (4, 2)
    }
    assert grids == {(0, 4): 14, (0, 2): 28, (1, 4): 6, (1, 2): 12, (2, 4): 2, (2, 2): 4}


@pytest.mark.parametrize(("name", "strides"), [("alexnet", 0), ("vgg11", 4), ("small", 2)])
def test_unknown_backbones_and_strides_are_refused(name, strides):
    with pytest.raises(ValueError, match="name must be one of"):
        patch_net(name, strides=strides)
    if name == "alexnet":
        with pytest.raises(ValueError, match="name must be one of"):
            plain_net(name)


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "official", "field"),
    [
        ("vgg11", 32, False, (25, 4, -8)),
        ("vgg11", 64, False, (41, 8, -12)),
        ("resnet18", 32, False, (43, 4, -17)),  # larger than the image
        ("resnet18", 64, False, (73, 8, -28)),
        ("resnet50", 32, False, (43, 4, -17)),
        ("resnet50", 32, True, (75, 4, -33)),
        ("googlenet", 32, False, (47, 4, -19)),
        ("small", 32, False, (15, 4, -3)),
    ],
)
def test_receptive_fields_of_patches(name, size, official, field):
    net = on_meta(patch_net, name, image_size=size, official=official)
    assert tuple(net.field("rf")) == field


@pytest.mark.parametrize(
    "module",
    [
        conv(2, 3, 5, stride=2),
        basic_block(2, 3, stride=2),
        bottleneck(2, 1, stride=2),
        bottleneck(2, 1, official=True),
        nn.Sequential(conv(2, 3), nn.MaxPool2d(2), conv(3, 2), nn.AvgPool2d(3, 2, 1)),
        Parallel(conv(2, 3, 1), conv(2, 3, 5), join="cat"),
    ],
)
def test_receptive_field_is_where_the_gradient_lives(module):
    """The oracle: with positive weights and inputs nothing cancels, so the gradient's support is the field."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.1)
    images = torch.ones(1, 2, 41, 41, requires_grad=True)
    pools = [m for m in module.modules() if isinstance(m, nn.MaxPool2d)]
    for pool in pools:  # a maximum picks one input: all of them count
        pool.forward = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding).forward
    outputs = module.eval()(images)
    i = outputs.shape[-1] // 2
    (gradient,) = torch.autograd.grad(outputs[:, :, i, i].sum(), images)
    rows = gradient[0].abs().sum(0).nonzero()
    field = field_of(module)
    assert rows.amin().item() == field.start + i * field.step
    assert rows.amax().item() == field.start + i * field.step + field.size - 1


def test_receptive_field_refuses_what_it_cannot_read():
    with pytest.raises(ValueError, match="got Linear"):
        field_of(nn.Sequential(nn.Linear(3, 3)))
    assert field_of(inception("a3")).size == 5
    assert field_of(vgg_body("vgg11")).step == 32


def test_nominal_boxes_step_over_the_image():
    boxes = patch_net("small", 2).boxes((32, 32))
    assert boxes.shape == (36, 4)
    assert boxes[[0, 1, 6, 35]].tolist() == [[0, 0, 9, 9], [4, 0, 13, 9], [0, 4, 9, 13], [20, 20, 29, 29]]
    large = patch_net("small", 2, image_size=64).boxes((64, 64))
    assert large[[0, 1, 6, 35]].tolist() == [[0, 0, 18, 18], [8, 0, 26, 18], [0, 8, 18, 26], [40, 40, 58, 58]]


def test_field_boxes_are_clipped_to_the_image():
    boxes = patch_net("small", 2).boxes((32, 32), "rf")
    assert boxes[0].tolist() == [0, 0, 12, 12] and boxes[35].tolist() == [17, 17, 32, 32]
    with torch.device("cpu"):
        whole = patch_net("small", 2).boxes((32, 48))
    assert whole.shape == (6 * 10, 4)
    with pytest.raises(ValueError, match="geometry"):
        patch_net("small", 2).boxes((32, 32), "round")


def test_a_patch_sees_its_receptive_field_and_nothing_else():
    net = patch_net("small", 4, seed=0).eval()
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net.patch_logits(images)[0, 14].sum(), images)
    seen = gradient[0].abs().sum(0).nonzero()
    left, top, right, bottom = net.boxes((32, 32), "rf")[14].tolist()
    assert seen.amin(0).tolist() == [top, left] and (seen.amax(0) + 1).tolist() == [bottom, right]


# --- foreign classifiers read as patches ------------------------------------------------------------------------------


def test_a_foreign_classifier_is_read_cell_by_cell():
    """Patch logits are the head on each cell, so their mean is the network's answer, and weights lie on their tiles."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
    net = GapClassifier(trunk, nn.Linear(8, 5)).double()
    images = torch.rand(2, 3, 30, 20, dtype=torch.float64)
    method = LossAttention(net, cutoff=0.5)
    assert list(method.net.patch_logits(images).shape) == [2, 8 * 5, 5]
    torch.testing.assert_close(MeanPooling(net).logits(images), net(images))
    cell = net.head(trunk(images)[1, :, 3, 2])
    torch.testing.assert_close(method.net.patch_logits(images)[1, 3 * 5 + 2], cell)
    with pytest.raises(ValueError, match="got 'rf'"):
        method.net.boxes((30, 20), "rf")
    weights = method.attend(images).weights
    drawn = method.explain(images, torch.tensor([0, 1]))
    left, top, right, bottom = method.net.boxes((30, 20))[17].tolist()
    tile = drawn[0, top:bottom, left:right]
    torch.testing.assert_close(tile, (weights[0, 17] / weights[0].max()).expand_as(tile))
    assert method.attend(images).image.shape == AttentionPooling(net).double().logits(images).shape == (2, 5)


@pytest.mark.parametrize("size", [(32, 32), (30, 20), (33, 17)])
def test_tiles_cover_the_image_once(size):
    net = MapPatches(GapClassifier(nn.Conv2d(1, 2, 3, stride=4, padding=1), nn.Linear(2, 2)).train())
    painted = torch.zeros(size)
    for left, top, right, bottom in net.boxes(size).tolist():
        painted[top:bottom, left:right] += 1
    assert (painted == 1).all() and net.training


def test_what_has_no_patches_is_refused_at_construction():
    from torchvision.models import resnet18

    for build in (LossAttention, MeanPooling, AttentionPooling):
        with pytest.raises(ValueError, match=r"net must have patch_logits .*gap_classifier\(net\)\), got ResNet"):
            build(resnet18(num_classes=2))
    with pytest.raises(ValueError, match=r"net must have votes, .* got PatchNet"):
        DynamicRouting(patch_net("small", 2))


def test_channels_last_features_are_refused():
    net = GapClassifier(nn.Identity(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"features must be \[B, 3, h, w\], got \(1, 4, 4, 3\)"):
        LossAttention(net).logits(torch.rand(1, 4, 4, 3))
