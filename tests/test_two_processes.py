"""Two processes over gloo train all five methods as one process does: same losses, same weights.

Exact are losses that are means over images, whatever graph is behind them: cross-entropy, HNC, loss-based attention,
ReFF with its second derivative, and Min-Max with trust, where a process whose images are all out of trust stops its
recursion early: they would have contributed zeros. AMC-Loss couples images, but only within pairs, and strided shares
keep pairs together while half the batch is divisible by the number of processes. Not exact: batches that are not,
BatchNorm's statistics, Min-Max's ``teach="all"`` (stopped images would have gone on teaching) and a mask stretched over
the batch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from xai_course.data.batch import ArrayData
from xai_course.methods.amc import AmcLoss
from xai_course.methods.base import CrossEntropy
from xai_course.methods.erasing import Erasing
from xai_course.methods.hnc import HNC
from xai_course.methods.minmax import MinMax, scaled
from xai_course.methods.pairs import pair_up
from xai_course.methods.patch_heads import LossAttention
from xai_course.methods.reff import ReFF
from xai_course.nets.convnets import GapClassifier
from xai_course.nets.wildcat import LocaliserClassifier, minmax_head
from xai_course.preset import Preset
from xai_course.train import epoch_order, fit

CLASSES, BATCH, WORLD = 4, 8, 2
PRESET = Preset(epochs=1, batch_size=BATCH, optimizer="sgd", lr=0.1, clip_norm=1.0)


def body() -> nn.Sequential:
    """No BatchNorm, no dropout: nothing but the method couples the images of a batch."""
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()
    return nn.Sequential(*layers)


class Patches(GapClassifier):
    """Every cell of the last map is a patch."""

    def patch_logits(self, images):
        return self.head(self.features(images).flatten(2).transpose(1, 2))


class Counted(MinMax):
    """Counts how often the localiser looks: the depth of the recursion, over all steps."""

    looks = 0

    def locate(self, images):
        self.looks += 1
        return super().locate(images)


def gap() -> GapClassifier:
    return GapClassifier(body(), nn.Linear(8, CLASSES))


def methods() -> dict:
    """Each from its own seed, equal in all processes."""
    torch.manual_seed(3)
    heads = [minmax_head(8, CLASSES) for _ in range(2)]
    return {
        "ce": CrossEntropy(gap()),
        "amc": AmcLoss(gap(), w_max=100.0, ramp=0.0),
        "hnc_mse": HNC(gap(), "mse", 0.5, keep_top=2),
        "hnc_kd": HNC(gap(), "kd", 0.5, keep_top=2),
        "loss_attention": LossAttention(Patches(body(), nn.Linear(8, CLASSES)), balance=0.5, ramp=0),
        "reff": ReFF(gap(), ("body.1", "body.3"), balance=5.0),
        "minmax": Counted(LocaliserClassifier(body(), *heads), erasing=Erasing(3, rule="label")),
    }


def images() -> ArrayData:
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(2 * BATCH, 12, 12, dtype=torch.bool)
    masks[:, 3:9, 2:8] = True
    return ArrayData(torch.rand(2 * BATCH, 3, 12, 12, generator=g), torch.randint(0, CLASSES, (2 * BATCH,)), masks)


def half_trusted(method: MinMax, data: ArrayData) -> ArrayData:
    """Labels that the first process's images contradict, so that its recursion ends at once; the second's do not."""
    with torch.no_grad():
        labels = method.net(scaled(data.images)).argmax(1)
    for order in epoch_order(len(data), BATCH, 0, 0):
        labels[order[0::WORLD]] = (labels[order[0::WORLD]] + 1) % CLASSES
    return ArrayData(data.images, labels, data.masks)


def train_all() -> dict:
    """Name to weights, the mean of each loss term over the two steps, and the number of looks."""
    torch.manual_seed(1)
    data, found = images(), {}
    for name, method in methods().items():
        own = half_trusted(method, data) if name == "minmax" else data
        history = fit(method, own, PRESET)[0]
        weights = torch.cat([p.detach().flatten() for p in method.parameters()])
        terms = {k: v for k, v in history.items() if k not in ("seconds", "lr")}
        found[name] = {"weights": weights, "terms": terms, "looks": getattr(method, "looks", 0)}
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[dict, list[dict]]:
    """What one process gives, and what each of two gives: one launch for all methods."""
    out = tmp_path_factory.mktemp("ranks")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={WORLD}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    for head in ([sys.executable], launcher):
        subprocess.run([*head, __file__, str(out)], env=env, check=True, timeout=300)
    return torch.load(out / "alone.pt"), [torch.load(out / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", ["ce", "amc", "hnc_mse", "hnc_kd", "loss_attention", "reff", "minmax"])
def test_two_processes_reproduce_the_losses_and_weights_of_one(runs, name):
    one, two = runs[0][name], [rank[name] for rank in runs[1]]
    assert torch.equal(two[0]["weights"], two[1]["weights"])
    assert torch.allclose(one["weights"], two[0]["weights"], atol=1e-5)
    assert not torch.allclose(one["weights"], nn.utils.parameters_to_vector(methods()[name].parameters()), atol=1e-3)
    means = {k: sum(rank["terms"].get(k, 0.0) for rank in two) / WORLD for k in one["terms"]}  # no term: nothing added
    counted = {k for k in means if k.startswith("zero_features")}  # a number of images, not a mean
    for k in means.keys() - counted:
        assert means[k] == pytest.approx(one["terms"][k], abs=1e-5), k


def test_the_recursion_ends_at_another_depth_in_each_process(runs):
    first, second = (rank["minmax"]["looks"] for rank in runs[1])
    assert first == 2 and second > first  # two steps: one look each, and more
    assert runs[0]["minmax"]["looks"] == second  # one process goes on for as long as anybody is trusted


def test_strided_shares_keep_pairs_while_half_the_batch_divides():
    def pairs(rows):
        return set(zip(*(part.tolist() for part in pair_up(rows))))

    for batch, kept in ((8, True), (12, True), (6, False)):
        rows = torch.arange(batch)
        shares = [pairs(rows[rank::WORLD]) for rank in range(WORLD)]
        assert (set.union(*shares) == pairs(rows)) == kept


if __name__ == "__main__":
    result = train_all()
    torch.save(result, Path(sys.argv[1]) / f"{os.environ.get('RANK', 'alone')}.pt")
