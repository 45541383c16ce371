"""What the bench's rows need: other images in the shape of its own, shuffled labels, what costs are multiples of."""

from typing import Any, cast

import torch.nn.functional as F

from ...data.batch import ArrayData, Splits
from ...data.folders import in_memory
from ...data.textured_mnist import textured_mnist
from ...data.vision import fashion_mnist
from ...measure.sanity import shuffled_labels
from ...methods.base import CrossEntropy
from ...nets.convnets import small_cnn
from .common import digits, each_part


def shuffled_digits(preset: str = "smoke", *, seed: int = 0, **knobs: Any) -> Splits:
    """`digits` whose training labels are permuted: nothing can be learnt but the images by heart."""
    splits = digits(preset, seed=seed, **knobs)
    train = shuffled_labels(cast(ArrayData, splits.train), seed)
    return splits._replace(train=train, fingerprint=f"{splits.fingerprint} shuffled")


def clothes(preset: str = "smoke", *, seed: int = 0) -> Splits:
    """Fashion-MNIST in the shape of Textured Digits: a rim of two black pixels, the grey channel three times."""
    splits = fashion_mnist(preset, seed=seed, limit=(2000, 1000, 2000) if preset == "smoke" else None)

    def rimmed(data: ArrayData) -> ArrayData:
        return ArrayData(F.pad(data.images, (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous(), data.labels)

    return each_part(splits, rimmed, f"{splits.fingerprint} 3x32x32")


def textures(preset: str = "smoke", *, seed: int = 0) -> Splits:
    """MNIST's digits on photographs of textures: the background tells the label in training only."""
    return in_memory(textured_mnist(preset, seed=seed, canvas=32, zoom=0.3))


def reference(splits: Splits) -> CrossEntropy:
    """What the bench's costs are multiples of."""
    return CrossEntropy(small_cnn(len(splits.classes), width=8))
