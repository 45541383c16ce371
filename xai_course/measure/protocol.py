"""What the bench measures of every method: one look at validation and test, then all scores of the maps.

Each threshold is chosen on the validation split for the score it serves: IoU, F1 and box accuracy have one each.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
from torch import Tensor

from ..data.batch import Splits, batches
from ..nets.modes import device_of, evaluating
from .faithfulness import deletion_auc, insertion_auc
from .localisation import (
    LEVELS,
    accuracy,
    box_accuracy,
    energy_in_mask,
    iou_at,
    look,
    pointing_game,
)
from .memory import saved_activations
from .sanity import untrained, weight_randomisation
from .segmentation import f1_background, f1_foreground
from .trivial import TRIVIAL

BOX_LEVELS = LEVELS[1::2]


def validation_accuracy(method, splits: Splits) -> dict[str, float]:
    """``validation_accuracy``, all that a choice may rest on; of yes/no decisions where images have several labels."""
    return {"validation_accuracy": accuracy(method, splits._replace(test=splits.validation))["accuracy"]}


def maps_and_masks(method, data) -> tuple[Tensor, Tensor, Tensor]:
    """Images, maps of the predicted classes and masks of a whole data set, ``[N, ...]`` on the CPU."""
    seen = list(look(method, data))
    return tuple(torch.cat([getattr(s, name) for s in seen]) for name in ("images", "maps", "masks"))


def scores(validation: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """``energy_in_mask``, ``pointing``, ``iou``, ``f1_plus``, ``f1_minus``, ``box_accuracy`` of (maps, masks) pairs.

    Args:
        validation: decides the thresholds. test: is scored.
    """
    maps, masks = test
    level = _best(lambda l: float(iou_at(*validation, l).nanmean()), LEVELS)
    cut = _best(lambda l: sum(_f1(*validation, l)), LEVELS)
    box = _best(lambda l: float(box_accuracy(validation[0], _boxes(validation[1]), [l])[0]), BOX_LEVELS)
    plus, minus = _f1(maps, masks, cut)
    return {
        "energy_in_mask": float(energy_in_mask(maps, masks).nanmean()),
        "pointing": float(pointing_game(maps, masks).nanmean()),
        "iou": float(iou_at(maps, masks, level).nanmean()),
        "f1_plus": plus,
        "f1_minus": minus,
        "box_accuracy": float(box_accuracy(maps, _boxes(masks), [box])[0]),
    }


def explanations(method, splits: Splits) -> dict[str, float]:
    """`scores` of the method's own maps of its predicted classes."""
    return scores(*(maps_and_masks(method, data)[1:] for data in (splits.validation, splits.test)))


def controls(method, splits: Splits, *, starts: int = 8) -> dict[str, float]:
    """`scores` of trivial maps, suffixes ``_whole``, ``_centre``, ``_gaussian``, ``_random`` and ``_edges``, and of
    the network without training: mean and standard deviation over ``starts`` initialisations, ``_untrained`` and
    ``_untrained_sd``. One of them would be no control: it may hold nearly nothing or half of its mass on the object.
    """
    halves = (splits.validation, splits.test)
    fresh = [[maps_and_masks(untrained(method, seed=k), data) for data in halves] for k in range(starts)]
    each = [scores(*(seen[1:] for seen in both)) for both in fresh]
    over = {score: [row[score] for row in each] for score in each[0]}
    found = {
        "untrained": {score: statistics.fmean(values) for score, values in over.items()},
        "untrained_sd": {score: statistics.stdev(values) for score, values in over.items()},
    }
    for name, trivial in TRIVIAL.items():
        found[name] = scores(*((trivial(images), masks) for images, _, masks in fresh[0]))
    return {f"{score}_{name}": value for name, row in found.items() for score, value in row.items()}


@torch.no_grad()
def perturbation(method, splits: Splits, *, images: int = 64, steps: int = 8) -> dict[str, float]:
    """``deletion`` and ``insertion``: areas under the predicted class's probability, pixels blurred, first test images.

    Beside them ``_random`` for a map of noise: only the distance to it says anything about the map.
    """
    batch = next(iter(batches(splits.test, images, device_of(method))))
    found: dict[str, float] = {}
    with evaluating(method):
        classes = method.logits(batch.images).argmax(1)

        def probability(changed: Tensor) -> Tensor:
            return method.logits(changed).softmax(1).gather(1, classes.unsqueeze(1))[:, 0]

        for suffix, maps in (
            ("", method.explain(batch.images, classes)),
            ("_random", TRIVIAL["random"](batch.images)),
        ):
            for name, area in (("deletion", deletion_auc), ("insertion", insertion_auc)):
                found[name + suffix] = float(area(probability, batch.images, maps, steps=steps, baseline="blur").mean())
    return found


def randomisation(method, splits: Splits, *, images: int = 64) -> dict[str, float]:
    """``randomised``: rank correlation of the maps with those of the same network, every layer re-initialised.

    Near 1 would mean that the maps do not show what was learnt (Adebayo et al. 2018).
    """
    batch = next(iter(batches(splits.test, images, device_of(method))))
    with evaluating(method), torch.no_grad():
        classes = method.logits(batch.images).argmax(1)
    return {"randomised": weight_randomisation(method, batch.images, classes)[-1]["rank_correlation"]}


def cost(method, splits: Splits, *, baseline, clock, images: int = 50, rounds: int = 7) -> dict[str, float]:
    """``time`` and ``memory`` of a training step as multiples of cross-entropy's on the bench's common network.

    Steps of both take turns in one process; time is processor time, median of the rounds, so that other programs on the
    machine do not enter. Memory is what the graphs hold for the backward pass at their peak (`saved_activations`).

    Args:
        baseline: called with the splits, gives the method that counts as 1.
        clock: where training stands: late enough for every ramp to be up and every late term to be on.
    """
    device = device_of(method)
    batch = next(iter(batches(splits.train, images, device)))
    pair = [copy.deepcopy(method).train(), baseline(splits).to(device).train()]
    spent: list[list[float]] = [[], []]
    for _ in range(rounds):
        for times, each in zip(spent, pair):
            start = time.process_time()
            _step(each, batch, clock)
            times.append(time.process_time() - start)
    held = []
    for each in pair:
        with saved_activations(each) as account:
            _step(each, batch, clock)
        held.append(account.peak)
    return {"time": statistics.median(spent[0]) / statistics.median(spent[1]), "memory": held[0] / held[1]}


def _step(method, batch, clock) -> None:
    method.zero_grad(set_to_none=True)
    for terms in method.losses(batch, clock):
        terms["total"].backward()


def _best(score, levels) -> float:
    return max(levels, key=score)  # the lowest one of equals


def _f1(maps: Tensor, masks: Tensor, level: float) -> tuple[float, float]:
    predicted = maps >= level * maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
    return float(f1_foreground(predicted, masks).mean()), float(f1_background(predicted, masks).mean())


def _boxes(masks: Tensor) -> Tensor:
    from ..data.boxes import masks_to_boxes

    return masks_to_boxes(masks)
