"""Accuracy, clean and under attack: FGSM as HNC states it, PGD and transferred examples as the stronger controls.

Attacks work on images in [0, 1] (a network that normalises does so inside), on the network in eval mode, and on every
image, right or wrong. ``epsilon`` is in the same units: 0.05 is 12.75 of 255 grey levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Dataset, Splits, batches
from ..maps import trackable
from ..nets.modes import device_of, evaluating

Scores = Callable[[Tensor], Tensor]


# --- what an attack climbs --------------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed over the batch, so that images do not scale each other's gradients; sigmoid form for ``[B, K]`` labels."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Best wrong logit minus the right one, summed (Carlini and Wagner 2017). ``labels [B]`` int64.

    Its gradient does not fade as the network grows confident, so large logits cannot hide from it.
    """
    right = F.one_hot(labels, logits.shape[1]).bool()
    return (logits.masked_fill(right, -torch.inf).amax(dim=1) - logits[right]).sum()


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "margin": margin}


def image_gradient(scores: Scores, images: Tensor, labels: Tensor, objective: str = "cross_entropy") -> Tensor:
    """Gradient of the objective with respect to the images, ``[B, C, H, W]``; parameters get no gradient."""
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
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
    """
    _check_epsilon(epsilon)
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
    """
    _check_epsilon(epsilon)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    step_size = 2.5 * epsilon / steps if step_size is None else step_size
    attacked = images.clone()
    if generator is not None:
        noise = torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device)
        attacked = (images + epsilon * (2 * noise - 1)).clamp(0, 1)
    for _ in range(steps):
        attacked = attacked + step_size * image_gradient(scores, attacked, labels, objective).sign()
        attacked = torch.clamp(attacked, images - epsilon, images + epsilon).clamp(0, 1)
    return attacked


# --- measures ---------------------------------------------------------------------------------------------------------


def clean_accuracy(method, splits: Splits) -> dict[str, float]:
    """Top-1 and top-5 accuracy on the test split, top-1 on the validation split, mean confidence of the prediction."""
    right, top5, confidence = [], [], []
    with evaluating(method), torch.no_grad():
        for batch in batches(splits.test, device=device_of(method)):
            probabilities = method.logits(batch.images).softmax(dim=1)
            best = probabilities.topk(min(5, probabilities.shape[1]), dim=1)
            hits = best.indices == batch.labels[:, None]
            right.append(hits[:, 0])
            top5.append(hits.any(dim=1))
            confidence.append(best.values[:, 0])
    mean = {"accuracy": right, "top5": top5, "confidence": confidence}
    found = {name: torch.cat(parts).float().mean().item() for name, parts in mean.items()}
    return found | {
        "validation_accuracy": accuracy_under(method, splits.validation, lambda scores, images, labels: images)
    }


def fgsm_accuracy(
    method, splits: Splits, *, epsilons: Sequence[float] = (0.05, 0.1, 0.2, 0.3), limit: int | None = None
) -> dict[str, float]:
    """Test accuracy after `fgsm`, one entry ``fgsm_<epsilon>`` for each; the default epsilons are the paper's."""
    attacks = {f"fgsm_{e:g}": (lambda scores, images, labels, e=e: fgsm(scores, images, labels, e)) for e in epsilons}
    return {name: accuracy_under(method, splits.test, attack, limit) for name, attack in attacks.items()}


def pgd_accuracy(
    method,
    splits: Splits,
    *,
    epsilons: Sequence[float] = (0.05,),
    steps: int = 20,
    objective: str = "cross_entropy",
    limit: int | None = None,
) -> dict[str, float]:
    """Test accuracy after `pgd` from a random start, ``pgd_<epsilon>`` or ``pgd_margin_<epsilon>``."""
    start = "pgd_margin" if objective == "margin" else "pgd"

    def attack(epsilon: float):
        noise = torch.Generator().manual_seed(0)
        return lambda scores, images, labels: pgd(
            scores, images, labels, epsilon, steps=steps, objective=objective, generator=noise
        )

    return {f"{start}_{e:g}": accuracy_under(method, splits.test, attack(e), limit) for e in epsilons}


def transfer_accuracy(
    method,
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
    """
    other = source(splits).to(device_of(method)).eval()
    attacks = {f"transfer_{e:g}": (lambda _, images, labels, e=e: fgsm(other, images, labels, e)) for e in epsilons}
    return {name: accuracy_under(method, splits.test, attack, limit) for name, attack in attacks.items()}


def memorised(method, splits: Splits, *, limit: int | None = None) -> dict[str, float]:
    """``memorised``: share of the wrong training labels that the network has learnt to give; the rest it overruled.

    Args:
        splits: with ``train.corrupted [N]`` bool, True where a label was changed.
        limit: how many training images were used.
    """
    hits = []
    with evaluating(method), torch.no_grad():
        for batch in batches(splits.train, device=device_of(method)):
            wrong = splits.train.corrupted[batch.index.cpu()] & (batch.index.cpu() < (limit or len(splits.train)))
            hits.append((method.logits(batch.images).argmax(dim=1) == batch.labels).cpu()[wrong])
    found = torch.cat(hits).float()
    return {"memorised": found.mean().item() if len(found) else 0.0}


def accuracy_under(
    method, data: Dataset, attack: Callable[[Scores, Tensor, Tensor], Tensor], limit: int | None = None
) -> float:
    """Share of the first ``limit`` images (None: all) still right after ``attack(scores, images, labels)``."""
    right, count = 0, 0
    with evaluating(method):
        for batch in batches(data, device=device_of(method)):
            keep = len(batch.labels) if limit is None else min(len(batch.labels), limit - count)
            if keep < 1:
                break
            images, labels = batch.images[:keep], batch.labels[:keep]
            attacked = attack(method.logits, images, labels)
            with torch.no_grad():
                right += int((method.logits(attacked).argmax(dim=1) == labels).sum())
            count += keep
    if not count:
        raise ValueError("data must hold at least one image within limit, got none")
    return right / count


def _check_epsilon(epsilon: float) -> None:
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0, got {epsilon}")
