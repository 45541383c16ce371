"""Does a network read the object or a shortcut beside it? Maps at several layers, and what the pixels say.

A class map inside the object does not prove that the object was read: features on the object see their surroundings
through their receptive field. The gradient of the logit with respect to the pixels has no such blind spot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.batch import Dataset, Splits, batches
from ..maps import enlarge, grad_cam, unit_mass
from ..nets.modes import device_of, evaluating
from .localisation import accuracy


def outside_shares(method, data: Dataset, layers: Sequence[str], size: int = 256) -> tuple[Tensor, Tensor, Tensor]:
    """Where the evidence for the true class lies, in eval mode.

    Args:
        method: with ``net``. data: single labels, with masks.
        layers: modules of ``method.net`` to explain by Grad-CAM.

    Returns:
        Mean share of the map outside the mask ``[L]`` over living maps; share of dead maps ``[L]``; mean share of the
        absolute pixel gradient of the logit outside the mask, scalar.
    """
    masses, gone, pixels = [], [], []
    device = device_of(method)
    with evaluating(method):
        for batch in batches(data, size, device):
            images = batch.images.clone().requires_grad_()
            maps, logits = grad_cam(method.net, images, batch.labels, layers, create_graph=True)
            (slope,) = torch.autograd.grad(logits.gather(1, batch.labels[:, None]).sum(), images)
            away = (~batch.masks).float()
            units = [unit_mass(enlarge(m.detach(), away.shape[1:])) for m in maps]
            masses.append(torch.stack([(u.maps * away).sum(dim=(1, 2)) for u in units], 1))
            gone.append(torch.stack([u.dead for u in units], 1))
            pixels.append((unit_mass(slope.abs().sum(1)).maps * away).sum(dim=(1, 2)))
    mass, dead = torch.cat(masses).double(), torch.cat(gone).double()
    return mass.sum(0) / (1 - dead).sum(0).clamp_min(1), dead.mean(0), torch.cat(pixels).double().mean()


def seen(method, splits: Splits, *, layers: Sequence[str]) -> dict[str, float]:
    """What the validation split, which follows training, says: all that a weight may be chosen by.

    Returns:
        ``accuracy_seen``; ``outside_seen`` and ``dead_seen``, the means over the layers.
    """
    mass, dead, _ = outside_shares(method, splits.validation, layers)
    right = accuracy(method, splits._replace(test=splits.validation))["accuracy"]
    return {"accuracy_seen": right, "outside_seen": float(mass.mean()), "dead_seen": float(dead.mean())}


def shortcut(method, splits: Splits, *, layers: Sequence[str]) -> dict[str, float]:
    """Accuracy with and without the shortcut, and where the evidence lies.

    Returns:
        ``accuracy`` on the test split, where (if the data say so) the shortcut is gone; ``outside_<layer>`` and
        ``dead_<layer>`` of the maps and ``outside_pixels`` of the pixel gradient, on the same split; and what `seen`
        returns.
    """
    mass, dead, pixels = outside_shares(method, splits.test, layers)
    result = accuracy(method, splits) | seen(method, splits, layers=layers)
    for name, m, d in zip(layers, mass.tolist(), dead.tolist()):
        result |= {f"outside_{name}": m, f"dead_{name}": d}
    return result | {"outside_pixels": float(pixels)}
