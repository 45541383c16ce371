"""Multi-label measures of HNC's Table 4: mAP, and precision, recall, F1 per class (C) and overall (O)."""

import statistics

import torch
from torch import Tensor

from .._require import require
from ..data.batch import Splits
from .looking import Measurable, collect


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    r"""Average precision of each class, :math:`\sum_t (R_t - R_{t-1}) P_t` over the distinct thresholds.

    Args:
        scores: ``[N, K]``; larger means present. Equal scores count as one threshold, so their order does not matter.
        targets: ``[N, K]`` in {0, 1}.

    Returns:
        ``[K]`` float64 in [0, 1]; NaN for a class without a positive image.

    Raises:
        ValueError: shapes that differ, no image, scores that are not finite.

    Example:
        >>> average_precision(torch.tensor([[0.9], [0.8], [0.7]]), torch.tensor([[1], [0], [1]]))
        tensor([0.8333], dtype=torch.float64)
    """
    from sklearn.metrics import average_precision_score

    _check(scores, targets)
    columns = zip(scores.T.cpu().numpy(), targets.T.cpu().numpy())
    found = [average_precision_score(t, s) if t.any() else float("nan") for s, t in columns]
    return torch.tensor(found, dtype=torch.float64)


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Mean of `average_precision` over the classes that occur.

    Example:
        >>> mean_average_precision(torch.ones(4, 1), torch.tensor([[1], [0], [1], [0]]))
        0.5
    """
    return average_precision(scores, targets).nanmean().item()


def precision_recall_f1(predicted: Tensor, targets: Tensor) -> dict[str, float]:
    """``CP CR CF1``: means over classes; ``OP OR OF1``: all decisions together. Inputs ``[N, K]`` bool or {0, 1}.

    CF1 is the mean of the per-class F1, as Table 4 prints it; ``CF1_of_means`` is the other convention, 2 CP CR /
    (CP + CR). A ratio 0 / 0 counts as 0: a class never predicted has precision 0.

    Example:
        >>> found = precision_recall_f1(torch.tensor([[1, 0], [1, 1]]), torch.tensor([[1, 0], [0, 1]]))
        >>> found["CP"], found["OP"]
        (0.75, 0.6666666666666666)
    """
    _check(predicted, targets)
    each = zip(*(_scores(called, real) for called, real in zip(predicted.T, targets.T)))
    precision, recall, f1 = (statistics.fmean(values) for values in each)
    means = {"CP": precision, "CR": recall, "CF1": f1, "CF1_of_means": statistics.harmonic_mean([precision, recall])}
    return means | dict(zip(("OP", "OR", "OF1"), _scores(predicted, targets)))


def _scores(called: Tensor, real: Tensor) -> tuple[float, ...]:
    """Precision, recall and F1 of yes/no decisions."""
    from sklearn.metrics import precision_recall_fscore_support

    flags = (decisions.cpu().bool().flatten().numpy() for decisions in (real, called))
    found = precision_recall_fscore_support(*flags, average="binary", zero_division=0.0)
    return tuple(float(value) for value in found[:3])


def multilabel_scores(method: Measurable, splits: Splits) -> dict[str, float]:
    """`mean_average_precision` and `precision_recall_f1` at probability 0.5 (logit 0) on the test split.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Bright(Measurable):
        ...     def logits(self, images):
        ...         return images.mean((2, 3)) - 0.5
        >>> data = ArrayData(torch.tensor([0.2, 0.9]).view(1, 2, 1, 1), torch.tensor([[0.0, 1.0]]))
        >>> found = multilabel_scores(Bright(), Splits("toy", data, data, data, ("a", "b"), ""))
        >>> found["mAP"], found["OF1"]
        (1.0, 1.0)
    """
    logits, targets = collect(method, splits.test, lambda b: (method.logits(b.images).float(), b.labels))
    return {"mAP": mean_average_precision(logits, targets), **precision_recall_f1(logits > 0, targets)}


def _check(values: Tensor, targets: Tensor) -> None:
    fit = values.ndim == 2 and values.shape == targets.shape and len(values)
    require(fit, "both arguments must be [N, K] with N >= 1", tuple(values.shape), tuple(targets.shape))
    strange = int((~values.isfinite()).sum())  # sorting would put NaN first, as the surest
    require(not strange, f"scores must be finite, got NaN or infinity in {strange} places")
