"""Does a confidence of 0.8 mean right in 80 of 100 cases? Expected calibration error."""

import torch
from torch import Tensor

from .._require import require
from ..data.batch import Batch, Splits
from .looking import Measurable, collect


def expected_calibration_error(confidence: Tensor, right: Tensor, bins: int = 15) -> float:
    r"""Mean gap between confidence and accuracy over equally wide bins (Naeini et al. 2015; Guo et al. 2017).

    .. math:: \sum_b \frac{n_b}{N} \bigl| \mathrm{accuracy}_b - \mathrm{confidence}_b \bigr|

    Args:
        confidence: ``[N]`` in [0, 1], probability of the predicted class.
        right: ``[N]`` bool, whether the prediction is right.
        bins: number of bins; bin b holds confidences in ``[b/bins, (b+1)/bins)``, the last one 1 as well.

    Returns:
        In [0, 1]. It depends on the number of bins and, with few images, is biased upwards: compare methods on the same
        images only.

    Raises:
        ValueError: shapes that differ, no image, a confidence outside [0, 1], or no bin.

    Example:
        >>> sure = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.9])
        >>> round(expected_calibration_error(sure, torch.tensor([True, True, True, False, False])), 4)
        0.3
    """
    fit = confidence.ndim == 1 and confidence.shape == right.shape and len(right)
    require(fit, "confidence and right must both be [N] with N >= 1", tuple(confidence.shape), tuple(right.shape))
    require(bins >= 1, "bins must be at least 1", bins)
    confidence, right = confidence.cpu(), right.cpu()
    low, high = confidence.min().item(), confidence.max().item()
    require(0 <= low <= high <= 1, f"confidence must lie in [0, 1], got {low:g}..{high:g}")
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:-1]
    place = torch.bucketize(confidence.contiguous(), edges, right=True)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, right.double() - confidence.double())
    return float(gap.abs().sum() / len(right))


def calibration(method: Measurable, splits: Splits) -> dict[str, float]:
    """``ece`` on the test split, ``confidence``: mean probability of the predicted class. Single-label data.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Bright(Measurable):
        ...     def logits(self, images):
        ...         return 100 * images.mean((2, 3))
        >>> data = ArrayData(torch.tensor([0.2, 0.9]).view(1, 2, 1, 1), torch.tensor([0]))
        >>> calibration(Bright(), Splits("toy", data, data, data, ("dark", "bright"), ""))
        {'ece': 1.0, 'confidence': 1.0}
    """

    def see(batch: Batch) -> tuple[Tensor, Tensor]:
        best = method.logits(batch.images).float().softmax(1).max(1)
        return best.values.clamp(max=1), best.indices == batch.labels

    sure, hits = collect(method, splits.test, see)
    return {"ece": expected_calibration_error(sure, hits), "confidence": float(sure.double().mean())}
