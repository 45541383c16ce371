"""Boxes and masks: from one to the other, and how well two boxes agree.

A box is ``x0, y0, x1, y1`` in pixels, half-open: ``x1 - x0`` is its width, and ``mask[y0:y1, x0:x1]`` its inside.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._require import require


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Smallest box around each mask's True pixels.

    Args:
        masks: ``[N, H, W]`` bool.

    Returns:
        ``[N, 4]`` int64; an empty mask gives ``0, 0, 0, 0``. (torchvision's function gives inclusive corners and fails
        on an empty mask.)

    Raises:
        ValueError: masks of another rank or dtype.

    Example:
        >>> mask = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> mask[0, 2:5, 1:7] = True
        >>> masks_to_boxes(mask).tolist()
        [[1, 2, 7, 5]]
    """
    if masks.ndim != 3 or masks.dtype != torch.bool:
        raise ValueError(f"masks must be [N, H, W] bool, got {tuple(masks.shape)} {masks.dtype}")
    corners = []
    for along in (masks.any(dim=1), masks.any(dim=2)):  # columns, rows that hold a True pixel
        n, length = along.shape
        place = torch.arange(length, device=masks.device).expand(n, length)
        first = torch.where(along, place, length).amin(1) if length else along.new_zeros(n, dtype=torch.int64)
        last = torch.where(along, place, -1).amax(1) + 1 if length else first
        corners += [torch.where(last > 0, first, 0), last]
    x0, x1, y0, y1 = corners
    return torch.stack([x0, y0, x1, y1], dim=1)


def boxes_to_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """Filled rectangles.

    Args:
        boxes: ``[N, 4]`` int or float, x0, y0, x1, y1; parts outside the image are cut off. A pixel is inside where its
            centre is, which for integer boxes is exactly ``mask[y0:y1, x0:x1]``.
        height, width: of the masks, in pixels.

    Returns:
        ``[N, height, width]`` bool.

    Raises:
        ValueError: boxes of another shape, or x1 < x0 or y1 < y0.

    Example:
        >>> boxes_to_masks(torch.tensor([[1, 0, 3, 2]]), height=2, width=4).int().tolist()
        [[[0, 1, 1, 0], [0, 1, 1, 0]]]
    """
    _check_boxes(boxes, "boxes")
    x0, y0, x1, y1 = boxes.double().unbind(1)
    rows = torch.arange(height, device=boxes.device) + 0.5
    columns = torch.arange(width, device=boxes.device) + 0.5
    inside_rows = (rows >= y0[:, None]) & (rows < y1[:, None])
    inside_columns = (columns >= x0[:, None]) & (columns < x1[:, None])
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every pair; two empty boxes give 0, never NaN.

    Args:
        boxes, others: ``[N, 4]`` and ``[M, 4]``, half-open pixels.

    Returns:
        ``[N, M]`` float32 in [0, 1].

    Raises:
        ValueError: another shape, or x1 < x0 or y1 < y0.

    Example:
        >>> box_iou(torch.tensor([[0, 0, 2, 2]]), torch.tensor([[1, 0, 3, 2], [5, 5, 5, 5]])).tolist()
        [[0.3333333432674408, 0.0]]
    """
    from torchvision.ops import box_iou as pairwise_iou

    _check_boxes(boxes, "boxes")
    _check_boxes(others, "others")
    return pairwise_iou(boxes.float(), others.float()).nan_to_num(0.0)


def _check_boxes(boxes: Tensor, name: str) -> None:
    require(boxes.ndim == 2 and boxes.shape[1] == 4, f"{name} must be [N, 4] (x0, y0, x1, y1)", tuple(boxes.shape))
    wrong = (boxes[:, 2:] < boxes[:, :2]).any(dim=1)
    if wrong.any():
        raise ValueError(f"{name} must have x1 >= x0 and y1 >= y0, got {boxes[wrong][0].tolist()}")
