"""What the papers prescribe for their rows, beside what the rows do at preset "paper".

``data/settings/<paper>.toml`` is a list of groups; a group names rows by patterns ("table1/*/resnet56", without the
paper's name) and says of settings what the paper prescribes. A later group's entry replaces an earlier one's:

- ``paper``, ``at``: the value, and where it stands; both absent where the paper is silent;
- ``code``: what the authors' released program does, where it is known;
- ``here``, ``why``: what we do instead, or where the paper is silent, and the reason;
- ``swept``: where it stands that this setting takes several values: it is not compared.

Settings are the fields of `Preset`; ``data``, ``net``, ``method`` and ``augment``, what is called; their arguments, as
``net.depth``; and ``train_images``, ``image_size``, ``seeds``. Under ``beside`` stands, as
prose, what departs and no setting expresses.
"""

from __future__ import annotations

import functools
import inspect
import tomllib
from dataclasses import MISSING, fields
from fnmatch import fnmatch
from typing import Any

from tools import ROOT
from xai_course.data.vision import VALIDATION
from xai_course.preset import Preset
from xai_course.runs.declared import experiments, function
from xai_course.runs.experiment import Experiment, run

FOLDER = ROOT / "data" / "settings"
PAPERS = ("amc", "hnc", "loss_attention", "minmax", "reff")
NEEDED = {
    *("epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "schedule", "milestones"),
    *("data", "net", "method", "augment", "train_images", "image_size", "seeds"),
}
OF_THE_MACHINE = {"workers", "checkpoint_seconds", "channels_last"}  # how, not what
TRANSPARENT = {"sized", "whole", "few"}  # wrappers that say nothing of their own here
OFFICIAL = {  # training images as the owner counts them, side of an image as the loader gives it
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
BUILT_ON = {"coco_288": ("coco", 288), "noisy_cifar100": ("cifar100", 32), "five_digits": ("mnist", 28)}
OPTIONS_OF = {"AmcLoss": "angular_margin_contrastive", "EuclideanContrastive": "euclidean_contrastive"}
OWN_HOLD_OUT = {"textured_mnist": 6000, "isic2017": 0}
Entry = dict[str, Any]


@functools.cache
def document(paper: str) -> Entry:
    """One paper's file, as written."""
    return tomllib.loads((FOLDER / f"{paper}.toml").read_text("utf-8"))


def rows(paper: str) -> dict[str, Experiment]:
    """The rows of the paper's own tables and figures that can be run at preset "paper", by name without the paper's."""
    found = {e.name.partition("/")[2]: e for e in experiments(paper) if "paper" in e.presets}
    return {name: e for name, e in found.items() if name.startswith(("table", "fig"))}


def stated(paper: str, row: str) -> dict[str, Entry]:
    """What the file says of one row: setting to entry."""
    found: dict[str, Entry] = {}
    for group in document(paper)["group"]:
        if any(fnmatch(row, pattern) for pattern in group["rows"]):
            found |= group["settings"]
    return found


def resolved(experiment: Experiment) -> tuple[Entry, set[str]]:
    """What a row does at preset "paper", defaults included, and the names of the settings that are not defaults."""
    declared = experiment.settings("paper")
    found: Entry = {name: value for name, value in declared["preset"].items() if name not in OF_THE_MACHINE}
    defaults = {f.name: f.default for f in fields(Preset) if f.default is not MISSING}
    chosen = {name for name, value in found.items() if _plain(value) != _plain(defaults[name])}
    for part in ("data", "net", "method", "augment"):
        given = _flat(part, declared[part])
        found |= _defaults(part, given.get(part)) | given
        chosen |= set(given)
    loader = found["data"].rpartition("(")[2].rstrip(")")
    base, side = BUILT_ON.get(loader, (loader, 0))
    images, usual = OFFICIAL[base]
    held = OWN_HOLD_OUT.get(base)
    if held is None:
        own = inspect.signature(function(base)).parameters
        held = own["validation"].default if "validation" in own else VALIDATION
    if '"whole"' in str(declared["data"]).replace("'", '"') or ".whole'" in str(declared["data"]):
        held = 0
    found["train_images"] = images - (held if isinstance(held, int) else round(held * images))
    found["image_size"] = found.get("data.size") or (64 if "enlarged" in found["data"] else side or usual)
    found["seeds"] = len(inspect.signature(run).parameters["seeds"].default)
    return found, chosen | {"train_images", "image_size"}


def _flat(part: str, value: Any) -> Entry:
    """``{part: what is called, part.argument: value}``; of a wrapper the inner call counts."""
    if value is None:
        return {part: "none"}
    if not (isinstance(value, dict) and "call" in value):
        if isinstance(value, dict) and "paper" in value:  # one entry per profile
            return _flat(part, value["paper"])
        return {part: value.rpartition(".")[2] if isinstance(value, str) and "xai_course" in value else value}
    name, found = value["call"].rpartition(".")[2], Entry()
    inner = next((value[key] for key in ("0", "of", "source") if key in value), None)
    if inner is not None:
        found = _flat(part, inner)
        name = found[part] if name in TRANSPARENT else f"{name}({found[part]})"
    for key, argument in value.items():
        if key not in ("call", "0", "of", "source"):
            found |= _flat(f"{part}.{key}", argument)
    return found | {part: name}


def _defaults(part: str, call: Any) -> Entry:
    """The arguments that a method or an augmentation has of itself."""
    if part not in ("method", "augment") or call == "none":
        return {}
    made = function(call)
    calls = [*(c.__init__ for c in made.__mro__[:-1] if "__init__" in vars(c))] if isinstance(made, type) else [made]
    calls += [function(OPTIONS_OF[call])] if call in OPTIONS_OF else []
    parameters = [p for each in reversed(calls) for p in inspect.signature(each).parameters.values()]
    return {f"{part}.{p.name}": p.default for p in parameters if isinstance(p.default, (int, float, str, tuple))}


def _plain(value: Any) -> Any:
    """Tuples as lists, "80/300" as a number: as both files and code may have it."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, str) and value.replace("/", "").isdigit() and value.count("/") == 1:
        above, below = value.split("/")
        return int(above) / int(below)
    return value


def problems(paper: str) -> list[str]:
    """Where a row does something else than the file says, row by row; a group that no row has; a needless departure."""
    found, used, all_rows = [], set(), rows(paper)
    for name, experiment in all_rows.items():
        says, (does, chosen) = stated(paper, name), resolved(experiment)
        found += [f"{name}: nothing stated of {key}" for key in sorted((NEEDED | chosen) - set(says))]
        for key, entry in says.items():
            if "swept" in entry:
                continue
            expected = entry["here"] if "here" in entry else entry.get("paper")
            if _plain(does.get(key)) != _plain(expected):
                found.append(f"{name}: {key} should be {expected!r}, is {does.get(key)!r}")
        used |= {p for g in document(paper)["group"] for p in g["rows"] if fnmatch(name, p)}
    for group in document(paper)["group"]:
        found += [f"no row is called {pattern}" for pattern in group["rows"] if pattern not in used]
        for key, entry in group["settings"].items():
            where = f"{' '.join(group['rows'])}: {key}"
            if "here" in entry and "paper" in entry and _plain(entry["here"]) == _plain(entry["paper"]):
                found.append(f"{where} departs from nothing")
            if ("here" in entry) != ("why" in entry) or ("paper" in entry) != ("at" in entry):
                found.append(f"{where}: a value needs its source, a departure its reason")
    return found


# --- the page --------------------------------------------------------------------------------------------------------


def departures_markdown(paper: str) -> str:
    """The table of what a row does that the paper does not prescribe, and of what no setting expresses."""
    lines = ["| rows | setting | paper | released code | here | why |", "|---|---|---|---|---|---|"]
    for group in document(paper)["group"]:
        names = ", ".join(f"`{pattern}`" if pattern != "*" else "all" for pattern in group["rows"])
        for key, entry in group["settings"].items():
            if "here" in entry:
                printed = f"{_cell(entry['paper'])} ({entry['at']})" if "paper" in entry else "not said"
                code = _cell(entry["code"]) if "code" in entry else "–"
                lines.append(f"| {names} | {key} | {printed} | {code} | {_cell(entry['here'])} | {entry['why']} |")
    for entry in document(paper).get("beside", ()):
        names = ", ".join(f"`{pattern}`" if pattern != "*" else "all" for pattern in entry["rows"])
        cells = (entry["what"], entry["paper"], entry.get("code", "–"), entry["here"], entry["why"])
        lines.append(f"| {names} | {' | '.join(cells)} |")
    compared = len(rows(paper))
    return "\n".join(
        [*lines, "", f"*All other settings of the {compared} rows are as printed: `tests/test_settings.py`.*"]
    )


def _cell(value: Any) -> str:
    if value in (None, "", []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"`{value}`" if isinstance(value, str) and not value.replace("/", "").isdigit() else f"{value}"
