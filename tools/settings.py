"""What the papers prescribe for their rows, beside what the rows do at preset "paper".

``data/settings/<paper>.toml`` is a list of groups; a group names rows by patterns ("table1/*/resnet56", without the
paper's name) and says of settings what the paper prescribes. A later group's entry replaces an earlier one's:

- ``paper``, ``at``: the value, and where it stands; both absent where the paper is silent;
- ``code``: what the authors' released program does, where that is known to be something else;
- ``here``, ``why``: what we do instead, or where the paper is silent, and the reason;
- ``swept``: the setting is the axis of the table or figure: stated, but not one value.

Settings are the fields of the `Preset`; ``data``, ``net``, ``method`` and ``augment``, what is called; their arguments
as ``net.depth``; and ``train_images``, ``image_size``, ``seeds``.
"""

from __future__ import annotations

import inspect
import tomllib
from dataclasses import asdict
from fnmatch import fnmatch
from typing import Any

from tools import ROOT
from xai_course.preset import Preset
from xai_course.runs.declared import experiments, function
from xai_course.runs.experiment import Experiment

FOLDER = ROOT / "data" / "settings"
PAPERS = ("reff", "loss_attention", "minmax", "hnc", "amc")
ROOM = {"workers", "checkpoint_seconds", "channels_last"}  # how the machine is used: decides no result
WRAPPERS = {"sized", "whole", "few", "enlarged", "coco_288", "noisy_cifar100", "five_digits"}
OFFICIAL = {  # training images of each set as its owner counts them, and the side of its images
    "mnist": (60000, 28),
    "cifar10": (50000, 32),
    "cifar100": (50000, 32),
    "svhn": (73257, 32),
    "tiny_imagenet": (100000, 64),
    "coco": (82783, 224),
    "imagenet": (1281167, 224),
    "cub": (5994, 224),
    "cub5": (150, 224),
    "glas": (85, 224),
    "textured_mnist": (60000, 224),
    "isic2017": (2000, 224),
    "pets": (3680, 224),
}
Entry = dict[str, Any]


def groups(paper: str) -> list[Entry]:
    """The groups of one paper's file, as written."""
    return tomllib.loads((FOLDER / f"{paper}.toml").read_text("utf-8"))["group"]


def rows(paper: str) -> dict[str, Experiment]:
    """The rows of the paper's own tables and figures that can be run at preset "paper", by name without the paper's."""
    found = {e.name.partition("/")[2]: e for e in experiments(paper) if "paper" in e.presets}
    return {name: e for name, e in found.items() if name.startswith(("table", "fig"))}


def stated(paper: str, row: str) -> dict[str, Entry]:
    """What the file says of one row: setting to entry."""
    found: dict[str, Entry] = {}
    for group in groups(paper):
        if any(fnmatch(row, pattern) for pattern in group["rows"]):
            found |= group["settings"]
    return found


def resolved(experiment: Experiment) -> Entry:
    """What a row does at preset "paper": every setting by name, calls with what they are given."""
    declared = experiment.settings("paper")
    found: Entry = {name: value for name, value in declared["preset"].items() if name not in ROOM}
    for part in ("data", "net", "method", "augment"):
        found |= _flat(part, declared[part])
    loader = found["data"].rpartition("(")[2].rstrip(")")
    count, side = OFFICIAL[{"coco_288": "coco", "five_digits": "mnist", "noisy_cifar100": "cifar100"}.get(loader, loader)]
    held = inspect.signature(function("coco" if loader == "coco_288" else loader)).parameters.get("validation")
    return found
