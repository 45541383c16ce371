"""Where does a network look? One network: trained with a telling or a silent background, on random labels, or not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..data.batch import Batch, Splits
from ..data.textured_digits import textured_digits
from ..measure.faithfulness import deletion
from ..measure.localising import energy_by_layer, localisation
from ..measure.looking import accuracy, share_right
from ..methods.base import CrossEntropy, Losses, Method
from ..nets.convnets import GapClassifier, small_cnn
from ..preset import Clock, Preset
from .experiment import Experiment

# Lighter digits than the default on calmer textures, so that both cues can be learnt in a minute on a CPU.
KNOBS = {"q": 1.0, "p_test": 1.0, "contrast": 0.4, "amplitude": 0.1}
LAYERS = tuple(f"body.{i}" for i in range(5))
PLAN = Preset(epochs=10, batch_size=64, lr=3e-3, schedule="one_cycle", clip_norm=1.0)
PRESETS = {"smoke": PLAN, "colab": PLAN, "paper": PLAN}


def small(splits: Splits) -> GapClassifier:
    """The small network of CPU labs."""
    return small_cnn(len(splits.classes))


def accuracy_as_trained(method: Method, splits: Splits) -> dict[str, float]:
    """Accuracy on the validation split, whose backgrounds are those of training."""
    return {"accuracy_as_trained": share_right(method, splits.validation)}


class Untrained(CrossEntropy):
    """Learns nothing: every gradient is zero, and no image reaches the BatchNorm statistics."""

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        yield {"total": 0.0 * sum(parameter.sum() for parameter in self.parameters())}


MEASURES = (accuracy_as_trained, accuracy, localisation, partial(energy_by_layer, layers=LAYERS), deletion)
SHOWN = ("accuracy_as_trained", "accuracy", "energy_in_mask", "pointing", "iou")


def row(name: str, title: str, knobs: dict, method=CrossEntropy, presets=PRESETS) -> Experiment:
    """One network of the chapter."""
    data = partial(textured_digits, **KNOBS, **knobs)
    return Experiment(f"looking/digits/{name}", title, data, small, method, presets, MEASURES, shown=SHOWN)


EXPERIMENTS = (
    row("telling", "Background tells the label (p = 0)", {"p": 0.0}),
    row("silent", "Background says nothing (p = 1)", {"p": 1.0}),
    row("shuffled", "Labels drawn at random (control)", {"p": 1.0, "label_noise": 1.0}),
    row(
        "untrained", "Not trained at all (control)", {"p": 1.0}, Untrained, dict.fromkeys(PRESETS, Preset(1, limit=64))
    ),
)
