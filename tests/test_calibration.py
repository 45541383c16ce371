"""Expected calibration error: by hand, against torchmetrics, and of a classifier."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xai_course.data.batch import ArrayData, Splits
from xai_course.measure.confidence import calibration, expected_calibration_error
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import GapClassifier


def test_by_hand():
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6], dtype=torch.float64)
    right = torch.tensor([True, True, True, False, False])
    assert expected_calibration_error(confidence, right, 10) == pytest.approx((4 * 0.15 + 0.6) / 5)
    assert expected_calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0.0
    assert expected_calibration_error(torch.ones(3), torch.zeros(3, dtype=torch.bool)) == 1.0


def test_gaps_of_two_bins_do_not_cancel():
    """Sure and wrong beside unsure and right: one bin for all would find nothing."""
    confidence = torch.tensor([0.9, 0.1], dtype=torch.float64)
    assert expected_calibration_error(confidence, torch.tensor([False, True]), 10) == pytest.approx(0.9)
    assert expected_calibration_error(confidence, torch.tensor([False, True]), 1) == pytest.approx(0.0)
    edge = torch.tensor([0.5, 0.49], dtype=torch.float64)  # 0.5 opens the upper of two bins
    assert expected_calibration_error(edge, torch.tensor([True, False]), 2) == pytest.approx((0.5 + 0.49) / 2)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_equals_torchmetrics(bins):
    theirs = pytest.importorskip("torchmetrics.functional.classification").multiclass_calibration_error
    g = torch.Generator().manual_seed(bins)
    p = (3 * torch.randn(500, 7, generator=g, dtype=torch.float64)).softmax(1)
    labels = torch.randint(0, 7, (500,), generator=g)
    best = p.max(1)
    ours = expected_calibration_error(best.values, best.indices == labels, bins)
    assert ours == pytest.approx(theirs(p, labels, num_classes=7, n_bins=bins, norm="l1").item(), abs=1e-6)


def test_honest_confidences_are_nearly_calibrated_and_doubled_logits_are_not():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(20000, 5, generator=g)
    labels = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    gaps = []
    for scale in (1, 3):
        best = (scale * logits).softmax(1).max(1)
        gaps.append(expected_calibration_error(best.values, best.indices == labels))
    assert gaps[0] < 0.02 < 0.2 < gaps[1]


def test_measure_of_a_method():
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = ArrayData(images, torch.arange(20) % 4)
    method = CrossEntropy(GapClassifier(nn.Conv2d(3, 4, 3), nn.Linear(4, 4)))
    found = calibration(method, Splits("toy", data, data, data, tuple("abcd"), "0"))
    with torch.no_grad():
        best = method.logits(images).softmax(1).max(1)
    assert found["ece"] == pytest.approx(expected_calibration_error(best.values, best.indices == data.labels))
    assert found["confidence"] == pytest.approx(best.values.mean().item(), abs=1e-6) and method.training


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"both be \[N\] with N >= 1"):
        expected_calibration_error(torch.rand(3), torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="must lie in .0, 1., got 0..2"):
        expected_calibration_error(torch.tensor([0.0, 2.0]), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        expected_calibration_error(torch.rand(3), torch.ones(3, dtype=torch.bool), 0)
