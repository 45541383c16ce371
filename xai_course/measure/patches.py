r"""Do the selected patches lie on the object? Loss-Attention's measures (Shi et al. 2021, Sec. V-D), beside dummies.

The paper's sentence reads as plain geometry, but its code first asks whether the patch's own logits name a label of the
image: precision is then conditional on that, and recall is bounded by it. Both readings are here. Several printed
numbers equal those of a selection that looks at nothing, so `patch_measures` reports such selections every time.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batch import Batch, Dataset, Splits, batches
from ..data.boxes import masks_to_boxes
from .looking import Measurable, collect, masks_of

#: Thresholds tried on the validation split, in units of the mean weight 1/M.
WEIGHT_LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


class Attends(Measurable):
    """What the patch measures ask of a method beside a network that knows its patches' ``boxes``.

    Example:
        >>> from xai_course.methods.patch_heads import MeanPooling
        >>> hasattr(MeanPooling, "attend"), hasattr(MeanPooling, "selected")
        (True, True)
    """

    def attend(self, images: Tensor) -> Any:
        """``image [B, K]`` logits, ``weights [B, M]`` and logits ``patches [B, M, K]``: a `methods.Attended`."""
        raise TypeError(f"{type(self).__name__} must define attend(images)")

    def selected(self, weights: Tensor) -> Tensor:
        """Which patches ``[B, M]`` bool the method keeps."""
        raise TypeError(f"{type(self).__name__} must define selected(weights)")


class Patches(NamedTuple):
    """What a method makes of a data set's patches, on the CPU (N images, M patches, O objects).

    Attributes:
        weights: ``[N, M]``; selected: ``[N, M]`` bool, by the method's own rule.
        hit: ``[N, M]`` bool, the patch's own logits name a label of the image.
        evidence: ``[N, M]`` >= 0, weight times positive logit of the predicted class.
        inside: ``[N, M]`` bool, more than half of the patch lies in one object's box.
        objects: ``[N, O, 4]`` int64 boxes, all zero where an image has fewer.
        boxes: ``[M, 4]`` int64, the patches themselves.
        size: height and width of the images.
    """

    weights: Tensor
    selected: Tensor
    hit: Tensor
    evidence: Tensor
    inside: Tensor
    objects: Tensor
    boxes: Tensor
    size: tuple[int, int]


# --- geometry --------------------------------------------------------------------------------------------------------


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def _overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Area shared by boxes ``[..., 4]`` that broadcast against each other."""
    corner, end = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    return (end - corner).clamp_min(0).prod(-1)


def patches_inside(patches: Tensor, objects: Tensor) -> Tensor:
    """Whether more than half of a patch's area lies in at least one box of its image (strictly more).

    Args:
        patches: ``[M, 4]``; objects: ``[N, O, 4]``, both left, top, right, bottom in pixels, the last two excluded.

    Returns:
        ``[N, M]`` bool.

    Example:
        >>> grid = torch.tensor([[0, 0, 4, 4], [4, 0, 8, 4]])
        >>> patches_inside(grid, torch.tensor([[[0, 0, 7, 3]]]))  # 12 and 9 of 16 pixels
        tensor([[True, True]])
    """
    shared = _overlap(patches[None, None], objects.unsqueeze(2))
    return (2 * shared > _areas(patches)).any(1)


def hull(selected: Tensor, patches: Tensor) -> Tensor:
    """Smallest box around the selected patches: ``[N, M]`` bool, ``[M, 4]`` -> ``[N, 4]``, all zero where none is.

    Example:
        >>> grid = torch.tensor([[0, 0, 4, 4], [4, 0, 8, 4]])
        >>> hull(torch.tensor([[True, True], [False, True], [False, False]]), grid)
        tensor([[0, 0, 8, 4],
                [4, 0, 8, 4],
                [0, 0, 0, 0]])
    """
    far = torch.iinfo(patches.dtype).max
    chosen = selected.unsqueeze(2)
    low = torch.where(chosen, patches[:, :2], far).amin(1)
    high = torch.where(chosen, patches[:, 2:], -far).amax(1)
    return torch.where(selected.any(1, keepdim=True), torch.cat([low, high], 1), 0)


def box_ap(boxes: Tensor, objects: Tensor, overlap: float = 0.5) -> float:
    """Share of images whose box has an IoU above ``overlap`` with an object's box (Sec. V-D calls it AP).

    Not an average precision: nothing is ranked, the class does not matter, and an empty box is simply wrong.

    Args:
        boxes: ``[N, 4]``, one guess per image; objects: ``[N, O, 4]``.

    Example:
        >>> box_ap(torch.tensor([[0, 0, 4, 4], [0, 0, 4, 4]]), torch.tensor([[[0, 0, 4, 3]], [[0, 0, 4, 2]]]))
        0.5
    """
    shared = _overlap(boxes.unsqueeze(1), objects)
    union = _areas(boxes).unsqueeze(1) + _areas(objects) - shared
    return (shared > overlap * union).any(1).double().mean().item()


# --- precision, recall, F --------------------------------------------------------------------------------------------


def patch_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether a patch's own logits name a label: the highest one does, or, with several, any of probability > 0.5.

    Args:
        logits: ``[N, M, K]``; labels: ``[N]`` int64 or ``[N, K]`` in {0, 1}.

    Returns:
        ``[N, M]`` bool.

    Example:
        >>> patch_hits(torch.tensor([[[2.0, 1.0], [-3.0, -1.0]]]), torch.tensor([1]))
        tensor([[False,  True]])
    """
    if labels.ndim == 1:
        return logits.argmax(-1) == labels.unsqueeze(1)
    return ((logits > 0) & (labels > 0).unsqueeze(1)).any(-1)


def patch_counts(selected: Tensor, hit: Tensor, inside: Tensor) -> dict[str, int]:
    """Whole-number counts of ``[N, M]`` bool decisions, to be added up over shards of a data set.

    Example:
        >>> yes, no = torch.tensor([[True, True]]), torch.tensor([[True, False]])
        >>> patch_counts(selected=yes, hit=yes, inside=no)["selected_inside"]
        1
    """
    return {
        "true": int((selected & hit & inside).sum()),
        "selected_hit": int((selected & hit).sum()),
        "selected_inside": int((selected & inside).sum()),
        "selected": int(selected.sum()),
        "inside": int(inside.sum()),
        "patches": inside.numel(),
    }


def patch_scores(counts: dict[str, int]) -> dict[str, float]:
    """Precision, recall and F from counts over the whole data set; 0 where a ratio is 0/0.

    Returns:
        ``precision`` = true / selected_hit, ``recall`` = true / inside and ``f`` = 2PR/(P+R) by the rule of the paper's
        code; ``plain_*`` the same without asking what the patch says (geometry only).

    Example:
        >>> yes, no = torch.tensor([[True, True]]), torch.tensor([[True, False]])
        >>> patch_scores(patch_counts(selected=yes, hit=yes, inside=no))["precision"]
        0.5
    """
    scores: dict[str, float] = {}
    for prefix, true, called in (("", "true", "selected_hit"), ("plain_", "selected_inside", "selected")):
        precision = counts[true] / max(1, counts[called])
        recall = counts[true] / max(1, counts["inside"])
        f = 2 * precision * recall / max(1e-12, precision + recall)
        scores |= {f"{prefix}precision": precision, f"{prefix}recall": recall, f"{prefix}f": f}
    return scores


def trivial_selections(selected: Tensor, patches: Tensor, size: tuple[int, int], seed: int = 0) -> dict[str, Tensor]:
    """Selections that look at nothing: "all" patches, and as many per image as ``selected`` has, "random" or "centre".

    Args:
        selected: ``[N, M]`` bool; patches: ``[M, 4]``; size: height and width of the images.

    Returns:
        Name to ``[N, M]`` bool. (Selecting none scores 0 everywhere and needs no entry.)

    Example:
        >>> grid = torch.tensor([[0, 0, 4, 4], [4, 0, 8, 4]])
        >>> trivial_selections(torch.tensor([[True, False]]), grid, (4, 8))["centre"].sum(1)
        tensor([1])
    """
    count = selected.sum(1, keepdim=True)
    middle = (patches[:, :2] + patches[:, 2:]).double() / 2 - torch.tensor([size[1] / 2, size[0] / 2])
    nearest = middle.square().sum(1).argsort().argsort()  # rank of each patch, 0 is nearest to the centre
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.rand(selected.shape, generator=generator).argsort(1).argsort(1)
    return {"all": torch.ones_like(selected), "random": shuffled < count, "centre": nearest < count}


# --- over a data set -------------------------------------------------------------------------------------------------


def object_boxes(data: Dataset, batch: Batch) -> Tensor:
    """Boxes ``[B, O, 4]`` of the objects in a batch: the data set's own, or around each whole mask.

    Raises:
        ValueError: the data set has neither ``boxes`` nor masks.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> data = ArrayData(torch.rand(4, 3, 32, 32), torch.arange(4), torch.rand(4, 32, 32) < 0.5)
        >>> object_boxes(data, data.__getitems__([0, 1])).shape
        torch.Size([2, 1, 4])
    """
    boxes = getattr(data, "boxes", None)
    if boxes is not None:
        chosen = [torch.as_tensor(boxes[i]).view(-1, 4) for i in batch.index.tolist()]
        return torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
    return masks_to_boxes(masks_of(batch).cpu()).unsqueeze(1)


def look_at_patches(method: Attends, data: Dataset, *, geometry: str = "nominal", size: int = 256) -> Patches:
    """Everything the measures need, from one pass in eval mode.

    Args:
        method: a `PatchMethod`: ``attend``, ``selected``, and a network that knows its patches' ``boxes``.
        geometry: "nominal" or "rf", see `PatchGeometry.field`.

    Raises:
        ValueError: the data set has neither boxes nor masks.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.patch_heads import LossAttention
        >>> from xai_course.nets.patch_nets import patch_net
        >>> data = ArrayData(torch.rand(4, 3, 32, 32), torch.arange(4), torch.rand(4, 32, 32) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> method = LossAttention(patch_net("small", 10, width=2, hidden=4))
        >>> look_at_patches(method, splits.test).weights.shape
        torch.Size([4, 36])
    """
    found: list[Tensor] = []

    def see(batch: Batch) -> tuple[Tensor, ...]:
        seen = method.attend(batch.images)
        predicted = seen.image.argmax(1).view(-1, 1, 1).expand(-1, seen.patches.shape[1], 1)
        evidence = seen.weights * seen.patches.gather(2, predicted).squeeze(2).relu()
        found.extend(object_boxes(data, batch))
        return seen.weights, method.selected(seen.weights), patch_hits(seen.patches, batch.labels), evidence

    weights, selected, hit, evidence = collect(method, data, see, size=size)
    height, width = next(batches(data, 1)).images.shape[-2:]
    boxes: Tensor = method.net.boxes((height, width), geometry)
    objects = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    return Patches(weights, selected, hit, evidence, patches_inside(boxes, objects), objects, boxes, (height, width))


def best_weight_level(seen: Patches, levels: Sequence[float] = WEIGHT_LEVELS) -> float:
    """The threshold, in units of 1/M, whose hull has the highest `box_ap`; the lowest of equals.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.patch_heads import LossAttention
        >>> from xai_course.nets.patch_nets import patch_net
        >>> data = ArrayData(torch.rand(4, 3, 32, 32), torch.arange(4), torch.rand(4, 32, 32) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> method = LossAttention(patch_net("small", 10, width=2, hidden=4))
        >>> best_weight_level(look_at_patches(method, splits.validation)) in WEIGHT_LEVELS
        True
    """
    scores = [box_ap(hull(seen.weights > c / seen.weights.shape[1], seen.boxes), seen.objects) for c in levels]
    return float(levels[scores.index(max(scores))])


def patch_measures(method: Attends, splits: Splits, *, geometry: str = "nominal") -> dict[str, float]:
    """All patch measures on the test split, beside their dummies.

    Returns:
        `patch_scores` of the method, and with ``_all``, ``_random``, ``_centre`` of `trivial_selections` (``f_dummy``:
        every patch selected and right); ``kept`` patches per image; ``base``, the share of patches inside; ``mass`` and
        ``evidence``, the shares of weight and of positive evidence on patches inside; ``ap`` by the method's own
        selection, and ``ap_level`` at the threshold ``level`` that is best on the validation split; ``ap_all`` (the
        whole grid), ``ap_random``, ``ap_centre``.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.patch_heads import LossAttention
        >>> from xai_course.nets.patch_nets import patch_net
        >>> data = ArrayData(torch.rand(4, 3, 32, 32), torch.arange(4), torch.rand(4, 32, 32) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> method = LossAttention(patch_net("small", 10, width=2, hidden=4))
        >>> patch_measures(method, splits)["plain_recall_all"]
        1.0
    """
    seen = look_at_patches(method, splits.test, geometry=geometry)
    counts = patch_counts(seen.selected, seen.hit, seen.inside)
    found = patch_scores(counts) | {
        "kept": counts["selected"] / len(seen.weights),
        "base": counts["inside"] / counts["patches"],
        "patch_accuracy": seen.hit.double().mean().item(),
        "mass": (seen.weights * seen.inside).sum(1).double().mean().item(),
        "evidence": (F.normalize(seen.evidence, p=1, dim=1) * seen.inside).sum(1).double().mean().item(),
        "ap": box_ap(hull(seen.selected, seen.boxes), seen.objects),
    }
    found["f_dummy"] = 2 * found["base"] / (1 + found["base"])
    level = best_weight_level(look_at_patches(method, splits.validation, geometry=geometry))
    chosen = seen.weights > level / seen.weights.shape[1]
    found |= {"level": level, "ap_level": box_ap(hull(chosen, seen.boxes), seen.objects)}
    for name, selection in trivial_selections(seen.selected, seen.boxes, seen.size).items():
        scores = patch_scores(patch_counts(selection, seen.hit, seen.inside))
        found |= {f"{key}_{name}": value for key, value in scores.items()}
        found[f"ap_{name}"] = box_ap(hull(selection, seen.boxes), seen.objects)
    return found
