"""What the validation split decides: which of the values tried a row has."""

from collections.abc import Mapping

from . import records
from .catalogue import experiments


def choose(accuracies: Mapping[float, float], images: int, *, strongest: bool = True) -> float:
    """The bench's declared rule, on validation accuracy alone: among the values within one standard error of the best
    one, the strongest, so that a method is shown as strong as accuracy lets it be. Of learning rates, the smallest.

    Args:
        accuracies: validation accuracy of each value tried. images: size of the validation split.
    """
    best = max(accuracies.values())
    error = (best * (1 - best) / images) ** 0.5
    return (max if strongest else min)(value for value, reached in accuracies.items() if reached >= best - error)


def best_row(start: str, preset: str = "smoke") -> str:
    """The row with the highest mean validation accuracy of those whose name begins with ``start``.

    Raises:
        FileNotFoundError: a row was not run; ValueError: no such rows.
    """
    names = [name for name in experiments() if name.startswith(start)]
    if not names:
        raise ValueError(f"start must begin the names of declared rows, got {start!r}")
    return max(names, key=lambda name: records.load(name, preset).metrics["validation_accuracy"].mean)
