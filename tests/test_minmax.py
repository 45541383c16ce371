"""Min-Max entropy: every equation against a slow or closed form in float64, and Algorithm 1 against one joint graph."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_course.data.batch import ArrayData, Batch, Splits
from xai_course.measure.looking import look
from xai_course.measure.memory import saved_activations
from xai_course.measure.minmax import answers, conditional_entropy, mined, mining
from xai_course.methods import minmax as mm
from xai_course.methods.erasing import Erasing, decay, erase, sample_trust
from xai_course.methods.minmax import MaskRule, MinMax, MinMaxEntropy
from xai_course.nets.role_norm import frozen_statistics, norms_by_role
from xai_course.nets.wildcat import LocaliserClassifier, minmax_head, small_trunk
from xai_course.preset import Clock, Preset
from xai_course.train import fit

SEEDS = st.integers(0, 10_000)
CLASSES = st.sampled_from([2, 3, 5, 200])


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(seed=0, classes=3, shared=True, dropout=0.0, double=True) -> LocaliserClassifier:
    torch.manual_seed(seed)
    trunk, d = small_trunk(2)
    other = None if shared else small_trunk(2)[0]
    heads = [minmax_head(d, classes, dropout=dropout, modalities=2) for _ in range(2)]
    net = LocaliserClassifier(trunk, *heads, classifier_trunk=other)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)  # far from the usual start, so that zeros hide nothing
    return net.double() if double else net


def some_batch(seed=0, images=6, classes=3, size=16) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(images, 3, size, size, dtype=torch.float64, generator=generator)
    return Batch(pixels, torch.randint(classes, (images,), generator=generator), None, torch.arange(images))


def correct_batch(net, seed=0, images=6) -> Batch:
    """A batch that the localiser in train mode classifies right but for one image."""
    batch = some_batch(seed, images)
    labels = net(mm.scaled(batch.images)).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    return batch._replace(labels=labels)


# --- Eq. 1-9 ---


@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS)
def test_split_image_adds_up(seed):
    """Eq. 1: X = X+ + X-, and binary masks select pixels."""
    images, mask = rand(seed, 2, 3, 4, 5), rand(seed + 1, 2, 1, 4, 5).sigmoid()
    plus, minus = mm.split_image(images, mask)
    assert torch.allclose(plus + minus, images, atol=1e-15)
    hard = (mask > 0.5).double()
    assert torch.equal(mm.split_image(images, hard)[0] != 0, (hard > 0).expand_as(images))


def test_both_parts_carry_the_gradient_of_an_attached_mask():
    images, mask = rand(0, 2, 3, 4, 5), rand(1, 2, 1, 4, 5).sigmoid().requires_grad_()
    for part, sign in zip(mm.split_image(images, mask), (1, -1)):
        (gradient,) = torch.autograd.grad(part.sum(), mask)
        assert torch.allclose(gradient, sign * images.sum(1, keepdim=True))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(SEEDS, CLASSES)
def test_entropies_closed_forms(seed, c):
    """Eq. 2-6 against sums over classes; H- = log c + KL(q || p); 0 <= H <= log c <= H-."""
    z, y = 3 * rand(seed, 4, c), torch.arange(4) % c
    p = z.softmax(1)
    assert torch.allclose(conditional_entropy(z), -(p * p.log()).sum(1), atol=1e-12)
    assert torch.allclose(mm.decided_loss(z, y), -p.log()[torch.arange(4), y], atol=1e-12)
    q = mm.uniform_target(z)
    assert torch.equal(q, torch.full((4, c), 1 / c, dtype=torch.float64))
    undecided = mm.undecided_loss(z)
    assert torch.allclose(undecided, -(q * p.log()).sum(1), atol=1e-12)
    assert torch.allclose(undecided, math.log(c) + (q * (q / p).log()).sum(1), atol=1e-12)
    assert (conditional_entropy(z) <= math.log(c) + 1e-12).all() and (undecided >= math.log(c) - 1e-12).all()


@pytest.mark.parametrize("c", [2, 5, 200])
def test_undecided_minimum_is_the_uniform_distribution(c):
    z = torch.full((2, c), 0.7, dtype=torch.float64, requires_grad=True)
    loss = mm.undecided_loss(z).sum()
    loss.backward()
    assert abs(loss.item() / 2 - math.log(c)) < 1e-12 and z.grad.abs().max() < 1e-12


@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS, CLASSES)
def test_undecided_gradient(seed, c):
    """The gradient with respect to the logits is softmax - 1/c: never zero where the classifier is sure."""
    z = (4 * rand(seed, 3, c)).requires_grad_()
    mm.undecided_loss(z).sum().backward()
    assert torch.allclose(z.grad, z.detach().softmax(1) - 1 / c, atol=1e-12)


def test_why_not_maximise_the_entropy():
    """At a confident wrong state the gradient of -H dies (8e-8), that of Eq. 6 does not (0.67)."""
    z = torch.tensor([[20.0, 0, 0]], dtype=torch.float64, requires_grad=True)
    (dead,) = torch.autograd.grad(-conditional_entropy(z).sum(), z)
    (alive,) = torch.autograd.grad(mm.undecided_loss(z).sum(), z)
    assert dead.abs().max() < 1e-7 and alive.abs().max() == pytest.approx(2 / 3, abs=1e-6)


def test_undecided_is_finite_far_out():
    z = torch.tensor([[200.0, 0, 0, 0, 0]])
    assert mm.undecided_loss(z).item() == pytest.approx(160) and not (-z.softmax(1).log().mean()).isfinite()
    assert conditional_entropy(z).item() == 0


def test_half_precision_logits_are_widened():
    z = torch.randn(4, 10).bfloat16()
    assert mm.undecided_loss(z).dtype == conditional_entropy(z).dtype == torch.float32
    assert torch.equal(mm.undecided_loss(z), mm.undecided_loss(z.float()))


# --- Eq. 10-11 ---


@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS)
def test_combined_map_equals_loop(seed):
    maps, logits = rand(seed, 2, 3, 4, 5), rand(seed + 1, 2, 3)
    slow = torch.stack([sum(logits[i].softmax(0)[k] * maps[i, k] for k in range(3)) for i in range(2)])
    assert torch.allclose(mm.combined_map(maps, logits)[:, 0], slow, atol=1e-12)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS, *[st.integers(1, 6)] * 2, *[st.integers(1, 9)] * 2)
def test_upsample_equals_interpolate(seed, h, w, height, width):
    maps = rand(seed, 2, 1, h, w)
    assert torch.allclose(
        mm.upsample(maps, (height, width)), F.interpolate(maps, (height, width), mode="bilinear", align_corners=True)
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS, st.floats(0.5, 60))
def test_mask_range_and_omega(seed, omega):
    """R+ lies in [sigmoid(-omega/2), sigmoid(omega/2)], touches both, and its cut at 0.5 does not depend on omega."""
    maps, logits = rand(seed, 2, 3, 4, 4), rand(seed + 1, 2, 3)
    mask = MaskRule(omega=omega).apply(maps, logits, (8, 9))
    edge = torch.sigmoid(torch.tensor(omega / 2, dtype=torch.float64))
    assert torch.allclose(mask.amax((1, 2, 3)), edge) and torch.allclose(mask.amin((1, 2, 3)), 1 - edge)
    clear = (mask - 0.5).abs() > 1e-12  # on the edge itself rounding decides
    assert torch.equal((mask >= 0.5)[clear], (MaskRule().apply(maps, logits, (8, 9)) >= 0.5)[clear])


def test_default_mask_range_is_the_papers():
    mask = MaskRule().apply(rand(0, 2, 3, 4, 4), rand(1, 2, 3), (8, 8))
    assert round(float(mask.min()), 4) == 0.0180 and round(float(mask.max()), 4) == 0.9820


def test_constant_map_is_finite():
    mask = MaskRule().apply(torch.ones(2, 3, 4, 4), torch.zeros(2, 3), (8, 8))
    assert torch.allclose(mask, torch.sigmoid(torch.tensor(-4.0)).expand_as(mask))


def test_scale_over_batch_couples_images():
    maps, logits = rand(0, 2, 3, 4, 4), rand(1, 2, 3)
    louder = torch.cat([maps[:1], 5 * maps[1:]])
    for over, same in (("image", True), ("none", True), ("batch", False)):
        rule = MaskRule(over=over)
        assert torch.allclose(rule.apply(maps, logits, (4, 4))[0], rule.apply(louder, logits, (4, 4))[0]) == same
    literal = MaskRule(over="none").apply(maps, logits, (4, 4))
    assert torch.allclose(literal, torch.sigmoid(8 * (mm.combined_map(maps, logits) - 0.5)))


# --- Eq. 12-14 ---


def test_decay():
    assert [round(decay(t, 10.0), 3) for t in range(5)] == [1, 0.905, 0.819, 0.741, 0.670]


def test_sample_trust_cases():
    """Right and surer: p. Right but less sure, wrong, or dead before: 0 for good, unless the rule is laxer."""
    logits = torch.tensor([[2.0, 0], [1.0, 0], [0, 1.0], [2.0, 0]], dtype=torch.float64)
    labels, p = torch.zeros(4, dtype=torch.int64), logits.softmax(1)[:, 0]
    first, alive = torch.tensor([0.6, 0.8, 0.1, 0.6]), torch.tensor([True, True, True, False])
    for rule, kept in (("paper", [1, 0, 0, 0]), ("label", [1, 1, 0, 0]), ("none", [1, 1, 1, 0])):
        gamma, now = sample_trust(logits, labels, first, alive, rule)
        assert now.tolist() == [bool(k) for k in kept] and torch.equal(gamma, p * torch.tensor(kept))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS, st.integers(0, 4), st.sampled_from(["paper", "label", "none"]), st.booleans())
def test_recursion_invariants(seed, depth, rule, compound):
    """Trust in [0, 1], sticky at 0; R* in [0, 1], never falls; an accepted step is no less sure than the first."""
    method = MinMax(network(seed % 7))
    batch, last = some_batch(seed), None
    for found in erase(method.locate, batch.images, batch.labels, Erasing(depth, rule=rule, compound=compound)):
        assert found.trust.min() >= 0 and found.trust.max() <= 1 and 0 <= found.total.min() <= found.total.max() <= 1
        p = found.logits.softmax(1)[torch.arange(6), batch.labels]
        if last is None:
            p0 = p
            assert torch.equal(found.images, batch.images)
        else:
            assert (found.total >= last.total).all()
            assert not ((last.trust == 0) & (found.trust > 0)).any()
            unknown = last.trust == 0
            assert torch.equal(found.images[unknown], last.images[unknown])  # what is not trusted is not erased further
        if rule == "paper":
            assert (p[found.trust > 0] >= p0[found.trust > 0]).all()
        last = found
    assert last.t <= depth and (last.t == depth or not last.trust.any())


def test_zero_depth_is_the_trusted_single_pass():
    """u = 0 gives psi_0 * m exactly, which is not the raw mask that the u = 0 baseline uses."""
    method, batch = MinMax(network()), some_batch()
    (found,) = erase(method.locate, batch.images, batch.labels, Erasing(0))
    expected = found.trust.view(-1, 1, 1, 1) * found.mask
    assert torch.equal(found.total, expected) and (found.mask - found.total).max() > 0.1


def slow_algorithm_1(method, image, label, depth, sigma=10.0, compound=False):
    """The printed box for one image, with its `while`: returns R+* and the number of passes of M."""
    total, seen, t, stop, first = torch.zeros(1, 1, *image.shape[-2:], dtype=torch.float64), image, 0, False, None
    while t <= depth and not stop:
        mask, logits = method.locate(seen)
        p = logits.softmax(1)[0]
        first = p[label].item() if first is None else first
        gamma = p[label].item() if p.argmax() == label and p[label] >= first else 0.0
        if gamma != 0:
            total = torch.maximum(total, math.exp(-t / sigma) * gamma * mask)
            seen = (seen if compound else image) * (1 - total)
        else:
            stop = True
        t += 1
    return total, t


@pytest.mark.parametrize("compound", [False, True])
def test_batch_recursion_equals_the_box_image_by_image(compound):
    method = MinMax(network(3)).eval()
    images = mm.scaled(some_batch(5, images=12).images)
    labels = method.net(images).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    with torch.no_grad():
        *_, found = erase(method.locate, images, labels, Erasing(4, compound=compound))
        slow = [slow_algorithm_1(method, images[i : i + 1], int(labels[i]), 4, compound=compound) for i in range(12)]
    assert torch.allclose(found.total, torch.cat([total for total, _ in slow]), atol=1e-12)
    passes = [n for _, n in slow]
    assert max(passes) == found.t + 1 and 1 in passes and max(passes) > 2


def test_compounding_erases_more():
    """X * (1 - R*) from the original against the already erased image again: soft masks multiply."""
    half = lambda x: (torch.full_like(x[:, :1], 0.5), torch.stack([x.new_ones(1), -x.new_ones(1)], 1))  # noqa: E731
    images, labels = torch.ones(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64)
    seen = {
        c: [f.images[0, 0, 0, 0].item() for f in erase(half, images, labels, Erasing(3, 1e9, "none", c))]
        for c in (0, 1)
    }
    p = torch.tensor([1.0, -1.0]).softmax(0)[0].item() / 2
    assert seen[0] == pytest.approx([1, 1 - p, 1 - p, 1 - p])
    assert seen[1] == pytest.approx([1, 1 - p, (1 - p) ** 2, (1 - p) ** 3])


# --- Algorithm 1 ---


def gradients(method, batch, accumulate: bool, clock=Clock(), seed=0) -> dict[str, torch.Tensor]:  # noqa: B008
    method.zero_grad()
    torch.manual_seed(seed)  # dropout
    totals = []
    for terms in method.losses(batch, clock):
        if accumulate:
            terms["total"].backward()
        else:
            totals.append(terms["total"])
    if totals:
        sum(totals).backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in method.named_parameters()}


def depth_of(depth, **kw):
    return None if depth is None else Erasing(depth, **kw)


@pytest.mark.parametrize("depth", [None, 0, 1, 4])
@pytest.mark.parametrize("teach", ["trusted", "all", "box"])
def test_accumulated_gradient_equals_summed_loss(depth, teach):
    """Train-mode BatchNorm and dropout included: back-propagating step by step is exact, not an approximation."""
    method = MinMax(network(1, dropout=0.3), erasing=depth_of(depth, teach=teach, rule="label")).train()
    batch = correct_batch(method.net)
    step_by_step = gradients(method, batch, True)
    joint = gradients(method, batch, False)
    for name, gradient in joint.items():
        assert torch.allclose(step_by_step[name], gradient, atol=1e-12), name
    assert any(g.abs().sum() > 0 for g in joint.values())


def test_summed_loss_is_equation_9():
    """Without erasing, the yielded totals add up to H+ + H- + H^s of the definition."""
    method, batch = MinMax(network(2)).eval(), some_batch()
    images = mm.scaled(batch.images)
    maps, own = method.net.locate(images)
    mask = MaskRule().apply(maps, own, (16, 16))
    p = lambda z: z.log_softmax(1)  # noqa: E731
    inside, outside = method.net.classify(images * mask), method.net.classify(images * (1 - mask))
    rows = torch.arange(6)
    expected = -p(own)[rows, batch.labels] - p(inside)[rows, batch.labels] - p(outside).mean(1)
    total = sum(terms["total"] for terms in method.losses(batch, Clock()))
    assert torch.allclose(total, expected.mean(), atol=1e-12)


@pytest.mark.parametrize("shared, attach, head, trunk", [
    (False, False, False, False), (True, False, False, True), (False, True, True, True), (True, True, True, True),
])  # fmt: skip
def test_who_learns_from_the_entropies(shared, attach, head, trunk):
    """With the paper's detach the entropies reach M's trunk only where C shares it, M's head never: exact zeros."""
    method = MinMax(network(4, shared=shared), MaskRule(attach=attach))
    *_, last = method.losses(some_batch(), Clock())
    (last["decided"] + last["undecided"]).backward()
    norm = lambda m: sum(p.grad.norm().item() if p.grad is not None else 0.0 for p in m.parameters())  # noqa: E731
    assert (norm(method.net.localiser_head) > 0, norm(method.net.trunk) > 0) == (head, trunk)
    assert norm(method.net.classifier_head) > 0


def test_attached_recursion_gradient():
    """The attached variant of any depth equals autograd through the accumulated mask (one joint graph)."""
    method = MinMax(network(1), MaskRule(attach=True), Erasing(2, rule="label"))
    batch = correct_batch(method.net)
    ours = gradients(method, batch, True)
    method.zero_grad()
    images, own = mm.scaled(batch.images), 0
    for found in erase(method.locate, images, batch.labels, method.erasing):
        chosen = torch.ones(6) if found.t == 0 else found.trust > 0
        own = own + (mm.decided_loss(found.logits, batch.labels) * chosen).mean()
    plus, minus = (method.net.classify(part) for part in mm.split_image(images, found.total))
    (own + mm.decided_loss(plus, batch.labels).mean() + mm.undecided_loss(minus).mean()).backward()
    for name, p in method.named_parameters():
        assert torch.allclose(ours[name], p.grad, atol=1e-12), name


@pytest.mark.parametrize("accumulate", [True, False])
def test_peak_memory_does_not_depend_on_depth(accumulate):
    """Algorithm 1 holds one pass of M at a time: flat within 5 %. One joint graph grows with u + 1."""
    peaks = []
    for depth in (0, 1, 2, 4):
        method = MinMax(network(1, double=False), erasing=Erasing(depth, rule="none"))
        batch = some_batch(images=8)._replace(images=some_batch(images=8).images.float())
        with saved_activations(method) as meter:
            gradients(method, batch, accumulate)
        assert meter.live == 0
        peaks.append(meter.peak)
    if accumulate:
        assert max(peaks) <= 1.05 * min(peaks)
    else:
        assert peaks[3] - peaks[0] == pytest.approx(4 * (peaks[1] - peaks[0]), rel=0.05) and peaks[3] > 2 * peaks[0]


@pytest.mark.parametrize("statistics, moved", [("all", True), ("first", False)])
def test_batchnorm_sees_every_pass(statistics, moved):
    """A shared trunk is passed u + 1 times by M, twice by C: 7 updates at u = 4. "first" keeps M's later passes out.

    The first pass itself always counts, and C's two: of 7 updates 3 are left.
    """
    method = MinMax(network(1), erasing=Erasing(4, rule="none", statistics=statistics))
    norm = method.net.trunk[0][1]
    after = [norm.running_mean.clone()]
    for step, terms in enumerate(method.losses(some_batch(), Clock())):
        terms["total"].backward()
        if step < 5:
            after.append(norm.running_mean.clone())
    assert norm.num_batches_tracked == (7 if moved else 3)  # those that entered the statistics
    assert not torch.equal(after[0], after[1])
    assert all((not torch.equal(a, b)) == moved for a, b in pairwise(after[1:]))
    assert norm.momentum == 0.1


def test_statistics_by_role():
    """Same gradients; M's running means see M's images only, C's see X+ only, so the two evaluate by what they saw."""
    plain, apart = MinMax(network(1)), MinMax(norms_by_role(network(1)))
    batch = some_batch()
    ours, theirs = gradients(apart, batch, True), gradients(plain, batch, True)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    norm = apart.net.trunk[0][1]
    assert norm.role == 0 and all(not torch.equal(norm.means[role], norm.means[0]) for role in (1, 2))
    with frozen_statistics(apart.net):
        assert norm.momentum == 0


def test_frozen_statistics_restores_after_an_error():
    net = network()
    with pytest.raises(RuntimeError), frozen_statistics(net):
        assert net.trunk[0][1].momentum == 0
        raise RuntimeError
    assert net.trunk[0][1].momentum == 0.1


def test_teach_decides_who_teaches_the_localiser():
    """All images wrong: the printed box teaches M nothing, Eq. 8 and the official code everything at t = 0."""
    method = MinMax(network(1, shared=False))
    batch = some_batch()
    wrong = (method.net(mm.scaled(batch.images)).argmax(1) + 1) % 3
    head = {}
    for teach in ("box", "trusted", "all"):
        method.erasing = Erasing(4, teach=teach)
        grads = gradients(method, batch._replace(labels=wrong), True)
        head[teach] = grads["net.localiser_head.conv.weight"]
    assert head["box"].abs().max() == 0 and torch.equal(head["trusted"], head["all"]) and head["all"].abs().max() > 0


def test_untrusted_images():
    """Misclassified images give C a blank X+ ("keep"), nothing ("drop") or their raw mask ("raw")."""
    method = MinMax(network(1)).eval()
    batch = some_batch()
    wrong = batch._replace(labels=(method.net(mm.scaled(batch.images)).argmax(1) + 1) % 3)
    images = mm.scaled(batch.images)
    blank = mm.decided_loss(method.net.classify(0 * images), wrong.labels).mean()
    raw = mm.decided_loss(method.net.classify(images * method.locate(images)[0]), wrong.labels).mean()
    for untrusted, expected in (("keep", blank), ("drop", 0.0), ("raw", raw)):
        method.erasing = Erasing(1, untrusted=untrusted)
        *_, last = method.losses(wrong, Clock())
        assert last["decided"].item() == pytest.approx(float(torch.as_tensor(expected).detach()), abs=1e-12)


class Scripted(MinMax):
    """M's findings are given, and C reads three pixels: every loss can be written down."""

    mask = torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64).view(3, 1, 1, 1).expand(3, 1, 16, 16)
    said = torch.tensor([[0.1, 0.5, 0.4], [0.3, 0.4, 0.3], [0.05, 0.05, 0.9]], dtype=torch.float64).log()

    def locate(self, images):
        return self.mask, self.said

    def judge(self, images, role=1):
        return role * images[:, :, 0, 0]


def test_untrusted_images_in_a_mixed_batch():
    """One image wrong, one right but unsure (trust 0.4), one sure: only the first is untrusted; all divide the sum."""
    method, batch = Scripted(network()), some_batch(images=3)._replace(labels=torch.tensor([0, 1, 2]))
    images, trust, raw = mm.scaled(batch.images), torch.tensor([0.0, 0.4, 0.9], dtype=torch.float64), Scripted.mask
    for untrusted, weight, shown in (
        ("keep", torch.ones(3), trust.view(3, 1, 1, 1) * raw),
        ("drop", torch.tensor([0.0, 1.0, 1.0]), trust.view(3, 1, 1, 1) * raw),
        ("raw", torch.ones(3), torch.tensor([1.0, 0.4, 0.9], dtype=torch.float64).view(3, 1, 1, 1) * raw),
    ):
        method.erasing = Erasing(0, untrusted=untrusted)
        *_, last = method.losses(batch, Clock())
        plus = F.cross_entropy((images * shown)[:, :, 0, 0], batch.labels, reduction="none")
        minus = -(2 * images * (1 - shown))[:, :, 0, 0].log_softmax(1).mean(1)
        assert last["decided"].item() == pytest.approx(float((weight * plus).sum() / 3), abs=1e-12)
        assert last["undecided"].item() == pytest.approx(float((weight * minus).sum() / 3), abs=1e-12)


def test_start_epoch_and_rescale():
    method, batch = MinMax(network(1), erasing=Erasing(2, start_epoch=1, rescale=True)), some_batch()
    assert len(list(method.losses(batch, Clock(epoch=0)))) == 2 and method.active(Clock(epoch=1)) is not None
    total = torch.tensor([0.2, 0.0]).view(2, 1, 1, 1)
    assert mm._shown(total, total, method.erasing).flatten().tolist() == [1, 0]
    total = torch.tensor([0.2, 0.4, 0.1, 0.2]).view(2, 1, 1, 2)  # each image by its own peak
    assert mm._shown(total, total, method.erasing).flatten().tolist() == pytest.approx([0.5, 1, 0.5, 1])


def test_classifier_may_see_a_smaller_image():
    method, images = MinMax(network(), classifier_scale=0.5), some_batch().images
    seen = []
    method.net.classify = lambda images, role: seen.append(images) or torch.zeros(len(images), 3)
    method.judge(images)
    assert torch.equal(seen[0], F.interpolate(images, (8, 8), mode="bilinear", align_corners=True))


def test_the_classifier_decides_on_the_inside():
    """In evaluation on X+, in training on X+ as role 1 and on X- as role 2."""
    method, batch = MinMax(network(1)).eval(), some_batch()
    images = mm.scaled(batch.images)
    inside, _ = mm.split_image(images, method.locate(images)[0])
    assert torch.allclose(method.logits(batch.images), method.net.classify(inside), atol=1e-12)
    roles, classify = [], method.net.classify
    method.net.classify = lambda images, role: roles.append(role) or classify(images, role)
    list(method.losses(batch, Clock()))
    data = ArrayData(batch.images.float(), batch.labels)
    answers(method.float(), Splits("toy", data, data, data, ("a", "b", "c"), ""))
    assert roles == [1, 2, 1, 2, 1]


def test_evaluation_needs_no_label_and_no_erasing():
    method = MinMax(network(), erasing=Erasing(4)).eval()
    images = some_batch().images
    maps = [method.explain(images, torch.full((6,), k)) for k in range(3)]
    assert torch.equal(maps[0], maps[2]) and maps[0].shape == (6, 16, 16) and 0 <= maps[0].min() <= maps[0].max() <= 1
    assert torch.allclose(method.logits(images[:2]), method.logits(images)[:2], atol=1e-12)


def test_mined_counts():
    """Trust none: everything accepted, F1+ of a growing union; a one-step rule equals the localiser's own mask."""
    method = MinMax(network(2, double=False)).eval()
    batch = some_batch(images=10)
    images, labels = batch.images.float(), method.net(mm.scaled(batch.images.float())).argmax(1)
    truth = torch.rand(10, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.3
    data = ArrayData(images, labels, truth)
    lax, strict = (mined(method, data, rule, 3, size=4) for rule in ("none", "paper"))
    assert [lax[f"accepted_{t}"] for t in range(4)] == [1] * 4
    assert lax["f1_plus_0"] == strict["f1_plus_0"] and strict["accepted_3"] <= strict["accepted_1"] <= 1
    wrong = ArrayData(images, (labels + 1) % 3, truth)
    assert mined(method, wrong, depth=3, size=4)["accepted_0"] == 0  # and yet the first mask counts, trusted or not
    assert mined(method, wrong, depth=3, size=4)["f1_plus_3"] == pytest.approx(lax["f1_plus_0"])
    assert Erasing().depth == 4
    assert set(lax) == {f"{name}_{t}" for name in ("accepted", "f1_plus", "f1_minus") for t in range(4)}


def test_answers_and_mining_are_what_they_say():
    """Accuracies of M on X, of C on X+ and X-; every rule's mining beside each other; mode and statistics untouched."""
    method = MinMax(norms_by_role(network(2, double=False))).train()
    batch = some_batch(images=10)
    data = ArrayData(batch.images.float(), batch.labels, torch.zeros(10, 16, 16, dtype=torch.bool))
    splits = Splits("toy", data, data, data, ("a", "b", "c"), "")
    before = {k: v.clone() for k, v in method.state_dict().items()}
    found, dug = answers(method, splits, size=4), mining(method, splits)
    assert method.training and all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    method.eval()
    with torch.no_grad():
        images = mm.scaled(data.images)
        mask, own = method.locate(images)
        inside, outside = (method.judge(x, role) for role, x in enumerate(mm.split_image(images, mask), 1))
    right = lambda logits: (logits.argmax(1) == data.labels).float().mean().item()  # noqa: E731
    assert [found[k] for k in ("localiser", "inside", "outside")] == pytest.approx(
        [right(own), right(inside), right(outside)]
    )
    gap = 1 - conditional_entropy(outside).mean().item() / math.log(3)
    assert found["outside_gap"] == pytest.approx(gap, abs=1e-5) and 0 <= found["mixed"] <= 1
    assert dug["none_accepted_4"] == 1 and dug["paper_accepted_1"] <= dug["label_accepted_1"] <= dug["paper_accepted_0"]


def frozen_somewhere() -> tuple[MinMax, list[bool]]:
    """A method in train mode with one BatchNorm held in eval mode, and everybody's mode."""
    method = MinMax(network(2, double=False)).train()
    method.net.trunk[0][1].eval()
    return method, [m.training for m in method.modules()]


class Broken(ArrayData):
    """Hands out one batch, then fails."""

    def __getitems__(self, indices):
        if indices[0]:
            raise OSError("no more")
        return super().__getitems__(indices)


def test_measures_leave_every_module_in_its_mode_and_count():
    """A BatchNorm frozen in eval mode stays frozen, an error half-way included; nobody counts these batches."""
    parts = some_batch(images=6)
    args = (parts.images.float(), parts.labels, torch.rand(6, 16, 16) < 0.3)
    for data, error in ((ArrayData(*args), None), (Broken(*args), OSError)):
        splits = Splits("toy", data, data, data, ("a", "b", "c"), "")
        for measure in (
            lambda m, s: answers(m, s, size=4),
            lambda m, s: mined(m, s.test, depth=1, size=4),
            lambda m, s: list(look(m, s.test, size=4)),
        ):
            method, modes = frozen_somewhere()
            before = {k: v.clone() for k, v in method.state_dict().items()}
            with pytest.raises(error) if error else nullcontext():
                measure(method, splits)
            assert modes == [m.training for m in method.modules()]
            assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
            assert method.net.trunk[0][1].momentum == 0.1


def test_training_lowers_equation_9():
    torch.manual_seed(0)
    labels = torch.arange(48) % 3
    images = 0.1 * torch.rand(48, 3, 16, 16)
    images[torch.arange(48), labels, 4:12, 4:12] += 0.8  # a square in the class's colour
    trunk, d = small_trunk(4)
    net = LocaliserClassifier(trunk, minmax_head(d, 3), minmax_head(d, 3))
    method = MinMax(net, erasing=Erasing(2, start_epoch=1))
    history = fit(method, ArrayData(images, labels), Preset(epochs=4, batch_size=16, lr=1e-2))
    assert history[-1]["localiser"] < history[0]["localiser"] and history[-1]["decided"] < history[0]["decided"]
    assert {"entropy_gap", "trusted_0", "undecided"} <= set(history[-1])


@pytest.mark.parametrize("call, match", [
    (partial(MaskRule, omega=0), "omega"), (partial(MaskRule, over="set"), "over"),
    (partial(Erasing, depth=-1), "depth"), (partial(Erasing, depth=1.5), "depth"), (partial(Erasing, sigma=0), "sigma"),
    (partial(MaskRule, omega=math.nan), "omega"), (partial(Erasing, sigma=math.nan), "sigma"),
    (partial(Erasing, rule="x"), "rule"), (partial(Erasing, teach="x"), "teach"),
    (partial(Erasing, untrusted="x"), "untrusted"), (partial(Erasing, statistics="x"), "statistics"),
    (partial(MinMax, None, classifier_scale=0), "classifier_scale"),
    (partial(mm.undecided_loss, torch.zeros(3, 1)), "c >= 2"),
    (partial(mm.decided_loss, torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)), "c >= 2"),
    (partial(mm.decided_loss, torch.zeros(3, 2), torch.zeros(3, 2)), "labels must be"),
    (partial(mm.split_image, torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 5)), "mask must be"),
    (partial(mm.combined_map, torch.zeros(2, 3, 4, 4), torch.zeros(2, 4)), "maps must be"),
    (lambda: network(classes=1), "classes"),
    (lambda: MinMax(network()).logits(torch.rand(2, 1, 16, 16)), "grey"),
])  # fmt: skip
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# --- numbers at the edge, and the criterion ---


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e6, 1e-12])
def test_a_constant_map_has_no_gradient(over, value):
    """Not 6.5e15 through an attached mask, also where enlargement leaves rounding in the map; live maps keep theirs."""
    rule = MaskRule(attach=True, over=over)
    maps, logits = torch.full((2, 3, 5, 5), value).requires_grad_(), torch.zeros(2, 3, requires_grad=True)
    mask = rule.apply(maps, logits, (13, 17))
    assert torch.equal(mask, torch.sigmoid(torch.tensor(-4.0)).expand_as(mask))
    found = torch.autograd.grad((mask * torch.rand(mask.shape)).sum(), (maps, logits))
    assert all(g.abs().max() == 0 for g in found)
    live = rand(0, 2, 3, 5, 5).float().requires_grad_()
    (gradient,) = torch.autograd.grad((rule.apply(live, logits, (13, 17)) * torch.rand(mask.shape)).sum(), live)
    assert 0 < gradient.abs().max() < 100


def test_a_map_of_little_contrast_is_stretched_all_the_same():
    maps = 1 + 1e-4 * torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(mm.rescaled(maps).flatten(), torch.tensor([0.0, 0.5, 1.0]), atol=2e-3, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_map_gives_no_plausible_mask(bad):
    maps = torch.rand(2, 1, 4, 4)
    maps[0, 0, 1, 2] = bad
    scaled = mm.rescaled(maps)
    assert scaled[0].isnan().any() and scaled[1].isfinite().all()


def test_the_criterion_is_equation_7():
    """Per image, summed or averaged; an empty batch is a 0 that has a graph."""
    inside, outside, labels = rand(0, 6, 4).requires_grad_(), rand(1, 6, 4).requires_grad_(), torch.arange(6) % 4
    each = -inside.log_softmax(1)[torch.arange(6), labels] - outside.log_softmax(1).mean(1)
    for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        criterion = MinMaxEntropy(reduction)
        assert torch.allclose(criterion(inside, outside, labels), expected, atol=1e-12)
        empty = criterion(inside[:0], outside[:0], labels[:0])
        empty.sum().backward()
        assert (empty == 0).all() and empty.shape == expected[:0].shape if reduction == "none" else empty == 0
    with pytest.raises(ValueError, match="reduction must be one of"):
        MinMaxEntropy("batch")(inside, outside, labels)


def test_the_method_trains_with_the_criterion():
    """Bit for bit: the two terms of C are the criterion on X+ and X-."""
    method, batch = MinMax(network(2)).eval(), some_batch()
    *_, last = method.losses(batch, Clock())
    _, inside, outside = method.split(batch.images)
    assert torch.equal(last["total"], MinMaxEntropy()(method.judge(inside), method.judge(outside, 2), batch.labels))


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("attach", [False, True])
@pytest.mark.parametrize("erasing", [None, Erasing(2)])
def test_an_empty_batch_teaches_nothing(over, attach, erasing):
    method = MinMax(network(1), MaskRule(over=over, attach=attach), erasing).train()
    batch = some_batch()
    empty = Batch(batch.images[:0], batch.labels[:0], None, batch.index[:0])
    for terms in method.losses(empty, Clock()):
        assert all(math.isfinite(value.item()) for value in terms.values())
        terms["total"].backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in method.parameters())


def test_a_network_without_two_voices_is_refused_at_construction():
    from torchvision.models import resnet18

    foreign = resnet18(num_classes=3)
    with pytest.raises(ValueError, match=r"locate and classify: LocaliserClassifier\(trunk, .* got ResNet"):
        MinMax(foreign)
    trunk = torch.nn.Sequential(*list(foreign.children())[:-2])  # and this is how it gets in
    method = MinMax(LocaliserClassifier(trunk, minmax_head(512, 3), minmax_head(512, 3))).eval()
    batch = some_batch(images=2, size=64)._replace(images=torch.rand(2, 3, 64, 64))
    _, last = method.losses(batch, Clock())
    assert {"decided", "undecided"} < set(last)
    assert method.explain(batch.images, batch.labels).shape == (2, 64, 64)
