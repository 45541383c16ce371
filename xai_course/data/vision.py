"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN: torchvision's readers over verified files, held in memory.

Files come from a folder of the user's (``root``, or the environment variable ``XAI_COURSE_DATA``, which may name
several), which is only read, or are downloaded once into the cache. Nothing is parsed before its checksum is right.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch

from .._require import require
from .batch import ArrayData, Splits, fingerprint
from .fetch import DataError, checksum, fetch, source
from .files import Root, cache_folder, write_atomically

PRESETS = {"smoke": (4000, 1000, 2000), "colab": None, "paper": None}  # at most so many images; None: all
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
JPEG_PACK = "cifar10/cifar10_jpegq75.npz"
Arrays = tuple[np.ndarray, np.ndarray]  # images [N, C, H, W] uint8, labels [N]
Limit = tuple[int, int, int] | None


VALIDATION = 5000  # training images held out where nothing else is said


class Choice(TypedDict, total=False):
    """Which images are kept; the arguments that all loaders share.

    Attributes:
        seed: chooses which training images are held out, and which ones "smoke" and ``limit`` keep, 0 where it is not
            given. The test images kept do not depend on it.
        validation: number of training images held out, 5000 where it is not given.
        limit: at most so many (train, validation, test) images, instead of the preset's.

    Example:
        >>> Choice(seed=1, validation=6000)
        {'seed': 1, 'validation': 6000}
    """

    seed: int
    validation: int
    limit: Limit


def mnist(preset: str = "smoke", *, root: Root = None, **choice: Unpack[Choice]) -> Splits:
    """MNIST, ``[N, 1, 28, 28]``, ten digits. Arguments and errors as in :func:`cifar10`."""
    return _idx("MNIST", root, preset, **choice)


def fashion_mnist(preset: str = "smoke", *, root: Root = None, **choice: Unpack[Choice]) -> Splits:
    """Fashion-MNIST, ``[N, 1, 28, 28]``, ten kinds of clothes. Arguments and errors as in :func:`cifar10`."""
    return _idx("FashionMNIST", root, preset, **choice)


def cifar10(preset: str = "smoke", *, root: Root = None, **choice: Unpack[Choice]) -> Splits:
    """CIFAR-10, ``[N, 3, 32, 32]``, ten classes.

    Args:
        preset: "smoke" keeps at most 4000/1000/2000 images; "colab" and "paper" keep all.
        root: folder with the files in torchvision's layout, or with the archive itself; None: ``XAI_COURSE_DATA``
            (folders joined by the system's path separator), then the cache, then a download.
        choice: ``seed``, ``validation`` and ``limit`` of :class:`Choice`.

    Returns:
        Splits of :class:`ArrayData` with uint8 images, int64 labels and no masks.

    Raises:
        DataError: a file is missing, damaged or cannot be had; the message says what to do.
        ValueError: an unknown preset, or no training image would be left.

    Example:
        >>> cifar10(root="nowhere")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: root must name an existing folder, got nowhere
    """
    train, test, classes = _cifar("CIFAR10", "cifar-10-python.tar.gz", root)
    return _splits("CIFAR-10", train, test, classes, preset, **choice)


def cifar100(preset: str = "smoke", *, root: Root = None, labels: str = "fine", **choice: Unpack[Choice]) -> Splits:
    """CIFAR-100, ``[N, 3, 32, 32]``; ``labels`` is "fine" (100 classes) or "coarse" (their 20 superclasses).

    Other arguments and errors as in :func:`cifar10`.

    Example:
        >>> cifar100(labels="medium")
        Traceback (most recent call last):
        ValueError: labels must be "fine" or "coarse", got 'medium'
    """
    require(labels in ("fine", "coarse"), 'labels must be "fine" or "coarse"', repr(labels))
    train, test, classes = _cifar("CIFAR100", "cifar-100-python.tar.gz", root, labels)
    return _splits(f"CIFAR-100 ({labels})", train, test, classes, preset, **choice)


def svhn(preset: str = "smoke", *, root: Root = None, **choice: Unpack[Choice]) -> Splits:
    """SVHN (format 2, without the "extra" set), ``[N, 3, 32, 32]``, ten digits. Arguments and errors as in
    :func:`cifar10`.

    Example:
        >>> svhn(root="nowhere")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: root must name an existing folder, got nowhere
    """
    from torchvision.datasets import SVHN

    def read(split: str) -> Arrays:
        path = fetch(f"{split}_32x32.mat", folders=folders(root))
        data = _read(lambda: SVHN(str(path.parent), split=split), path)
        return data.data, data.labels

    return _splits("SVHN", read("train"), read("test"), tuple("0123456789"), preset, **choice)


def cifar10_jpeg(preset: str = "smoke", *, root: Root = None, **choice: Unpack[Choice]) -> Splits:
    """CIFAR-10 from a JPEG re-encoding (quality 75, 4:2:0): lossy, never to be mixed up with CIFAR-10's own pixels.

    Reads ``cifar10_jpegq75.npz`` (also below ``cifar10/``): ``header`` and ``data`` uint8, ``offsets [60001]``,
    ``labels [60000]``; image i is the JPEG ``header + data[offsets[i]:offsets[i + 1]]``; the first 50,000 are the
    training set. Only the images kept are decoded. Arguments and errors as in :func:`cifar10`.

    Example:
        >>> cifar10_jpeg(root="nowhere")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: root must name an existing folder, got nowhere
    """
    name = "CIFAR-10 (JPEG q75)"
    path = find_file(JPEG_PACK, root)
    with _whole_pack(path), np.load(path) as pack:
        header, data, offsets, labels = (pack[key] for key in ("header", "data", "offsets", "labels"))
    kept = _choose(50_000, len(labels) - 50_000, preset, **choice)
    kept[2] = kept[2] + 50_000
    with _whole_pack(path):
        sets = [(_decode(header, data, offsets, rows), labels[rows]) for rows in kept]
    return _pack(name, sets, CIFAR10_CLASSES)


@contextlib.contextmanager
def _whole_pack(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zip, NumPy and PIL each pass on what their decoders say
        what = f"{path} is damaged or no JPEG pack of CIFAR-10 ({error}); replace it by a whole copy"
        raise DataError(what) from error


def folders(root: Root) -> tuple[Path, ...]:
    """Where the user keeps data: ``root`` alone, or else the folders that ``XAI_COURSE_DATA`` names.

    Raises:
        DataError: one of them does not exist.

    Example:
        >>> [folder.name for folder in folders(Path(__file__).parent)]
        ['data']
    """
    named = [root] if root is not None else filter(None, os.environ.get("XAI_COURSE_DATA", "").split(os.pathsep))
    paths = tuple(Path(folder).expanduser() for folder in named)
    for path in paths:
        if not path.is_dir():
            whose = "root" if root is not None else "XAI_COURSE_DATA"
            raise DataError(f"{whose} must name an existing folder, got {path}")
    return paths


def find_file(name: str, root: Root) -> Path:
    """An unregistered file by its path, or its bare name, in the user's folders.

    Raises:
        DataError: none of them has it.

    Example:
        >>> find_file('vision.py', root=Path(__file__).parent).name
        'vision.py'
    """
    places = [folder / relative for folder in folders(root) for relative in (name, Path(name).name)]
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(map(str, places)) or "nowhere, as neither root nor XAI_COURSE_DATA is set"
    raise DataError(f"{name} was not found (looked at {looked}); give the folder that holds it as root")


def _choose(
    n_train: int, n_test: int, preset: str, *, seed: int = 0, validation: int = VALIDATION, limit: Limit = None
) -> list[np.ndarray]:
    """Rows of the official training set for train and validation, and of the official test set."""
    require(preset in PRESETS, f"preset must be one of {', '.join(PRESETS)}", repr(preset))
    require(0 < validation < n_train, f"validation must be between 1 and {n_train - 1} images", validation)
    at_most = limit or PRESETS[preset] or (n_train, n_train, n_test)
    if len(at_most) != 3 or min(at_most) < 1:
        raise ValueError(f"limit must be three sizes of at least 1 (train, validation, test), got {limit!r}")
    order = np.random.default_rng(seed).permutation(n_train)
    tests = np.random.default_rng(0).permutation(n_test)  # some sets are sorted by class
    parts = (order[validation:], order[:validation], tests)
    return [np.sort(rows[:most]) for rows, most in zip(parts, at_most)]


def _splits(
    name: str, train: Arrays, test: Arrays, classes: Sequence[str], preset: str, **choice: Unpack[Choice]
) -> Splits:
    kept = _choose(len(train[1]), len(test[1]), preset, **choice)
    sets = [(images[rows], labels[rows]) for (images, labels), rows in zip((train, train, test), kept)]
    return _pack(name, sets, classes)


def _pack(name: str, sets: Sequence[Arrays], classes: Sequence[str]) -> Splits:
    made = [ArrayData(torch.from_numpy(x), torch.from_numpy(np.asarray(y, np.int64))) for x, y in sets]
    train, validation, test = made
    identity = fingerprint(name, *(part for data in made for part in (data.images, data.labels)))
    return Splits(name, train, validation, test, tuple(classes), identity)


def _read(construct: Callable[[], Any], path: Path) -> Any:
    """A torchvision data set; its own complaint becomes one message."""
    try:
        return construct()
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        what = f"{path} is incomplete or damaged ({error}). Delete it and run again to get a fresh copy."
        raise DataError(what) from error


def _idx(kind: str, root: Root, preset: str, **choice: Unpack[Choice]) -> Splits:
    """MNIST and its drop-in replacement: four gzipped idx files."""
    from torchvision import datasets

    base = _idx_folder(kind, root)
    sets = [_read(partial(getattr(datasets, kind), str(base), train=t), base / kind) for t in (True, False)]
    train, test = ((data.data.numpy()[:, None], data.targets.numpy()) for data in sets)
    if kind == "MNIST":
        return _splits("MNIST", train, test, tuple("0123456789"), preset, **choice)
    return _splits("Fashion-MNIST", train, test, sets[0].classes, preset, **choice)


def _idx_folder(kind: str, root: Root) -> Path:
    """The folder that holds ``<kind>/raw/*-ubyte`` unpacked and verified: the user's, or else the cache."""
    kinds = [f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    items = [source(f"{kind}/raw/{name}") for name in kinds]
    for folder in folders(root):
        unpacked = [folder / item.name.removesuffix(".gz") for item in items]
        if all(path.is_file() for path in unpacked):
            for path, item in zip(unpacked, items):
                _verify_unpacked(path, item.unpacked_md5)
            return folder
    for item in items:
        path = cache_folder() / item.name.removesuffix(".gz")
        if not path.is_file():
            packed = fetch(item, folders=folders(root))
            try:
                with gzip.open(packed) as file:
                    write_atomically(path, partial(shutil.copyfileobj, file))
            except OSError as error:
                raise DataError(f"cannot unpack {packed} into {path.parent} ({error}); see XAI_COURSE_CACHE") from error
        _verify_unpacked(path, item.unpacked_md5)
    return cache_folder()


def _verify_unpacked(path: Path, expected: str) -> None:
    if (got := checksum(path, "md5")) != expected:
        raise DataError(
            f"{path} is damaged: expected md5 {expected}, got {got}. Nothing was read from it; delete it and run again."
        )


def _cifar(kind: str, archive: str, root: Root, labels: str = "") -> tuple[Arrays, Arrays, tuple[str, ...]]:
    from torchvision import datasets

    reader = getattr(datasets, kind)
    base = next((f for f in folders(root) if (f / reader.base_folder).is_dir()), None)
    if base is None:
        base = cache_folder() / "unpacked"
        _unpack(archive, base / reader.base_folder, root)
    place = base / reader.base_folder
    train, test = (_read(partial(reader, str(base), train=t), place) for t in (True, False))
    targets, classes = [train.targets, test.targets], train.classes
    if labels == "coarse":
        with (place / "meta").open("rb") as file:  # torchvision has just checked the md5 of these three files
            classes = pickle.load(file, encoding="latin1")["coarse_label_names"]
        targets = []
        for part in ("train", "test"):
            with (place / part).open("rb") as file:
                targets.append(pickle.load(file, encoding="latin1")["coarse_labels"])
    images = [np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)) for data in (train, test)]
    return (images[0], np.asarray(targets[0])), (images[1], np.asarray(targets[1])), tuple(classes)


def _unpack(archive: str, target: Path, root: Root) -> None:
    """``target`` (a folder named as the one inside the archive) appears complete or not at all."""
    if target.is_dir():
        return
    packed = fetch(archive, folders=folders(root))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work, tarfile.open(packed) as tar:
            tar.extractall(work, filter="data")
            os.replace(Path(work, target.name), target)
    except (OSError, tarfile.TarError) as error:
        if not target.is_dir():  # another process may have been faster
            raise DataError(f"cannot unpack {packed} into {target.parent} ({error}); see XAI_COURSE_CACHE") from error


def _decode(header: np.ndarray, data: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``[N, 3, 32, 32]`` uint8."""
    from PIL import Image

    start = header.tobytes()
    images = np.empty((len(rows), 3, 32, 32), np.uint8)
    for at, row in enumerate(rows):
        jpeg = io.BytesIO(start + data[offsets[row] : offsets[row + 1]].tobytes())
        images[at] = np.asarray(Image.open(jpeg)).transpose(2, 0, 1)
    return images
