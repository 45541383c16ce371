"""The package on a GPU, rehearsed without one: `stand_in_cuda`, in processes of its own.

Each test runs one function of this file whose name ends in ``_job`` as ``python tests/test_gpu_rehearsal.py NAME ...``.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import stand_in_cuda as gpu
import torch
from torch import nn
from torch.nn import functional as F

from xai_course import colab
from xai_course.data.batch import ArrayData, Splits
from xai_course.data.cues import Cued
from xai_course.methods.base import CrossEntropy, predict
from xai_course.nets.convnets import GapClassifier, small_cnn
from xai_course.preset import Preset
from xai_course.train import fit

HERE = Path(__file__)
PLAN = Preset(epochs=1, batch_size=4, clip_norm=1.0)


def job(*arguments: str | Path) -> str:
    """What a job prints; its error, if there is one, is the test's."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])}
    done = subprocess.run(
        [sys.executable, HERE, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


# --- the stand-in itself ----------------------------------------------------------------------------------------------


def test_the_stand_in_refuses_what_cuda_refuses():
    assert "all refused" in job("stand_in_job")


def test_a_device_without_float64():
    assert "refused" in job("no_float64_job")


def refused(call, said: str) -> None:
    try:
        call()
    except (RuntimeError, TypeError) as error:
        assert said in str(error), error
    else:
        raise AssertionError(f"not refused: {said}")


def stand_in_job() -> None:
    gpu.install()
    x, w = torch.randn(4, 3, 8, 8, device="cuda"), torch.randn(3)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    weight, same, pairs = net[0].weight, "same device", torch.ones(2, 2, dtype=torch.long, device="cuda")
    planted = {
        lambda: net(x): same,
        lambda: x + torch.randn(4, 3, 8, 8): same,
        lambda: x * w[:, None, None]: same,
        lambda: torch.stack([x.sum(), torch.tensor(1.0)]): same,
        lambda: torch.randn(3).add_(x.sum()): same,
        lambda: torch.zeros(()).add_(x.sum()): same,
        lambda: F.cross_entropy(x.mean((2, 3)), torch.arange(4) % 3): same,
        lambda: torch.zeros(3)[torch.arange(2, device="cuda")]: same,
        lambda: x.numpy(): "numpy",
        lambda: pairs @ pairs: "not implemented",
        lambda: torch.rand(2, device="cuda", generator=torch.Generator()): "generator",
        lambda: torch.rand(2, generator=torch.Generator("cuda")): "generator",
        lambda: torch.Generator("cuda").set_state(torch.get_rng_state()): "wrong size",
    }
    for call, said in planted.items():
        refused(call, said)
    net.to("cuda")
    assert net[0].weight is weight and weight.is_cuda and isinstance(weight, nn.Parameter)
    for kind in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", kind):
            y = net(x)
            assert y.dtype == kind and y.softmax(1).dtype == y.sum().dtype == torch.float32
            refused(lambda y=y: F.binary_cross_entropy(y.sigmoid(), y.sigmoid()), "unsafe")
    F.cross_entropy(net(x), torch.arange(4, device="cuda") % 2).backward()
    assert weight.grad.is_cuda and weight.grad.host.abs().sum() > 0
    twin, alone = copy.deepcopy(net), torch.randn(3, requires_grad=True)
    assert twin[0].weight.is_cuda and twin[0].weight is not weight and isinstance(twin[0].weight, nn.Parameter)
    (alone.to("cuda") * 2).sum().backward()
    assert not alone.grad.is_cuda and alone.grad.tolist() == [2, 2, 2]
    assert (
        F.one_hot(torch.arange(3, device="cuda"), 3).is_cuda and x.new_zeros(2).is_cuda and x.cpu().device.type == "cpu"
    )
    (x + torch.tensor(1.0)), x[torch.arange(2)], (x * 2).cpu() + w[:, None, None]  # CUDA takes these
    gpu.STALLS.clear()
    float(x.sum()), x[x > 0], x.cpu(), x.sum().item(), bool((x > 0).any()), x[0, 0, 0].tolist()
    assert sum(gpu.STALLS.values()) == 6, gpu.STALLS
    host, made = torch.get_rng_state(), torch.Generator("cuda").manual_seed(3)
    kept = made.get_state()
    a, b = (torch.rand(5, device="cuda", generator=made) for _ in range(2))
    assert not torch.equal(a, b) and torch.equal(a, torch.rand(5, device="cuda", generator=made.set_state(kept)))
    F.dropout(x)
    assert torch.equal(torch.get_rng_state(), host) and len(kept) == 16
    print("all refused")


def no_float64_job() -> None:
    gpu.install(float64=False)
    refused(lambda: torch.ones(2, device="cuda").double(), "float64")
    refused(lambda: torch.ones(2, device="cuda") + torch.ones((), dtype=torch.float64, device="cuda"), "float64")
    assert torch.ones(2, device="cuda").cpu().double().dtype == torch.float64
    print("refused")


# --- every method and every measure -----------------------------------------------------------------------------------


def toy(row, images: int = 16) -> Splits:
    """Small random images with masks, in the kind of labels that the row's own data have."""
    g = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (images, 3, 32, 32), generator=g, dtype=torch.uint8)
    labels = torch.arange(images) % 4
    if multilabel(row):
        labels = F.one_hot(labels, 4).float()
    data = Cued(pictures, labels, pictures[:, 0] > 128, torch.arange(images) % 5 > 0)
    data.corrupted = torch.arange(images) % 3 == 0
    data.broken = data.balanced = data
    return Splits("toy", data, data, data, tuple("abcd"), "toy")


def named(call) -> str:
    return named(call.func) if isinstance(call, partial) else call.__name__


def multilabel(row) -> bool:
    return "multilabel_scores" in {named(m) for m in row.measures} or row.item == "two_digits"


def built(row, splits: Splits):
    """The row's method, on a small network where its own is too big to rehearse with."""
    own = row.paper in ("looking", "bench") or row.item == "digits" or named(row.net) not in ("sized", "with_rates")
    net = row.net(splits) if own else small_cnn(len(splits.classes))
    if named(row.method) == "weighted" and not own:
        net.register_buffer("positive_rate", splits.train.labels.mean(0))
    return row.method(net)


def one_row_each(names, small=("digits", "shifted", "plain", "two_digits", "multi", "multilabel")) -> dict:
    """A row for each name that ``names(row)`` gives; of a cheap table where there is one."""
    from xai_course.runs.catalogue import experiments

    found: dict = {}
    for row in experiments().values():
        for name in names(row):
            if name not in found or (row.item in small and found[name].item not in small):
                found[name] = row
    return found


METHODS = 25
STALLING = {"AngularMargin"}  # pytorch-metric-learning indexes by a mask


def methods_job(part: str) -> None:
    """Stalls are counted from the second step on: the first one may check the network."""
    gpu.install()
    rows = one_row_each(lambda row: [named(row.method)])
    assert len(rows) >= METHODS, sorted(rows)
    for name, row in list(rows.items())[int(part) :: 2]:
        splits, first = toy(row), None
        for precision in ("no", "bf16", "fp16"):
            method, seen = built(row, splits), []

            def watch(batch, generator, seen=seen, row=row):
                seen.append(dict(gpu.STALLS))
                return batch if row.augment is None else row.augment(batch, generator)

            try:
                (history,) = fit(method, splits.train, replace(PLAN, precision=precision), augment=watch)
            except Exception as error:
                raise AssertionError(f"{row.name} in {precision}") from error
            assert len(seen) == 4 and (name in STALLING or seen[1] == seen[-1]), (row.name, precision, seen)
            first = history["total"] if first is None else first
            assert abs(history["total"] - first) <= 0.1 + 0.1 * abs(first), (row.name, precision, history, first)
        if name in ("FullSupervision", "TrivialMask"):  # they do not classify
            continue
        logits, labels = predict(method.eval(), splits.test)
        assert not logits.is_cuda and len(logits) == len(labels) == 16, name
    print("fitted")


@pytest.mark.parametrize("part", [0, 1])
def test_every_method_trains_in_every_precision_without_a_stall(part):
    assert "fitted" in job("methods_job", part)


def measures_job(part: str) -> None:
    gpu.install(float64=False)
    rows = one_row_each(lambda row: [named(m) for m in row.measures])
    assert len(rows) >= 25, sorted(rows)
    for name, row in list(rows.items())[int(part) :: 2]:
        splits = toy(row)
        method = built(row, splits).to("cuda").eval()
        for measure in row.measures:
            if named(measure) == name:
                try:
                    found = measure(method, splits)
                except Exception as error:
                    raise AssertionError(f"{name} of {row.name}") from error
                assert found and all(isinstance(float(value), float) for value in found.values()), name
    print("measured")


@pytest.mark.parametrize("part", [0, 1])
def test_every_measure_runs_also_without_float64(part):
    assert "measured" in job("measures_job", part)


# --- data that lie on the device --------------------------------------------------------------------------------------


def test_data_on_the_device_upload_pinned_indices_and_nothing_else(tmp_path):
    assert "drawn on the device" in job("data_job", tmp_path)


def data_job(root: str) -> None:
    """A batch of an `ArrayData`, and textured digits rendered on the device as on the host."""
    import numpy as np
    from PIL import Image

    from xai_course.data.archives import Archive
    from xai_course.data.folders import FolderData, Item
    from xai_course.data.textured_mnist import TexturedMnist, Textures

    gpu.install()
    rng, g = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for k in range(10):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(Path(root, f"{k}.png"))
    photos = FolderData(Archive(root, "GlaS", ""), [Item(f"{k}.png", k) for k in range(10)], size=32, classes=10)
    digits = ArrayData(torch.randint(256, (16, 1, 28, 28), generator=g, dtype=torch.uint8), torch.arange(16) % 10)
    tables = (range(10), range(10), range(10))
    host = TexturedMnist(digits, Textures(photos, 32), tables, 0.5, 0.5, 32, 30, "random", (0, 0))
    device = host.to("cuda")
    device.__getitems__(range(16))  # the plan is made, the photos are on the device
    for data in (digits.to("cuda"), device):
        for counter in (gpu.UPLOADS, gpu.PAGEABLE, gpu.STALLS):
            counter.clear()
        batch = data.__getitems__([3, 1, 15])
        assert sum(gpu.UPLOADS.values()) == 1 and not +gpu.PAGEABLE and not gpu.STALLS, (gpu.UPLOADS, gpu.STALLS)
        assert all(part.is_cuda for part in batch if part is not None)
    expected, found = host.__getitems__([3, 1, 15]), device.__getitems__([3, 1, 15])
    assert all(torch.equal(a, b.cpu()) for a, b in zip(expected[:4], found[:4]))
    (history,) = fit(CrossEntropy(small_cnn()), host, replace(PLAN, workers=2))  # a worker process has no device
    assert history["total"] > 0
    print("drawn on the device")


# --- resuming ---------------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def start(out: str, stop: int | None, **changes) -> tuple[CrossEntropy, list]:
    """A run of two epochs of four steps that ends before step ``stop``, if that is not None."""
    torch.manual_seed(0)
    count = iter(range(100))

    def shift(batch, generator):
        if next(count) == stop:
            raise Stop
        noise = torch.rand(batch.images.shape, generator=generator, device=batch.images.device)
        return batch._replace(images=batch.images + 0.1 * noise)

    g = torch.Generator().manual_seed(0)
    data = ArrayData(torch.rand(16, 3, 8, 8, generator=g), torch.arange(16) % 3)
    net = GapClassifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(0.2)), nn.Linear(4, 3))
    plan = Preset(epochs=2, batch_size=4, checkpoint_seconds=0.0, **changes)
    method = CrossEntropy(net)
    try:
        return method, fit(method, data, plan, out=out, augment=shift)
    except Stop:
        return method, []


def resume_job(device: str, mine: str, other: str) -> None:
    """Leave a finished and two interrupted runs in ``mine``; go on with those that ``other`` holds already."""
    if device == "cuda":
        gpu.install()
    precision = {"precision": "auto"}
    finished, _ = start(f"{mine}/finished", None, **precision)
    for name, stop in (("inside", 2), ("between", 4), ("own", 6)):
        assert start(f"{mine}/{name}", stop, **precision)[1] == []
    again, history = start(f"{mine}/own", None, **precision)
    assert len(history) == 2 and all(
        torch.equal(a.cpu(), b.cpu()) for a, b in zip(finished.parameters(), again.parameters())
    )
    if Path(other).exists():
        for name in ("finished", "inside", "between"):
            method, history = start(f"{other}/{name}", None, **precision)
            assert len(history) == 2 and all(p.device.type == device for p in method.parameters())
    print("resumed")


def test_runs_go_on_across_devices(tmp_path):
    for device, other in (("cpu", "none"), ("cuda", "cpu"), ("cpu", "cuda")):
        here = tmp_path / device if not (tmp_path / device).exists() else tmp_path / "again"
        said = job("resume_job", device, here, tmp_path / other)
        assert "resumed" in said and said.count("with fresh random numbers") == 2 * (other != "none"), said


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("capability", "kind"), [("7.5", "float16"), ("8.0", "bfloat16")])
def test_auto_is_what_the_device_has(capability, kind):
    assert f"Stand-in {capability}, {kind}" in job("auto_job", capability)


def auto_job(capability: str) -> None:
    major, minor = map(int, capability.split("."))
    gpu.install(capability=(major, minor))
    from xai_course.preset import half_precision
    from xai_course.runs.experiment import device_name

    assert half_precision("auto", "cuda") == (torch.float16 if major < 8 else torch.bfloat16)
    assert half_precision("no", "cuda") is half_precision("auto", "cpu") is None
    print(device_name("auto"))


# --- Colab ------------------------------------------------------------------------------------------------------------


def test_colab_opens_every_lab_on_a_gpu_and_says_how_where_it_did_not(monkeypatch, capsys):
    for path in sorted((HERE.parents[1] / "notebooks").glob("*.ipynb")):
        metadata = json.loads(path.read_text("utf-8"))["metadata"]
        assert (metadata["accelerator"], metadata["colab"]["gpuType"]) == ("GPU", "T4"), path
    colab.setup()
    assert "runtime" not in capsys.readouterr().out
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    colab.setup()
    assert ("Runtime > Change runtime type" in capsys.readouterr().out) == (colab.device() == "cpu")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
