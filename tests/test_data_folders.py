"""Every on-disk format in miniature: labels, splits, masks and boxes as drawn, and one message for what is missing."""

from __future__ import annotations

import copy
import csv
import inspect
import io
import json
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from pack import pack
from PIL import Image

from xai_course import data
from xai_course.data import ArrayData, DataError, in_memory, masks_to_boxes
from xai_course.data.archives import Archive
from xai_course.data.folders import FolderData, Item, hold_out

WIDTH, HEIGHT = 48, 32
BOX = (20, 8, 30, 20)  # x0, y0, x1, y1: inside the central square, which starts at x = 8


def picture(path: Path, colour=(40, 80, 120), size=(WIDTH, HEIGHT)) -> None:
    """One colour, with a white rectangle at BOX."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    image.paste((255, 255, 255), BOX)
    image.save(path)


def mask(path: Path, inside: int, outside: int, size=(WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size, outside)
    image.paste(inside, BOX)
    image.save(path)


def assert_shows_the_rectangle(split, size: int, *, fit: str = "crop", multi: bool = False) -> None:
    """Mask (and boxes) lie where the white rectangle lies, after the same crop and resize."""
    batch = split.__getitems__(range(len(split)))
    n = len(split)
    assert batch.images.shape == (n, 3, size, size) and batch.images.dtype == torch.float32
    assert batch.masks.shape == (n, size, size) and batch.masks.dtype == torch.bool
    assert batch.labels.dtype == (torch.float32 if multi else torch.int64)
    x, y, dx = (8, HEIGHT, HEIGHT) if fit == "crop" else (0, HEIGHT, WIDTH)
    expected = [(BOX[0] - x) / dx, BOX[1] / y, (BOX[2] - x) / dx, BOX[3] / y]
    for found in masks_to_boxes(batch.masks).tolist():
        assert found == pytest.approx([size * value for value in expected], abs=1)
    white = batch.images.mean(1) > 0.8
    assert (white & ~batch.masks).float().mean() < 0.03 and (batch.masks & ~white).float().mean() < 0.03


def test_imagenet_layout(tmp_path):
    for part, n in (("train", 5), ("val", 2)):
        for wnid in ("n01", "n02", "n03"):
            for i in range(n):
                picture(tmp_path / "ImageNet" / part / wnid / f"{wnid}_{i}.JPEG")
    (tmp_path / "ImageNet/train/n01/notes.txt").write_text("no image")
    splits = data.imagenet(root=tmp_path, size=16, validation=0.2)
    assert [len(part) for part in splits[1:4]] == [12, 3, 6] and splits.classes == ("n01", "n02", "n03")
    assert sorted(item.label for item in splits.validation.items) == [0, 1, 2]
    batch = splits.test.__getitems__([5, 0])
    assert batch.labels.tolist() == [2, 0] and batch.masks is None and batch.index.tolist() == [5, 0]
    picture(tmp_path / "ImageNet/val/n09/x.JPEG")
    with pytest.raises(DataError, match="belongs to no class of train/: 'n09'"):
        data.imagenet(root=tmp_path, size=16)


def write_coco(root: Path) -> None:
    categories = [{"id": i, "name": f"kind{i}"} for i in (1, 3, 44)]
    for part, n in (("train2014", 6), ("val2014", 3)):
        images, notes = [], []
        x0, y0, x1, y1 = BOX
        for i in range(n + 1):  # the last one has no object
            picture(root / part / f"COCO_{part}_{i:012d}.jpg")
            images.append({"id": 100 + i, "file_name": f"COCO_{part}_{i:012d}.jpg", "width": WIDTH, "height": HEIGHT})
            box = [x0, y0, x1 - x0, y1 - y0]
            if i < n:
                notes += [{"image_id": 100 + i, "category_id": c, "bbox": box, "iscrowd": 0} for c in (1, 44)]
            notes.append({"image_id": 100 + i, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1})
        (root / "annotations").mkdir(exist_ok=True)
        told = {"images": images, "annotations": notes, "categories": categories}
        (root / f"annotations/instances_{part}.json").write_text(json.dumps(told))


def test_coco(tmp_path):
    write_coco(tmp_path)
    splits = data.coco(root=tmp_path, size=32, validation=0.34)
    assert [len(part) for part in splits[1:4]] == [4, 2, 3] and splits.classes == ("kind1", "kind3", "kind44")
    assert_shows_the_rectangle(splits.train, 32, fit="stretch", multi=True)
    assert splits.test.__getitems__([0]).labels.tolist() == [[1, 0, 1]]
    boxes = splits.test.boxes[0]
    assert boxes.shape == (2, 4) and boxes[0].tolist() == pytest.approx([20 * 32 / 48, 8, 20, 20])
    raw = data.coco(root=tmp_path, size=32, classes=91)
    assert len(raw.classes) == 91 and raw.test.__getitems__([0]).labels.nonzero()[:, 1].tolist() == [1, 44]
    with pytest.raises(ValueError, match="classes must be 80 or 91"):
        data.coco(root=tmp_path, classes=81)
    (tmp_path / "annotations/instances_train2014.json").write_text('{"images": []}')
    with pytest.raises(DataError, match="is no COCO instances file"):
        data.coco(root=tmp_path)


def write_cub(root: Path, classes: list[str], per_class: int = 10) -> None:
    tables: dict[str, list[str]] = {k: [] for k in ("images", "classes", "labels", "split", "boxes")}
    x0, y0, x1, y1 = BOX
    number = 0
    for c, name in enumerate(classes, start=1):
        tables["classes"].append(f"{c} {name}")
        for i in range(per_class):
            number += 1
            picture(root / f"images/{name}/bird_{i}.jpg")
            mask(root / f"segmentations/{name}/bird_{i}.png", 255, 0)
            tables["images"].append(f"{number} {name}/bird_{i}.jpg")
            tables["labels"].append(f"{number} {c}")
            tables["split"].append(f"{number} {int(i < per_class // 2)}")
            tables["boxes"].append(f"{number} {x0:.1f} {y0:.1f} {x1 - x0:.1f} {y1 - y0:.1f}")
    names = ("images", "classes", "image_class_labels", "train_test_split", "bounding_boxes")
    for name, lines in zip(names, tables.values()):
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("masks", ["pixels", "boxes"])
def test_cub(tmp_path, masks):
    write_cub(tmp_path / "CUB_200_2011", ["001.A", "002.B"])
    splits = data.cub(root=tmp_path, size=32, validation=0.2, masks=masks)
    assert [len(part) for part in splits[1:4]] == [8, 2, 10] and splits.classes == ("001.A", "002.B")
    for part in splits[1:4]:
        assert_shows_the_rectangle(part, 32)
        assert part.boxes[0][0].tolist() == pytest.approx([12, 8, 22, 20])
    assert data.cub(root=tmp_path, size=32, masks="none").test.__getitems__([0]).masks is None


def test_cub5_takes_five_birds_and_the_papers_counts(tmp_path):
    names = ["001.A", *data.image_sets.CUB5, "200.Z"]
    write_cub(tmp_path, names)
    splits = data.cub5(root=tmp_path, size=16, preset="colab")
    assert [len(part) for part in splits[1:4]] == [20, 5, 25]  # 80 and 20 % of every class
    assert splits.classes[0] == "Gray Catbird" and len(splits.classes) == 5
    assert {item.image.split("/")[1] for item in splits.test.items} == set(data.image_sets.CUB5)
    for item in splits.test.items:
        assert data.image_sets.CUB5[item.label] in item.image
    write_cub(tmp_path / "few", names[:3])
    with pytest.raises(DataError, match=r"images/108\.White_necked_Raven is missing"):
        data.cub5(root=tmp_path / "few")


def test_tiny_imagenet(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    x0, y0, x1, y1 = BOX
    box = f"{x0}\t{y0}\t{x1 - 1}\t{y1 - 1}"  # inclusive corners
    for wnid in ("n10", "n20"):
        for i in range(5):
            picture(root / f"train/{wnid}/images/{wnid}_{i}.JPEG")
        rows = "".join(f"{wnid}_{i}.JPEG\t{box}\n" for i in range(5))
        (root / f"train/{wnid}/{wnid}_boxes.txt").write_text(rows)
    for i in range(3):
        picture(root / f"val/images/val_{i}.JPEG")
    lines = "".join(f"val_{i}.JPEG\t{('n10', 'n20')[i % 2]}\t{box}\n" for i in range(3))
    (root / "val/val_annotations.txt").write_text(lines)
    splits = data.tiny_imagenet(root=tmp_path, size=32, validation=0.2)
    assert [len(part) for part in splits[1:4]] == [8, 2, 3] and splits.classes == ("n10", "n20")
    for part in splits[1:4]:
        assert_shows_the_rectangle(part, 32, fit="stretch")
    assert splits.test.__getitems__([0, 1, 2]).labels.tolist() == [0, 1, 0]
    (root / "words.txt").write_text("n20\tgoldfish, Carassius auratus\nn30\tnewt\n")
    assert data.tiny_imagenet(root=tmp_path, size=32).classes == ("n10", "goldfish, Carassius auratus")
    (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn99\t1\t2\t3\t4\n")
    with pytest.raises(DataError, match="no known class 'n99'"):
        data.tiny_imagenet(root=tmp_path)


def test_pets(tmp_path):
    for part, start in (("trainval", 0), ("test", 10)):
        lines = ["# Image CLASS-ID SPECIES BREED ID"] if part == "trainval" else []
        for c, breed in enumerate(("Abyssinian", "great_pyrenees"), start=1):
            for i in range(start, start + 5):
                picture(tmp_path / f"images/{breed}_{i}.jpg")
                mask(tmp_path / f"annotations/trimaps/{breed}_{i}.png", 1, 2)
                lines.append(f"{breed}_{i} {c} 1 1")
        (tmp_path / f"annotations/{part}.txt").write_text("\n".join(lines))
    splits = data.pets(root=tmp_path, size=32, validation=0.2)
    assert [len(part) for part in splits[1:4]] == [8, 2, 10] and splits.classes == ("Abyssinian", "great_pyrenees")
    for part in splits[1:4]:
        assert_shows_the_rectangle(part, 32)
    first = splits.train.items[0].mask
    mask(tmp_path / first, 3, 2)  # only uncertain border
    assert not splits.train.__getitems__([0]).masks.any()
    assert data.pets(root=tmp_path, size=32, validation=0.2, border=True).train.__getitems__([0]).masks.any()


def test_isic(tmp_path):
    for part in ("Training", "Validation", "Test_v2"):
        rows = ["image_id,melanoma,seborrheic_keratosis"]
        for i, (melanoma, keratosis) in enumerate(((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))):
            name = f"ISIC_{part}{i}"
            picture(tmp_path / f"ISIC-2017_{part}_Data/{name}.jpg")
            mask(tmp_path / f"ISIC-2017_{part}_Part1_GroundTruth/{name}_segmentation.png", 255, 0)
            rows.append(f"{name},{melanoma},{keratosis}")
        (tmp_path / f"ISIC-2017_{part}_Part3_GroundTruth.csv").write_text("\n".join(rows))
    splits = data.isic2017(root=tmp_path, size=32)
    for part in splits[1:4]:
        assert part.__getitems__(range(3)).labels.tolist() == [0, 1, 2]
        assert_shows_the_rectangle(part, 32, fit="stretch")
    (tmp_path / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text("image_id,melanoma\nISIC_1,yes\n")
    with pytest.raises(DataError, match="needs image_id, melanoma, seborrheic_keratosis"):
        data.isic2017(root=tmp_path)


def test_glas(tmp_path):
    root, rows = tmp_path / "Warwick QU Dataset (Released 2016_07_08)", ["name,patient ID, grade (GlaS), grade (S)"]
    for name in [f"train_{i}" for i in range(10)] + ["testA_1", "testA_2", "testB_1"]:
        picture(root / f"{name}.bmp")
        mask(root / f"{name}_anno.bmp", 3, 0)  # the number of the gland
        rows.append(f"{name},7, {'benign' if name[-1] in '02468' else 'malignant'}, adenomatous")
    (root / "Grade.csv").write_text("\n".join(rows))
    splits = data.glas(root=tmp_path, size=32)
    assert [len(part) for part in splits[1:4]] == [8, 2, 3]
    assert splits.test.__getitems__(range(3)).labels.tolist() == [1, 0, 1]
    for part in splits[1:4]:
        assert_shows_the_rectangle(part, 32)
    (root / "Grade.csv").write_text("name,grade (GlaS)\ntrain_1,unclear\n")
    with pytest.raises(DataError, match="needs benign or malignant"):
        data.glas(root=tmp_path)


def test_the_held_out_share_of_glas_gives_the_papers_counts():
    official = [Item(f"train_{i}.bmp", int(i >= 37)) for i in range(85)]  # 37 benign, 48 malignant
    share = inspect.signature(data.glas).parameters["validation"].default
    assert [len(part) for part in hold_out(official, share, 0)] == [67, 18]


def test_dtd_official_and_as_plain_folders(tmp_path):
    for kind in ("banded", "woven"):
        for i in range(3):
            picture(tmp_path / f"official/images/{kind}/{kind}_{i}.jpg")
    (tmp_path / "official/labels").mkdir()
    for i, part in enumerate(("train", "val", "test")):
        (tmp_path / f"official/labels/{part}2.txt").write_text(f"banded/banded_{i}.jpg\nwoven/woven_{i}.jpg\n")
        for kind in ("banded", "woven"):
            picture(tmp_path / f"plain/{part}/{kind}/{kind}_{i}.jpg")
    for splits in (
        data.dtd(root=tmp_path / "official", size=16, partition=2),
        data.dtd(root=tmp_path / "plain", size=16),
    ):
        assert splits.classes == ("banded", "woven")
        assert [part.items[1].image.rsplit("/")[-1] for part in splits[1:4]] == [
            "woven_0.jpg",
            "woven_1.jpg",
            "woven_2.jpg",
        ]
    with pytest.raises(DataError, match=r"labels/train7\.txt is missing"):
        data.dtd(root=tmp_path / "official", partition=7)


def write_nuclei(root: Path, n: int = 20) -> Path:
    rows = [{"name": f"cell{i}", "kind": ("he", "fluorescence")[i % 2]} for i in range(n)]
    for row in rows:
        picture(root / f"images/{row['name']}.png")
        path = root / f"masks/{row['name']}.png"
        path.parent.mkdir(exist_ok=True)
        values = np.zeros((HEIGHT, WIDTH), np.uint16)
        values[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 300  # 16-bit numbers of nuclei
        Image.fromarray(values).save(path)
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "kind"])
        writer.writeheader()
        writer.writerows(rows)
    packed = root.parent / "nuclei_dsb2018.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in root.rglob("*"):
            archive.write(path, path.relative_to(root).as_posix())
    return packed


def test_nuclei_from_a_folder_and_from_a_zip(tmp_path):
    write_nuclei(tmp_path / "open/nuclei_dsb2018")
    sets = [
        data.nuclei(root=tmp_path / where, size=32, seed=s) for where, s in (("open/nuclei_dsb2018", 0), ("open", 1))
    ]
    assert sets[1].test.archive.path.suffix == ".zip" and sets[0].test.archive.path.is_dir()
    for splits in sets:
        assert [len(part) for part in splits[1:4]] == [12, 4, 4] and splits.classes == ("he", "fluorescence")
        for part in splits[1:4]:
            assert_shows_the_rectangle(part, 32)
    assert sets[0].test.items == sets[1].test.items
    assert sets[0].fingerprint == sets[1].fingerprint


def test_a_zip_is_read_by_copies_and_other_processes(tmp_path):
    write_nuclei(tmp_path / "nuclei_dsb2018", 8)
    split = data.nuclei(root=tmp_path, size=16).train
    split.__getitems__([0])
    for twin in (pickle.loads(pickle.dumps(split)), copy.deepcopy(split)):
        assert torch.equal(twin.__getitems__([1]).images, split.__getitems__([1]).images)


def test_in_memory_holds_the_same_images(tmp_path):
    write_nuclei(tmp_path / "nuclei_dsb2018")
    lazy = data.nuclei(root=tmp_path, size=16)
    held = in_memory(lazy)
    for a, b in zip(lazy[1:4], held[1:4]):
        assert isinstance(b, ArrayData)
        for x, y in zip(a.__getitems__(range(len(a))), b.__getitems__(range(len(b)))):
            torch.testing.assert_close(x, y)
    assert held.fingerprint == lazy.fingerprint


LOADERS = ("imagenet", "coco", "cub", "cub5", "tiny_imagenet", "pets", "isic2017", "glas", "dtd", "nuclei")


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_data_set_says_where_to_get_it(tmp_path, monkeypatch, name):
    monkeypatch.delenv("XAI_COURSE_DATA", raising=False)
    load = getattr(data, name)
    for options in ({"root": tmp_path}, {}):
        with pytest.raises(DataError, match=r"was not found .*Expected below .*Licence: .*\.$"):
            load(**options)
    with pytest.raises(DataError, match="root must name an existing folder"):
        load(root=tmp_path / "nowhere")


def test_missing_and_damaged_images_and_masks(tmp_path):
    write_nuclei(tmp_path / "x/nuclei")
    root = tmp_path / "x/nuclei"
    split = data.nuclei(root=root, size=16).train
    first = split.items[0]
    (root / first.mask).unlink()
    with pytest.raises(DataError, match=r"masks/.* is missing or damaged.*CC0"):
        split.__getitems__([0])
    mask(root / first.mask, 1, 0, size=(9, 9))
    with pytest.raises(DataError, match=r"is \(9, 9\) pixels, its image \(48, 32\)"):
        split.__getitems__([0])
    (root / first.image).write_bytes((root / first.image).read_bytes()[:60])
    with pytest.raises(DataError, match="cannot be decoded"):
        split.__getitems__([0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "big"}, "preset must be one of"),
        ({"fit": "pad"}, "fit must be"),
        ({"size": 4}, "size must be at least 8"),
        ({"limit": (3, 1, 2)}, ""),
    ],
)
def test_arguments(tmp_path, options, message):
    write_nuclei(tmp_path / "nuclei_dsb2018")
    if message:
        with pytest.raises(ValueError, match=message):
            data.nuclei(root=tmp_path, **options)
    else:
        assert [len(part) for part in data.nuclei(root=tmp_path, **options)[1:4]] == [3, 1, 2]


def test_hold_out_is_stratified_and_reproducible():
    items = [Item(f"{i}", i % 3) for i in range(60)] + [Item("lonely", 3)]
    rest, held = hold_out(items, 0.2, 5)
    assert np.bincount([item.label for item in held], minlength=4).tolist() == [4, 4, 4, 0]
    assert sorted(rest + held) == sorted(items) and hold_out(items, 0.2, 5) == (rest, held)
    assert hold_out(items, 0.2, 6)[1] != held
    with pytest.raises(ValueError, match="validation must be a fraction"):
        hold_out(items, 1.0, 0)


def test_an_empty_batch(tmp_path):
    empty = FolderData(Archive(tmp_path, "GlaS", ""), [], 16, 2).__getitems__([])
    assert empty.images.shape == (0, 3, 16, 16) and empty.masks is None and empty.labels.shape == (0,)


def damaged(path: Path, kind: str) -> None:
    """A zip archive like ``nuclei_dsb2018.zip`` in which every image is spoilt in one way."""
    whole = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(whole, "PNG")
    method = zipfile.ZIP_STORED if kind == "crc" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(
            "index.csv", "name,kind\n" + "".join(f"c{i},{'he' if i % 2 else 'fluorescence'}\n" for i in range(9))
        )
        for i in range(9):
            archive.writestr(f"images/c{i}.png", whole.getvalue()[:40] if kind == "cut" else whole.getvalue())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.startswith("images/")]
        starts = [info.header_offset for info in infos]
    for start in starts:
        body = start + 30 + len("images/c0.png")
        if kind in ("crc", "stream"):
            content[body + 20 : body + 30] = b"\xff" * 10
        elif kind == "encrypted":
            content[start + 6] |= 1
        elif kind == "method":
            content[start + 8] = 77
    at = 0
    while (at := content.find(b"PK\x01\x02", at)) >= 0:  # the central directory says it too
        if content[at + 46 : at + 52] == b"images":
            if kind == "encrypted":
                content[at + 8] |= 1
            elif kind == "method":
                content[at + 10] = 77
            elif kind == "bomb":
                content[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
        at += 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("crc", "is missing or damaged .Bad CRC-32"),
        ("stream", "is missing or damaged .Error -3 while decompressing"),
        ("encrypted", "is encrypted, password required"),
        ("method", "compression method is not supported"),
        ("bomb", r"would unpack to 2,147,483,648 bytes"),
        ("cut", "cannot be decoded"),
    ],
)
def test_a_spoilt_archive_is_named_with_its_file_and_origin(tmp_path, kind, message):
    damaged(tmp_path / "nuclei_dsb2018.zip", kind)
    split = data.nuclei(root=tmp_path, size=16).train
    with pytest.raises(DataError, match=rf"images/c\d\.png .*{message}.*Licence: CC0"):
        split.__getitems__([0])


def test_a_picture_that_would_unpack_to_billions_of_pixels_is_refused(tmp_path):
    write_nuclei(tmp_path / "nuclei_dsb2018")
    split = data.nuclei(root=tmp_path / "nuclei_dsb2018", size=16).train
    path = tmp_path / "nuclei_dsb2018" / split.items[0].image
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # the header's width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be decoded .Image size .* decompression bomb"):
        split.__getitems__([0])


def test_an_archive_that_is_none_is_told_and_not_passed_over(tmp_path):
    (tmp_path / "nuclei_dsb2018.zip").write_bytes(b"an error page")
    with pytest.raises(DataError, match=r"nuclei_dsb2018\.zip is no whole zip archive"):
        data.nuclei(root=tmp_path)
    write_nuclei(tmp_path / "x/nuclei_dsb2018")
    (tmp_path / "x/nuclei_dsb2018/index.csv").write_bytes(b"name,kind\n\xff\xfe,he\n")
    with pytest.raises(DataError, match=r"index\.csv is no text in UTF-8"):
        data.nuclei(root=tmp_path / "x/nuclei_dsb2018")


def test_real_tiny_imagenet_has_words_for_its_classes(tmp_path):
    packed = pack("tiny20/tiny-imagenet-200.zip") / "tiny20/tiny-imagenet-200.zip"
    with zipfile.ZipFile(packed) as archive:
        shown = next(name for name in archive.namelist() if "/val/images/" in name)
        kept = ("words.txt", "_boxes.txt", "val_annotations.txt", shown)
        archive.extractall(tmp_path, [name for name in archive.namelist() if name.endswith(kept)])
    splits = data.tiny_imagenet("paper", root=tmp_path)
    assert len(splits.classes) == 20 and splits.classes[0] == "goldfish, Carassius auratus"
    assert len(splits.train) == 9500 and len(splits.test) == 1000
    row = next(i for i, item in enumerate(splits.test.items) if shown.endswith(item.image))
    assert splits.test.__getitems__([row]).images.shape == (1, 3, 64, 64)


def test_real_nuclei():
    splits = data.nuclei("colab", root=pack("nuclei_dsb2018.zip"), size=64, limit=(12, 4, 12))
    batch = splits.test.__getitems__(range(12))
    assert set(batch.labels.tolist()) == {0, 1} and 0.02 < batch.masks.float().mean() < 0.6


def test_real_textures():
    splits = data.dtd("colab", root=pack("dtd10_192.zip"), size=32, limit=(20, 10, 10))
    assert len(splits.classes) == 10 and splits.train.__getitems__([0]).images.std() > 0
