"""MNIST and its relatives, CIFAR and SVHN: official formats in miniature, damaged files, and the real files if here."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pack import pack

from xai_course.data import DataError, cifar10, cifar10_jpeg, cifar100, fashion_mnist, fetch, mnist, svhn, vision

SMALL = {"validation": 10, "limit": (30, 10, 12)}


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XAI_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("XAI_COURSE_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def register(monkeypatch):
    """Replaces checksums of the registry; without a url, so that nothing goes to the network."""
    entries = dict(fetch.registry())

    def change(name: str, content: bytes, unpacked: bytes = b"") -> None:
        entries[name] = replace(entries[name], urls=(), md5=md5(content), unpacked_md5=md5(unpacked))

    monkeypatch.setattr(fetch, "registry", lambda: entries)
    return change


@pytest.fixture
def user(tmp_path) -> Path:
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def write_idx(user: Path, register, kind: str = "MNIST", *, packed: bool = True) -> dict[str, np.ndarray]:
    rng, made = np.random.default_rng(0), {}
    for part, n in (("train", 60), ("t10k", 20)):
        for what, shape, high in (("images-idx3", (n, 28, 28), 256), ("labels-idx1", (n,), 10)):
            values = rng.integers(0, high, shape).astype(np.uint8)
            content = idx(values)
            name = f"{kind}/raw/{part}-{what}-ubyte.gz"
            path = user / (name if packed else name.removesuffix(".gz"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
            register(name, gzip.compress(content, mtime=0), content)
            made[f"{part}-{what[:6]}"] = values
    return made


def assert_same_images(splits, images: np.ndarray, labels: np.ndarray, tests: np.ndarray, test_labels: np.ndarray):
    """Training and validation together are all training images once, with their labels; test all test images."""
    both = [torch.cat([getattr(splits.train, k), getattr(splits.validation, k)]) for k in ("images", "labels")]
    for (got, got_labels), (want, want_labels) in (
        (both, (images, labels)),
        ((splits.test.images, splits.test.labels), (tests, test_labels)),
    ):
        pairs = [
            sorted(zip(map(bytes, x.reshape(len(x), -1)), map(int, y)))
            for x, y in ((got.numpy(), got_labels), (want, want_labels))
        ]
        assert pairs[0] == pairs[1]


@pytest.mark.parametrize(("load", "kind"), [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")])
@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_from_the_users_folder(cache, user, register, load, kind, packed):
    made = write_idx(user, register, kind, packed=packed)
    before = sorted(user.rglob("*"))
    splits = load("colab", root=user, validation=15)
    assert [len(data) for data in splits[1:4]] == [45, 15, 20] and len(splits.classes) == 10
    assert splits.train.__getitems__([0]).images.shape == (1, 1, 28, 28)
    images, tests = (made[f"{part}-images"][:, None] for part in ("train", "t10k"))
    assert_same_images(splits, images, made["train-labels"], tests, made["t10k-labels"])
    assert sorted(user.rglob("*")) == before  # only read
    assert cache.exists() == packed
    assert load("colab", root=user, validation=15).fingerprint == splits.fingerprint


def test_seed_limits_and_the_environment(cache, user, register, monkeypatch):
    write_idx(user, register)
    monkeypatch.setenv("XAI_COURSE_DATA", str(user))
    a, b = mnist(seed=0, **SMALL), mnist(seed=1, **SMALL)
    assert [len(data) for data in a[1:4]] == [30, 10, 12]
    assert torch.equal(a.test.images, b.test.images)
    assert a.fingerprint != b.fingerprint and not torch.equal(a.train.images, b.train.images)
    kept = {bytes(x.numpy().tobytes()) for x in a.train.images}
    assert not kept & {bytes(x.numpy().tobytes()) for x in a.validation.images}
    assert len(mnist(validation=10).train) == 50  # "smoke" keeps at most 4000


def test_damaged_files_stop_before_they_are_parsed(cache, user, register):
    write_idx(user, register)
    victim = user / "MNIST/raw/t10k-images-idx3-ubyte.gz"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is damaged.*expected md5.*got"):
        mnist(root=user, **SMALL)
    victim.write_bytes(whole)
    mnist(root=user, **SMALL)
    unpacked = cache / "MNIST/raw/train-labels-idx1-ubyte"
    unpacked.write_bytes(unpacked.read_bytes()[:-1])
    with pytest.raises(DataError, match="delete it and run again"):
        mnist(root=user, **SMALL)


def test_unpacking_onto_a_full_disk_leaves_nothing(cache, user, register, monkeypatch):
    write_idx(user, register)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vision.shutil, "copyfileobj", full)
    with pytest.raises(DataError, match="cannot unpack .*No space left"):
        mnist(root=user, **SMALL)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_absent_files_say_what_to_do(cache, user, register):
    register("MNIST/raw/train-images-idx3-ubyte.gz", b"")
    with pytest.raises(DataError, match=r"train-images.*yann\.lecun\.com.*XAI_COURSE_DATA"):
        mnist(root=user, **SMALL)
    with pytest.raises(DataError, match="root must name an existing folder"):
        mnist(root=user / "nowhere")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"preset": "big"}, "preset must be one of"),
        ({"validation": 0}, "validation must be between 1 and 59"),
        ({"validation": 60}, "validation must be between 1 and 59"),
        ({"limit": (0, 1, 1)}, "limit must be three sizes"),
        ({"limit": (5, 5)}, "limit must be three sizes"),
    ],
)
def test_bad_arguments_are_named(cache, user, register, knobs, message):
    write_idx(user, register)
    with pytest.raises(ValueError, match=message):
        mnist(**{"validation": 10, **knobs}, root=user)


def write_cifar(user: Path, register, monkeypatch, *, hundred: bool, archive: bool = True):
    """A CIFAR archive with 10 images per batch file, in the official format."""
    from torchvision.datasets import CIFAR10, CIFAR100

    reader, rng, files, made = (CIFAR100 if hundred else CIFAR10), np.random.default_rng(1), {}, []
    for name, _ in reader.train_list + reader.test_list:
        data = rng.integers(0, 256, (10, 3072)).astype(np.uint8)
        fine = rng.integers(0, 100 if hundred else 10, 10).tolist()
        labels = {"fine_labels": fine, "coarse_labels": [k % 20 for k in fine]} if hundred else {"labels": fine}
        files[name] = pickle.dumps({"data": data, **labels})
        made.append((data.reshape(-1, 3, 32, 32), np.array(fine)))
    names = {"fine_label_names": [f"fine{k}" for k in range(100)], "coarse_label_names": [f"c{k}" for k in range(20)]}
    files[reader.meta["filename"]] = pickle.dumps(names if hundred else {"label_names": [f"k{k}" for k in range(10)]})
    for attribute in ("train_list", "test_list"):
        listed = [[name, md5(files[name])] for name, _ in getattr(reader, attribute)]
        monkeypatch.setattr(reader, attribute, listed)
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5(files[reader.meta["filename"]])})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{reader.base_folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    register(reader.filename, packed.getvalue())
    if archive:
        (user / reader.filename).write_bytes(packed.getvalue())
    else:
        for name, content in files.items():
            (user / reader.base_folder).mkdir(exist_ok=True)
            (user / reader.base_folder / name).write_bytes(content)
    *train, test = made
    return [np.concatenate(part) for part in zip(*train)], test


@pytest.mark.parametrize("archive", [True, False])
def test_cifar10(cache, user, register, monkeypatch, archive):
    train, test = write_cifar(user, register, monkeypatch, hundred=False, archive=archive)
    splits = cifar10("paper", root=user, validation=8)
    assert [len(data) for data in splits[1:4]] == [42, 8, 10] and splits.classes[3] == "k3"
    assert_same_images(splits, *train, *test)
    assert (cache / "unpacked").exists() == archive


def test_cifar100_fine_and_coarse(cache, user, register, monkeypatch):
    train, test = write_cifar(user, register, monkeypatch, hundred=True)
    fine = cifar100("paper", root=user, validation=3)
    coarse = cifar100("paper", root=user, validation=3, labels="coarse")
    assert_same_images(fine, *train, *test)
    assert (len(fine.classes), len(coarse.classes)) == (100, 20)
    assert torch.equal(coarse.train.labels, fine.train.labels % 20)
    assert torch.equal(coarse.test.images, fine.test.images)
    assert (fine.name, coarse.name) == ("CIFAR-100 (fine)", "CIFAR-100 (coarse)")
    with pytest.raises(ValueError, match="labels must be"):
        cifar100(root=user, labels="both")


def test_a_damaged_cifar_batch_never_trains(cache, user, register, monkeypatch):
    write_cifar(user, register, monkeypatch, hundred=False)
    cifar10(root=user, validation=8)
    victim = cache / "unpacked/cifar-10-batches-py/data_batch_3"
    victim.write_bytes(victim.read_bytes()[:-5])
    with pytest.raises(DataError, match="incomplete or damaged.*Delete it and run again"):
        cifar10(root=user, validation=8)


def test_svhn(cache, user, register, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    made, listed = {}, {}
    for split, n in (("train", 12), ("test", 5)):
        images = np.random.default_rng(n).integers(0, 256, (32, 32, 3, n)).astype(np.uint8)
        labels = np.arange(n) % 10 + 1  # the files call the digit 0 "10"
        savemat(user / f"{split}_32x32.mat", {"X": images, "y": labels[:, None]})
        content = (user / f"{split}_32x32.mat").read_bytes()
        register(f"{split}_32x32.mat", content)
        listed[split] = ["", f"{split}_32x32.mat", md5(content)]
        made[split] = (images.transpose(3, 2, 0, 1), labels % 10)
    monkeypatch.setattr(SVHN, "split_list", listed)
    splits = svhn("paper", root=user, validation=2)
    assert all(data.labels.min() >= 0 and data.labels.max() <= 9 for data in splits[1:4])
    assert_same_images(splits, *made["train"], *made["test"])


def write_jpeg_pack(path: Path) -> np.ndarray:
    """Sixty thousand labels, but only one JPEG per class that all of them share."""
    from PIL import Image

    streams = []
    for k in range(10):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (25 * k, 10, 10)).save(buffer, "JPEG", quality=75)
        streams.append(buffer.getvalue())
    header = streams[0][:20]
    assert all(stream.startswith(header) for stream in streams)
    labels = np.arange(60_000) % 10
    bodies = [streams[k][20:] for k in range(10)]
    offsets = np.concatenate([[0], np.cumsum([len(bodies[k]) for k in labels])])
    data = np.frombuffer(b"".join(bodies) * 6000, np.uint8)
    np.savez(path, header=np.frombuffer(header, np.uint8), data=data, offsets=offsets, labels=labels)
    return labels


def test_the_jpeg_pack_is_named_lossy(cache, user):
    write_jpeg_pack(user / "cifar10_jpegq75.npz")
    splits = cifar10_jpeg(root=user, limit=(40, 10, 20))
    assert splits.name == "CIFAR-10 (JPEG q75)" and [len(data) for data in splits[1:4]] == [40, 10, 20]
    for data in splits[1:4]:
        red = data.images[:, 0, 16, 16].float()
        assert (red - 25 * data.labels).abs().max() <= 4
    (user / "cifar10_jpegq75.npz").write_bytes(b"PK\x03\x04 half a zip")
    with pytest.raises(DataError, match="damaged or no JPEG pack"):
        cifar10_jpeg(root=user)
    with pytest.raises(DataError, match="was not found"):
        cifar10_jpeg(root=cache.parent)


def test_one_spoilt_image_in_the_jpeg_pack_is_told(user):
    write_jpeg_pack(user / "cifar10_jpegq75.npz")
    with np.load(user / "cifar10_jpegq75.npz") as pack_:
        parts = dict(pack_)
    parts["data"] = np.zeros_like(parts["data"])
    np.savez(user / "cifar10_jpegq75.npz", **parts)
    with pytest.raises(DataError, match="damaged or no JPEG pack .* replace it by a whole copy"):
        cifar10_jpeg(root=user, limit=(4, 1, 1))


def test_real_mnist(cache):
    splits = mnist(root=pack("MNIST"), limit=(300, 50, 50))
    assert [len(data) for data in splits[1:4]] == [300, 50, 50]
    assert splits.train.images.float().mean() / 255 == pytest.approx(0.1307, abs=0.01)
    assert torch.bincount(splits.train.labels, minlength=10).min() > 10


def test_real_cifar10_as_jpeg(cache):
    splits = cifar10_jpeg(root=pack("cifar10/cifar10_jpegq75.npz"), limit=(300, 50, 50))
    assert splits.train.images.float().mean((0, 2, 3)).div(255).tolist() == pytest.approx([0.49, 0.48, 0.45], abs=0.03)
    assert len(torch.bincount(splits.test.labels)) == 10
