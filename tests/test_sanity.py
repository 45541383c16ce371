"""Controls: cascading randomisation, untrained networks, shuffled labels, weight zero."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xai_course.data.batch import ArrayData
from xai_course.measure.sanity import (
    cascade,
    lambda_zero_equals_baseline,
    rank_correlation,
    shuffled_labels,
    training_gap,
    untrained,
    weight_randomisation,
)
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import small_cnn
from xai_course.preset import Clock, Preset
from xai_course.runs.parts.looking import Untrained
from xai_course.train import fit

few = settings(max_examples=15, deadline=None, derandomize=True)


def data(n: int = 8, size: int = 16) -> ArrayData:
    generator = torch.Generator().manual_seed(0)
    return ArrayData(torch.rand(n, 3, size, size, generator=generator), torch.arange(n) % 10)


@few
@given(st.integers(0, 999))
def test_rank_correlation_equals_scipy_with_ties(seed):
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(seed)
    maps, others = (torch.randint(0, 4, (3, 4, 5), generator=generator).double() for _ in range(2))
    want = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(maps.numpy(), others.numpy())]
    np.testing.assert_allclose(rank_correlation(maps, others).numpy(), want, atol=1e-12)


def test_rank_correlation_at_the_ends():
    maps = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(0))
    for same in (rank_correlation(maps, maps), rank_correlation(maps, maps**3)):
        torch.testing.assert_close(same, torch.ones(2, dtype=torch.double))
    torch.testing.assert_close(rank_correlation(maps, -maps), -torch.ones(2, dtype=torch.double))
    assert (rank_correlation(maps, torch.ones(2, 9, 9)) == 0).all()
    with pytest.raises(ValueError, match="both maps"):
        rank_correlation(maps, maps[:1])


def test_cascade_destroys_from_the_logits_down_and_touches_nothing_else():
    net = small_cnn(width=2, seed=0).train()
    before = copy.deepcopy(net.state_dict())
    steps = list(cascade(net))
    assert [name for name, _ in steps][:3] == ["", "head", "body.4.1"] and len(steps) == 12
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values())) and net.training
    changed = []
    for _, broken in steps:
        state = broken.state_dict()
        changed.append({n for n, value in state.items() if "conv" not in n and not torch.equal(value, before[n])})
        assert not broken.training
    assert changed[0] == set() and changed[1] == {"head.weight", "head.bias"}
    assert all(a <= b for a, b in pairwise(changed))
    again = list(cascade(net))
    assert all(
        torch.equal(a, b) for a, b in zip(steps[-1][1].state_dict().values(), again[-1][1].state_dict().values())
    )
    with pytest.raises(ValueError, match="reset_parameters"):
        list(cascade(nn.ReLU()))


def test_weight_randomisation_starts_at_one_and_keeps_the_method():
    method, batch = CrossEntropy(small_cnn(width=2, seed=0)), data().__getitems__(range(4))
    net = method.net
    rows = weight_randomisation(method, batch.images, batch.labels)
    assert method.net is net and method.training and rows[0] == {"layer": "", "rank_correlation": 1.0}
    assert len(rows) == 12 and rows[-1]["rank_correlation"] < 0.9


def test_untrained_is_another_network_with_fresh_statistics():
    method = CrossEntropy(small_cnn(width=2, seed=0))
    method.logits(data().images)  # one update of the statistics
    fresh = untrained(method, seed=5)
    norm = fresh.net.body[0][1]
    assert (norm.running_mean == 0).all() and norm.num_batches_tracked == 0
    assert method.net.body[0][1].num_batches_tracked == 1
    assert not torch.equal(fresh.net.head.weight, method.net.head.weight)
    assert torch.equal(fresh.net.head.weight, untrained(method, seed=5).net.head.weight)


def test_the_untrained_row_of_the_chapter_learns_nothing():
    method, start = Untrained(small_cnn(width=2, seed=0)), small_cnn(width=2, seed=0).state_dict()
    fit(method, data(), Preset(epochs=2, batch_size=4, lr=0.1))
    assert all(torch.equal(a.cpu(), b) for a, b in zip(method.net.state_dict().values(), start.values()))


def test_global_generator_is_left_alone():
    torch.manual_seed(3)
    want = torch.rand(2)
    net = small_cnn(width=2, seed=0)
    torch.manual_seed(3)
    untrained(net)
    for _ in cascade(net):
        pass
    assert torch.equal(torch.rand(2), want)


def test_shuffled_labels_keep_how_many_of_each():
    original = data(50)
    shuffled = shuffled_labels(original)
    assert not torch.equal(shuffled.labels, original.labels) and shuffled.images is original.images
    assert torch.equal(shuffled.labels.bincount(), original.labels.bincount())
    assert torch.equal(shuffled.labels, shuffled_labels(original).labels)


class Weighted(CrossEntropy):
    """Cross-entropy plus a weighted penalty on the logits."""

    def __init__(self, net, weight):
        super().__init__(net)
        self.weight = weight

    def losses(self, batch, clock):
        logits = self.net(batch.images)
        total = nn.functional.cross_entropy(logits, batch.labels) + self.weight * logits.square().mean()
        yield {"total": total}


def test_weight_zero_equals_the_baseline_and_another_weight_does_not():
    net, batch = small_cnn(width=2, seed=0), data().__getitems__(range(8))
    assert lambda_zero_equals_baseline(lambda n: Weighted(n, 0.0), CrossEntropy, net, batch, Clock())
    assert not lambda_zero_equals_baseline(lambda n: Weighted(n, 0.1), CrossEntropy, net, batch, Clock())
    with pytest.raises(ValueError, match="equal networks"):
        training_gap(CrossEntropy(net), CrossEntropy(small_cnn(width=2, seed=1)), batch, Clock())
