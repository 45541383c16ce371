"""Draw the picture of the landing page: the same images, two networks, two maps. Writes book/_static/cover.png.

Trained for half a minute on one CPU thread; committed, because a landing page should not wait for training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tools import ROOT
from xai_course.data.batch import Batch, Splits, batches
from xai_course.data.textured_digits import textured_digits
from xai_course.maps import grad_cam
from xai_course.methods.base import CrossEntropy, predict
from xai_course.nets.convnets import small_cnn
from xai_course.preset import Preset
from xai_course.show import looking
from xai_course.show.style import image_grid
from xai_course.train import fit

SHOWN = 5
PRESET = Preset(epochs=7, batch_size=64, lr=3e-3, schedule="one_cycle", clip_norm=1.0)
KNOBS = {"q": 1.0, "contrast": 0.4, "amplitude": 0.1, "train": 1500}


def trained(data: Splits) -> CrossEntropy:
    """The course's small network after plain cross-entropy training."""
    method = CrossEntropy(small_cnn(seed=0))
    fit(method, data.train, PRESET, seed=0)
    return method.eval()


def accuracy(method: CrossEntropy, data: Splits) -> float:
    logits, labels = predict(method, data.test)
    return (logits.argmax(1) == labels).float().mean().item()


def maps_of(method: CrossEntropy, batch: Batch) -> Tensor:
    """Grad-CAM of each image's own class at the last layer but one, ``[B, H, W]`` in [0, 1]."""
    own = grad_cam(method.net, batch.images, batch.labels, ["body.3"]).maps[0]
    return looking.enlarged(own, batch.images.shape[-2:])


def typical(maps: list[Tensor], batch: Batch, right: Tensor) -> list[int]:
    """Images whose difference in energy on the digit is nearest the median: not the most flattering ones."""
    first, second = [(m * batch.masks).sum((1, 2)) / m.sum((1, 2)).clamp_min(1e-12) for m in maps]
    difference = second - first
    return ((difference - difference[right].median()).abs() + 10 * ~right).argsort()[:SHOWN].tolist()


def main() -> None:
    telling, silent = textured_digits(p=0.0, **KNOBS), textured_digits(p=1.0, **KNOBS)
    methods = [trained(telling), trained(silent)]
    batch = next(iter(batches(telling.test, 256)))
    maps = [maps_of(method, batch) for method in methods]
    with torch.no_grad():
        right = torch.stack([method.logits(batch.images).argmax(1) == batch.labels for method in methods]).all(0)
    chosen = typical(maps, batch, right)
    labels = ["image"]
    for method, what in zip(methods, ("told the label", "told nothing"), strict=True):
        own, other = accuracy(method, telling), accuracy(method, silent)
        labels.append(f"background {what}\nwhile training\n{own:.0%} right on these\n{other:.0%} on new backgrounds")
    rows = [[values[i] for i in chosen] for values in (batch.images, *maps)]
    figure = image_grid(rows, labels=labels, size=1.2)
    figure.savefig(ROOT / "book" / "_static" / "cover.png", dpi=130)
    print(labels, f"both right: {right.float().mean():.3f}")


if __name__ == "__main__":
    main()
