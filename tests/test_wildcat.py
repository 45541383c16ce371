"""Poolings against slow loops, gradients, limiting cases, the printed parameter counts, and clear errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xai_course.nets.wildcat import (
    HEADS,
    AttentionHead,
    Localiser,
    LocaliserClassifier,
    LsePool,
    MapHead,
    MaxPool,
    MeanPool,
    WildcatPool,
    cell_count,
    minmax_head,
    resnet_trunk,
    small_trunk,
)

random_maps = st.tuples(
    st.integers(0, 10_000), st.integers(1, 3), st.integers(2, 4), st.integers(1, 5), st.integers(1, 5)
)


def maps_of(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "k, cells, count", [(0.09, 225, 20), (0.09, 64, 6), (0.01, 9, 1), (1.0, 9, 9), (1, 9, 1), (9, 9, 9)]
)
def test_cell_count(k, cells, count):
    """Float 1.0 is all cells (mean), int 1 is one cell (max)."""
    assert cell_count(k, cells) == count


@pytest.mark.parametrize("k", [0, 0.0, 1.5, -1, 10, True, "3"])
def test_cell_count_bad(k):
    with pytest.raises(ValueError, match="k must be"):
        cell_count(k, 9)


def slow_wildcat(cells: list[float], kmax, kmin, alpha) -> float:
    ordered = sorted(cells, reverse=True)
    top = ordered[: cell_count(kmax, len(cells))]
    if alpha == 0 or kmin == 0:
        return sum(top) / len(top)
    bottom = ordered[-cell_count(kmin, len(cells)) :]
    return (sum(top) / len(top) + alpha * sum(bottom) / len(bottom)) / 2


@settings(max_examples=30, deadline=None, derandomize=True)
@given(random_maps, st.sampled_from([0.09, 0.5, 1, 1.0]), st.sampled_from([0, 0.1, 1]), st.sampled_from([0.0, 0.6]))
def test_wildcat_equals_sorting(shape, kmax, kmin, alpha):
    maps = maps_of(*shape)
    fast = WildcatPool(kmax, kmin, alpha)(maps)
    slow = [[slow_wildcat(m.flatten().tolist(), kmax, kmin, alpha) for m in image] for image in maps]
    assert torch.allclose(fast, torch.tensor(slow, dtype=torch.float64), atol=1e-12)


def test_wildcat_limits():
    maps = maps_of(0, 2, 3, 4, 5)
    assert torch.allclose(WildcatPool(1.0)(maps), MeanPool()(maps), atol=1e-15)
    assert torch.equal(WildcatPool(1)(maps), MaxPool()(maps))
    assert torch.equal(WildcatPool(0.3, 0.3, alpha=0.0)(maps), WildcatPool(0.3, 0)(maps))


@pytest.mark.parametrize("pool", [WildcatPool(0.3, 0.2, 0.6), WildcatPool(0.09), LsePool(), MaxPool(), MeanPool()])
def test_gradcheck(pool):
    assert torch.autograd.gradcheck(pool, maps_of(1, 2, 2, 3, 4).requires_grad_())


def test_wildcat_gradient_is_one_over_k_on_the_top():
    maps = maps_of(2, 1, 1, 3, 4).requires_grad_()
    WildcatPool(3)(maps).sum().backward()
    top = maps.detach().flatten().topk(3).indices
    expected = torch.zeros(12, dtype=torch.float64)
    expected[top] = 1 / 3
    assert torch.equal(maps.grad.flatten(), expected)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(random_maps)
def test_lse_between_mean_and_max(shape):
    maps = maps_of(*shape)
    lse = LsePool(7.0)(maps)
    assert (lse >= MeanPool()(maps) - 1e-12).all() and (lse <= MaxPool()(maps) + 1e-12).all()
    assert torch.allclose(lse, (7 * maps).exp().mean(dim=(2, 3)).log() / 7, atol=1e-12)


def test_lse_does_not_overflow():
    assert LsePool()(torch.full((1, 2, 3, 3), 1e3)).isfinite().all()


def test_dropout_only_in_training_and_inverted():
    pool = WildcatPool(1.0, dropout=0.75)
    maps = torch.ones(1, 1, 200, 200)
    assert torch.equal(pool.eval()(maps), torch.ones(1, 1))
    dropped = pool.train()(maps)
    assert dropped != 1 and abs(float(dropped) - 1) < 0.05


def test_dropout_never_touches_the_maps():
    head = minmax_head(4, 3, dropout=0.85).train()
    features = torch.rand(2, 4, 5, 5)
    assert torch.equal(head(features)[0], head(features)[0])
    assert not torch.equal(head(features)[1], head(features)[1])


def test_modalities_are_averaged():
    head = MapHead(4, 3, MaxPool(), modalities=5).double()
    features = maps_of(3, 2, 4, 6, 6)
    maps, logits = head(features)
    every = head.conv(features)
    for k in range(3):
        assert torch.allclose(maps[:, k], every[:, 5 * k : 5 * k + 5].mean(1), atol=1e-14)
    assert torch.equal(logits, maps.amax((2, 3)))


def test_deep_mil_equals_loop():
    head = AttentionHead(4, 3, hidden=6).double()
    features = maps_of(4, 2, 4, 3, 5)
    attention, logits = head(features)
    assert torch.allclose(attention.sum((2, 3)), torch.ones(2, 3, dtype=torch.float64)) and (attention >= 0).all()
    for b in range(2):
        for k in range(3):
            bag = sum(attention[b, k, i, j] * features[b, :, i, j] for i in range(3) for j in range(5))
            assert torch.allclose(logits[b, k], head.score.weight[k] @ bag + head.score.bias[k], atol=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_heads_share_one_interface(name):
    maps, logits = HEADS[name](4, 3)(torch.rand(2, 4, 5, 6))
    assert maps.shape == (2, 3, 5, 6) and logits.shape == (2, 3)


@pytest.mark.parametrize("depth, deep, c, trunk, head", [
    (101, True, 2, 42_623_936, 20_490), (101, False, 5, 42_500_160, 51_225),
    (18, True, 2, 11_324_992, 5_130), (18, False, 5, 11_176_512, 12_825),
])  # fmt: skip
def test_printed_parameter_counts(depth, deep, c, trunk, head):
    with torch.device("meta"):
        body, channels = resnet_trunk(depth, deep_stem=deep)
        heads = minmax_head(channels, c), minmax_head(channels, c)
        net = LocaliserClassifier(body, *heads)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert (count(body), count(heads[0])) == (trunk, head) and count(net) == trunk + 2 * head
    maps, logits = net.locate(torch.empty(1, 3, 480, 480, device="meta"))
    assert maps.shape == (1, c, 15, 15) and logits.shape == (1, c)


@pytest.mark.parametrize("reach", [9, 17, 33])
def test_reach_is_the_receptive_field(reach):
    """The pixels that one cell in the middle depends on span exactly ``reach``."""
    trunk, channels = small_trunk(2, reach=reach)
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    maps = trunk.eval()(images)
    assert maps.shape == (1, channels, 16, 16)
    for p in trunk.parameters():
        torch.nn.init.constant_(p, 0.1)  # positive weights: no path cancels
    trunk(images)[0, 0, 8, 8].backward()
    rows = images.grad.abs().sum((0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == reach


def test_shared_or_separate():
    (trunk, d), (other, _) = small_trunk(2), small_trunk(2)
    heads = minmax_head(d, 3), minmax_head(d, 3)
    shared, apart = LocaliserClassifier(trunk, *heads), LocaliserClassifier(trunk, *heads, classifier_trunk=other)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(apart) == count(shared) + count(trunk)
    images = torch.rand(2, 3, 16, 16)
    shared.eval(), apart.eval()
    assert torch.equal(shared(images), apart(images)) and not torch.equal(
        shared.classify(images), apart.classify(images)
    )


@pytest.mark.parametrize(
    "images, hint", [(torch.rand(2, 1, 16, 16), "repeat the grey"), (torch.rand(3, 16, 16), "B, 3, H")]
)
def test_grey_images_refused(images, hint):
    trunk, d = small_trunk(2)
    with pytest.raises(ValueError, match=hint):
        Localiser(trunk, minmax_head(d, 2))(images)


@pytest.mark.parametrize("call, match", [
    (lambda: minmax_head(4, 1), "classes"), (lambda: AttentionHead(4, 1), "classes"), (lambda: LsePool(0), "sharpness"),
    (lambda: MapHead(4, 2, nn.Identity(), modalities=0), "modalities"), (lambda: WildcatPool(dropout=1.0), "dropout"),
    (lambda: small_trunk(reach=10), "reach"),
    (lambda: resnet_trunk(19), "depth"), (lambda: resnet_trunk(18, weights="DEFAULT"), "deep_stem=False"),
])  # fmt: skip
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()
