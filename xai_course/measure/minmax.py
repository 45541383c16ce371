"""What localiser and classifier of Min-Max entropy answer, and what recursive erasing finds (Belharbi et al. 2019)."""

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch, Dataset, Splits, batches
from ..nets.modes import device_of, evaluating
from ..nets.role_norm import frozen_statistics
from .looking import collect, masks_of
from .scores import f1_background, f1_foreground, thresholded


def conditional_entropy(logits: Tensor) -> Tensor:
    r"""Eq. 2 and 4: :math:`H(Y|X) = -\sum_y \hat p(y) \log \hat p(y)` of each row, ``[B, c] -> [B]`` in [0, log c].

    For looking, not for training: its gradient dies where the classifier is confidently wrong (see
    `methods.minmax.undecided_loss`).

    Example:
        >>> conditional_entropy(torch.tensor([[0.0, 0.0], [9.0, 0.0]]))  # log 2, and nearly sure
        tensor([0.6931, 0.0012])
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


class TwoVoices(nn.Module):
    """What these measures ask of a method, as `methods.minmax.MinMax` has it: a localiser M and a classifier C.

    Example:
        >>> TwoVoices().judge(torch.zeros(1, 3, 2, 2))
        Traceback (most recent call last):
        TypeError: TwoVoices must define judge(images, role)
    """

    def split(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """M's logits ``[B, c]`` on images in [0, 1], and their parts inside and outside of M's mask."""
        raise TypeError(f"{type(self).__name__} must define split(images)")

    def judge(self, images: Tensor, role: int = 1) -> Tensor:
        """C's logits ``[B, c]`` on one part: ``role`` 1 inside, 2 outside."""
        raise TypeError(f"{type(self).__name__} must define judge(images, role)")

    def mine(self, images: Tensor, labels: Tensor, rule: str, depth: int) -> Iterator[tuple[Tensor, Tensor]]:
        """M's mask ``[B, 1, H, W]`` and its trust ``[B]`` at each step of erasing."""
        raise TypeError(f"{type(self).__name__} must define mine(images, labels, rule, depth)")


ANSWERS = ("localiser", "inside", "outside", "mixed", "outside_gap")


def answers(method: TwoVoices, splits: Splits, *, size: int = 256) -> dict[str, float]:
    """What M and C say of the test images, as shares: the means behind "sure inside, undecided outside".

    Returns:
        ``localiser``, ``inside``, ``outside``: accuracy of M on X, of C on X+ and on X- (chance is the aim there).
        ``outside_gap``: log c minus C's mean entropy on X-, as a share of log c. ``mixed``: accuracy of C on X+ with
        the statistics of the batch instead of the running ones (what BatchNorm loses in evaluation).

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Left(TwoVoices):  # both name the brighter channel; M shows C the left half
        ...     def split(self, images):
        ...         left = torch.tensor([1.0, 0.0]).expand_as(images)
        ...         return images.sum((2, 3)), images * left, images * (1 - left)
        ...     def judge(self, images, role=1):
        ...         return images.sum((2, 3))
        >>> images = torch.eye(2).view(2, 2, 1, 1) * torch.tensor([5.0, 0.0])  # nothing on the right
        >>> data = ArrayData(images, torch.tensor([0, 1]))
        >>> answers(Left(), Splits("toy", data, data, data, ("a", "b"), ""))
        {'localiser': 1.0, 'inside': 1.0, 'outside': 0.5, 'mixed': 1.0, 'outside_gap': 0.0}
    """

    def see(batch: Batch) -> list[Tensor]:
        method.eval()
        own, inside, outside = method.split(batch.images)
        logits = [own, method.judge(inside), method.judge(outside, 2)]
        gap = 1 - conditional_entropy(logits[-1]) / math.log(own.shape[1])
        method.train()
        logits.append(method.judge(inside))
        return [*((each.argmax(1) == batch.labels).float() for each in logits), gap]

    with frozen_statistics(method):
        found = collect(method, splits.test, see, size=size)
    return {name: float(values.mean()) for name, values in zip(ANSWERS, found)}


@torch.no_grad()
def mined(
    method: TwoVoices, data: Dataset, rule: str = "paper", depth: int = 4, *, size: int = 256
) -> dict[str, float]:
    """What erasing a trained localiser would add: it is told the labels, so this diagnoses, it does not predict.

    Args:
        method: put to eval mode and back, module by module.
        data: with masks.
        rule, depth: of `methods.erasing.Erasing`, independent of those that trained.

    Returns:
        Shares. ``accepted_t``: images trusted at step t. ``f1_plus_t``, ``f1_minus_t``: of the union of the trusted
        masks up to step t, thresholded at 0.5; t = 0 counts whether trusted or not.

    Raises:
        ValueError: the data set has no masks.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Left(TwoVoices):  # finds the left half and trusts it
        ...     def mine(self, images, labels, rule, depth):
        ...         yield torch.tensor([[[[1.0, 0.0]]]]), torch.ones(1)
        >>> data = ArrayData(torch.zeros(1, 3, 1, 2), torch.tensor([0]), torch.tensor([[[True, False]]]))
        >>> mined(Left(), data, depth=0)
        {'accepted_0': 1.0, 'f1_plus_0': 1.0, 'f1_minus_0': 1.0}
    """
    sums: dict[str, float] = defaultdict(float)
    with evaluating(method):
        for batch in batches(data, size, device_of(method)):
            masks = masks_of(batch)
            union = torch.zeros_like(masks)
            steps = method.mine(batch.images, batch.labels, rule, depth)
            for t in range(depth + 1):
                mask, trust = next(steps, (None, None))
                if mask is not None and trust is not None:  # else the recursion ended early: nothing more is found
                    union = union | (thresholded(mask[:, 0], 0.5, "absolute") & ((trust > 0) | (t == 0)).view(-1, 1, 1))
                sums[f"accepted_{t}"] += 0 if trust is None else int((trust > 0).sum())
                sums[f"f1_plus_{t}"] += float(f1_foreground(union, masks).sum())
                sums[f"f1_minus_{t}"] += float(f1_background(union, masks).sum())
    return {name: total / len(data) for name, total in sums.items()}


def mining(method: TwoVoices, splits: Splits) -> dict[str, float]:
    """`mined` on the test split for every rule of trust, four steps deep, as one flat dictionary.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Right(TwoVoices):  # never trusts what it finds
        ...     def mine(self, images, labels, rule, depth):
        ...         yield torch.tensor([[[[0.0, 1.0]]]]), torch.zeros(1)
        >>> data = ArrayData(torch.zeros(1, 3, 1, 2), torch.tensor([0]), torch.tensor([[[True, True]]]))
        >>> found = mining(Right(), Splits("toy", data, data, data, ("a", "b"), ""))
        >>> found["paper_accepted_4"], round(found["paper_f1_plus_4"], 3)
        (0.0, 0.667)
    """
    found: dict[str, float] = {}
    for rule in ("paper", "label", "none"):
        steps = mined(method, splits.test, rule)
        found |= {f"{rule}_accepted_{t}": steps[f"accepted_{t}"] for t in (0, 1, 4)}
        found |= {f"{rule}_{name}_{t}": steps[f"{name}_{t}"] for name in ("f1_plus", "f1_minus") for t in (0, 4)}
    return found
