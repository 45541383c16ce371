"""Where does a network look? One network trained with a telling background, with a silent one, with shuffled labels."""

from __future__ import annotations

from functools import partial

from ..data.batch import Splits
from ..data.textured_digits import textured_digits
from ..measure.faithfulness import deletion
from ..measure.localisation import accuracy, energy_by_layer, localisation
from ..measure.sanity import untrained, untrained_control
from ..methods.base import CrossEntropy, Method
from ..nets.convnets import GapClassifier, small_cnn
from ..train import Preset
from .experiment import Experiment

# Lighter digits than the default on calmer textures, so that both cues can be learnt in a minute on a CPU.
KNOBS = {"q": 1.0, "p_test": 1.0, "contrast": 0.4, "amplitude": 0.1}
LAYERS = tuple(f"body.{i}" for i in range(5))
PLAN = Preset(epochs=10, batch_size=64, lr=3e-3, schedule="one_cycle", clip_norm=1.0)
PRESETS = {"smoke": PLAN, "colab": PLAN, "paper": PLAN}
ROWS = {
    "silent": ("Background says nothing (p = 1)", {"p": 1.0}),
    "telling": ("Background tells the label (p = 0)", {"p": 0.0}),
    "shuffled": ("Labels drawn at random (control)", {"p": 1.0, "label_noise": 1.0}),
}


def small(splits: Splits) -> GapClassifier:
    """The small network of CPU labs."""
    return small_cnn(len(splits.classes))


def accuracy_as_trained(method: Method, splits: Splits) -> dict[str, float]:
    """Accuracy on the validation split, whose backgrounds are those of training."""
    return {"accuracy_as_trained": accuracy(method, splits._replace(test=splits.validation))["accuracy"]}


def untrained_layers(method: Method, splits: Splits) -> dict[str, float]:
    """The energy by layer of the same architecture before training."""
    found = energy_by_layer(untrained(method), splits, LAYERS)
    return {f"{name}_untrained": value for name, value in found.items()}


MEASURES = (
    accuracy_as_trained,
    accuracy,
    localisation,
    untrained_control,
    partial(energy_by_layer, layers=LAYERS),
    untrained_layers,
    deletion,
)
EXPERIMENTS = tuple(
    Experiment(
        f"looking/digits/{row}",
        title,
        partial(textured_digits, **KNOBS, **knobs),
        small,
        CrossEntropy,
        PRESETS,
        MEASURES,
        shown=("accuracy_as_trained", "accuracy", "energy_in_mask", "pointing", "iou"),
    )
    for row, (title, knobs) in ROWS.items()
)
