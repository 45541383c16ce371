"""What the bench measures of every method beside accuracy: maps, controls, faithfulness, and the price of a step."""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data.batch import Batch, Dataset, Splits, batches
from ..nets.modes import device_of, evaluating
from .faithfulness import blurred_areas, deletion_auc, insertion_auc
from .localising import SCORES, judged, localisation
from .looking import Measurable, masks_of
from .memory import saved_activations
from .sanity import untrained, weight_randomisation
from .trivial import blind_map, trivial_maps


def explanations(method: Measurable, splits: Splits) -> dict[str, float]:
    """`localisation` by every score, of the method's own maps of its predicted classes alone.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> method = CrossEntropy(small_cnn(width=2))
        >>> list(explanations(method, splits))[:4]
        ['energy_in_mask', 'pointing', 'iou', 'f1_plus_relative']
    """
    return localisation(method, splits, scores=SCORES, trivial=False)


def controls(method: Measurable, splits: Splits, *, starts: int = 8) -> dict[str, float]:
    """All scores of trivial maps, suffixes ``_whole``, ``_centre``, ``_gaussian``, ``_random`` and ``_edges``, of the
    mean of the validation masks, ``_blind``, and of the network without training: mean and standard deviation over
    ``starts`` initialisations, ``_untrained`` and ``_untrained_sd``. One of them would be no control: it may hold
    nearly nothing or half of its mass on the object.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> masks = torch.zeros(4, 16, 16, dtype=torch.bool)
        >>> masks[:, 4:9, 6:11] = True
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), masks)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> method = CrossEntropy(small_cnn(width=2))
        >>> found = controls(method, splits, starts=2)
        >>> found["energy_in_mask_whole"] < found["energy_in_mask_centre"] < found["energy_in_mask_blind"]
        True
    """
    each = [explanations(untrained(method, seed=k), splits) for k in range(starts)]
    names = [name for name in each[0] if not name.endswith("_level") and name not in ("dead_maps", "images_with_mask")]
    blind = blind_map(_whole(splits.validation)[1])
    validation, test = (
        [(trivial_maps(images) | {"_blind": blind.expand(masks.shape)}, masks)]
        for images, masks in map(_whole, (splits.validation, splits.test))
    )
    found = judged(validation, test)
    for name in names:
        values = [row[name] for row in each]
        found |= {f"{name}_untrained": statistics.fmean(values), f"{name}_untrained_sd": statistics.stdev(values)}
    return found


def _whole(data: Dataset) -> tuple[Tensor, Tensor]:
    """Images and masks of a whole data set."""
    (batch,) = batches(data, len(data))
    return batch.images, masks_of(batch)


def perturbation(method: Measurable, splits: Splits, *, images: int = 64, steps: int = 8) -> dict[str, float]:
    """``deletion`` and ``insertion``: areas under the predicted class's probability, pixels blurred, first test images.

    Beside them ``_random`` for a map of noise: only the distance to it says anything about the map.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> method = CrossEntropy(small_cnn(width=2))
        >>> list(perturbation(method, splits, images=2, steps=2))
        ['deletion', 'insertion', 'deletion_random', 'insertion_random']
    """
    curves = {"deletion": deletion_auc, "insertion": insertion_auc}
    return blurred_areas(method, splits, curves, images, steps, ["random"], masks=False)


def randomisation(method: Measurable, splits: Splits, *, images: int = 64) -> dict[str, float]:
    """``randomised``: rank correlation of the maps with those of the same network, every layer re-initialised.

    Near 1 would mean that the maps do not show what was learnt (Adebayo et al. 2018).

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> method = CrossEntropy(small_cnn(width=2))
        >>> -1 <= randomisation(method, splits, images=2)["randomised"] <= 1
        True
    """
    batch = next(batches(splits.test, images, device_of(method)))
    with evaluating(method), torch.no_grad():
        classes = method.logits(batch.images).argmax(1)
    return {"randomised": weight_randomisation(method, batch.images, classes)[-1]["rank_correlation"]}


def cost(
    method: Measurable,
    splits: Splits,
    *,
    baseline: Callable[[Splits], Measurable],
    clock: Any,
    images: int = 50,
    rounds: int = 7,
) -> dict[str, float]:
    """``time`` and ``memory`` of a training step as multiples of cross-entropy's on the bench's common network.

    Steps of both take turns in one process; time is the median of the rounds, in processor time, so that other programs
    on the machine do not enter, and on an accelerator the time until it is done. Memory is what the graphs hold for the
    backward pass at their peak (`saved_activations`).

    Args:
        baseline: called with the splits, gives the method that counts as 1.
        clock: where training stands: late enough for every ramp to be up and every late term to be on.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> method = CrossEntropy(small_cnn(width=2))
        >>> def plain(splits):
        ...     return CrossEntropy(small_cnn(width=2))
        >>> cost(method, splits, baseline=plain, clock=None, images=2, rounds=1)["memory"]
        1.0
    """
    device = device_of(method)
    batch = next(batches(splits.train, images, device))
    pair = [copy.deepcopy(method).train(), baseline(splits).to(device).train()]
    spent: list[list[float]] = [[], []]
    for _ in range(rounds):
        for times, each in zip(spent, pair):
            start = _now(device)
            _step(each, batch, clock)
            times.append(_now(device) - start)
    held = []
    for each in pair:
        with saved_activations(each) as account:
            _step(each, batch, clock)
        held.append(account.peak)
    return {"time": statistics.median(spent[0]) / statistics.median(spent[1]), "memory": held[0] / held[1]}


def _now(device: torch.device) -> float:
    """Processor time; on an accelerator the time at which it has done all that it was given."""
    if device.type == "cpu":
        return time.process_time()
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


def _step(method: Measurable, batch: Batch, clock: Any) -> None:
    method.zero_grad(set_to_none=True)
    for terms in method.losses(batch, clock):
        terms["total"].backward()
