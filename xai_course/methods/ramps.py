r"""Gaussian ramps of AMC-Loss (Sec. 3.2), in the form of Laine and Aila: how a weight, a learning rate and Adam's
:math:`\beta_1` change over the epochs. Pure functions of the epoch, counted from 0."""

from __future__ import annotations

from math import exp


def gaussian_ramp_up(epoch: float, length: float = 80) -> float:
    r"""Weight :math:`w(t) = \exp[-5\,(1 - t/T)^2]` for :math:`t < T`, else 1 (AMC-Loss, Sec. 3.2, :math:`T = 80`).

    Args:
        epoch: :math:`t \ge 0`; fractions of an epoch are allowed.
        length: :math:`T \ge 0`, epochs until the weight is 1; 0 means no ramp.

    Returns:
        In (0, 1]; :math:`w(0) = e^{-5} \approx 0.0067`.

    Raises:
        ValueError: a negative ``epoch`` or ``length``.
    """
    _not_negative(epoch=epoch, length=length)
    return 1.0 if epoch >= length else exp(-5 * (1 - epoch / length) ** 2)


def gaussian_ramp_down(epoch: float, epochs: int = 300, length: float = 50) -> float:
    r"""Factor :math:`r(t) = \exp[-12.5\,(1 - (E-t)/T)^2]` in the last :math:`T` epochs, else 1 (AMC-Loss, Sec. 3.2).

    The official code writes the same curve as :math:`\exp[-((t-(E-T))/T)^2 \cdot 12.5]`.

    Args:
        epoch: :math:`t` in ``[0, epochs]``.
        epochs: :math:`E`, epochs in all.
        length: :math:`T \ge 0`, epochs over which the factor falls; 0 means no ramp.

    Returns:
        In (0, 1]; :math:`e^{-12.5/4} \approx 0.044` half-way down, close to 0 in the last epoch.

    Raises:
        ValueError: a negative ``epoch`` or ``length``, or ``epoch`` beyond ``epochs``.
    """
    _not_negative(epoch=epoch, length=length)
    if epoch > epochs:
        raise ValueError(f"epoch must not exceed epochs={epochs}, got {epoch}")
    if length == 0 or epoch < epochs - length:
        return 1.0
    return exp(-12.5 * (1 - (epochs - epoch) / length) ** 2)


def learning_rate(epoch: float, *, peak: float = 0.003, epochs: int = 300, up: float = 80, down: float = 50) -> float:
    r"""Adam's step size :math:`\mathrm{lr}(t) = 0.003\, w(t)\, r(t)` (AMC-Loss, Sec. 3.2)."""
    return peak * gaussian_ramp_up(epoch, up) * gaussian_ramp_down(epoch, epochs, down)


def adam_beta1(epoch: float, *, start: float = 0.9, end: float = 0.5, epochs: int = 300, down: float = 50) -> float:
    r"""Adam's momentum :math:`\beta_1(t) = 0.9\,r(t) + 0.5\,(1 - r(t))` (AMC-Loss, Sec. 3.2)."""
    falling = gaussian_ramp_down(epoch, epochs, down)
    return start * falling + end * (1 - falling)


def _not_negative(**arguments: float) -> None:
    for name, value in arguments.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
