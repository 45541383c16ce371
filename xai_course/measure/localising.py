"""Where a trained method's maps lie, by all scores at once, at thresholds that the validation split chose.

One implementation for every chapter: `localisation` in the looking, AMC and HNC labs, `segmentation` with Min-Max
entropy's columns, `protocol.explanations` and `protocol.controls` in the bench are uses of `judged`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from .._require import require
from ..data.batch import Batch, Dataset, Splits
from ..maps import enlarge, grad_cam
from . import scores as score_by
from .looking import Measurable, collect, look, masks_of
from .scores import LEVELS, dead, energy_in_mask, f1_background, f1_foreground, thresholded
from .trivial import trivial_maps

Score = Callable[[Tensor, Tensor], Tensor]
#: Batches of (maps ``[B, H, W]`` by the suffix that their scores carry, masks ``[B, H, W]`` bool).
Pairs = Iterable[tuple[dict[str, Tensor], Tensor]]

#: Scores that need no threshold.
FREE: dict[str, Score] = {"energy_in_mask": energy_in_mask, "pointing": score_by.pointing_game}

#: Scores of thresholded maps; each has a level of its own, the best one for the sum of its functions.
AT_A_LEVEL: dict[str, tuple[Score, ...]] = {
    "iou": (score_by.iou,),
    "f1": (f1_foreground, f1_background),
    "box_accuracy": (score_by.box_accuracy,),
}

#: By the kind of cut: what a score's functions are called, and then its level. Two definitions never share a name.
NAMES = {
    "relative": {
        "iou": ("iou", "iou_level"),
        "f1": ("f1_plus_relative", "f1_minus_relative", "f1_level"),
        "box_accuracy": ("box_accuracy", "box_level"),
    },
    "absolute": {
        "iou": ("iou_absolute", "iou_absolute_level"),
        "f1": ("chosen_plus", "chosen_minus", "chosen_level"),
        "box_accuracy": ("box_accuracy_absolute", "box_absolute_level"),
    },
}

SCORES = (*FREE, *AT_A_LEVEL)


def judged(
    validation: Pairs,
    test: Pairs,
    scores: Sequence[str] = SCORES,
    cut: str = "relative",
    levels: Sequence[float] = LEVELS,
) -> dict[str, float]:
    """Scores of maps on the test split, thresholds from the validation split: mean over the images with an object.

    Args:
        validation: decides the level of every thresholded score (the lowest of equals). test: is scored.
        scores: of `SCORES`. cut: of the threshold, see `scores.thresholded`. levels: those tried.

    Returns:
        One entry for each score and each suffix of the maps (`NAMES`); the levels of the maps without a suffix.
        Nothing where there are no masks.

    Raises:
        ValueError: an unknown score or cut.

    Example:
        >>> mask = torch.tensor([[[True, False, False, False]]])
        >>> pair = ({"": torch.tensor([[[0.75, 0.25, 0.0, 0.0]]]), "_whole": torch.ones(1, 1, 4)}, mask)
        >>> judged([pair], [pair], ("energy_in_mask", "iou"))
        {'energy_in_mask': 0.75, 'iou': 1.0, 'energy_in_mask_whole': 0.25, 'iou_whole': 0.25, 'iou_level': 0.35}
    """
    known = cut in NAMES and set(scores) <= set(SCORES)
    require(known, f"scores must be of {', '.join(SCORES)} and cut of {', '.join(NAMES)}", scores, repr(cut))
    at_a_level = [score for score in scores if score in AT_A_LEVEL]
    level = best_levels(validation, at_a_level, cut, levels)
    values: dict[str, list[Tensor]] = {}
    for maps_of, masks in test:
        for suffix, maps in maps_of.items():
            for score in scores:
                if score in FREE:
                    values.setdefault(score + suffix, []).append(FREE[score](maps, masks))
                    continue
                mask = thresholded(maps, level[score, suffix], cut)
                for name, function in zip(NAMES[cut][score], AT_A_LEVEL[score]):
                    values.setdefault(name + suffix, []).append(function(mask, masks))
    found = {name: float(torch.cat(parts).nanmean()) for name, parts in values.items()}
    return found | {NAMES[cut][score][-1]: level[score, ""] for score in at_a_level if (score, "") in level}


def best_levels(
    validation: Pairs, scores: Sequence[str], cut: str = "relative", levels: Sequence[float] = LEVELS
) -> dict[tuple[str, str], float]:
    """The level of the highest mean of each thresholded score, for the maps of each suffix: ``(score, suffix)``.

    Example:
        >>> pair = ({"": torch.tensor([[[0.9, 0.3]]])}, torch.tensor([[[True, False]]]))
        >>> best_levels([pair], ["iou"]), best_levels([pair], ["iou"], "absolute", (0.2, 0.8))
        ({('iou', ''): 0.35}, {('iou', ''): 0.8})
    """
    totals: dict[tuple[str, str], Tensor] = {}
    for maps_of, masks in validation:
        for suffix, maps in maps_of.items():
            here = {score: torch.zeros(len(levels), dtype=torch.float64) for score in scores}
            for i, level in enumerate(levels):
                mask = thresholded(maps, level, cut)
                for score in scores:
                    if score != "box_accuracy" or i % 2:  # boxes are slow: every other level
                        here[score][i] = sum(float(f(mask, masks).nansum()) for f in AT_A_LEVEL[score])
            for score in scores:
                totals[score, suffix] = totals.get((score, suffix), 0) + here[score]
    return {key: float(levels[int(total.argmax())]) for key, total in totals.items()}


def localisation(
    method: Measurable,
    splits: Splits,
    *,
    cut: str = "relative",
    scores: Sequence[str] = ("energy_in_mask", "pointing", "iou"),
    classes: str = "predicted",
    size: int = 256,
    multiple: int = 1,
    trivial: bool = True,
) -> dict[str, float]:
    """`judged` for a method's maps of the test split, and for the trivial maps with their suffixes beside them.

    Args:
        classes, size, multiple: how it looks, see `looking.look`.
        trivial: "_whole", "_centre", "_gaussian", "_random" and "_edges" as well, each at its own best level.

    Returns:
        The scores; the levels; ``dead_maps``, the share of test maps without a positive value; ``images_with_mask``,
        how many test images had an object to find (the others are left out).

    Raises:
        ValueError: no masks.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Bright(Measurable):
        ...     def logits(self, images):
        ...         return images.mean((2, 3))
        ...     def explain(self, images, classes):
        ...         return images[:, 0]
        >>> mask = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> mask[:, 2:4, 3:7] = True
        >>> data = ArrayData(mask[:, None].float(), torch.tensor([0]), mask)
        >>> found = localisation(Bright(), Splits("toy", data, data, data, ("a",), ""))
        >>> found["energy_in_mask"], found["energy_in_mask_whole"]
        (1.0, 0.125)
    """

    def pairs(data: Dataset) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for seen in look(method, data, classes=classes, size=size, multiple=multiple):
            yield {"": seen.maps} | (trivial_maps(seen.images) if trivial else {}), masks_of(seen)

    def counted() -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for maps_of, masks in pairs(splits.test):
            empty.append(dead(maps_of[""]).double())
            objects.append(masks.flatten(1).any(1).double())
            yield maps_of, masks

    empty: list[Tensor] = []
    objects: list[Tensor] = []
    found = judged(pairs(splits.validation), counted(), scores, cut)
    return found | {"dead_maps": float(torch.cat(empty).mean()), "images_with_mask": float(torch.cat(objects).sum())}


def segmentation(method: Measurable, splits: Splits, *, size: int = 256, multiple: int = 1) -> dict[str, float]:
    """All of Table 1's columns of Min-Max entropy on the test split, and what keeps them honest.

    Convention of the official code (paper, Sec. 4): cut the map at 0.5, F1 image by image, plain mean over the images.

    Returns:
        ``f1_plus``, ``f1_minus``: so; ``f1_mean``: their mean. ``chosen_plus``, ``chosen_minus``, ``chosen_mean``: cut
        at ``chosen_level``, where validation is best. ``pooled_plus``, ``pooled_minus``: over all pixels, cut at 0.5.
        ``area``: share of the image predicted. ``accuracy`` and ``error``, where the method classifies.

    Raises:
        ValueError: no masks.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Everywhere(Measurable):
        ...     classifies = False
        ...     def explain(self, images, classes):
        ...         return torch.ones_like(images[:, 0])
        >>> mask = torch.tensor([[[True, False, False, False]]])
        >>> data = ArrayData(torch.zeros(1, 3, 1, 4), torch.tensor([0]), mask)
        >>> found = segmentation(Everywhere(), Splits("toy", data, data, data, ("a",), ""))
        >>> found["f1_plus"], found["f1_minus"], found["area"]
        (0.4, 0.0, 1.0)
    """
    seen = list(look(method, splits.test, size=size, multiple=multiple))
    test = [({"": s.maps}, masks_of(s)) for s in seen]
    validation = look(method, splits.validation, size=size, multiple=multiple)
    found = judged((({"": s.maps}, masks_of(s)) for s in validation), test, ("f1",), "absolute")
    cut = [(thresholded(s.maps, 0.5, "absolute"), masks_of(s)) for s in seen]
    found["f1_plus"] = _mean(f1_foreground(predicted, masks) for predicted, masks in cut)
    found["f1_minus"] = _mean(f1_background(predicted, masks) for predicted, masks in cut)
    found["f1_mean"] = (found["f1_plus"] + found["f1_minus"]) / 2
    found["chosen_mean"] = (found["chosen_plus"] + found["chosen_minus"]) / 2
    found["area"] = _mean(predicted.double().mean((1, 2)) for predicted, _ in cut)
    if len({masks.shape[1:] for _, masks in cut}) == 1:
        found["pooled_plus"], found["pooled_minus"] = score_by.f1_pooled(*(torch.cat(part) for part in zip(*cut)))
    right = [s.logits.argmax(1) == s.labels for s in seen if s.logits is not None]
    if right:
        found["accuracy"] = _mean(hits.double() for hits in right)
        found["error"] = 1 - found["accuracy"]
    return found


def energy_by_layer(method: Measurable, splits: Splits, layers: Sequence[str]) -> dict[str, float]:
    """Energy in the mask of the predicted class's Grad-CAM maps at image size: ``energy_<layer>`` for each layer.

    Args:
        layers: names in ``method.net`` as `maps.grad_cam` takes them.

    Raises:
        ValueError: no masks.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), torch.ones(2, 16, 16, dtype=torch.bool))
        >>> method, splits = CrossEntropy(small_cnn(2, width=2)), Splits("toy", data, data, data, ("a", "b"), "")
        >>> list(energy_by_layer(method, splits, ["body.1", "body.4"]))
        ['energy_body.1', 'energy_body.4']
    """

    def see(batch: Batch) -> list[Tensor]:
        masks, classes = masks_of(batch), method.logits(batch.images).argmax(1)
        maps = grad_cam(method.net, batch.images, classes, layers).maps
        return [energy_in_mask(enlarge(each, batch.images.shape[-2:]), masks) for each in maps]

    shares = collect(method, splits.test, see)
    return {f"energy_{layer}": float(share.nanmean()) for layer, share in zip(layers, shares)}


def map_area(method: Measurable, splits: Splits, *, level: float = 0.5) -> dict[str, float]:
    """``map_area``: mean share of the image in which the predicted class's map reaches ``level`` of its maximum.

    In (0, 1]; small is compact (AMC-Loss, Figs. 2 and 6). It needs no masks, and says nothing of *where* the map lies:
    one bright pixel in a corner is as compact as can be. Maps that are zero everywhere are left out.

    Raises:
        ValueError: ``level`` outside (0, 1].

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> class Corner(Measurable):
        ...     classifies = False
        ...     def explain(self, images, classes):
        ...         return torch.tensor([[[1.0, 0.4], [0.4, 0.0]]])
        >>> data = ArrayData(torch.zeros(1, 3, 2, 2), torch.tensor([0]))
        >>> map_area(Corner(), Splits("toy", data, data, data, ("a",), ""))
        {'map_area': 0.25}
    """
    looks = look(method, splits.test)
    return {"map_area": _mean(thresholded(s.maps[~dead(s.maps)], level).double().mean((1, 2)) for s in looks)}


def _mean(parts: Iterable[Tensor]) -> float:
    return float(torch.cat(list(parts)).mean())
