"""What HNC claims to change: how far the maps of wrong classes rise above their own mean, and where maps lie."""

import torch
from torch import Tensor

from ..data.batch import Batch, Splits
from ..maps import class_activation_map, gap_head
from .looking import Measurable, collect


def map_peaks(method: Measurable, splits: Splits, *, k: int = 3) -> dict[str, float]:
    """Peaks of positive and negative maps of a GAP network on the test split (single-label).

    ``positive_peak`` and ``negative_peak``: maximum minus mean of the label's map, and the mean of that over the k
    wrong classes with the largest logits, both in logits. ``peak_ratio`` is negative over positive, image by image
    (median): scaling all maps leaves it unchanged, so it tells flatter wrong maps from weaker maps.
    ``negative_std``: standard deviation over the cells of the k negative maps.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> method, splits = CrossEntropy(small_cnn(width=2)), Splits("toy", data, data, data, tuple("abcd"), "")
        >>> list(map_peaks(method, splits))
        ['positive_peak', 'negative_peak', 'peak_ratio', 'negative_std']
    """
    head = gap_head(method.net)

    def see(batch: Batch) -> tuple[Tensor, ...]:
        features, own = method.net.features(batch.images), batch.labels[:, None]
        logits = head(features.mean(dim=(2, 3))).scatter(1, own, -torch.inf)
        wrong = logits.topk(min(k, logits.shape[1] - 1), dim=1).indices
        maps = class_activation_map(features, head.weight, head.bias, torch.cat([own, wrong], dim=1))
        peaks = peak(maps)
        return peaks[:, 0], peaks[:, 1:].mean(dim=1), maps[:, 1:].std(dim=(2, 3), correction=0).mean(dim=1)

    p, n, s = collect(method, splits.test, see)
    return {
        "positive_peak": p.mean().item(),
        "negative_peak": n.mean().item(),
        "peak_ratio": (n / p.clamp_min(1e-12)).median().item(),
        "negative_std": s.mean().item(),
    }


def peak(maps: Tensor) -> Tensor:
    r"""``[..., h, w] -> [...]``: :math:`\max M - \bar M`, the quantity Proposition 1 of HNC bounds.

    Example:
        >>> peak(torch.tensor([[1.0, 5.0], [0.0, 2.0]]))
        tensor(3.)
    """
    return maps.amax(dim=(-2, -1)) - maps.mean(dim=(-2, -1))
