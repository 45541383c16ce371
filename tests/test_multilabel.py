"""mAP and precision / recall / F1 against scikit-learn, torchmetrics and hand-made cases."""

from __future__ import annotations

import pytest
import torch

from xai_course.data.batch import ArrayData, Splits
from xai_course.measure import multilabel as M
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import small_cnn


def random_problem(seed: int, ties: bool):
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(60, 7, generator=g, dtype=torch.float64)
    targets = (torch.rand(60, 7, generator=g) < 0.3).float()
    return (scores * 2).round() / 2 if ties else scores, targets


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_map_is_scikit_learns(seed, ties):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, targets = random_problem(seed, ties)
    expected = metrics.average_precision_score(targets.numpy(), scores.numpy(), average=None)
    torch.testing.assert_close(M.average_precision(scores, targets), torch.from_numpy(expected), rtol=0, atol=1e-12)
    assert M.mean_average_precision(scores, targets) == pytest.approx(expected.mean(), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_precision_recall_f1_are_scikit_learns(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, targets = random_problem(seed, False)
    found = M.precision_recall_f1(scores > 0.8, targets)
    for average, prefix in (("macro", "C"), ("micro", "O")):
        expected = metrics.precision_recall_fscore_support(targets, scores > 0.8, average=average, zero_division=0)
        for name, value in zip(("P", "R", "F1"), expected):
            assert found[prefix + name] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_ties_absent_classes_and_classes_never_called(seed):
    """Against the definitions, class by class, in loops."""
    scores, targets = random_problem(seed, ties=True)
    targets[:, 2] = 0
    scores[:, 4] = -5.0
    found, precisions, recalls = M.average_precision(scores, targets), [], []
    for k in range(7):
        s, t = scores[:, k].tolist(), targets[:, k].tolist()
        area = last = 0.0
        for level in sorted(set(s), reverse=True):
            called = [b for a, b in zip(s, t) if a >= level]
            recall = sum(called) / max(1.0, sum(t))
            area, last = area + (recall - last) * sum(called) / len(called), recall
        assert found[k].isnan() if k == 2 else found[k].item() == pytest.approx(area, abs=1e-12)
        hits = sum(b for a, b in zip(s, t) if a > 0.8)
        precisions.append(hits / max(1, sum(a > 0.8 for a in s)))
        recalls.append(hits / max(1.0, sum(t)))
    got = M.precision_recall_f1(scores > 0.8, targets)
    f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precisions, recalls)]
    for name, values in (("CP", precisions), ("CR", recalls), ("CF1", f1)):
        assert got[name] == pytest.approx(sum(values) / 7, abs=1e-12)
    p, r = got["CP"], got["CR"]
    assert got["CF1_of_means"] == pytest.approx(2 * p * r / (p + r), abs=1e-12)
    one = M.precision_recall_f1(scores[:, :1] > 0.8, targets[:, :1])
    assert one["CP"] == one["OP"] == pytest.approx(precisions[0], abs=1e-12)


def test_map_is_torchmetrics():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    scores, targets = random_problem(5, False)
    expected = classification.multilabel_average_precision(scores.sigmoid(), targets.long(), 7, average="macro")
    assert M.mean_average_precision(scores, targets) == pytest.approx(float(expected), abs=1e-6)


def test_by_hand():
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    targets = torch.tensor([[1.0], [0], [1], [0]])
    assert M.average_precision(scores, targets).tolist() == pytest.approx([(1 + 2 / 3) / 2])
    assert M.mean_average_precision(torch.ones(4, 1), targets) == 0.5  # a constant score: the share of positives


def test_class_f1_is_the_mean_of_f1_not_the_f1_of_means():
    predicted = torch.tensor([[1, 1], [0, 1], [0, 1], [0, 1]])
    targets = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 0]])
    found = M.precision_recall_f1(predicted, targets)
    assert found["CP"] == found["CR"] == found["CF1_of_means"] == 0.625
    assert found["CF1"] == pytest.approx(0.4)


def test_empty_classes_do_not_make_nan():
    targets = torch.tensor([[1.0, 0], [0, 0]])
    assert M.mean_average_precision(torch.randn(2, 2), targets) <= 1
    assert all(v == v for v in M.precision_recall_f1(torch.zeros(2, 2), targets).values())


def test_of_a_method():
    g = torch.Generator().manual_seed(0)
    data = ArrayData(torch.rand(9, 1, 8, 8, generator=g), (torch.rand(9, 3, generator=g) > 0.5).float())
    found = M.multilabel_scores(
        CrossEntropy(small_cnn(3, channels=1, width=2, seed=0)), Splits("x", *[data] * 3, (), "")
    )
    assert set(found) == {"mAP", "CP", "CR", "CF1", "CF1_of_means", "OP", "OR", "OF1"}
    assert all(0 <= v <= 1 for v in found.values())


def test_scores_that_are_not_numbers_are_refused():
    scores = torch.full((3, 2), torch.nan)
    for measure in (M.average_precision, M.mean_average_precision, M.precision_recall_f1):
        with pytest.raises(ValueError, match="NaN or infinity in 6 places"):
            measure(scores, torch.ones(3, 2))


@pytest.mark.parametrize("shapes", [((3, 2), (3, 3)), ((3,), (3,)), ((0, 2), (0, 2))])
def test_bad_shapes(shapes):
    for measure in (M.average_precision, M.precision_recall_f1):
        with pytest.raises(ValueError, match="must be"):
            measure(*(torch.zeros(s) for s in shapes))
