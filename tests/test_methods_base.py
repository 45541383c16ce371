"""What all methods share: reductions, labels, the classification loss and prediction."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xai_course.data.batch import ArrayData, Batch
from xai_course.measure import looking
from xai_course.methods import base
from xai_course.preset import Clock


def test_a_sample_counts_by_the_mean_of_its_entries():
    losses = torch.rand(4, 3, 2, dtype=torch.float64)
    each = losses.mean(dim=(1, 2))
    assert torch.equal(base.reduced(losses), losses.mean())
    torch.testing.assert_close(base.reduced(losses, "none"), each)
    torch.testing.assert_close(base.reduced(losses, "sum"), each.sum())
    assert torch.equal(base.reduced(each, "none"), each) and torch.equal(base.reduced(each, "mean"), each.mean())


@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_nothing_reduces_to_zero_with_a_graph(shape):
    losses = torch.zeros(shape, requires_grad=True)
    for how in ("mean", "sum"):
        total = base.reduced(losses, how)
        total.backward()
        assert total == 0
    assert base.reduced(losses, "none").shape == (0,)


def test_labels_are_checked_at_both_ends():
    base.check_labels(torch.tensor([0, 2]), 2, 3)
    base.check_labels(torch.zeros(0, dtype=torch.int64), 0, 3)
    for wrong, named in (
        (torch.tensor([0, 3]), r"in \[0, 3\), got 0 to 3"),
        (torch.tensor([-1, 0]), "got -1 to 0"),
        (torch.tensor([0, 1, 2]), r"\[2\] int64, got \(3,\)"),
        (torch.tensor([0.0, 1.0]), "got .* torch.float32"),
    ):
        with pytest.raises(ValueError, match=named):
            base.check_labels(wrong, 2, 3)


def test_label_smoothing_is_torchs():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    batch = Batch(torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 2, 0]), None, torch.arange(5))
    (terms,) = base.CrossEntropy(net, label_smoothing=0.1).losses(batch, Clock())
    assert torch.equal(terms["total"], F.cross_entropy(net(batch.images), batch.labels, label_smoothing=0.1))
    assert terms["total"] != F.cross_entropy(net(batch.images), batch.labels)


def test_prediction_reads_its_images_where_the_method_is(monkeypatch):
    seen = []
    monkeypatch.setattr(looking, "device_of", lambda module: "where the method is")
    read = lambda data, size, device: seen.append(device) or [data.__getitems__([0, 1])]  # noqa: E731
    monkeypatch.setattr(looking, "batches", read)
    method = base.CrossEntropy(nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 3)))
    data = ArrayData(torch.rand(2, 1, 2, 2), torch.tensor([0, 2]))
    logits, labels = base.predict(method, data)
    assert seen == ["where the method is"] and not logits.requires_grad and labels.tolist() == [0, 2]
    assert torch.equal(logits, method.eval().logits(data.images))  # no dropout
