"""What is explained and how it is said: classes, targets, foreign outputs, variants, the gradient at the image."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_maps import LAYERS, pictures, toy, worst
from torch import nn

from xai_course.maps import (
    class_activation_map,
    gap_head,
    grad_cam,
    grad_cam_from,
    input_gradient,
)
from xai_course.nets.adapters import logits_of


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


# ---- classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, [2, 2, 2], (2, 2, 2), np.array([2, 2, 2]), torch.tensor(2), np.int64(2)])
def test_a_class_may_be_said_in_many_ways(classes):
    net, (images, _) = toy(), pictures()
    wanted = torch.full((3,), 2)
    same(grad_cam(net, images, classes, LAYERS).maps, grad_cam(net, images, wanted, LAYERS).maps)
    features, head = net.features(images), net.head
    same(*(class_activation_map(features, head.weight, head.bias, c)[None] for c in (classes, wanted)))


@pytest.mark.parametrize("create_graph", [False, True])
def test_several_classes_are_one_map_each(create_graph):
    net, (images, _) = toy(), pictures()
    classes = [[0, 3], [1, 1], [2, 0]]
    maps, logits = grad_cam(net, images, classes, LAYERS, create_graph=create_graph)
    for column in (0, 1):
        alone = grad_cam(net, images, [row[column] for row in classes], LAYERS)
        same([m[:, column] for m in maps], alone.maps)
        torch.testing.assert_close(logits, alone.logits)
    gradient = input_gradient(net, images, classes, create_graph=create_graph).gradient
    same(gradient[:, 1], input_gradient(net, images, [3, 1, 0]).gradient)
    if create_graph:
        sum(m.sum() for m in maps).backward()
        assert all(p.grad is not None for n, p in net.named_parameters() if n != "head.bias")


# ---- targets --------------------------------------------------------------------------------------


def test_a_target_is_any_function_of_the_logits():
    net, (images, classes) = toy(), pictures()
    pick = lambda z: z[torch.arange(3), classes]  # noqa: E731
    same(grad_cam(net, images, layers=LAYERS, target=pick).maps, grad_cam(net, images, classes, LAYERS).maps)
    both = grad_cam(net, images, layers=LAYERS, target=lambda z: torch.stack([pick(z), -pick(z)], 1), relu=False).maps
    same([m[:, 0] for m in both], [-m[:, 1] for m in both])
    features = net.features(images)
    logits = net.head(features.mean((2, 3)))
    (ours,) = grad_cam_from(logits, [features], target=lambda z: z.log_softmax(1)[:, 1], relu=False)
    right = class_activation_map(features, net.head.weight[1:2] - logits.softmax(1) @ net.head.weight)
    torch.testing.assert_close(ours, right[torch.arange(3), torch.arange(3)] / 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0, "target": lambda z: z[:, 0]}, "give one of them, got both"),
        ({}, r"got None; logits\.argmax"),
        ({"target": lambda z: z.sum()}, r"target must return \[B\] or \[B, k\] with B=3, got \(\)"),
        ({"target": lambda z: z[:2, 0]}, r"got \(2,\)"),
        ({"target": lambda z: 3.0}, "got float"),
        ({"target": lambda z: z.argmax(1).float()}, "by differentiable operations .* got GapClassifier"),
        (
            {"classes": 0, "variant": "score_cam"},
            r"one of grad_cam, hirescam, layer_cam, grad_cam\+\+, got 'score_cam'",
        ),
    ],
)
def test_wrong_targets(arguments, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(toy(), pictures()[0], layers=LAYERS, **arguments)


# ---- outputs --------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """A network that returns its logits in a foreign way."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = toy(), wrap

    def forward(self, images):
        return self.wrap(self.net(images))


Outputs = namedtuple("Outputs", ["aux", "logits"])
WRAPPED = {
    "dict of logits": (lambda z: {"loss": None, "logits": z}, None),
    "dict of out": (lambda z: {"aux": -z, "out": z}, None),
    "tuple": (lambda z: (z, -z), None),
    "list": (lambda z: [None, z], None),
    "named tuple": (lambda z: Outputs(-z, z), None),
    "key": (lambda z: {"scores": z, "logits": -z}, "scores"),
    "index": (lambda z: (-z, z), 1),
    "field": (lambda z: Outputs(z, -z), "aux"),
    "function": (lambda z: {"two": [z, -z]}, lambda out: out["two"][0]),
    "function of a tensor": (lambda z: -z, lambda out: -out),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_logits_are_found_in_what_a_network_returns(name):
    (wrap, output), (images, classes) = WRAPPED[name], pictures()
    right = grad_cam(toy(), images, classes, LAYERS)
    ours = grad_cam(Wrapped(wrap), images, classes, [f"net.{layer}" for layer in LAYERS], output=output)
    same(ours.maps, right.maps)
    torch.testing.assert_close(ours.logits, right.logits)
    gradient = input_gradient(Wrapped(wrap), images, classes, output=output).gradient
    torch.testing.assert_close(gradient, input_gradient(toy(), images, classes).gradient)


@pytest.mark.parametrize(
    ("out", "output", "message"),
    [
        ({"boxes": torch.zeros(1)}, None, r"'\['logits'\]|got dict with \['boxes'\]"),
        ({"boxes": torch.zeros(1)}, "scores", r"no tensor found by 'scores' .* got dict with \['boxes'\]"),
        ((torch.zeros(1),), 1, "by 1 in what the network returned, got tuple"),
        (torch.zeros(1), "logits", "got Tensor"),
        (3, None, "got int"),
    ],
)
def test_what_holds_no_logits_is_refused(out, output, message):
    with pytest.raises(ValueError, match=message):
        logits_of(out, output)


def test_a_segmentation_network_is_explained_by_a_target():
    net, (images, _) = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1)).double(), pictures()
    with pytest.raises(ValueError, match=r"logits \[B, K\], got \(3, 5, 10, 10\); target= takes any shape"):
        grad_cam(net, images, 1, "1")
    (maps,) = grad_cam(net, images, layers="1", target=lambda z: z[:, 1].mean((1, 2)), variant="hirescam").maps
    features = net[1](net[0](images))
    torch.testing.assert_close(maps, torch.einsum("d,bdhw->bhw", net[2].weight[1, :, 0, 0], features).relu() / 100)


def test_a_layer_that_returns_a_tuple_is_read_at_its_head():
    class Pair(nn.Module):
        def forward(self, x):
            return x, "state"

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.pair = toy(), Pair()

        def forward(self, images):
            x, state = self.pair(self.inner.features(images))
            assert state == "state"
            return self.inner.head(x.mean((2, 3)))

    images, classes = pictures()
    same(grad_cam(Net(), images, classes, "pair").maps, grad_cam(toy(), images, classes, "body").maps)
    net = Net()
    net.pair.forward = lambda x: {"maps": x}
    with pytest.raises(ValueError, match="'pair' must output a tensor, got dict"):
        grad_cam(net, images, classes, "pair")


# ---- variants -------------------------------------------------------------------------------------


def test_behind_global_average_pooling_hirescam_is_grad_cam_and_cam():
    net, (images, classes) = toy(), pictures()
    cam = class_activation_map(net.features(images), net.head.weight, classes=classes).relu()
    for variant in ("grad_cam", "hirescam"):
        torch.testing.assert_close(9 * grad_cam(net, images, classes, "body", variant=variant).maps[0], cam)


def test_hirescam_adds_up_to_the_logit_of_a_network_without_biases_and_grad_cam_does_not():
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU(), nn.Flatten()]
    net, (images, classes) = nn.Sequential(*parts, nn.LazyLinear(5, bias=False)).double(), pictures()
    logits = net(images).gather(1, classes[:, None])[:, 0]
    sums = {
        v: grad_cam(net, images, classes, "1", variant=v, relu=False).maps[0].sum((1, 2))
        for v in ("hirescam", "grad_cam")
    }
    torch.testing.assert_close(sums["hirescam"], logits)
    assert (sums["grad_cam"] - logits).norm() > 0.1 * logits.norm()


def test_variants_by_hand_2x2():
    features = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]]]], dtype=torch.double, requires_grad=True)  # sum 4
    slope = torch.tensor([[[[2.0, -1.0], [0.0, 0.5]]]], dtype=torch.double)  # mean 3/8
    logits = (features * slope).sum((1, 2, 3)).view(1, 1)
    plus = 2 / (2 + 4 * 2) + 0.5 / (2 + 4 * 0.5)  # alpha times ReLU of the gradient, at the two positive places
    wanted = {
        "grad_cam": [0.375, 0.75, 0.0, 0.375],
        "hirescam": [2.0, -2.0, 0.0, 0.5],
        "layer_cam": [2.0, 0.0, 0.0, 0.5],
        "grad_cam++": [plus, 2 * plus, 0.0, plus],
    }
    for variant, values in wanted.items():
        (ours,) = grad_cam_from(logits, [features], 0, variant=variant, relu=False)
        torch.testing.assert_close(ours.flatten(), torch.tensor(values, dtype=torch.double))


def test_grad_cam_plus_plus_has_no_pole_on_signed_maps():
    features = torch.tensor([[[[-4.0, 2.0]]]], dtype=torch.double, requires_grad=True)  # sum -2: 2 + 1 * -2 = 0
    (maps,) = grad_cam_from(features.sum((2, 3)), [features], 0, variant="grad_cam++", create_graph=True)
    (gradient,) = torch.autograd.grad(maps.square().sum(), features)
    assert maps.isfinite().all() and gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("variant", ["hirescam", "layer_cam", "grad_cam++"])
def test_dead_maps_have_zero_gradients_in_every_variant(variant):
    net, (images, classes) = toy(), pictures()
    with torch.no_grad():
        net.head.weight.copy_(-net.head.weight.abs())
    (maps,) = grad_cam(net, images, classes, "body", variant=variant, create_graph=True).maps
    assert not maps.any()
    maps.square().sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in net.parameters())


# ---- the gradient at the image --------------------------------------------------------------------


def test_input_gradient_by_loop_and_in_every_mode():
    net, (images, classes) = toy(), pictures()
    wanted = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda x, c=c: net(x[None])[0, c], image)
            for image, c in zip(images, classes)
        ]
    )
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            gradient, logits = input_gradient(net, images + 0, classes)
        torch.testing.assert_close(gradient, wanted)
        assert not gradient.requires_grad and not logits.requires_grad
    assert all(p.grad is None for p in net.parameters()) and not images.requires_grad
    net.requires_grad_(False)
    torch.testing.assert_close(input_gradient(net, images, classes).gradient, wanted)
    inplace = nn.Sequential(nn.ReLU(inplace=True), net)
    kept = images.clone()
    assert input_gradient(inplace, images, classes).gradient.shape == images.shape and torch.equal(images, kept)


def test_right_for_the_right_reasons_has_the_gradient_of_finite_differences():
    net, (images, classes) = toy().train(), pictures()

    def loss(create_graph=False):
        gradient, logits = input_gradient(
            net, images, target=lambda z: z.log_softmax(1).sum(1), create_graph=create_graph, batch_norm="frozen"
        )
        return gradient[:, :, :6].square().sum() + F.cross_entropy(logits, classes)

    parameters, step = list(net.parameters()), 1e-6
    exact = torch.autograd.grad(loss(True), parameters)
    for parameter, gradient in zip(parameters, exact):
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3), dtype=torch.double)
        values = []
        for times in (1, -2, 1):
            parameter.data.add_(direction, alpha=times * step)
            values.append(loss())
        torch.testing.assert_close(
            (values[0] - values[1]) / (2 * step), (gradient * direction).sum(), rtol=1e-5, atol=1e-7
        )


def test_images_that_want_a_gradient_themselves_get_one():
    net, (images, classes) = toy(), pictures()
    images.requires_grad_()
    target = lambda z: z.softmax(1).gather(1, classes[:, None])[:, 0]  # noqa: E731, logits are linear almost everywhere
    input_gradient(net, images, target=target, create_graph=True).gradient.square().sum().backward()
    assert images.grad.any()


def test_input_gradient_refuses_as_grad_cam_does():
    net, (images, classes) = toy(), pictures()
    with torch.inference_mode():
        made = toy()
    with pytest.raises(ValueError, match="made or loaded inside torch.inference_mode"):
        input_gradient(made, images, classes)
    with pytest.raises(ValueError, match=r"\[0, 4\)"):
        input_gradient(net, images, 4)
    net.forward = lambda x: net.head.weight.sum() * torch.ones(3, 4).double()
    with pytest.raises(ValueError, match="images has no path to the logits"):
        input_gradient(net, images, classes)


# ---- foreign names --------------------------------------------------------------------------------


def test_an_unknown_layer_gets_the_nearest_names_and_a_short_message():
    from torchvision.models import resnet18

    with pytest.raises(
        ValueError, match=r"'layer_4.1.conv2' is none of the \d\d modules of net; .*'layer4.1.conv2'"
    ) as got:
        grad_cam(resnet18(), torch.zeros(1, 3, 32, 32), 0, "layer_4.1.conv2")
    assert len(str(got.value)) < 200


def test_gap_head_names_the_adapter():
    with pytest.raises(ValueError, match="adapters.gap_classifier gives a foreign network both"):
        gap_head(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_one_of_the_variants_in_a_loss_equals_that_of_one_layer_alone():
    net, (images, classes) = toy(), pictures()
    for variant in ("hirescam", "layer_cam", "grad_cam++"):
        both, alone = (
            torch.autograd.grad(
                grad_cam(net, images, classes, layers, variant=variant, create_graph=True).maps[0].square().sum(),
                list(net.parameters()), allow_unused=True,
            )
            for layers in (["body.1", "body.4"], "body.1")
        )  # fmt: skip
        assert worst([g for g in both if g is not None], [g for g in alone if g is not None]) < 1e-10
