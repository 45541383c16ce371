"""HNC: every equation against autograd or a loop, in float64, and the bounds the chapter proves."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xai_course.data.batch import ArrayData, Batch, positive_rate
from xai_course.maps import class_activation_map
from xai_course.measure.sanity import lambda_zero_equals_baseline
from xai_course.methods import hnc as H
from xai_course.methods import negatives as N
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import GapClassifier, small_cnn
from xai_course.preset import Clock

D = torch.float64
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
few = settings(max_examples=25, deadline=None, derandomize=True)


def random_maps(shape, scale: float = 1.0) -> torch.Tensor:
    batch, k, h, w, seed = shape
    return scale * torch.randn(batch, k, h, w, dtype=D, generator=torch.Generator().manual_seed(seed))


def problem(batch=3, n=6, c=5, h=3, w=4, seed=0):
    """Features, weight, bias (all leaves), and the logits GAP + linear gives."""
    g = torch.Generator().manual_seed(seed)
    features, weight, bias = (torch.randn(s, dtype=D, generator=g) for s in ((batch, c, h, w), (n, c), (n,)))
    for leaf in (features, weight, bias):
        leaf.requires_grad_()
    return features, weight, bias, features.mean(dim=(2, 3)) @ weight.T + bias


def close(a, b, atol):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


# 1
def test_map_mean_is_the_logit():
    features, weight, bias, logits = problem()
    maps = N.gathered_maps(features, weight, bias, torch.arange(6).repeat(3, 1))
    close(maps.mean(dim=(2, 3)), logits, 1e-12)


# 2, 9
@few
@given(shapes, st.sampled_from([0.0, 0.3]))
def test_mse_gradient_is_equation_11(shape, alpha):
    maps = random_maps(shape).requires_grad_()
    valid = torch.arange(shape[1]).expand(shape[:2]) % 3 != 1
    H.hnc_mse(maps, valid, target=alpha, reduction_k="sum").backward()
    beta = 1 / (shape[2] * shape[3])
    printed = 2 * beta * (maps.detach() - alpha) * valid[..., None, None] / shape[0]
    close(maps.grad, printed, 1e-14)
    assert (maps.grad[~valid] == 0).all()


@few
@given(shapes, st.sampled_from([0.0, 0.3]))
def test_mse_is_variance_plus_squared_logit(shape, alpha):
    maps = random_maps(shape, 3.0)
    close(H.mean_square(maps, alpha), H.spatial_variance(maps) + H.squared_logit(maps, alpha), 1e-12)


# 3
@few
@given(shapes)
def test_kd_gradient_is_equation_12(shape):
    maps = random_maps(shape).requires_grad_()
    H.hnc_kd(maps, reduction_k="sum").backward()
    beta = 1 / (shape[2] * shape[3])
    printed = maps.detach().flatten(2).softmax(2).view_as(maps) - beta
    close(maps.grad, printed / shape[0], 1e-14)
    assert (maps.grad * shape[0]).min() > -beta and (maps.grad * shape[0]).max() <= 1 - beta


@pytest.mark.parametrize("penalty", H.PENALTIES)
def test_gradcheck(penalty):
    maps = random_maps((2, 2, 2, 3, 0)).requires_grad_()
    assert torch.autograd.gradcheck(H.PENALTIES[penalty], maps)


# 4, 5
def test_ce_gradient_is_flat_and_orthogonal_to_the_kd_gradient():
    maps = random_maps((3, 6, 3, 4, 1)).requires_grad_()
    labels = torch.tensor([0, 3, 5])
    ce = torch.autograd.grad(F.cross_entropy(maps.mean(dim=(2, 3)), labels, reduction="sum"), maps)[0]
    kd = torch.autograd.grad(H.uniform_divergence(maps).sum(), maps)[0]
    printed = (maps.mean(dim=(2, 3)).softmax(1) - F.one_hot(labels, 6)) / 12  # Eq. 10
    close(ce, printed[..., None, None].expand_as(ce), 1e-14)
    assert (ce.flatten(2).max(2).values == ce.flatten(2).min(2).values).all()
    close(kd.sum(dim=(2, 3)), torch.zeros(3, 6, dtype=D), 1e-13)
    close((ce * kd).sum(), torch.zeros((), dtype=D), 1e-14)


# 6, 7
@few
@given(shapes, st.sampled_from([1e-6, 1e-3, 1.0, 30.0, 1e3]))
def test_corrected_proposition_1(shape, scale):
    maps = random_maps(shape, scale)
    flat, kd = maps.flatten(2), H.uniform_divergence(maps)
    peak, log_cells = flat.amax(2) - flat.mean(2), math.log(shape[2] * shape[3])
    slack = 1e-12 * max(1, scale)
    assert (kd >= peak - slack).all() and (kd <= peak + log_cells + slack).all()
    assert (kd >= log_cells - slack).all()


def test_both_ends_of_proposition_1_are_reached():
    flat = torch.full((1, 1, 7, 7), 3.0, dtype=D)
    close(H.uniform_divergence(flat), torch.full((1, 1), math.log(49), dtype=D), 1e-12)  # upper end: max = mean
    one_peak = torch.zeros(1, 1, 7, 7, dtype=D)
    one_peak[..., 3, 3] = 50.0
    close(H.uniform_divergence(one_peak), torch.full((1, 1), 50 - 50 / 49, dtype=D), 1e-12)  # lower end: one peak


def test_the_printed_proof_bounds_nothing():
    """With M' (already a softmax) in place of M, log-sum-exp is confined to [log hw + 1/hw, log(hw - 1 + e)]."""
    for scale in (0.0, 1.0, 100.0):
        lse = random_maps((4, 3, 7, 7, 2), scale).flatten(2).softmax(2).logsumexp(2)
        assert (lse >= math.log(49) + 1 / 49 - 1e-12).all() and (lse <= math.log(48 + math.e) + 1e-12).all()


@few
@given(shapes)
def test_kd_is_the_kl_divergence_without_its_constant(shape):
    maps = random_maps(shape)
    flat, cells = maps.flatten(2), shape[2] * shape[3]
    uniform = torch.full_like(flat, 1 / cells)
    divergence = F.kl_div(flat.log_softmax(2), uniform, reduction="none").sum(2)
    close(H.uniform_divergence(maps) - math.log(cells), divergence, 1e-13)


# 8, 15
@few
@given(shapes)
def test_kd_ignores_the_level_and_both_ignore_where_cells_lie(shape):
    maps = random_maps(shape)
    close(H.uniform_divergence(maps + 7.0), H.uniform_divergence(maps), 1e-12)
    close(H.spatial_variance(maps + 7.0), H.spatial_variance(maps), 1e-12)
    assert not torch.allclose(H.mean_square(maps + 7.0), H.mean_square(maps))
    shuffled = maps.flatten(2)[..., torch.randperm(shape[2] * shape[3])].view_as(maps)
    for penalty in H.PENALTIES.values():
        close(penalty(shuffled), penalty(maps), 1e-12)


# 10
def test_kd_is_half_the_variance_for_small_deviations():
    maps = random_maps((4, 3, 7, 7, 0), 1e-3)
    ratio = (H.uniform_divergence(maps) - math.log(49)) / H.spatial_variance(maps)
    close(ratio, torch.full_like(ratio, 0.5), 1e-3)


@few
@given(shapes, st.sampled_from([0.1, 1.0, 10.0]))
def test_kd_is_half_a_tilted_variance_everywhere(shape, scale):
    """K(1) = K''(tau) / 2 for a tau in (0, 1): half of some variance between the plain and the fully tilted one."""
    flat, cells = random_maps(shape, scale).flatten(2), shape[2] * shape[3]
    flat = flat - flat.mean(2, keepdim=True)
    weights = (torch.linspace(0, 1, 201, dtype=D)[:, None, None, None] * flat).softmax(3)
    mean = (weights * flat).sum(3, keepdim=True)
    halves = 0.5 * (weights * (flat - mean).square()).sum(3)
    excess = H.uniform_divergence(flat.unflatten(2, shape[2:4])) - math.log(cells)
    slack = 1e-3 * halves.amax(0) + 1e-12
    assert (excess >= halves.amin(0) - slack).all() and (excess <= halves.amax(0) + slack).all()


def test_a_smaller_penalty_can_have_the_larger_peak():
    lone, spread = torch.zeros(49, dtype=D), torch.cat([torch.ones(24, dtype=D), -torch.ones(25, dtype=D)])
    lone[24] = 2
    maps = torch.stack([lone, spread]).view(2, 1, 7, 7)
    peak, kd = maps.amax((2, 3)) - maps.mean((2, 3)), H.uniform_divergence(maps)
    assert peak[0] > 1.9 * peak[1] and kd[0] < kd[1] - 0.3


# 11
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "k", "way"), [
    ((3, 6, 5, 3, 4), 4, "gather"),
    ((5, 24, 40, 2, 1), 3, "chunk"),
    ((2, 9, 64, 2, 2), 7, "full"),
    ((1, 4, 64, 1, 1), 1, "full"),
])  # fmt: skip
def test_all_routes_equal_the_full_maps_in_value_and_gradient(shape, k, way, bias):
    batch, n, c, h, w = shape
    assert N.route(batch, n, c, h * w, k) == way
    leaves = problem(*shape)[:3]
    leaves = leaves if bias else (*leaves[:2], None)
    classes = torch.rand(batch, n).topk(k).indices
    mine = N.gathered_maps(*leaves, classes)
    slow = class_activation_map(*leaves).take_along_dim(classes[:, :, None, None], 1)
    close(mine, slow, 1e-12)
    wanted = [t for t in leaves if t is not None]
    weights = torch.randn_like(mine)
    for a, b in zip(*(torch.autograd.grad((m.square() * weights).sum(), wanted) for m in (mine, slow))):
        close(a, b, 1e-12)


@pytest.mark.parametrize(("shape", "k"), [((3, 6, 5, 3, 4), 4), ((5, 24, 40, 2, 1), 3), ((2, 9, 64, 2, 2), 7)])
def test_maps_are_computed_outside_autocast(shape, k):
    leaves = [t.detach().float() for t in problem(*shape)[:3]]
    classes = torch.rand(shape[:2]).topk(k).indices
    with torch.autocast("cpu", torch.bfloat16):
        inside = N.gathered_maps(*leaves, classes)
    assert torch.equal(inside, N.gathered_maps(*leaves, classes))


def test_route_switches_at_the_memory_crossover():
    crossover = 1000 * 49 // 2048
    assert crossover == 23
    assert N.route(32, 1000, 2048, 49, crossover) == "gather" and N.route(32, 1000, 2048, 49, crossover + 1) == "chunk"
    assert N.route(32, 1000, 2048, 49, 400) == "full"
    for k in (24, 50, 100, 200, 333):  # copied weights of one chunk never exceed all n maps
        assert N.chunk_size(32, 1000, 2048, 49, k) * k * 2048 <= 32 * 1000 * 49


# 12
@few
@given(st.integers(1, 5), st.integers(2, 7), st.integers(1, 9), st.integers(0, 10**6))
def test_labels_are_never_selected(batch, n, k, seed):
    g = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(batch, n, generator=g) - 5, torch.randint(n, (batch,), generator=g)
    index, valid = N.topk_negatives(logits, labels, k)
    assert index.shape == (batch, min(k, n - 1)) and valid.all() and (index != labels[:, None]).all()
    for row, label, chosen in zip(logits, labels, index):
        others = sorted((float(s), i) for i, s in enumerate(row) if i != label)[::-1]
        assert set(chosen.tolist()) == {i for _, i in others[:k]}


def test_ties_give_exactly_k():
    assert N.topk_negatives(torch.zeros(1, 6), torch.tensor([2]), 2)[0].shape == (1, 2)


def test_multi_label_positives_are_never_counted():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    positives = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    index, valid = N.topk_negatives(logits, positives, 3)
    assert valid.sum(1).tolist() == [3, 2, 0, 3]
    assert not positives.gather(1, index)[valid].any()


def test_image_without_negatives_costs_nothing():
    features, weight, bias, logits = problem()
    index, valid = N.topk_negatives(logits, torch.ones(3, 6), 2)
    for name, reduction in ((n, r) for n in H.PENALTIES for r in H.OVER_CLASSES):
        maps = N.gathered_maps(features, weight, bias, index)
        loss = H.reduce_classes(H.PENALTIES[name](maps), valid, reduction_k=reduction)
        assert loss == 0
        assert all((g == 0).all() for g in torch.autograd.grad(loss, (features, weight, bias)))


# 13
def test_reductions_against_the_official_code():
    maps = random_maps((3, 4, 3, 3, 0))
    official_mse = F.mse_loss(maps, torch.zeros_like(maps))  # mean over B*k*hw
    close(H.hnc_mse(maps, reduction_k="sum") / official_mse, torch.tensor(4.0, dtype=D), 1e-12)
    close(H.hnc_mse(maps, reduction_k="mean"), official_mse, 1e-12)
    official_kd = -maps.flatten(2).log_softmax(2).sum() / (9 * 3)  # summed over k, divided by B
    close(H.hnc_kd(maps, reduction_k="sum"), official_kd, 1e-12)


def test_mean_divides_by_the_valid_classes_only():
    values, valid = torch.tensor([[2.0, 4.0], [8.0, 9.0]]), torch.tensor([[True, True], [True, False]])
    assert H.reduce_classes(values, valid, reduction_k="mean") == (3 + 8) / 2
    assert H.reduce_classes(values, valid, reduction_k="sum") == (6 + 8) / 2


def test_an_image_without_negatives_counts_as_zero_in_the_mean():
    values, valid = torch.tensor([[2.0, 4.0], [8.0, 9.0]]), torch.tensor([[True, True], [False, False]])
    assert H.reduce_classes(values, valid, reduction_k="mean") == (3 + 0) / 2
    assert H.reduce_classes(values, valid, reduction_k="sum") == (6 + 0) / 2


# 14
def test_finite_where_the_printed_forms_are_not():
    maps = torch.zeros(1, 1, 5, 16)
    maps[..., 0, 0] = 1e4
    assert torch.isfinite(H.uniform_divergence(maps)).all()
    assert maps.exp().sum().log().isinf() and maps.flatten(2).softmax(2).log().isinf().any()
    logits, targets, rate = torch.tensor([[200.0, -200.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([0.5, 0.5])
    assert torch.isfinite(H.weighted_sigmoid_cross_entropy(logits, targets, rate))


def test_weighted_sigmoid_cross_entropy_is_equation_8():
    g = torch.Generator().manual_seed(0)
    s, p = torch.randn(4, 5, dtype=D, generator=g), torch.rand(5, dtype=D, generator=g)
    y = (torch.rand(4, 5, generator=g) > 0.5).to(D)
    total = 0.0
    for b in range(4):
        for o in range(5):
            q = 1 / (1 + math.exp(-s[b, o]))
            total -= math.exp(1 - p[o]) * math.log(q) if y[b, o] else math.exp(p[o]) * math.log(1 - q)
    close(H.weighted_sigmoid_cross_entropy(s, y, p), torch.tensor(total / 20, dtype=D), 1e-14)


# 16
def test_classifier_row_gradients():
    features, weight, bias, logits = problem(batch=1)
    flat = features.detach().flatten(2)[0]
    mean = flat.mean(1)
    ce = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([2])), weight, retain_graph=True)[0]
    close(ce, (logits.detach().softmax(1)[0] - F.one_hot(torch.tensor(2), 6))[:, None] * mean, 1e-13)
    maps = class_activation_map(features, weight, bias)
    kd_w, kd_b = torch.autograd.grad(H.uniform_divergence(maps).sum(), (weight, bias), retain_graph=True)
    attention = maps.detach().flatten(2)[0].softmax(1)
    close(kd_w, attention @ flat.T - mean, 1e-13)
    close(kd_b, torch.zeros(6, dtype=D), 1e-13)
    mse_b = torch.autograd.grad(H.mean_square(maps).sum(), bias)[0]
    close(mse_b, 2 * logits.detach()[0], 1e-13)


# --- the method -------------------------------------------------------------------------------------------------------


def batch_of(labels: torch.Tensor) -> Batch:
    images = torch.rand(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(images, labels, None, torch.arange(len(labels)))


def net(classes: int = 4) -> GapClassifier:
    return small_cnn(classes, channels=1, width=2, seed=0)


@pytest.mark.parametrize("penalty", H.PENALTIES)
def test_equation_7(penalty):
    method, batch = H.HNC(net(), penalty, 0.3, keep_top=2), batch_of(torch.tensor([0, 1, 3]))
    terms = next(method.losses(batch, Clock()))
    features = method.net.features(batch.images)
    maps = class_activation_map(features, method.net.head.weight, method.net.head.bias)
    expected = 0.0
    for image, label in zip(maps.detach(), batch.labels):  # straight from Eq. 2 and 5
        order = [o for o in image.mean(dim=(1, 2)).argsort(descending=True).tolist() if o != label][:2]
        expected += sum(float(H.PENALTIES[penalty](image[None, o, None])) for o in order) / 2 / 3
    assert terms["hnc"].item() == pytest.approx(expected, rel=1e-5)
    assert terms["total"].item() == pytest.approx((terms["classification"] + 0.3 * terms["hnc"]).item())


@pytest.mark.parametrize("penalty", H.PENALTIES)
def test_the_penalty_reaches_features_and_classifier(penalty):
    """Not the head's weight as a constant: its gradient is that of all maps, computed the long way."""
    method, batch = H.HNC(net().double(), penalty, keep_top=3, target=0.7), batch_of(torch.tensor([0, 1, 3]))
    features, head = method.net.features(batch.images.double()), method.net.head
    logits = head(features.mean(dim=(2, 3)))
    found = method.homogeneity(features, head.weight, head.bias, batch.labels, logits)
    maps = class_activation_map(features, head.weight, head.bias)
    alpha = (0.7,) if penalty in ("mse", "logit") else ()
    each = H.PENALTIES[penalty](maps, *alpha)  # keep_top = 3 of 4 classes: all but the label
    expected = (each.sum() - each.gather(1, batch.labels[:, None]).sum()) / 3 / 3
    close(found, expected, 1e-12)
    wanted = [head.weight, method.net.body[0][0].weight]
    for a, b in zip(*(torch.autograd.grad(loss, wanted, retain_graph=True) for loss in (found, expected))):
        assert a.abs().sum() > 0
        close(a, b, 1e-12)


@pytest.mark.parametrize("penalty", H.PENALTIES)
def test_weight_zero_is_cross_entropy_bit_for_bit(penalty):
    batch = batch_of(torch.tensor([0, 1, 3, 2]))
    assert lambda_zero_equals_baseline(lambda n: H.HNC(n, penalty, 0.0), CrossEntropy, net(), batch, Clock())


def test_equation_9_uses_equation_8():
    labels = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    rate = positive_rate(ArrayData(torch.zeros(3, 1, 8, 8), labels))
    close(rate, torch.tensor([2 / 3, 1 / 3, 1 / 3, 2 / 3]), 1e-6)
    method, batch = H.HNC(net(), "kd", 0.1, keep_top=3, positive_rate=rate), batch_of(labels)
    assert "positive_rate" not in method.state_dict()  # it belongs to the data
    terms = next(method.losses(batch, Clock()))
    assert torch.isfinite(terms["total"])
    expected = H.weighted_sigmoid_cross_entropy(method.net(batch.images), labels, rate)
    assert terms["classification"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(("n", "k"), [(4, 1), (10, 1), (30, 3)])
def test_default_k_is_a_tenth_of_the_classes(n, k):
    features, weight, bias, _ = problem(n=n)
    labels = torch.tensor([0, 3, 2])
    default, explicit, more = (
        H.HomogeneousNegativeMaps(keep_top=top)(features, weight, bias, labels) for top in (None, k, k + 1)
    )
    assert default == explicit != more


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("penalty", H.PENALTIES)
def test_criterion_function_and_method_give_the_same_bits(penalty, multi):
    labels = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]) if multi else torch.tensor([0, 1, 3])
    method, batch = H.HNC(net(), penalty, keep_top=2, target=0.3, reduction_k="sum"), batch_of(labels)
    features, head = method.net.features(batch.images), method.net.head
    options = {"penalty": penalty, "keep_top": 2, "target": 0.3, "reduction_k": "sum"}
    index, valid = N.topk_negatives(head(features.mean(dim=(2, 3))), labels, 2)
    maps = N.gathered_maps(features, head.weight, head.bias, index)
    values = H.PENALTIES[penalty](maps, *([0.3] if penalty in H.TARGETED else []))
    each = values.where(valid, 0).sum(1)
    for reduction, expected in (("mean", each.sum() / 3), ("sum", each.sum()), ("none", each)):
        criterion = H.HomogeneousNegativeMaps(**options, reduction=reduction)
        made = criterion(features, head.weight, head.bias, labels)
        assert torch.equal(made, expected)
        function = H.homogeneous_negative_maps(features, head.weight, head.bias, labels, **options, reduction=reduction)
        assert torch.equal(made, function)
    trained = next(method.losses(batch, Clock()))["hnc"]
    assert torch.equal(trained, each.sum() / 3) and trained > 0


def test_logits_at_hand_choose_the_classes():
    features, weight, bias, logits = problem()
    loss, labels = H.HomogeneousNegativeMaps(keep_top=2), torch.tensor([0, 3, 2])
    assert torch.equal(loss(features, weight, bias, labels), loss(features, weight, bias, labels, logits))
    assert not torch.equal(loss(features, weight, bias, labels), loss(features, weight, bias, labels, -logits))


def test_weighted_cross_entropy_by_image():
    g = torch.Generator().manual_seed(0)
    logits, targets, rate = torch.randn(4, 5, generator=g), torch.eye(5)[:4], torch.rand(5, generator=g)
    each = [H.weighted_sigmoid_cross_entropy(z[None], y[None], rate) for z, y in zip(logits, targets)]
    for reduction, expected in (("none", torch.stack(each)), ("sum", sum(each)), ("mean", sum(each) / 4)):
        criterion = H.WeightedSigmoidCrossEntropy(rate, reduction)
        torch.testing.assert_close(criterion(logits, targets), expected)
    assert not criterion.state_dict() and criterion.to(torch.float64).positive_rate.dtype == torch.float64


def test_weighted_cross_entropy_rounds_no_weight_to_half_precision():
    logits, targets, rate = torch.zeros(1, 1), torch.ones(1, 1), torch.full((1,), 0.3)
    half = H.weighted_sigmoid_cross_entropy(logits.bfloat16(), targets, rate)
    assert torch.equal(half, H.weighted_sigmoid_cross_entropy(logits, targets, rate))


def test_bf16_autocast_keeps_the_penalty_in_float32():
    method, batch = H.HNC(net(), "kd", 0.1, keep_top=2), batch_of(torch.tensor([0, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        terms = next(method.losses(batch, Clock()))
    assert terms["hnc"].dtype == torch.float32
    terms["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


def test_the_check_leaves_the_network_as_it_was():
    method = H.HNC(net())
    method.train()
    method.net.body[0].eval()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    H.check_gap_linear(method.net, torch.rand(1, 1, 8, 8))
    assert method.net.training and not method.net.body[0].training
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


class Normalised(GapClassifier):
    def forward(self, images):
        return self.head(F.normalize(self.embed(images)))


def test_networks_that_are_not_gap_and_linear_are_refused():
    with pytest.raises(ValueError, match="global average pooling"):
        H.HNC(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    good = net()
    method = H.HNC(Normalised(good.body, good.head))
    with pytest.raises(ValueError, match="Normalised returns other logits"):
        next(method.losses(batch_of(torch.tensor([0, 1])), Clock()))


@pytest.mark.parametrize(
    ("shape", "k", "way"),
    [((3, 6, 5, 3, 4), 4, "gather"), ((5, 24, 40, 2, 1), 3, "chunk"), ((2, 9, 64, 2, 2), 7, "full")],
)
def test_every_route_checks_its_input(shape, k, way):
    features, weight, bias = problem(*shape)[:3]
    classes = torch.zeros(shape[0], k, dtype=torch.long)
    assert N.route(*shape[:3], shape[3] * shape[4], k) == way
    for changed, message in (
        ({"classes": classes - 1}, r"classes must lie in \[0, "),
        ({"classes": classes + shape[1]}, r"classes must lie in \[0, "),
        ({"classes": classes[:1]}, r"classes must be \[B, k\] int64 with B="),
        ({"classes": classes.int()}, "torch.int32"),
        ({"features": features[:, 1:]}, r"weight \[K, D\]"),
        ({"bias": bias[:1]}, r"bias must be \[K\]"),
        ({"features": features[:0], "classes": classes[:0]}, "empty"),
    ):
        with pytest.raises(ValueError, match=message):
            N.gathered_maps(**{"features": features, "weight": weight, "bias": bias, "classes": classes, **changed})


def test_penalties_widen_half_precision():
    maps = 300 * random_maps((2, 2, 3, 3, 0)).half()  # squares of 300 overflow float16
    for penalty in H.PENALTIES.values():
        found = penalty(maps)
        assert found.dtype == torch.float32 and torch.equal(found, penalty(maps.float()))


@pytest.mark.parametrize("call", [
    lambda: N.topk_negatives(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), 0),
    lambda: N.topk_negatives(torch.zeros(2, 3), torch.zeros(2, 4), 1),
    lambda: N.topk_negatives(torch.zeros(3), torch.zeros(2, dtype=torch.long), 1),
    lambda: H.reduce_classes(torch.zeros(2, 3), reduction_k="max"),
    lambda: H.reduce_classes(torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool), reduction_k="sum"),
    lambda: H.weighted_sigmoid_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2)),
    lambda: H.weighted_sigmoid_cross_entropy(torch.zeros(2, 2), torch.zeros(2, 2), torch.tensor([0.5, 1.1])),
    lambda: H.weighted_sigmoid_cross_entropy(torch.zeros(2, 2), torch.zeros(2, 2), torch.tensor([0.5, math.nan])),
    lambda: N.topk_negatives(torch.zeros(2, 3), torch.tensor([0, -1]), 1),
    lambda: N.topk_negatives(torch.zeros(2, 3), torch.tensor([0, 3]), 1),
    lambda: N.topk_negatives(torch.zeros(2, 3), torch.tensor([0, 1], dtype=torch.int32), 1),
    lambda: H.HomogeneousNegativeMaps(reduction="max"),
    lambda: H.HomogeneousNegativeMaps()(torch.zeros(0, 2, 3, 3), torch.zeros(4, 2), None, torch.zeros(0).long()),
    lambda: H.HNC(net(), "l1"),
    lambda: H.HNC(net(), balance=-1.0),
    lambda: H.HNC(net(), balance=float("nan")),
    lambda: H.HNC(net(), keep_top=0),
    lambda: H.HNC(net(), reduction_k="none"),
    lambda: next(H.HNC(net()).losses(batch_of(torch.zeros(0, dtype=torch.long)), Clock())),
])  # fmt: skip
def test_bad_input(call):
    with pytest.raises(ValueError, match="must"):
        call()


def test_empty_and_single_class_inputs_are_zero_not_nan():
    assert H.hnc_kd(torch.zeros(0, 2, 3, 3), reduction_k="mean") == 0
    index, valid = N.topk_negatives(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), 3)
    assert index.shape == valid.shape == (2, 0)
    assert H.hnc_mse(torch.zeros(2, 0, 3, 3), valid, reduction_k="mean") == 0
