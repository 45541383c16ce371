"""Accuracy, clean and under attack: FGSM as HNC states it, PGD and transferred examples as the stronger controls.

Attacks work on images in [0, 1] (a network that normalises does so inside), on the network in eval mode, and on every
image, right or wrong. ``epsilon`` is in the same units: 0.05 is 12.75 of 255 grey levels.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch, Dataset, Splits, batches
from ..maps import trackable
from ..nets.modes import device_of, evaluating
from .looking import Measurable, collect, share_right

SIZE = 256  # images attacked at once: the noise that an attack starts from is drawn batch by batch
Scores = Callable[[Tensor], Tensor]
Attack = Callable[[Scores, Tensor, Tensor], Tensor]


# --- what an attack climbs --------------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed over the batch, so that images do not scale each other's gradients; sigmoid form for ``[B, K]`` labels.

    Example:
        >>> round(cross_entropy(torch.zeros(2, 10), torch.tensor([3, 7])).item(), 4)  # 2 log 10
        4.6052
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Best wrong logit minus the right one, summed (Carlini and Wagner 2017). ``labels [B]`` int64.

    Its gradient does not fade as the network grows confident, so large logits cannot hide from it.

    Example:
        >>> margin(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([0]))
        tensor(3.)
    """
    right = F.one_hot(labels, logits.shape[1]).bool()
    return (logits.masked_fill(right, -torch.inf).amax(dim=1) - logits[right]).sum()


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "margin": margin}


def image_gradient(scores: Scores, images: Tensor, labels: Tensor, objective: str = "cross_entropy") -> Tensor:
    """Gradient of the objective with respect to the images, ``[B, C, H, W]``; parameters get no gradient.

    Example:
        >>> dark = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        >>> dark[1].weight.data = torch.tensor([[1.0], [-1.0]])  # the brighter, the more class 0
        >>> image, label = torch.tensor([[[[0.5]]]]), torch.tensor([0])
        >>> image_gradient(dark, image, label).shape
        torch.Size([1, 1, 1, 1])
    """
    require(objective in OBJECTIVES, f"objective must be one of {', '.join(OBJECTIVES)}", repr(objective))
    with torch.inference_mode(False), torch.enable_grad():
        images = trackable(images).detach().requires_grad_()
        return torch.autograd.grad(OBJECTIVES[objective](scores(images), trackable(labels)), images)[0]


# --- attacks ----------------------------------------------------------------------------------------------------------


def fgsm(scores: Scores, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    r"""Fast gradient sign attack, HNC Sec. 4.4: :math:`I^* = I + \epsilon\,\mathrm{sign}\,\nabla_I L(I, l)`.

    L is the classification loss alone. The result is clamped to [0, 1], which the paper leaves open.

    Args:
        scores: ``[B, C, H, W] -> [B, K]``, in eval mode.
        images: ``[B, C, H, W]`` in [0, 1].
        labels: ``[B]`` int64 or ``[B, K]`` in {0, 1}.
        epsilon: at least 0.

    Example:
        >>> dark = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        >>> dark[1].weight.data = torch.tensor([[1.0], [-1.0]])  # the brighter, the more class 0
        >>> image, label = torch.tensor([[[[0.5]]]]), torch.tensor([0])
        >>> fgsm(dark, image, label, epsilon=0.125).item()
        0.375
    """
    require(epsilon >= 0, "epsilon must be at least 0", epsilon)
    return (images + epsilon * image_gradient(scores, images, labels).sign()).clamp(0, 1)


def pgd(
    scores: Scores,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int = 20,
    step_size: float | None = None,
    objective: str = "cross_entropy",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018): many small sign steps, kept within ``epsilon`` and [0, 1].

    Args:
        steps: how many, at least 1.
        step_size: None takes 2.5 epsilon / steps, which can reach every corner of the ball.
        objective: ``"cross_entropy"`` or ``"margin"``.
        generator: draws the start uniformly in the ball; None starts at the image itself.

    Example:
        >>> dark = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        >>> dark[1].weight.data = torch.tensor([[1.0], [-1.0]])  # the brighter, the more class 0
        >>> image, label = torch.tensor([[[[0.5]]]]), torch.tensor([0])
        >>> pgd(dark, image, label, epsilon=0.125, steps=2).item()
        0.375
    """
    require(epsilon >= 0, "epsilon must be at least 0", epsilon)
    require(steps >= 1, "steps must be at least 1", steps)
    step_size = 2.5 * epsilon / steps if step_size is None else step_size
    attacked = images
    if generator is not None:
        noise = torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device)
        attacked = (images + epsilon * (2 * noise - 1)).clamp(0, 1)
    for _ in range(steps):
        attacked = attacked + step_size * image_gradient(scores, attacked, labels, objective).sign()
        attacked = torch.clamp(attacked, images - epsilon, images + epsilon).clamp(0, 1)
    return attacked


# --- measures ---------------------------------------------------------------------------------------------------------


def clean_accuracy(method: Measurable, splits: Splits) -> dict[str, float]:
    """Top-1 and top-5 accuracy on the test split, top-1 on the validation split if any, mean confidence.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> method, splits = CrossEntropy(small_cnn(width=2)), Splits("toy", data, data, data, tuple("abcd"), "")
        >>> list(clean_accuracy(method, splits))
        ['accuracy', 'top5', 'confidence', 'validation_accuracy']
    """

    def see(batch: Batch) -> tuple[Tensor, ...]:
        probabilities = method.logits(batch.images).softmax(dim=1)
        best = probabilities.topk(min(5, probabilities.shape[1]), dim=1)
        hits = best.indices == batch.labels[:, None]
        return hits[:, 0], hits.any(dim=1), best.values[:, 0]

    each = zip(("accuracy", "top5", "confidence"), collect(method, splits.test, see))
    found = {name: values.float().mean().item() for name, values in each}
    held = {"validation_accuracy": share_right(method, splits.validation)} if len(splits.validation) else {}
    return found | held


def fgsm_accuracy(
    method: Measurable, splits: Splits, *, epsilons: Sequence[float] = (0.05, 0.1, 0.2, 0.3), limit: int | None = None
) -> dict[str, float]:
    """Test accuracy after `fgsm`, one entry ``fgsm_<epsilon>`` for each; the default epsilons are the paper's.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> method, splits = CrossEntropy(small_cnn(width=2)), Splits("toy", data, data, data, tuple("abcd"), "")
        >>> list(fgsm_accuracy(method, splits, epsilons=(0.05, 0.1)))
        ['fgsm_0.05', 'fgsm_0.1']
    """
    return {f"fgsm_{e:g}": accuracy_under(method, splits.test, partial(fgsm, epsilon=e), limit) for e in epsilons}


def pgd_accuracy(
    method: Measurable,
    splits: Splits,
    *,
    epsilons: Sequence[float] = (0.05,),
    steps: int = 20,
    objective: str = "cross_entropy",
    limit: int | None = None,
) -> dict[str, float]:
    """Test accuracy after `pgd` from a random start, ``pgd_<epsilon>`` or ``pgd_margin_<epsilon>``.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> method, splits = CrossEntropy(small_cnn(width=2)), Splits("toy", data, data, data, tuple("abcd"), "")
        >>> list(pgd_accuracy(method, splits, objective="margin", steps=1))
        ['pgd_margin_0.05']
    """
    start = "pgd_margin" if objective == "margin" else "pgd"

    def attack(epsilon: float) -> Attack:
        noise = torch.Generator().manual_seed(0)
        return partial(pgd, epsilon=epsilon, steps=steps, objective=objective, generator=noise)

    return {f"{start}_{e:g}": accuracy_under(method, splits.test, attack(e), limit) for e in epsilons}


def transfer_accuracy(
    method: Measurable,
    splits: Splits,
    *,
    source: Callable[[Splits], nn.Module],
    epsilons: Sequence[float] = (0.05,),
    limit: int | None = None,
) -> dict[str, float]:
    """Test accuracy on `fgsm` examples made for another network, ``transfer_<epsilon>``: a black-box attack.

    No gradient of the measured network is used, so none can be masked.

    Args:
        source: gives the other network, trained on the same splits.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> method, splits = CrossEntropy(small_cnn(width=2)), Splits("toy", data, data, data, tuple("abcd"), "")
        >>> list(transfer_accuracy(method, splits, source=lambda splits: small_cnn(width=2)))
        ['transfer_0.05']
    """
    other = source(splits).to(device_of(method)).eval()

    def attack(epsilon: float) -> Attack:
        return lambda _, images, labels: fgsm(other, images, labels, epsilon)

    return {f"transfer_{e:g}": accuracy_under(method, splits.test, attack(e), limit) for e in epsilons}


def memorised(method: Measurable, splits: Splits, *, limit: int | None = None) -> dict[str, float]:
    """``memorised``: share of the wrong training labels that the network has learnt to give; the rest it overruled.

    Args:
        splits: with ``train.corrupted [N]`` bool, True where a label was changed.
        limit: how many training images were used.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4))
        >>> data.corrupted = torch.tensor([True, False, False, True])  # whose labels were changed
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> memorised(CrossEntropy(small_cnn(width=2)), splits)["memorised"] in (0.0, 0.5, 1.0)
        True
    """
    corrupted: Tensor = getattr(splits.train, "corrupted")  # noqa: B009 (not every data set has it)
    index, hits = collect(method, splits.train, lambda b: (b.index, method.logits(b.images).argmax(1) == b.labels))
    found = hits[corrupted[index] & (index < (limit or len(splits.train)))].float()
    return {"memorised": found.mean().item() if len(found) else 0.0}


def accuracy_under(method: Measurable, data: Dataset, attack: Attack, limit: int | None = None) -> float:
    """Share of the first ``limit`` images (None: all) still right after ``attack(scores, images, labels)``.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> method, splits = CrossEntropy(small_cnn(width=2)), Splits("toy", data, data, data, tuple("abcd"), "")
        >>> accuracy_under(method, splits.test, lambda scores, images, labels: 0 * images, limit=1) in (0.0, 1.0)
        True
    """
    right, count = 0, len(data) if limit is None else min(limit, len(data))
    require(count > 0, "data must hold at least one image within limit, got none")
    with evaluating(method):
        for start, batch in zip(range(0, count, SIZE), batches(data, SIZE, device_of(method))):
            images, labels = batch.images[: count - start], batch.labels[: count - start]
            attacked = attack(method.logits, images, labels)
            with torch.no_grad():
                right += int((method.logits(attacked).argmax(dim=1) == labels).sum())
    return right / count
