"""`check_explanation_loss` passes what is right and finds the faults that raise no error, each with its cure."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from reff_cases import LAYERS, problem
from torch import Tensor, nn

from xai_course.maps import class_activation_map, grad_cam
from xai_course.methods.check import ExplanationLossReport, check_explanation_loss
from xai_course.methods.consistency import AttentionConsistencyLoss
from xai_course.methods.guidance import L1, PPCE, RRR, Energy, right_reasons
from xai_course.methods.hnc import HNC, HomogeneousNegativeMaps, gathered_maps, hnc_mse, topk_negatives
from xai_course.methods.reff import ReFF, focusing_loss
from xai_course.preset import Clock


def hand_made(net: nn.Module, batch, depth: int = 5, *, create_graph: bool = True, detach: bool = False) -> Tensor:
    """Grad-CAM by hand of the ``depth``-th stage, with the choices that go wrong."""
    features = net.body[:depth](batch.images)
    score = net.head(net.body[depth:](features).mean((2, 3))).gather(1, batch.labels[:, None]).sum()
    (slope,) = torch.autograd.grad(score, features, create_graph=create_graph, retain_graph=True)
    maps = (slope.mean((2, 3), keepdim=True) * features).sum(1).relu()
    return focusing_loss(maps.detach() if detach else maps, batch.masks).loss


def facil(net: nn.Module, batch) -> Tensor:
    """As published: activations detached, the map made under no_grad (FACIL, lwm.py)."""
    kept = []
    handle = net.body.register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = net(batch.images).gather(1, batch.labels[:, None]).mean()
    handle.remove()
    (slope,) = torch.autograd.grad(score, kept[0], retain_graph=True)
    with torch.no_grad():
        maps = F.relu((F.adaptive_avg_pool2d(slope, 1) * kept[0].detach()).sum(1))
    return L1()(maps, batch.masks)


def cam(net: nn.Module, batch) -> Tensor:
    return grad_cam(net, batch.images, batch.labels, ["body.4"], create_graph=True).maps[0]


def rrr(net: nn.Module, batch) -> Tensor:
    images = batch.images.clone().requires_grad_()
    return right_reasons(net(images), images, batch.masks).mean()


def hnc(net: nn.Module, batch) -> Tensor:
    features = net.features(batch.images)
    index, valid = topk_negatives(net.head(features.mean((2, 3))), batch.labels, 2)
    return hnc_mse(gathered_maps(features, net.head.weight, net.head.bias, index), valid, reduction_k="mean")


def consistency(net: nn.Module, batch) -> Tensor:
    views = (net.features(x) for x in (batch.images, batch.images.flip(-1)))
    return AttentionConsistencyLoss()(*(class_activation_map(f, net.head.weight) for f in views))


RIGHT = {
    "ReFF": lambda net, batch: ReFF(net, LAYERS).focus(batch)[0].loss,
    "ReFF, frozen": lambda net, batch: ReFF(net, LAYERS, batch_norm="frozen").focus(batch)[0].loss,
    "RRR": rrr,
    "RRR*": lambda net, batch: RRR(peak=True)(cam(net, batch), batch.masks),
    "Energy": lambda net, batch: Energy()(cam(net, batch), batch.masks),
    "L1": lambda net, batch: L1()(cam(net, batch), batch.masks),
    "PPCE": lambda net, batch: PPCE()(cam(net, batch), batch.masks),
    "HNC": hnc,
    "consistency": consistency,
    "by hand": hand_made,
    "with cross-entropy": lambda net, batch: (
        F.cross_entropy(net(batch.images), batch.labels) + 9 * hand_made(net, batch)
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_losses_pass(name):
    net, batch = problem(dtype=torch.float32)
    before = copy.deepcopy(net.state_dict())
    report = check_explanation_loss(net, RIGHT[name], batch, reach=["body.0", "head"])
    assert report.ok, str(report)
    assert {"body.0.0.weight", "body.4.0.weight", "head.weight"} <= set(report.reached) and not report.missing
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in net.parameters())


def test_what_a_loss_cannot_move_is_named_and_is_no_fault():
    report = check_explanation_loss(*problem()[:1], RIGHT["Energy"], problem()[1])
    assert report.idle == ("head.bias",) and "not in the loss: head.bias" in str(report)
    assert check_explanation_loss(problem()[0], hnc, problem()[1]).idle == ()  # its maps have the bias


def test_a_gradient_of_rounding_errors_is_idle():
    """Batch statistics take a bias away again: what autograd has for it is not zero and moves nothing."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    images = torch.rand(4, 3, 8, 8)
    (slope,) = torch.autograd.grad(net(images).square().mean(), net[0].bias)
    assert slope.any()
    report = check_explanation_loss(net, lambda net, images: net(images).square().mean(), images)
    assert report.ok and report.idle == ("0.bias",)


# --- planted faults ---------------------------------------------------------------------------------------------------


def found(loss, **options) -> ExplanationLossReport:
    net, batch = problem(dtype=torch.float32)
    report = check_explanation_loss(net, loss, batch, **options)
    assert not report.ok and "FAULTY" in str(report)
    return report


def test_a_detached_map():
    for loss in (lambda n, b: hand_made(n, b, detach=True), facil):
        report = found(loss)
        assert not report.reached and "head.weight" in report.missing
        assert "no gradient at all: keep the graph of the map" in str(report)


def test_retain_graph_where_create_graph_was_needed():
    """At the last stage the channel weights are the head's, further down they depend on everything above."""
    report = found(lambda n, b: hand_made(n, b, create_graph=False))
    assert report.missing == ("head.weight",) and report.wrong == ()
    assert "no gradient for head.weight, which move the loss" in str(report)
    assert "create_graph=True (retain_graph=True keeps memory, not the derivative)" in str(report)
    report = found(lambda n, b: hand_made(n, b, 2, create_graph=False))
    assert "head.weight" in report.missing and "body.4.0.weight" in report.missing and "body.0.0.weight" in report.wrong
    assert "disagrees with finite differences" in str(report)


def test_the_fault_is_found_beside_cross_entropy():
    """There every parameter has a gradient; it is the wrong one."""
    report = found(lambda n, b: F.cross_entropy(n(b.images), b.labels) + 9 * hand_made(n, b, create_graph=False))
    assert not report.missing and "head.weight" in report.wrong


def test_detached_channel_weights():
    def loss(net, batch):
        features = net.features(batch.images)
        maps = class_activation_map(features, net.head.weight.detach(), classes=batch.labels)
        return Energy(relu=True)(maps, batch.masks)

    assert found(loss).missing == ("head.weight",)


def test_a_map_of_another_network():
    teacher, _ = problem(seed=1)
    report = found(lambda net, batch: Energy()(cam(teacher, batch), batch.masks))
    assert not report.reached and "explain the network that is trained" in str(report)


def test_a_map_of_one_cell():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    _, batch = problem(dtype=torch.float32)

    def loss(net, batch, layer="2"):
        return Energy()(grad_cam(net, batch.images, batch.labels, [layer], create_graph=True).maps, batch.masks)

    report = check_explanation_loss(net, loss, batch)
    assert not report.ok and "at a layer before its pooling: a map of one cell" in str(report)
    assert check_explanation_loss(net, lambda n, b: loss(n, b, "1"), batch).ok


def test_a_layer_that_does_not_train_what_is_meant():
    """Class activation maps of a middle layer under a head of its own leave all above it untouched."""

    def loss(net, batch):
        return Energy()(net.body[2](net.body[1](net.body[0](batch.images))).square().sum(1), batch.masks)

    net, batch = problem(dtype=torch.float32)
    assert check_explanation_loss(net, loss, batch).ok
    report = check_explanation_loss(net, loss, batch, reach=["body.2", "body.4", "head"])
    assert not report.ok and [p.split()[0] for p in report.problems] == ["body.4", "head"]
    with pytest.raises(ValueError, match=r"reach must name modules or parameters of the network, got \['bod'\]"):
        check_explanation_loss(net, loss, batch, reach=["bod"])


DIVISIONS = {  # of a map with its sign; behind a ReLU only the first does harm: its backward pass hides a NaN at zero
    "no floor": lambda m: m / m.sum((1, 2), keepdim=True),
    "a root of zero": lambda m: m / (m.square().sum((1, 2), keepdim=True).sqrt() + 1e-8),
    "where after the division": lambda m: torch.where(m > 0, m / m.abs().sum((1, 2), keepdim=True), 0),
}


@pytest.mark.parametrize("name", DIVISIONS)
def test_dead_maps(name):
    def loss(net, batch):
        maps = class_activation_map(net.features(batch.images), net.head.weight, classes=batch.labels)
        return (DIVISIONS[name](maps) * F.adaptive_avg_pool2d((~batch.masks).to(maps), maps.shape[1:])).sum()

    report = found(loss)
    assert not report.wrong and not report.missing and len(report.problems) == 1
    assert "on dead maps (zero weights in the last layer) the " in str(report) and "unit_mass" in str(report)
    report = found(lambda n, b: DIVISIONS["no floor"](cam(n, b)).square().sum())
    assert len(report.problems) == 2 and "(negative weights in the last layer) the loss is nan" in str(report)


def test_a_loss_that_is_no_number_from_the_start():
    report = found(lambda net, batch: (cam(net, batch) - 1e9).log().sum())
    assert "the loss is nan" in str(report) and report.reached == ()


# --- what it is robust to ---------------------------------------------------------------------------------------------


def test_dropout_train_mode_and_zero_starts():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    nn.init.zeros_(net[0].bias), nn.init.zeros_(net[5].weight)  # no map, no gradient at the start
    _, batch = problem(dtype=torch.float32)

    def loss(net, batch):
        return Energy()(grad_cam(net, batch.images, batch.labels, ["1"], create_graph=True).maps, batch.masks)

    state = torch.get_rng_state()
    report = check_explanation_loss(net, loss, batch._replace(images=batch.images * batch.masks[:, None]))  # black
    assert report.ok, str(report)
    assert torch.equal(torch.get_rng_state(), state) and net.training


def test_frozen_parameters_are_not_asked_for():
    net, batch = problem(dtype=torch.float32)
    net.body.requires_grad_(False)
    report = check_explanation_loss(net, RIGHT["Energy"], batch)
    assert report.ok and report.reached == ("head.weight",)


@pytest.mark.parametrize(
    "loss, message",
    [
        (lambda n, b: 1.0, "loss must return a scalar tensor, got float"),
        (lambda n, b: Energy()(cam(n, b).float(), b.masks), "loss must keep the network's float64 .*got torch.float32"),
        (lambda n, b: cam(n, b), r"loss must return a scalar tensor, got \(4, 4, 4\)"),
    ],
)
def test_no_scalar(loss, message):
    with pytest.raises(ValueError, match=message):
        check_explanation_loss(*problem()[:1], loss, problem()[1])


def test_nothing_to_train():
    net, batch = problem()
    with pytest.raises(ValueError, match="net must have parameters that require a gradient"):
        check_explanation_loss(net.requires_grad_(False), RIGHT["Energy"], batch)


def test_a_criterion_of_hnc_and_a_method_as_they_are():
    net, batch = problem(dtype=torch.float32)
    criterion = HomogeneousNegativeMaps(keep_top=2)

    def alone(net, batch):
        return criterion(net.features(batch.images), net.head.weight, net.head.bias, batch.labels)

    def method(net, batch):
        return next(HNC(net, keep_top=2, balance=1.0).losses(batch, Clock()))["total"]

    for loss in (alone, method):
        report = check_explanation_loss(net, loss, batch, reach=["head", "body.0"])
        assert report.ok, str(report)
