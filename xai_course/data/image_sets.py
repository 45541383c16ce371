"""The papers' image data sets, read from the files as their owners ship them.

None is downloaded: they are large, or want a registration. ``root`` is the unpacked folder, or one that holds it; None
looks into the folders of the environment variable ``XAI_COURSE_DATA``. Something missing gives one message: which file,
the layout expected, where to get it, and the licence.

Arguments shared by all loaders:
    preset: "smoke" keeps at most 200/50/100 images at 64 pixels; "colab" and "paper" keep all at 224.
    root: see above.
    validation: fraction of every class held out of the official training set.
    cut: ``seed``, ``size``, ``limit`` and ``fit`` of :class:`xai_course.data.folders.Cut`.

All return Splits of :class:`xai_course.data.folders.FolderData`. Files that are missing or damaged raise
:class:`xai_course.data.fetch.DataError`.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any, Unpack

from .._require import require
from .archives import Archive, archive
from .batch import Splits
from .files import Root
from .folders import Cut, Item, assemble, hold_out, over_half, trimap, trimap_with_border

CUB5 = ("019.Gray_Catbird", "099.Ovenbird", "108.White_necked_Raven", "171.Myrtle_Warbler", "178.Swainson_Warbler")
ISIC_CLASSES = ("nevus", "melanoma", "seborrheic keratosis")


def imagenet(preset: str = "smoke", *, root: Root = None, validation: float = 0.01, **cut: Unpack[Cut]) -> Splits:
    """ImageNet or any set in the same layout: ``train/<class>/*``, ``val/<class>/*`` (our test split). No masks.

    Example:
        >>> import tempfile, pathlib
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for place in ("train/cat/1", "train/cat/2", "train/dog/3", "val/dog/4"):
        ...         (file := pathlib.Path(root, f"{place}.png")).parent.mkdir(parents=True, exist_ok=True)
        ...         Image.new("RGB", (40, 30)).save(file)
        ...     splits = imagenet(root=root, size=32)
        >>> splits.classes, len(splits.train), len(splits.validation), len(splits.test)
        (('cat', 'dog'), 2, 1, 1)
    """
    where = archive(root, ("ImageNet", "imagenet"), "ImageNet", "train/<wnid>/*.JPEG, val/<wnid>/*.JPEG", ("train",))
    classes, parts = _by_folder(where, "train", "val")
    return assemble("ImageNet", where, parts, classes, preset, validation=validation, **cut)


def coco(
    preset: str = "smoke", *, root: Root = None, validation: float = 0.05, classes: int = 80, **cut: Unpack[Cut]
) -> Splits:
    """COCO 2014, multi-label ``[B, K]``, boxes per object, masks the filled boxes; images without an object left out.

    ``classes``: 80 categories, or 91 to use the category ids as they are (unused ids stay empty classes). Train2014 is
    split into training and validation, val2014 is the test split. Crowd regions are left out.

    Example:
        >>> coco(classes=90)
        Traceback (most recent call last):
        ValueError: classes must be 80 or 91, got 90
    """
    require(classes in (80, 91), "classes must be 80 or 91", repr(classes))
    layout = "train2014/*.jpg, val2014/*.jpg, annotations/instances_train2014.json, annotations/instances_val2014.json"
    where = archive(root, ("coco", "COCO", "coco2014"), "COCO2014", layout, ("annotations",))
    names, train = _coco_items(where, "train2014", classes)
    _, test = _coco_items(where, "val2014", classes)
    cut.setdefault("fit", "stretch")
    return assemble("COCO 2014", where, (train, test), names, preset, validation=validation, masks="boxes", **cut)


def cub(
    preset: str = "smoke", *, root: Root = None, validation: float = 0.1, masks: str = "pixels", **cut: Unpack[Cut]
) -> Splits:
    """CUB-200-2011: 200 birds, official train/test split, bounding boxes, masks from ``segmentations/`` (> 127).

    Example:
        >>> cub(root=".")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: images.txt was not found (root ...). Expected below .: ...
    """
    where, classes, train, test = _cub(root)
    options: dict[str, Any] = {"validation": validation, "foreground": over_half, "masks": masks}
    return assemble("CUB-200-2011", where, (train, test), classes, preset, **options, **cut)


def cub5(
    preset: str = "smoke", *, root: Root = None, validation: float = 0.2, masks: str = "pixels", **cut: Unpack[Cut]
) -> Splits:
    """Five of the 200 birds, as in Min-Max Entropy: 150 training images (120 + 30 held out) and 145 test images.

    Example:
        >>> cub5(root=".")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: images.txt was not found (root ...). Expected below .: ...
    """
    where, classes, train, test = _cub(root)
    for name in CUB5:
        if name not in classes:
            raise where.missing(f"images/{name}", "is missing")
    number = {classes.index(name): new for new, name in enumerate(CUB5)}
    train, test = ([x._replace(label=number[x.label]) for x in part if x.label in number] for part in (train, test))
    names = [name.partition(".")[2].replace("_", " ") for name in CUB5]
    options: dict[str, Any] = {"validation": validation, "foreground": over_half, "masks": masks}
    return assemble("CUB5", where, (train, test), names, preset, **options, **cut)


def tiny_imagenet(preset: str = "smoke", *, root: Root = None, validation: float = 0.05, **cut: Unpack[Cut]) -> Splits:
    """Tiny ImageNet, 200 classes, 64 pixels; one box per image (inclusive corners in the files), the mask is the box.

    The labelled official validation set is the test split, as in Loss-Based Attention. Classes have the names of
    ``words.txt`` where it is there, all synonyms of them, else their wnid.

    Example:
        >>> tiny_imagenet(root=".")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: val/val_annotations.txt was not found (root ...). Expected below .: ...
    """
    layout = "train/<wnid>/{images/*.JPEG, <wnid>_boxes.txt}, val/{images/*.JPEG, val_annotations.txt}, words.txt"
    where = archive(root, ("tiny-imagenet-200",), "tiny-imagenet-200.zip", layout, ("val/val_annotations.txt",))
    classes = sorted({PurePosixPath(name).parts[1] for name in where.files("train")})
    words = dict(line.split("\t", 1) for line in where.lines("words.txt")) if where.has("words.txt") else {}
    rows = [(c, *line.split("\t")) for c in classes for line in where.lines(f"train/{c}/{c}_boxes.txt")]
    train = [_tiny_item(where, f"train/{wnid}/images/{name}", classes, wnid, corners) for wnid, name, *corners in rows]
    rows = [tuple(line.split("\t")) for line in where.lines("val/val_annotations.txt")]
    test = [_tiny_item(where, f"val/images/{name}", classes, wnid, corners) for name, wnid, *corners in rows]
    cut.setdefault("fit", "stretch")
    cut.setdefault("size", 64)
    names = [words.get(wnid, wnid).strip() for wnid in classes]
    return assemble("Tiny ImageNet", where, (train, test), names, preset, validation=validation, masks="boxes", **cut)


def pets(
    preset: str = "smoke", *, root: Root = None, validation: float = 0.1, border: bool = False, **cut: Unpack[Cut]
) -> Splits:
    """Oxford-IIIT Pet, 37 breeds, masks from the trimaps: 1 is the animal; 3, its uncertain border, if ``border``.

    Example:
        >>> pets(root=".")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: annotations/trainval.txt was not found (root ...). Expected below .: ...
    """
    layout = "images/*.jpg, annotations/trainval.txt, annotations/test.txt, annotations/trimaps/*.png"
    where = archive(root, ("oxford-iiit-pet",), "images.tar.gz", layout, ("annotations/trainval.txt",))
    names: dict[int, str] = {}
    parts = []
    for table in ("annotations/trainval.txt", "annotations/test.txt"):
        items = []
        for line in where.lines(table):
            if line.startswith("#"):
                continue
            try:
                stem, label = line.split()[0], int(line.split()[1]) - 1
            except (IndexError, ValueError) as error:
                raise where.missing(table, f'has a line that is not "name class ...": {line!r}') from error
            names[label] = stem.rpartition("_")[0]
            items.append(Item(f"images/{stem}.jpg", label, f"annotations/trimaps/{stem}.png"))
        parts.append(items)
    classes = [names[label] for label in sorted(names)]
    options: dict[str, Any] = {"validation": validation, "foreground": trimap_with_border if border else trimap}
    return assemble("Oxford-IIIT Pet", where, parts, classes, preset, **options, **cut)


def isic2017(preset: str = "smoke", *, root: Root = None, **cut: Unpack[Cut]) -> Splits:
    """ISIC 2017: nevus, melanoma, seborrheic keratosis; lesion masks; the official splits (2000/150/600).

    Example:
        >>> isic2017(root=".")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: ISIC-2017_Training_Part3_GroundTruth.csv was not found (root ...). Expected ...
    """
    layout = "ISIC-2017_{Training,Validation,Test_v2}_{Data/*.jpg, Part1_GroundTruth/*.png, Part3_GroundTruth.csv}"
    mark = "ISIC-2017_Training_Part3_GroundTruth.csv"
    where = archive(root, ("ISIC2017", "isic2017"), "ISIC2017", layout, (mark,))
    parts = []
    for part in ("Training", "Validation", "Test_v2"):
        table, items = f"ISIC-2017_{part}_Part3_GroundTruth.csv", []
        for row in csv.DictReader(where.lines(table)):
            try:
                name, melanoma, keratosis = row["image_id"], float(row["melanoma"]), float(row["seborrheic_keratosis"])
            except (KeyError, TypeError, ValueError) as error:
                raise where.missing(table, "needs image_id, melanoma, seborrheic_keratosis in every row") from error
            mask = f"ISIC-2017_{part}_Part1_GroundTruth/{name}_segmentation.png"
            items.append(Item(f"ISIC-2017_{part}_Data/{name}.jpg", int(melanoma + 2 * keratosis), mask))
        parts.append(items)
    cut.setdefault("fit", "stretch")
    return assemble("ISIC 2017", where, parts, ISIC_CLASSES, preset, foreground=over_half, **cut)


def glas(preset: str = "smoke", *, root: Root = None, validation: float = 0.21, **cut: Unpack[Cut]) -> Splits:
    """GlaS: 85 training (67 + 18 held out) and 80 test images of benign and malignant glands; masks: label != 0.

    Example:
        >>> glas(root=".")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: Grade.csv was not found (root ...). Expected below .: ...
    """
    layout = "Grade.csv, train_<i>.bmp, testA_<i>.bmp, testB_<i>.bmp and <name>_anno.bmp for each"
    where = archive(root, ("GlaS", "glas", "Warwick QU Dataset (Released 2016_07_08)"), "GlaS", layout, ("Grade.csv",))
    train: list[Item] = []
    test: list[Item] = []
    for row in csv.DictReader(where.lines("Grade.csv"), skipinitialspace=True):
        row = {key.strip(): (value or "").strip() for key, value in row.items() if key}
        grade = row.get("grade (GlaS)")
        if grade not in ("benign", "malignant"):
            raise where.missing("Grade.csv", f"needs benign or malignant in 'grade (GlaS)', got {grade!r}")
        item = Item(f"{row['name']}.bmp", int(grade == "malignant"), f"{row['name']}_anno.bmp")
        (train if row["name"].startswith("train") else test).append(item)
    return assemble("GlaS", where, (train, test), ("benign", "malignant"), preset, validation=validation, **cut)


def dtd(preset: str = "smoke", *, root: Root = None, partition: int = 1, **cut: Unpack[Cut]) -> Splits:
    """Describable Textures, 47 classes, official ``partition`` 1 to 10; or any ``train/ val/ test`` image folders.

    Example:
        >>> dtd(root=".")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: labels was not found (root ...). Expected below .: ...
    """
    layout = "images/<class>/*.jpg and labels/{train,val,test}1.txt, or train/<class>/*, val/<class>/*, test/<class>/*"
    where = archive(root, ("dtd", "dtd/dtd", "dtd10_192.zip"), "dtd-r1.0.1.tar.gz", layout, ("labels", "train"))
    if where.has("labels"):
        parts = [where.lines(f"labels/{part}{partition}.txt") for part in ("train", "val", "test")]
        classes = sorted({PurePosixPath(name).parts[0] for part in parts for name in part})
        found = [[Item(f"images/{n}", classes.index(PurePosixPath(n).parts[0])) for n in part] for part in parts]
    else:
        classes, found = _by_folder(where, "train", "val", "test")
    return assemble("DTD", where, found, classes, preset, **cut)


def nuclei(preset: str = "smoke", *, root: Root = None, **cut: Unpack[Cut]) -> Splits:
    """Nuclei of the 2018 Data Science Bowl, two classes: stained tissue and fluorescence; masks: any nucleus.

    Reads ``nuclei_dsb2018.zip`` or its unpacked folder. The 60/15/25 % split of every class is ours and does not depend
    on ``seed``.

    Example:
        >>> nuclei(root=".")
        Traceback (most recent call last):
        xai_course.data.fetch.DataError: index.csv was not found (root ...). Expected below .: ...
    """
    layout = "index.csv (name, kind, ...), images/<name>.png, masks/<name>.png"
    where = archive(root, ("nuclei_dsb2018.zip", "nuclei_dsb2018"), "nuclei_dsb2018.zip", layout, ("index.csv",))
    kinds, items = ("he", "fluorescence"), []
    for row in csv.DictReader(where.lines("index.csv")):
        if row.get("kind") not in kinds or not row.get("name"):
            raise where.missing("index.csv", f"needs name and kind (he or fluorescence) in every row, got {row}")
        items.append(Item(f"images/{row['name']}.png", kinds.index(row["kind"]), f"masks/{row['name']}.png"))
    rest, test = hold_out(items, 0.25, 0)
    parts = (*hold_out(rest, 0.2, 1), test)
    return assemble("Nuclei", where, parts, kinds, preset, **cut)


def _by_folder(where: Archive, *parts: str) -> tuple[list[str], list[list[Item]]]:
    """The classes, the folders of the first part; and the items of every part."""
    pairs = [[(name, PurePosixPath(name).parts[1]) for name in where.images(part)] for part in parts]
    classes = sorted({kind for _, kind in pairs[0]})
    for name, kind in itertools.chain(*pairs):
        if kind not in classes:
            raise where.missing(name, f"belongs to no class of train/: {kind!r}")
    return classes, [[Item(name, classes.index(kind)) for name, kind in part] for part in pairs]


def _coco_items(where: Archive, part: str, classes: int) -> tuple[list[str], list[Item]]:
    table = f"annotations/instances_{part}.json"
    try:
        with where.open(table) as file:
            told = json.load(file)
        categories = sorted((c["id"], c["name"]) for c in told["categories"])
        objects = defaultdict(list)
        for note in told["annotations"]:
            if not note.get("iscrowd"):
                objects[note["image_id"]].append((note["category_id"], note["bbox"]))
        files = {image["id"]: image["file_name"] for image in told["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise where.missing(table, f"is no COCO instances file ({error})") from error
    if classes == 91:
        known = dict(categories)
        names, number = [known.get(i, f"unused {i}") for i in range(91)], {i: i for i, _ in categories}
    else:
        names, number = [name for _, name in categories], {i: k for k, (i, _) in enumerate(categories)}
    items = []
    for i, notes in sorted(objects.items()):
        labels = tuple(sorted({number[category] for category, _ in notes}))
        boxes = tuple((x, y, x + w, y + h) for _, (x, y, w, h) in notes)
        items.append(Item(f"{part}/{files[i]}", labels, boxes=boxes))
    return names, items


def _cub(root: Root) -> tuple[Archive, list[str], list[Item], list[Item]]:
    layout = (
        "images/, images.txt, classes.txt, image_class_labels.txt, train_test_split.txt, bounding_boxes.txt, "
        "segmentations/ (for masks)"
    )
    where = archive(root, ("CUB_200_2011",), "CUB_200_2011.tgz", layout, ("images.txt",))
    names = ("images", "classes", "image_class_labels", "train_test_split", "bounding_boxes")
    table = {name: dict(line.split(maxsplit=1) for line in where.lines(f"{name}.txt")) for name in names}
    masks = where.has("segmentations")
    classes = [name.strip() for _, name in sorted(table["classes"].items(), key=lambda pair: int(pair[0]))]
    train: list[Item] = []
    test: list[Item] = []
    for key, name in sorted(table["images"].items(), key=lambda pair: int(pair[0])):
        try:
            label, first = int(table["image_class_labels"][key]) - 1, table["train_test_split"][key].strip() == "1"
            x, y, w, h = map(float, table["bounding_boxes"][key].split())
        except (KeyError, ValueError) as error:
            raise where.missing("images.txt", f"and its companions disagree about image {key} ({error})") from error
        mask = f"segmentations/{PurePosixPath(name).with_suffix('.png')}" if masks else ""
        (train if first else test).append(Item(f"images/{name.strip()}", label, mask, ((x, y, x + w, y + h),)))
    return where, classes, train, test


def _tiny_item(where: Archive, name: str, classes: list[str], wnid: str, corners: list[str]) -> Item:
    try:
        x0, y0, x1, y1 = map(float, corners)
        return Item(name, classes.index(wnid), boxes=((x0, y0, x1 + 1, y1 + 1),))  # inclusive corners
    except ValueError as error:
        raise where.missing(name, f"has no box of four numbers or no known class {wnid!r}") from error
