"""AMC-Loss, forward and backward, against the plain clamped-arccos pairs and pytorch-metric-learning.

Run: ``OMP_NUM_THREADS=1 python benchmarks/amc.py``; needs pytorch-metric-learning. All candidates get the same features
and labels and back-propagate a scalar to the features. The peer's loss is not equal in value (it has no squared hinge
on angles, so a Euclidean distance stands in): only the work is compared.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from benchmarks.interleave import interleave, save, table
from xai_course.methods.amc import angular_margin_contrastive

WIDTH, CLASSES, REPEATS = 128, 10, {128: 20, 1024: 4, 4096: 2}
RESULT = Path(__file__).parents[1] / "data/results/benchmarks/amc.json"


def clamped_arccos(features: Tensor, classes: Tensor, margin: float = 0.5) -> Tensor:
    """The reference: what a reader would write first, safe against arccos's cliff but with its floor."""
    half = len(features) // 2
    z = torch.nn.functional.normalize(features, dim=1)
    theta = torch.acos((z[:half] * z[half:]).sum(dim=1).clamp(-1 + 1e-7, 1 - 1e-7))
    same = classes[:half] == classes[half:]
    return torch.where(same, theta**2, (margin - theta).clamp_min(0) ** 2).mean()


def peer(features: Tensor, classes: Tensor, *, pairs: bool) -> Tensor:
    """pytorch-metric-learning's contrastive loss, with all pairs or given exactly the half-batch ones."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import ContrastiveLoss

    loss = ContrastiveLoss(0.0, 0.5, distance=LpDistance())
    if not pairs:
        return loss(features, classes)
    half = len(features) // 2
    i, j = torch.arange(half), torch.arange(half) + half
    same = classes[i] == classes[j]
    return loss(features, classes, indices_tuple=(i[same], j[same], i[~same], j[~same]))


def job(loss, features: Tensor, classes: Tensor, repeats: int) -> None:
    for _ in range(repeats):
        features.grad = None
        loss(features, classes).backward()


def candidates(n: int) -> dict:
    generator = torch.Generator().manual_seed(n)
    features = torch.randn(n, WIDTH, generator=generator).requires_grad_()
    classes = torch.randint(0, CLASSES, (n,), generator=generator)
    losses = {
        "clamped arccos, n/2 pairs": clamped_arccos,
        "ours (atan2, masks, checks), n/2 pairs": angular_margin_contrastive,
        "ours, 4 rotations": partial(angular_margin_contrastive, pairing=4),
    }
    if n <= 1024:  # beyond, the peer's n x n matrix takes a second
        losses["pytorch-metric-learning, given n/2 pairs"] = partial(peer, pairs=True)
        losses["ours, all pairs"] = partial(angular_margin_contrastive, pairing="all")
        losses["pytorch-metric-learning, all pairs"] = partial(peer, pairs=False)
    return {name: partial(job, loss, features, classes, REPEATS[n]) for name, loss in losses.items()}


def main() -> None:
    torch.set_num_threads(1)
    cases = {}
    for n in REPEATS:
        cases[f"n={n}"] = timings = interleave(candidates(n), "clamped arccos, n/2 pairs", rounds=15)
        print(table(f"AMC-Loss, forward and backward, n={n}, p={WIDTH}", timings))
    ours = {f"n={n}": candidates(n)["ours (atan2, masks, checks), n/2 pairs"] for n in REPEATS}
    cases["growth of ours with n"] = growth = interleave(ours, "n=128", rounds=15)
    for n in REPEATS:
        print(f"n={n}: {1000 * growth[f'n={n}'].milliseconds / REPEATS[n] / n:.2f} microseconds per row")
    save(RESULT, "CPU, one thread, shared with other work", cases)


if __name__ == "__main__":
    main()
