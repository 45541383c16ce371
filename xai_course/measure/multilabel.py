"""Multi-label measures of HNC's Table 4: mAP, and precision, recall, F1 per class (C) and overall (O)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batch import Splits, batches
from ..nets.modes import device_of, evaluating


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    r"""Average precision of each class, :math:`\sum_t (R_t - R_{t-1}) P_t` over the distinct thresholds.

    Args:
        scores: ``[N, K]``; larger means present. Equal scores count as one threshold, so their order does not matter.
        targets: ``[N, K]`` in {0, 1}.

    Returns:
        ``[K]`` float64 in [0, 1]; NaN for a class without a positive image.
    """
    _check(scores, targets)
    return torch.stack([_one_class(s.double(), t.double()) for s, t in zip(scores.T, targets.T)])


def _one_class(scores: Tensor, targets: Tensor) -> Tensor:
    if not targets.any():
        return scores.new_tensor(torch.nan)
    scores, order = scores.sort(descending=True)
    last = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])  # end of each tie
    hits = targets[order].cumsum(0)[last]
    seen = torch.arange(1, len(scores) + 1, dtype=scores.dtype, device=scores.device)[last]
    gained = torch.diff(hits, prepend=hits.new_zeros(1))
    return (gained / hits[-1] * hits / seen).sum()


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Mean of `average_precision` over the classes that occur."""
    return average_precision(scores, targets).nanmean().item()


def precision_recall_f1(predicted: Tensor, targets: Tensor) -> dict[str, float]:
    """``CP CR CF1``: means over classes; ``OP OR OF1``: all decisions together. Inputs ``[N, K]`` bool or {0, 1}.

    CF1 is the mean of the per-class F1, as Table 4 prints it; ``CF1_of_means`` is the other convention, 2 CP CR /
    (CP + CR). A ratio 0 / 0 counts as 0: a class never predicted has precision 0.
    """
    _check(predicted, targets)
    predicted, targets = predicted.bool(), targets.bool()
    hits, called, real = ((m.sum(dim=0).double()) for m in (predicted & targets, predicted, targets))
    precision, recall = _ratio(hits, called), _ratio(hits, real)
    overall = [_ratio(hits.sum(), total.sum()) for total in (called, real)]
    found = {
        "CP": precision.mean(),
        "CR": recall.mean(),
        "CF1": _f1(precision, recall).mean(),
        "CF1_of_means": _f1(precision.mean(), recall.mean()),
        "OP": overall[0],
        "OR": overall[1],
        "OF1": _f1(*overall),
    }
    return {name: value.item() for name, value in found.items()}


def multilabel_scores(method, splits: Splits) -> dict[str, float]:
    """`mean_average_precision` and `precision_recall_f1` at probability 0.5 (logit 0) on the test split."""
    parts = batches(splits.test, device=device_of(method))
    with evaluating(method), torch.no_grad():
        logits, targets = (torch.cat(t) for t in zip(*((method.logits(b.images).float(), b.labels) for b in parts)))
    return {"mAP": mean_average_precision(logits, targets), **precision_recall_f1(logits > 0, targets)}


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return a / b.clamp_min(1)


def _f1(precision: Tensor, recall: Tensor) -> Tensor:
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total.clamp_min(1e-300), 0.0)


def _check(values: Tensor, targets: Tensor) -> None:
    if values.ndim != 2 or values.shape != targets.shape or not len(values):
        raise ValueError(
            f"both arguments must be [N, K] with N >= 1, got {tuple(values.shape)} and {tuple(targets.shape)}"
        )
    if not values.isfinite().all():  # sorting would put NaN first, as the surest
        raise ValueError(f"scores must be finite, got NaN or infinity in {int((~values.isfinite()).sum())} places")
