r"""How well a map agrees with where the object is: energy, pointing game, IoU, pixel average precision, boxes.

Maps are ``[B, H, W]``, masks ``[B, H, W]`` bool. Every function scores image by image, float64; an image whose mask is
empty has no answer and scores NaN, which the measures below leave out and count. Negative values of a map are no
evidence for the class and are cut; NaN and infinity are refused (ValueError). No score means anything alone:
`localisation` gives trivial maps' beside each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batch import Dataset, Splits, batches
from ..maps import enlarge, grad_cam, normalise
from ..nets.modes import device_of, evaluating
from .trivial import TRIVIAL

LEVELS = tuple(i / 20 for i in range(1, 20))  # thresholds on a map divided by its maximum


def energy_in_mask(maps: Tensor, masks: Tensor) -> Tensor:
    r"""Share of the map's mass inside the mask (energy-based pointing game; Wang et al. 2020), ``[B]`` in [0, 1].

    .. math:: \frac{\sum_{ij} M_{ij}\, m_{ij}}{\sum_{ij} M_{ij}}

    A map without mass has none inside and scores 0; `dead` finds it. A map that ignores the image scores, on average,
    the mask's share of the area.
    """
    maps, masks = _pair(maps, masks)
    total = maps.sum(1)
    share = (maps * masks).sum(1) / torch.where(total > 0, total, torch.ones_like(total))
    return _only_where(masks, share)


def dead(maps: Tensor) -> Tensor:
    """Maps without a positive value, ``[B]`` bool: they explain nothing."""
    return ~(maps > 0).flatten(1).any(1)


def pointing_game(maps: Tensor, masks: Tensor, tolerance: float = 0.0) -> Tensor:
    """Whether the map's maximum lies on the object (Zhang et al. 2018), ``[B]`` in [0, 1].

    Args:
        tolerance: a hit may miss the mask by this many pixels (Euclidean; the paper: 15 on full-size photographs).

    Several equal maxima count by their share inside, the expectation of a random choice: a constant map gets no luck.
    """
    _pair(maps, masks)
    near = _grown(masks, tolerance) if tolerance else masks
    flat, inside = _pair(maps, near)
    top = flat == flat.amax(1, keepdim=True)
    return _only_where(masks.flatten(1), (top & inside).sum(1).double() / top.sum(1))


def iou(predicted: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of two masks ``[B, H, W]`` bool, ``[B]`` in [0, 1]."""
    if predicted.dtype != torch.bool:
        raise ValueError(f"predicted must be bool: threshold the maps first, got {predicted.dtype}")
    chosen, masks = _pair(predicted, masks)
    chosen = chosen.bool()
    both, either = (chosen & masks).sum(1).double(), (chosen | masks).sum(1)
    return _only_where(masks, both / either.clamp_min(1))


def iou_at(maps: Tensor, masks: Tensor, level: float) -> Tensor:
    """`iou` of the cells with at least ``level`` in (0, 1] of the map's maximum."""
    return iou(_thresholded(maps, level), masks)


def pixel_average_precision(maps: Tensor, masks: Tensor) -> float:
    """Average precision of all pixels of all images together (PxAP; Choe et al. 2020), in [0, 1].

    Each map is divided by its maximum first. Equal to scikit-learn's ``average_precision_score`` of the flat arrays.
    NaN where no pixel is on an object.
    """
    _pair(maps, masks)
    scores, order = normalise(maps.double().clamp_min(0)).flatten().sort(descending=True)
    hits = masks.flatten()[order].double().cumsum(0)
    last = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])  # ties enter together
    hits, seen = hits[last], (torch.arange(len(scores), device=scores.device) + 1.0).double()[last]
    recall = hits / hits[-1]
    return float(((hits / seen) * recall.diff(prepend=recall.new_zeros(1))).sum())


def boxes_of(maps: Tensor, level: float) -> Tensor:
    """Box of the largest connected part above ``level`` of the maximum, ``[B, 4]`` int64 x0, y0, x1, y1, half-open.

    Diagonal neighbours are connected, as in Choe et al.'s evaluation. A dead map gives ``0, 0, 0, 0``.
    """
    import numpy as np
    from scipy.ndimage import label

    boxes = torch.zeros(len(maps), 4, dtype=torch.int64)
    for box, mask in zip(boxes, _thresholded(maps, level).cpu().numpy()):
        parts, count = label(mask, structure=np.ones((3, 3)))
        if count:
            rows, columns = np.nonzero(parts == 1 + np.bincount(parts.ravel())[1:].argmax())
            box[:] = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return boxes


def box_accuracy(maps: Tensor, boxes: Tensor, levels: Sequence[float] = LEVELS, overlap: float = 0.5) -> Tensor:
    """Share of images whose box reaches an IoU of ``overlap`` with the true one, at each level: ``[len(levels)]``.

    Its maximum over the levels is MaxBoxAcc; MaxBoxAccV2 averages that over overlaps 0.3, 0.5, 0.7 (Choe et al. 2020).
    A maximum taken on the test set is an upper bound: choose the level on the validation split.

    Args:
        boxes: ``[B, 4]`` true boxes, half-open; empty ones are left out.
    """
    if boxes.shape != (len(maps), 4):
        raise ValueError(f"boxes must be [B, 4] with B={len(maps)}, got {tuple(boxes.shape)}")
    true = boxes.double().cpu()
    kept = (true[:, 2:] > true[:, :2]).all(1)
    return torch.stack([(_overlaps(boxes_of(maps, l).double(), true)[kept] >= overlap).double().mean() for l in levels])


# ---- measures of a trained method ------------------------------------------------------------------------------


class Looked(NamedTuple):
    """A batch after the network has looked: ``logits [B, K]``, ``maps [B, H, W]``, all on the CPU."""

    images: Tensor
    labels: Tensor
    masks: Tensor | None
    logits: Tensor
    maps: Tensor


def look(method, data: Dataset, *, classes: str = "predicted", size: int = 256) -> Iterator[Looked]:
    """Logits and maps of a whole data set, batch by batch, in eval mode, on the method's own device.

    Args:
        classes: explain the "predicted" class, or the "label" (the first one of several).
    """
    if classes not in ("predicted", "label"):
        raise ValueError(f'classes must be "predicted" or "label", got {classes!r}')
    device = device_of(method)
    with evaluating(method), torch.no_grad():
        for batch in batches(data, size, device):
            logits = method.logits(batch.images)
            labels = batch.labels if batch.labels.ndim == 1 else batch.labels.argmax(1)
            maps = method.explain(batch.images, logits.argmax(1) if classes == "predicted" else labels)
            masks = None if batch.masks is None else batch.masks.cpu()
            yield Looked(batch.images.cpu(), batch.labels.cpu(), masks, logits.float().cpu(), maps.float().cpu())


def accuracy(method, splits: Splits) -> dict[str, float]:
    """``accuracy`` on the test split: of the highest logit, or, with several labels, of all yes/no decisions at 0."""
    right = []
    device = device_of(method)
    with evaluating(method), torch.no_grad():
        for batch in batches(splits.test, 256, device):
            logits = method.logits(batch.images)
            if batch.labels.ndim == 1:
                right.append(logits.argmax(1) == batch.labels)
            else:
                right.append(((logits > 0) == (batch.labels > 0.5)).double().mean(1))
    return {"accuracy": float(torch.cat(right).double().mean())}


def localisation(method, splits: Splits, *, classes: str = "predicted") -> dict[str, float]:
    """``energy_in_mask``, ``pointing`` and ``iou`` on the test split, and each with the suffix of a trivial map.

    The suffixes are ``_whole``, ``_centre``, ``_gaussian``, ``_random`` and ``_edges``. The threshold of the IoU is the
    best one on the validation split, for the trivial maps too. Further: ``iou_level`` (that threshold), ``dead_maps``
    (share of test maps without positive value) and ``images_with_mask`` (how many test images had an object to find;
    the others are left out). Without masks only the last two are given.
    """
    levels = best_levels(method, splits.validation, classes=classes)
    scores: dict[str, list[Tensor]] = {"dead_maps": [], "images_with_mask": []}
    for seen in look(method, splits.test, classes=classes):
        scores["dead_maps"].append(dead(seen.maps).double())
        if seen.masks is None or not levels:
            continue
        scores["images_with_mask"].append(seen.masks.flatten(1).any(1).double())
        for suffix, maps in _with_trivial(seen):
            values = energy_in_mask, pointing_game, lambda m, t, s=suffix: iou_at(m, t, levels[s])
            for name, value in zip(("energy_in_mask", "pointing", "iou"), values):
                scores.setdefault(name + suffix, []).append(value(maps, seen.masks))
    found = scores.pop("images_with_mask")
    result = {name: float(torch.cat(values).nanmean()) for name, values in scores.items()}
    result["images_with_mask"] = float(torch.cat(found).sum()) if found else 0.0
    return result | ({"iou_level": levels[""]} if levels else {})


def energy_by_layer(method, splits: Splits, layers: Sequence[str]) -> dict[str, float]:
    """Energy in the mask of the predicted class's Grad-CAM maps at image size: ``energy_<layer>`` for each layer.

    Args:
        layers: names in ``method.net`` as `maps.grad_cam` takes them.
    """
    device = device_of(method)
    shares: dict[str, list[Tensor]] = {f"energy_{layer}": [] for layer in layers}
    with evaluating(method), torch.no_grad():
        for batch in batches(splits.test, 256, device):
            if batch.masks is None:
                continue
            classes = method.logits(batch.images).argmax(1)
            for values, maps in zip(shares.values(), grad_cam(method.net, batch.images, classes, layers).maps):
                values.append(energy_in_mask(enlarge(maps, batch.images.shape[-2:]), batch.masks))
    return {name: float(torch.cat(values).nanmean()) for name, values in shares.items() if values}


def best_levels(
    method, data: Dataset, *, classes: str = "predicted", levels: Sequence[float] = LEVELS
) -> dict[str, float]:
    """Level of the highest mean IoU on ``data``: for the method's map (key "") and each trivial one ("_centre")."""
    totals: dict[str, Tensor] = {}
    for seen in look(method, data, classes=classes):
        if seen.masks is None:
            continue
        for suffix, maps in _with_trivial(seen):
            here = torch.stack([iou_at(maps, seen.masks, level).nansum() for level in levels])
            totals[suffix] = totals.get(suffix, 0) + here
    return {suffix: float(levels[int(total.argmax())]) for suffix, total in totals.items()}


# ---- small parts -----------------------------------------------------------------------------------------------


def _with_trivial(seen: Looked) -> Iterator[tuple[str, Tensor]]:
    yield "", seen.maps
    for name, trivial in TRIVIAL.items():
        yield f"_{name}", trivial(seen.images)


def _pair(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Flat maps in float64 without negative values, flat masks."""
    if maps.ndim != 3 or maps.shape != masks.shape or masks.dtype != torch.bool:
        raise ValueError(
            f"maps and masks must both be [B, H, W], masks bool, got {tuple(maps.shape)} and {tuple(masks.shape)} "
            f"{masks.dtype}"
        )
    return _finite(maps).flatten(1).double().clamp_min(0), masks.flatten(1)


def _finite(maps: Tensor) -> Tensor:
    if not maps.isfinite().all():  # a NaN would score like any other cell
        bad = int((~maps.isfinite().flatten(1).all(1)).sum())
        raise ValueError(f"maps must be finite, got NaN or infinity in {bad} of {len(maps)}")
    return maps


def _only_where(masks: Tensor, scores: Tensor) -> Tensor:
    return torch.where(masks.any(1), scores, torch.nan)


def _thresholded(maps: Tensor, level: float) -> Tensor:
    if not 0 < level <= 1:
        raise ValueError(f"level must lie in (0, 1], got {level}")
    return (normalise(_finite(maps).double()) >= level) & (maps > 0)


def _grown(masks: Tensor, radius: float) -> Tensor:
    """Masks widened by a disc of this radius in pixels."""
    reach = int(radius)
    offset = torch.arange(-reach, reach + 1, device=masks.device)
    disc = (offset[:, None].square() + offset.square() <= radius**2).double()
    return F.conv2d(masks.unsqueeze(1).double(), disc[None, None], padding=reach)[:, 0] > 0.5


def _overlaps(boxes: Tensor, true: Tensor) -> Tensor:
    """IoU of box i with true box i."""
    sides = (torch.minimum(boxes[:, 2:], true[:, 2:]) - torch.maximum(boxes[:, :2], true[:, :2])).clamp_min(0)
    both = sides.prod(1)
    either = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (true[:, 2:] - true[:, :2]).prod(1) - both
    return both / either.clamp_min(1)
