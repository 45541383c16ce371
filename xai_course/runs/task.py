"""What is known of a row before anything is there: shape and number of its images, and how often they are looked at.

All of it from ``data/gpus.toml`` and from what the row declares; no file of a data set is looked for.
"""

import functools
import inspect
import math
import tomllib
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from .._require import require
from ..data.files import course_file
from ..identity import identity


@functools.cache
def gpus() -> dict[str, Any]:
    """``data/gpus.toml``: the cards, the data sets, the measures and what preset colab promises."""
    return tomllib.loads(course_file("gpus.toml").read_text("utf-8"))


class Task(NamedTuple):
    """Shape of an image, number of classes, whether an image has several, and how many images there are."""

    shape: tuple[int, int, int]
    classes: int
    several: bool
    train: int
    validation: int
    test: int


def _calls(value: Any) -> Iterator[dict[str, Any]]:
    """What is called, the outermost function first, each with its arguments."""
    value = identity(value)
    while value:
        value = value if isinstance(value, dict) else {"call": value}
        yield value | {"call": value["call"].rpartition(".")[2]}
        value = value.get("0") or value.get("source") or value.get("of")


def images_of(row: Any, preset: str) -> Task:
    """The task by the declared size of its data set (``data/gpus.toml``): no file is looked for."""
    sets, calls = gpus()["sets"], list(_calls(row.data))
    preset = "smoke" if preset == "cpu" else preset
    told = {key: value for call in reversed(calls) for key, value in call.items()}
    names = [call["call"] for call in calls]
    name = next((name for name in names if name in sets), "")
    require(name, f"nothing is known of the size of {names[-1]}")
    found = sets[name]
    while "like" in found:
        found = sets[found["like"]] | {key: value for key, value in found.items() if key != "like"}
    images = found.get(preset) or found["images"]
    images = told.get("limit") or (told.get("smoke") if preset == "smoke" else None) or told.get("sizes") or images
    train, validation, test = images[0], images[1], images[-1]
    if preset == "smoke" and "few" in names:
        train, validation, test = 16, 8, 8
    if preset == "paper" and "whole" in names:
        train, validation = train + validation, 0
    side = told.get("size") or (64 if "enlarged" in names else found["side"])
    several = told.get("objects") in (2, 3) or found.get("several", False)
    classes = 20 if told.get("labels") == "coarse" else told.get("classes", found["classes"])
    return Task((found.get("channels", 3), side, side), classes, several, train, validation, test)


def looks_of(row: Any, task: Task) -> float:
    """How many images the measures look at."""
    looks = 0.0
    for measure in row.measures:
        function, given = (measure.func, measure.keywords) if isinstance(measure, partial) else (measure, {})
        options = {name: p.default for name, p in inspect.signature(function).parameters.items()} | given
        told = gpus()["looks"][function.__name__]
        test = min(task.test, options.get("limit") or options.get("images") or task.test)
        times = math.prod(_number(options[told[key]]) for key in ("per", "also") if key in told)
        looks += times * (told.get("test", 0) * test + told.get("validation", 0) * task.validation)
    return looks


def _number(value: Any) -> int:
    return value if isinstance(value, int) else len(value)
