"""AMC-Loss: every statement of the chapter as a check, in float64 unless the point is float32."""

from functools import partial
from math import pi, sin

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_course.methods import amc, pairs

TIGHT = 1e-12
PAIRINGS = ("halves", "all", 1, 3)


@st.composite
def batches(draw, least=2, most=12):
    """Random features ``[n, p]`` and classes, sizes chosen by hypothesis; no two rows alike."""
    n, p, k = draw(st.integers(least, most)), draw(st.integers(2, 6)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    features = torch.randn(n, p, generator=generator, dtype=torch.float64)
    return features, torch.randint(0, k, (n,), generator=generator)


quick = settings(max_examples=25, deadline=None, derandomize=True)


def pair_at(theta, p=128, dtype=torch.float64, seed=0):
    """Two unit rows at exactly this angle, built in float64."""
    generator = torch.Generator().manual_seed(seed)
    u, w = torch.linalg.qr(torch.randn(p, 2, generator=generator, dtype=torch.float64))[0].T
    theta = torch.as_tensor(theta, dtype=torch.float64)
    return u.unsqueeze(0).to(dtype), (torch.cos(theta) * u + torch.sin(theta) * w).unsqueeze(0).to(dtype)


def gradient(loss, features):
    return torch.autograd.grad(loss, features)[0]


def slow_amc(features, classes, margin):
    """Eq. 2 and Algorithm 1 as loops, the way the notebook writes them."""
    half = len(features) // 2
    total = 0.0
    for i in range(half):
        a, b = features[i], features[i + half]
        theta = torch.acos(torch.dot(a, b) / (a.norm() * b.norm()))
        total += theta**2 if classes[i] == classes[i + half] else (margin - theta).clamp(min=0) ** 2
    return total / half


# --- the formula -----------------------------------------------------------------------------------------------------


@quick
@given(batches(), st.floats(0.1, pi))
def test_equals_the_loop_over_equation_2(batch, margin):
    fast = amc.angular_margin_contrastive(*batch, margin=margin)
    assert abs(fast - slow_amc(*batch, margin)) < TIGHT


@quick
@given(batches())
def test_euclid_equals_the_loop_over_equation_1(batch):
    features, classes = batch
    half, total = len(features) // 2, 0.0
    for i in range(half):
        d = (features[i] - features[i + half]).norm()
        total += d**2 if classes[i] == classes[i + half] else (1 - d).clamp(min=0) ** 2
    assert abs(amc.euclidean_contrastive(features, classes) - total / half) < TIGHT


def test_golden_pairs():
    """Right angle, sixty degrees, opposite: numbers anybody can check by hand."""
    za = torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64)
    half = 3**0.5 / 2
    zb = torch.tensor([[0.0, 1.0], [0.5, half], [-1.0, 0.0], [0.5, half]], dtype=torch.float64)
    same = torch.tensor([True, True, True, False])
    expected = torch.tensor([pi**2 / 4, pi**2 / 9, pi**2, (1.5 - pi / 3) ** 2], dtype=torch.float64)
    assert torch.allclose(amc.amc_pair_loss(za, zb, same, 1.5), expected, atol=TIGHT, rtol=0)
    chords = torch.tensor([2.0, 1.0, 4.0, 0.25], dtype=torch.float64)
    assert torch.allclose(amc.euclidean_pair_loss(za, zb, same, 1.5), chords, atol=TIGHT, rtol=0)


@quick
@given(batches(), st.integers(0, 10**6))
def test_scale_invariance(batch, seed):
    """Check 1: any positive scale per sample leaves the loss alone and divides the gradient."""
    features, classes = batch
    scale = torch.rand(len(features), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 9 + 0.1
    x = features.clone().requires_grad_()
    y = (features * scale).requires_grad_()
    one, two = (amc.angular_margin_contrastive(v, classes, margin=1.5) for v in (x, y))
    assert abs(one - two) < TIGHT
    assert torch.allclose(gradient(one, x), gradient(two, y) * scale, atol=TIGHT, rtol=1e-11)


@quick
@given(batches(), st.sampled_from(PAIRINGS))
def test_gradient_is_tangential(batch, pairing):
    """Check 2: the loss turns features and never lengthens them."""
    features, classes = batch
    x = features.clone().requires_grad_()
    loss = amc.angular_margin_contrastive(x, classes, margin=1.5, pairing=pairing)
    assert ((gradient(loss, x) * x).sum(dim=1).abs() < 1e-11).all()


@quick
@given(batches(), st.integers(0, 10**6), st.sampled_from(PAIRINGS))
def test_rotation_invariance(batch, seed, pairing):
    """Check 3."""
    features, classes = batch
    p = features.shape[1]
    q = torch.linalg.qr(torch.randn(p, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    for loss in (amc.angular_margin_contrastive, amc.euclidean_contrastive):
        assert abs(loss(features, classes, pairing=pairing) - loss(features @ q, classes, pairing=pairing)) < 1e-11


@quick
@given(batches(), st.randoms(use_true_random=False))
def test_symmetry_of_halves_and_pairs(batch, random):
    """Check 4: halves may be swapped and pairs permuted together."""
    features, classes = batch
    h = len(features) // 2
    swapped = [*range(h, 2 * h), *range(h)]
    order = random.sample(range(h), h)
    jointly = [*order, *(h + i for i in order)]
    loss = amc.angular_margin_contrastive(features, classes, margin=1.5)
    for at in (swapped, jointly):
        assert abs(loss - amc.angular_margin_contrastive(features[at], classes[at], margin=1.5)) < TIGHT


def test_a_shuffle_does_change_the_loss():
    """Check 4, other half: a half-batch loss is a lottery over shuffles, and a test must not wish it away."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    at = [0, 2, 1, 3, 4, 5, 6, 7]
    assert abs(amc.angular_margin_contrastive(x, y) - amc.angular_margin_contrastive(x[at], y[at])) > 0.1


@pytest.mark.parametrize("theta", [0.5, 0.5001, 0.7, 3.0])
def test_beyond_the_margin_nothing_happens(theta):
    """Check 5: loss and gradient exactly 0, and a C1 join at the margin itself."""
    za, zb = pair_at(theta)
    x = torch.cat([za, zb]).requires_grad_()
    loss = amc.angular_margin_contrastive(x, torch.tensor([0, 1]), margin=0.5)
    if theta > 0.5:
        assert loss == 0 and (gradient(loss, x) == 0).all()
    else:
        assert loss <= 1e-30 and gradient(loss, x).abs().max() < 1e-14


@pytest.mark.parametrize("theta", [0.01, 0.3, 1.2, 2.4, 3.1])
@pytest.mark.parametrize("same", [True, False])
def test_analytic_gradients(theta, same):
    """Check 6: direction and norm, 2 theta / |x| and 2 (m - theta) / |x|, of one pair with lengths 2 and 5."""
    margin = 3.14
    za, zb = pair_at(theta)
    x = torch.cat([2 * za, 5 * zb]).requires_grad_()
    got = gradient(amc.angular_margin_contrastive(x, torch.tensor([0, 0 if same else 1]), margin=margin), x)
    slope = 2 * theta if same else -2 * (margin - theta)
    for i, (z, other, length) in enumerate([(za, zb, 2), (zb, za, 5)]):
        expected = -slope / (length * sin(theta)) * (other - torch.cos(torch.tensor(theta, dtype=torch.float64)) * z)
        assert torch.allclose(got[i], expected[0], atol=1e-10, rtol=0)
        assert got[i].norm() == pytest.approx(abs(slope) / length, rel=1e-9)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_gradcheck(pairing):
    """Check 6 and 17: hinge active at 2.5 rad; both losses, all pairings, an odd batch."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 0, 2, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda v: amc.angular_margin_contrastive(v, y, margin=2.5, pairing=pairing), x)
    assert torch.autograd.gradcheck(lambda v: amc.euclidean_contrastive(v, y, margin=2.5, pairing=pairing), x)
    assert torch.autograd.gradcheck(lambda v: amc.euclidean_contrastive(v, y, pairing=pairing, normalised=True), x)


@quick
@given(batches(), st.floats(0.05, pi), st.sampled_from(PAIRINGS))
def test_bounds(batch, margin, pairing):
    """Check 7."""
    features, classes = batch
    losses = amc.angular_margin_contrastive(features, classes, margin=margin, pairing=pairing, reduction="none")
    same = torch.eq(*pairs.pair_up(classes, pairing))
    assert (losses >= 0).all()
    assert (losses[same] <= pi**2 + 1e-12).all() and (losses[~same] <= margin**2 + 1e-12).all()


@quick
@given(st.floats(1e-6, pi), st.integers(0, 100))
def test_chord_identity(theta, seed):
    """Check 14: |z_i - z_j| = 2 sin(theta / 2); so m_g = 0.5 rad is a chord of 0.4948."""
    za, zb = pair_at(theta, seed=seed)
    assert abs((za - zb).norm() - 2 * sin(theta / 2)) < TIGHT
    assert 2 * sin(0.25) == pytest.approx(0.4948, abs=5e-5)


# --- numerics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["atan2", "arccos"])
@pytest.mark.parametrize("same", [True, False])
def test_identical_pair_is_finite(form, same):
    """Check 8: in float32, both kinds of pair, both protected forms; duplicated rows are speed.md's fifth trap."""
    x = torch.randn(1, 128).repeat(2, 1).requires_grad_()
    loss = amc.angular_margin_contrastive(x, torch.tensor([0, 0 if same else 1]), form=form)
    got = gradient(loss, x)
    assert torch.isfinite(loss) and torch.isfinite(got).all()
    if form == "atan2":
        assert loss == (0 if same else 0.25)  # the different-class one is the dead point: greatest loss, no direction
        assert (got == 0).all()


def test_naive_arccos_poisons_exactly_the_two_rows_of_the_pair():
    """Check 8, control: without a clip the masked branch alone suffices to spoil the gradient."""
    torch.manual_seed(0)
    x = torch.randn(8, 16)
    x[1], x[5] = torch.eye(16)[0] * 3, torch.eye(16)[0] * 3  # their cosine is exactly 1
    x = x.requires_grad_()
    z = x / x.norm(dim=1, keepdim=True)
    theta = torch.acos((z[:4] * z[4:]).sum(dim=1))
    loss = torch.where(torch.zeros(4, dtype=torch.bool), theta**2, (0.5 - theta).clamp_min(0) ** 2).mean()
    bad = ~torch.isfinite(gradient(loss, x)).all(dim=1)
    assert bad.nonzero().flatten().tolist() == [1, 5]


def test_angle_accuracy_in_float32():
    """Check 9: relative error under 1e-3 everywhere, while clipped arccos is four times off at 1e-4."""
    thetas = torch.cat(
        [torch.logspace(-4, 0, 40, dtype=torch.float64), torch.linspace(1, 3.14, 40, dtype=torch.float64)]
    )
    worst = 0.0
    for seed, theta in enumerate(thetas):
        got = amc.angle(*pair_at(theta, dtype=torch.float32, seed=seed)).double()
        worst = max(worst, float((got - theta).abs() / theta))
    assert worst < 1e-3
    clipped = amc.angle(*pair_at(1e-4, dtype=torch.float32), form="arccos").double()
    assert 3.5 < float(clipped - 1e-4) / 1e-4 < 4.2


@pytest.mark.parametrize(("clip", "floor"), [(1e-7, 4.883e-4), (1e-5, 4.475e-3)])
def test_floor_of_the_clipped_arccos(clip, floor):
    """What the official clip and the port's leave as the smallest angle, without a gradient below it."""
    z = torch.zeros(2, 4)
    z[:, 0] = 1
    z = z.requires_grad_()
    theta = amc.angle(z[:1], z[1:], form="arccos", clip=clip)
    assert theta.item() == pytest.approx(floor, rel=1e-3)
    assert (gradient(theta.sum(), z) == 0).all()


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dead", [[0], [0, 4], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_zero_features_are_masked(pairing, dtype, dead):
    """Check 15: dead rows add nothing, get exactly no gradient, and leave the others alone."""
    torch.manual_seed(1)
    x = torch.randn(8, 5, dtype=dtype)
    x[dead] = 0
    x[dead[0], 0] = 1e-9
    x = x.requires_grad_()
    y = torch.tensor([0, 1, 0, 1, 0, 0, 1, 1])
    loss = amc.angular_margin_contrastive(x, y, pairing=pairing, margin=2.0)
    got = gradient(loss, x)
    assert torch.isfinite(loss) and torch.isfinite(got).all()
    assert (got[dead] == 0).all()
    assert int(amc.unit_rows(x)[1].sum()) == len(dead)
    alive = [i for i in range(8) if i not in dead]
    if alive:
        assert got[alive].norm() > 0 and got[alive].abs().max() < 1e3


def test_a_row_is_dead_below_a_length_of_one_millionth():
    lengths = torch.tensor([0.0, 9e-7, 1.1e-6, 1e-5, 1.0], dtype=torch.float64)
    z, dead = amc.unit_rows(lengths[:, None] * torch.tensor([0.6, 0.8], dtype=torch.float64))
    assert dead.tolist() == [True, True, False, False, False]
    assert (z[:2] == 0).all() and torch.allclose(z[2:].norm(dim=1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("loss", [amc.angular_margin_contrastive, partial(amc.euclidean_contrastive, normalised=True)])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_one_dead_row_makes_its_pairs_zero(loss, pairing):
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[4] = 0
    each = loss(x, torch.zeros(6, dtype=torch.int64), pairing=pairing, reduction="none")
    left, right = pairs.pair_up(torch.arange(6), pairing)
    with_dead = (left == 4) | (right == 4)
    assert with_dead.any() and (each[with_dead] == 0).all() and (each[~with_dead] > 0).all()


def test_float32_inside_autocast_and_float64_kept():
    x, y = torch.randn(8, 16), torch.tensor([0, 1] * 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = amc.angular_margin_contrastive(x, y)
        from_half = amc.angular_margin_contrastive(x.bfloat16(), y)
        everything = amc.angular_margin_contrastive(x, y, pairing="all")
    assert inside.dtype == from_half.dtype == torch.float32
    assert torch.equal(inside, amc.angular_margin_contrastive(x, y))
    assert torch.equal(everything, amc.angular_margin_contrastive(x, y, pairing="all"))
    assert amc.angular_margin_contrastive(x.double(), y).dtype == torch.float64


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(("length", "dtype"), [(2e19, torch.float32), (1e30, torch.float32), (1e155, torch.float64)])
def test_features_too_long_to_be_squared_are_refused(length, dtype, pairing):
    """Not divided by an infinite length to a zero row, whose loss would be a quiet quarter of pi squared or less."""
    x = torch.eye(3, dtype=dtype).repeat(2, 1)
    x[4] *= length
    assert amc.unit_rows(x)[0][4].isnan().all() and amc.unit_rows(x)[0][:4].isfinite().all()
    for reduction in ("mean", "none", "batch"):
        with pytest.raises(ValueError, match="features must be finite and shorter"):
            amc.angular_margin_contrastive(x, torch.zeros(6).long(), pairing=pairing, reduction=reduction)
        with pytest.raises(ValueError, match="features must be finite and shorter"):  # an infinite loss, not NaN
            amc.euclidean_contrastive(x, torch.zeros(6).long(), pairing=pairing, reduction=reduction)
    assert amc.angular_margin_contrastive(x / length * 1e18, torch.arange(6)).isfinite()


def test_half_precision_features_are_squared_in_float32():
    x = 300 * torch.eye(4, dtype=torch.float16)  # 300 squared overflows float16
    expected = amc.angular_margin_contrastive(x.float(), torch.zeros(4).long())
    assert torch.equal(amc.angular_margin_contrastive(x, torch.zeros(4).long()), expected)
    assert torch.equal(amc.euclidean_contrastive(x, torch.zeros(4).long()), torch.tensor(2 * 9e4))
