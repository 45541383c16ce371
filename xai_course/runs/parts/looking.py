"""What the first chapter's rows need: a network that learns nothing, accuracy where the background still tells."""

from collections.abc import Iterator

import torch

from ...data.batch import Batch, Splits
from ...measure.looking import share_right
from ...methods.base import CrossEntropy, Losses, Method
from ...preset import Clock


class Untrained(CrossEntropy):
    """Learns nothing: every gradient is zero, and no image reaches the BatchNorm statistics."""

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": 0.0 * torch.stack([parameter.sum() for parameter in self.parameters()]).sum()}


def accuracy_as_trained(method: Method, splits: Splits) -> dict[str, float]:
    """Accuracy on the validation split, whose backgrounds are those of training."""
    return {"accuracy_as_trained": share_right(method, splits.validation)}
