"""Wrong labels on purpose: symmetric and asymmetric label noise, reproducible, with the corrupted places returned.

The protocol of HNC (Section 4.5): a fraction ``rate`` of the labels is changed before training; the test labels stay
clean. "Uniform among all categories" includes the true one, so that a rate r over n classes really changes r(1 - 1/n)
of the labels; the circular flip to the next class changes exactly r.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from .._require import require
from .batch import ArrayData, Splits, fingerprint
from .knobs import in_range


class Noisy(NamedTuple):
    """``labels``: the new ones, same shape and dtype. ``corrupted``: bool, True where the label changed.

    Example:
        >>> noisy = symmetric_noise(torch.zeros(1000, dtype=torch.int64), 0.4, classes=4)
        >>> torch.equal(noisy.corrupted, noisy.labels != 0)
        True
    """

    labels: Tensor
    corrupted: Tensor


def symmetric_noise(labels: Tensor, rate: float, classes: int, *, seed: int = 0) -> Noisy:
    """Replace each label with probability ``rate`` by one drawn uniformly from all classes.

    Args:
        labels: ``[N]`` int64 in [0, classes), or ``[N, K]`` float32 in {0, 1}: there each of the K entries is
            replaced, with probability ``rate``, by a fair coin.
        rate: probability in [0, 1] that a label is drawn anew.
        classes: number of classes n (K where labels are ``[N, K]``).
        seed: of a generator of its own; the draw for image i does not depend on how many follow.

    Raises:
        ValueError: a rate outside [0, 1], labels of another shape, dtype or range.

    Example:
        >>> noisy = symmetric_noise(torch.arange(10000) % 4, 0.4, classes=4)  # changes 0.4 (1 - 1/4) of them
        >>> round(noisy.corrupted.float().mean().item(), 2)
        0.3
    """
    in_range(0, 1, rate=rate)
    _check_labels(labels, classes)
    coins = _draws(len(labels), 2 * (labels.shape[1] if labels.ndim == 2 else 1), seed).view(*labels.shape, 2)
    hit = coins[..., 0] < rate
    flipped = (coins[..., 1] < 0.5).to(labels.dtype) if labels.ndim == 2 else (coins[..., 1] * classes).long()
    noisy = torch.where(hit, flipped, labels)
    changed = noisy != labels
    return Noisy(noisy, changed.any(dim=1) if labels.ndim == 2 else changed)


def asymmetric_noise(labels: Tensor, rate: float, classes: int, *, seed: int = 0) -> Noisy:
    """Flip each label with probability ``rate`` to the next class, ``c -> (c + 1) mod classes`` (HNC, Section 4.5).

    Args:
        labels: ``[N]`` int64 in [0, classes).
        rate: probability in [0, 1] of a flip.
        seed: as in :func:`symmetric_noise`; the same images are hit for the same seed.

    Raises:
        ValueError: a rate outside [0, 1], labels of another shape, dtype or range.

    Example:
        >>> asymmetric_noise(torch.tensor([0, 1, 2]), 1.0, classes=3).labels.tolist()
        [1, 2, 0]
    """
    in_range(0, 1, rate=rate)
    require(labels.ndim == 1, "labels must be [N] int64 (a flip needs one class per image)", tuple(labels.shape))
    _check_labels(labels, classes)
    hit = _draws(len(labels), 2, seed)[:, 0] < rate
    noisy = torch.where(hit, (labels + 1) % classes, labels)
    return Noisy(noisy, noisy != labels)


def with_label_noise(splits: Splits, rate: float, *, kind: str = "symmetric", seed: int = 0) -> Splits:
    """The same splits with noisy training and validation labels; the test labels stay clean.

    Validation is noisy too because in practice it is held out of the same labelled data. Both get the attribute
    ``corrupted`` (``[N]`` bool, True where the label changed); the given splits are not touched.

    Args:
        splits: their train and validation must be :class:`ArrayData`.
        rate, seed: as in :func:`symmetric_noise` and :func:`asymmetric_noise`.
        kind: "symmetric" or "asymmetric".

    Raises:
        ValueError: another kind, a rate outside [0, 1], data not held in memory.

    Example:
        >>> one = ArrayData(torch.zeros(6, 1, 8, 8), torch.arange(6) % 2)
        >>> noisy = with_label_noise(Splits("Toys", one, one, one, ("a", "b"), "0"), 1.0, kind="asymmetric")
        >>> noisy.train.labels.tolist(), noisy.test.labels.tolist()
        ([1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1])
    """
    changes = {"symmetric": symmetric_noise, "asymmetric": asymmetric_noise}
    require(kind in changes, 'kind must be "symmetric" or "asymmetric"', repr(kind))
    sets = []
    for split, data in enumerate((splits.train, splits.validation)):
        if not isinstance(data, ArrayData):
            raise ValueError(f"splits must hold ArrayData to change its labels, got {type(data).__name__}")
        data, draw = copy.copy(data), 2 * seed + split
        data.labels, data.corrupted = changes[kind](data.labels, rate, len(splits.classes), seed=draw)
        sets.append(data)
    identity = fingerprint(splits.fingerprint, "label noise", kind, float(rate), None, seed)  # None: as in the records
    return splits._replace(train=sets[0], validation=sets[1], fingerprint=identity)


def _draws(count: int, columns: int, seed: int) -> Tensor:
    """``[count, columns]`` uniforms in [0, 1); row i is the same for every count."""
    generator = torch.Generator().manual_seed(seed)
    chunk = 4096  # the generator may choose another algorithm for another size: always draw whole chunks
    parts = [torch.rand(chunk, columns, generator=generator, dtype=torch.float64) for _ in range(0, count, chunk)]
    return torch.cat([*parts, torch.empty(0, columns, dtype=torch.float64)])[:count]


def _check_labels(labels: Tensor, classes: int) -> None:
    if labels.ndim == 2:
        if labels.shape[1] != classes or ((labels != 0) & (labels != 1)).any():
            raise ValueError(f"labels must be [N, {classes}] in {{0, 1}}, got {tuple(labels.shape)} {labels.dtype}")
    elif labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(f"labels must be [N] int64 or [N, K] float32, got {tuple(labels.shape)} {labels.dtype}")
    elif len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise ValueError(f"labels must be in [0, {classes}), got {int(labels.min())} .. {int(labels.max())}")
