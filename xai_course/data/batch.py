"""The one thing that crosses a floor: a batch of images that come with the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Images with what they show and where.

    Attributes:
        images: ``[B, C, H, W]`` float32.
        labels: ``[B]`` int64 (one class each) or ``[B, K]`` float32 in {0, 1} (multi-label).
        masks: ``[B, H, W]`` bool, True on the object; None where a data set has none.
        index: ``[B]`` int64, the position in the data set.
        cued: ``[B]`` bool, True where a known shortcut agrees with the label; None where the data set knows of none.

    Example:
        >>> batch = Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), None, torch.arange(2))
        >>> batch.to("cpu").images.shape, batch.masks is None
        (torch.Size([2, 3, 8, 8]), True)
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None
    index: Tensor  # type: ignore[assignment]  # a tuple's own method of that name is never needed here
    cued: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device (no copy where it is there already)."""
        moved = (None if part is None else part.to(device, non_blocking=True) for part in self)
        return Batch(*moved)  # type: ignore[arg-type]


class Dataset(Protocol):
    """What every data set offers: its length, and a whole batch for a list of positions (one vectorised call)."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> Batch: ...


class Splits(NamedTuple):
    """Disjoint train, validation and test sets of one task. ``fingerprint`` hashes everything that decides them.

    Example:
        >>> one = ArrayData(torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64))
        >>> splits = Splits("Nothing", one, one, one, ("black",), "0")
        >>> [len(part) for part in (splits.train, splits.validation, splits.test)]
        [4, 4, 4]
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    classes: tuple[str, ...]
    fingerprint: str


class ArrayData:
    """A data set held in memory, on the CPU or on the accelerator.

    Args:
        images: ``[N, C, H, W]`` uint8 (scaled by 1/255 on the way out) or float32.
        labels: ``[N]`` int64 or ``[N, K]`` float32.
        masks: ``[N, H, W]`` bool or None.

    Raises:
        ValueError: the three do not agree in length, or an argument has another rank or dtype.

    Example:
        >>> data = ArrayData(torch.full((5, 1, 8, 8), 51, dtype=torch.uint8), torch.arange(5))
        >>> batch = data.__getitems__([3, 1])
        >>> batch.labels.tolist(), round(batch.images.max().item(), 3)
        ([3, 1], 0.2)
    """

    corrupted: Tensor  # [N] bool, only where `with_label_noise` changed labels

    def __init__(self, images: Tensor, labels: Tensor, masks: Tensor | None = None):
        if images.ndim != 4 or images.dtype not in (torch.uint8, torch.float32):
            raise ValueError(f"images must be [N, C, H, W] uint8 or float32, got {tuple(images.shape)} {images.dtype}")
        single = labels.ndim == 1 and labels.dtype == torch.int64
        multi = labels.ndim == 2 and labels.dtype == torch.float32
        if len(labels) != len(images) or not (single or multi):
            found = f"{tuple(labels.shape)} {labels.dtype}"
            raise ValueError(f"labels must be [N] int64 or [N, K] float32 with N={len(images)}, got {found}")
        if masks is not None and (masks.shape != images[:, 0].shape or masks.dtype != torch.bool):
            raise ValueError(f"masks must be {tuple(images[:, 0].shape)} bool, got {tuple(masks.shape)} {masks.dtype}")
        self.images, self.labels, self.masks = images, labels, masks

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        at = torch.as_tensor(indices, dtype=torch.int64)
        pinned = self.images.is_cuda and not at.is_cuda  # a copy from pageable memory would wait for the device
        at = (at.pin_memory() if pinned else at).to(self.images.device, non_blocking=pinned)
        images = self.images[at]
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        return Batch(images, self.labels[at], None if self.masks is None else self.masks[at], at)

    def to(self, device: torch.device | str) -> ArrayData:
        """Everything moved to ``device``, so that training needs no copies from the host."""
        masks = None if self.masks is None else self.masks.to(device)
        return ArrayData(self.images.to(device), self.labels.to(device), masks)


def batches(data: Dataset, size: int = 256, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """The whole data set in order, in batches of ``size``; the last may be smaller.

    Example:
        >>> data = ArrayData(torch.rand(5, 1, 8, 8), torch.arange(5))
        >>> [batch.labels.tolist() for batch in batches(data, 2)]
        [[0, 1], [2, 3], [4]]
    """
    for start in range(0, len(data), size):
        yield data.__getitems__(range(start, min(start + size, len(data)))).to(device)


def positive_rate(data: Dataset, size: int = 1024) -> Tensor:
    """The share ``[K]`` of images of a multi-label data set that show each class.

    Example:
        >>> labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> positive_rate(ArrayData(torch.zeros(2, 1, 4, 4), labels))
        tensor([1.0000, 0.5000])
    """
    return torch.cat([batch.labels for batch in batches(data, size)]).mean(dim=0)


def fingerprint(*parts: object) -> str:
    """Sixteen hex digits that change when any part does; tensors and bytes by content, the rest by ``repr``.

    Example:
        >>> fingerprint("digits", torch.arange(3)), fingerprint("digits", torch.arange(4))
        ('878d7949bac367a0', 'd4f38b0b6a385425')
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().cpu().contiguous().numpy().tobytes()
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
