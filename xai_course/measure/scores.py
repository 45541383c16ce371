r"""How well a map agrees with where the object is: energy, pointing game, IoU, F1, pixel average precision, boxes.

Maps are ``[B, H, W]``, masks ``[B, H, W]`` bool. Functions score image by image, in float64 and on the CPU (not every
accelerator has float64); an image whose mask is empty has no answer and scores NaN, but for F1, where "nothing" is an
answer. Negative values of a map are no evidence for the class and are cut; NaN and infinity are refused (ValueError).
No score means anything alone: `localising.localisation` gives trivial maps' beside each.

F1+ alone proves nothing: a mask that covers every pixel reaches a mean of :math:`2a/(1+a)` for objects of area share a,
with F1- = 0.
"""

import torch
from torch import Tensor

from .._require import require
from ..data.boxes import box_iou, masks_to_boxes
from ..maps import normalise

#: The thresholds tried: shares of a map's peak (relative cut) or values of the map (absolute cut).
LEVELS = tuple(i / 20 for i in range(1, 20))

CUTS = ("relative", "absolute")


def energy_in_mask(maps: Tensor, masks: Tensor) -> Tensor:
    r"""Share of the map's mass inside the mask (energy-based pointing game; Wang et al. 2020), ``[B]`` in [0, 1].

    .. math:: \frac{\sum_{ij} M_{ij}\, m_{ij}}{\sum_{ij} M_{ij}}

    A map without mass has none inside and scores 0; `dead` finds it. A map that ignores the image scores, on average,
    the mask's share of the area.

    Example:
        >>> mask = torch.tensor([[[True, False], [False, True]]])
        >>> energy_in_mask(torch.tensor([[[4.0, 1.0], [3.0, 0.0]]]), mask)
        tensor([0.5000], dtype=torch.float64)
    """
    maps, masks = _flat(maps, masks)
    total = maps.sum(1)
    share = (maps * masks).sum(1) / torch.where(total > 0, total, torch.ones_like(total))
    return _only_where(masks, share)


def dead(maps: Tensor) -> Tensor:
    """Maps without a positive value, ``[B]`` bool: they explain nothing.

    Example:
        >>> dead(torch.tensor([[[0.0, 2.0]], [[0.0, -1.0]]]))
        tensor([False,  True])
    """
    return ~(maps > 0).flatten(1).any(1)


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether the map's maximum lies on the object (Zhang et al. 2018), ``[B]`` in [0, 1].

    No tolerance: the paper lets a hit miss the object by 15 pixels on full-size photographs.
    Several equal maxima count by their share inside, the expectation of a random choice: a constant map gets no luck.

    Example:
        >>> mask = torch.tensor([[[True, False, False]]])
        >>> maps = torch.tensor([[[0.0, 1.0, 0.5]]])
        >>> pointing_game(maps, mask).item(), pointing_game(maps, ~mask).item()
        (0.0, 1.0)
    """
    flat, inside = _flat(maps, masks)
    top = flat == flat.amax(1, keepdim=True)
    return _only_where(inside, (top & inside).sum(1).double() / top.sum(1))


def thresholded(maps: Tensor, level: float, cut: str = "relative") -> Tensor:
    """Maps ``[B, H, W]`` to bool masks, True where a value reaches the level; zero is never "evidence" when relative.

    Args:
        level: for a relative cut in (0, 1], a share of the map's own maximum (Zhou et al. 2016); for an absolute one in
            [0, 1], a value of the map (Min-Max entropy, Sec. 4: 0.5).

    Raises:
        ValueError: the level lies outside, the cut is unknown, or a relative cut of maps that are not finite.

    Example:
        >>> maps = torch.tensor([[[0.1, 0.3, 0.4]]])
        >>> thresholded(maps, 0.5), thresholded(maps, 0.5, "absolute")
        (tensor([[[False,  True,  True]]]), tensor([[[False, False, False]]]))
    """
    require(cut in CUTS, f"cut must be one of {', '.join(CUTS)}", repr(cut))
    allowed = 0 < level <= 1 or (level == 0 and cut == "absolute")
    require(allowed, f"level must lie in {'(0' if cut == 'relative' else '[0'}, 1]", level)
    if cut == "absolute":
        return maps >= level
    return (normalise(_exact(maps)) >= level).to(maps.device) & (maps > 0)


def iou(predicted: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of two masks ``[B, H, W]`` bool, ``[B]`` in [0, 1].

    Example:
        >>> predicted, mask = torch.tensor([[[True, True, False]]]), torch.tensor([[[False, True, True]]])
        >>> iou(predicted, mask)
        tensor([0.3333], dtype=torch.float64)
    """
    predicted, masks = _masks(predicted, masks)
    both, either = (predicted & masks).sum(1).double(), (predicted | masks).sum(1)
    return _only_where(masks, both / either.clamp_min(1))


def f1_foreground(predicted: Tensor, masks: Tensor) -> Tensor:
    r"""F1+ of each image, :math:`2|P \cap T| / (|P| + |T|)` (the Dice index), ``[B]`` in [0, 1].

    Both masks empty is a perfect answer and scores 1 (the official code divides 0 by 0 there).

    Args:
        predicted, masks: ``[B, H, W]`` bool.

    Raises:
        ValueError: the two differ in shape, or are not bool.

    Example:
        >>> predicted, mask = torch.tensor([[[True, True, False]]]), torch.tensor([[[False, True, True]]])
        >>> f1_foreground(predicted, mask), f1_background(predicted, mask)
        (tensor([0.5000], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    predicted, masks = _masks(predicted, masks)
    both = (predicted & masks).sum(1).double()
    sizes = predicted.sum(1).double() + masks.sum(1)
    return torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), torch.ones_like(both))


def f1_background(predicted: Tensor, masks: Tensor) -> Tensor:
    """F1- of each image: `f1_foreground` of the two complements. ``[B]`` in [0, 1].

    Example:
        >>> nothing, mask = torch.zeros(1, 1, 3, dtype=torch.bool), torch.tensor([[[False, False, True]]])
        >>> f1_background(nothing, mask).item()
        0.8
    """
    return f1_foreground(~predicted, ~masks)


def f1_pooled(predicted: Tensor, masks: Tensor) -> tuple[float, float]:
    """F1+ and F1- with the pixels of all images counted together: large objects weigh more than small ones.

    Example:
        >>> masks = torch.tensor([[[True, True, True, True]], [[True, False, False, False]]])
        >>> everything = torch.ones_like(masks)
        >>> round(f1_pooled(everything, masks)[0], 3), f1_foreground(everything, masks).mean().item()
        (0.769, 0.7)
    """
    together = (predicted.reshape(1, 1, -1), masks.reshape(1, 1, -1))
    return float(f1_foreground(*together)), float(f1_background(*together))


def pixel_average_precision(maps: Tensor, masks: Tensor) -> float:
    """Average precision of all pixels of all images together (PxAP; Choe et al. 2020), in [0, 1].

    Each map is divided by its maximum first. NaN where no pixel is on an object.

    Example:
        >>> pixel_average_precision(torch.tensor([[[0.9, 0.6, 0.3]]]), torch.tensor([[[True, False, True]]]))
        0.8333333333333333
    """
    from sklearn.metrics import average_precision_score

    flat, inside = _flat(maps, masks)
    scores = normalise(flat.view(maps.shape)).flatten()
    return float(average_precision_score(inside.flatten().numpy(), scores.numpy())) if inside.any() else float("nan")


def boxes_of(predicted: Tensor) -> Tensor:
    """Box of the largest connected part of each mask, ``[B, 4]`` int64 x0, y0, x1, y1, half-open; zeros if empty.

    Diagonal neighbours are connected, as in Choe et al.'s evaluation.

    Example:
        >>> boxes_of(torch.tensor([[[True, False, True], [False, False, True]]]))
        tensor([[2, 0, 3, 2]])
    """
    import numpy as np
    from scipy.ndimage import label

    boxes = torch.zeros(len(predicted), 4, dtype=torch.int64)
    for box, mask in zip(boxes, predicted.cpu().numpy()):
        parts, count = label(mask, structure=np.ones((3, 3)))
        if count:
            rows, columns = np.nonzero(parts == 1 + np.bincount(parts.ravel())[1:].argmax())
            box[:] = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return boxes


def box_accuracy(predicted: Tensor, masks: Tensor, overlap: float = 0.5) -> Tensor:
    """Whether the predicted part's box reaches an IoU of ``overlap`` with the true mask's, ``[B]`` in {0, 1}.

    Its mean, maximised over the threshold, is MaxBoxAcc; MaxBoxAccV2 averages that over overlaps 0.3, 0.5, 0.7 (Choe et
    al. 2020). A maximum taken on the test set is an upper bound: choose the level on the validation split.

    Example:
        >>> predicted, mask = torch.tensor([[[True, True, False]]]), torch.tensor([[[True, False, False]]])
        >>> box_accuracy(predicted, mask).item(), box_accuracy(predicted, mask, overlap=0.6).item()
        (1.0, 0.0)
    """
    _, true = _masks(predicted, masks)
    agreed = box_iou(boxes_of(predicted), masks_to_boxes(masks.cpu())).diagonal()
    return _only_where(true, (agreed >= overlap).double())


def _exact(maps: Tensor) -> Tensor:
    """The maps in float64, on the CPU; a NaN would score like any other cell."""
    maps = maps.cpu()
    strange = int((~maps.isfinite().flatten(1).all(1)).sum())
    require(not strange, f"maps must be finite, got NaN or infinity in {strange} of {len(maps)}")
    return maps.double()


def _flat(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Flat maps in float64 without negative values, flat masks."""
    fit = maps.ndim == 3 and maps.shape == masks.shape and masks.dtype == torch.bool
    require(fit, "maps and masks must both be [B, H, W], masks bool", tuple(maps.shape), masks)
    return _exact(maps).flatten(1).clamp_min(0), masks.cpu().flatten(1)


def _masks(predicted: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Two flat masks."""
    fit = predicted.shape == masks.shape and predicted.ndim == 3
    require(fit, "predicted and true masks must both be [B, H, W]", tuple(predicted.shape), tuple(masks.shape))
    flags = predicted.dtype == masks.dtype == torch.bool
    require(flags, "masks must be bool: threshold the maps first", predicted.dtype, masks.dtype)
    return predicted.cpu().flatten(1), masks.cpu().flatten(1)


def _only_where(masks: Tensor, scores: Tensor) -> Tensor:
    return torch.where(masks.any(1), scores, torch.nan)
