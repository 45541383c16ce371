"""Chooses the value of every way of an experiment by its trials: ``python -m tools.tuning masks [--workers 2]``.

The rule stands at the head of ``data/experiments/masks.toml``. The command runs the trials that are missing, tries one
more value where the best lies at an edge, and writes ``chosen`` and the values beyond the grids into the file. Stopped
at any moment (``timeout``, Ctrl-C), it goes on where it was when called again.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
from collections.abc import Iterator
from typing import Any

from xai_course.data.files import course_file
from xai_course.runs import catalogue, declared, records
from xai_course.runs.sweep import sweep

METRIC = "accuracy_broken"


def tried(doc: dict[str, Any]) -> Iterator[tuple[str, str, list[float]]]:
    """Setting, way and all values tried so far, in ascending order."""
    for setting, own in doc["setting"].items():
        if "tuned_by" not in own:
            for way in ways(doc, setting):
                beyond = [v for s, w, v in doc["beyond_grid"]["values"] if (s, w) == (setting, way)]
                yield setting, way, sorted([*doc["tuned"][way]["grid"], *beyond])


def ways(doc: dict[str, Any], setting: str) -> list[str]:
    """The ways of a setting, by name of a list or one by one."""
    given = doc["setting"][setting]["ways"]
    return doc["several"][given[1:-1].partition(".")[2]] if isinstance(given, str) else given


def best(accuracies: dict[float, float]) -> float:
    """The value of the highest accuracy, of equals the smallest.

    Example:
        >>> best({0.1: 0.5, 0.3: 0.6, 1.0: 0.6})
        0.3
    """
    return max(sorted(accuracies), key=accuracies.__getitem__)


def beyond(values: list[float], chosen: float, tuned: dict[str, Any], most: int) -> float | None:
    """The value to try next where the chosen one lies at an edge; None where it does not, or nothing is left to try.

    Example:
        >>> beyond([0.1, 0.3, 1.0], 1.0, {"grid": [0.1, 0.3, 1.0]}, most=3)
        3.0
        >>> beyond([0.1, 0.3, 1.0], 1.0, {"grid": [0.1, 0.3, 1.0], "high": 1.0}, most=3)
        >>> beyond([0.1, 0.3, 1.0, 3.0], 3.0, {"grid": [0.1, 0.3, 1.0]}, most=1)
    """
    if values[0] < chosen < values[-1]:
        return None
    high = chosen == values[-1]
    outside = [v for v in values if (v > tuned["grid"][-1] if high else v < tuned["grid"][0])]
    end = tuned.get("high" if high else "low")
    if len(outside) >= most or chosen == end:
        return None
    decades = (3.0, 10 / 3) if f"{chosen:e}".startswith("1") == high else (10 / 3, 3.0)
    ratio = values[-1] / values[-2] if high else values[1] / values[0]
    step = decades[0] if 2.5 < ratio < 4 else ratio  # 1, 3, 10, 30 and so on, or powers of one number
    following = float(f"{chosen * step if high else chosen / step:.3g}")
    if high and following >= tuned.get("below", following + 1):  # an end that itself makes no sense: half the way to it
        following = float(f"{(chosen + tuned['below']) / 2:.3g}")
    return following if end is None else (min if high else max)(following, end)


def accuracies(paper: str, setting: str, way: str, values: list[float]) -> dict[float, float]:
    """What the records of the trials say."""
    found = {value: records.load(f"{paper}/trial/{setting}/{way}_{value:g}") for value in values}
    return {value: record.metrics[METRIC].mean for value, record in found.items()}


def missing(paper: str, doc: dict[str, Any], pattern: str) -> list[str]:
    """Trials without a record of the present code on all tuning seeds."""
    names = []
    for setting, way, values in tried(doc):
        for name in (f"{paper}/trial/{setting}/{way}_{value:g}" for value in values):
            if fnmatch.fnmatch(f"{setting}/{way}", pattern):
                there = records.available(name).get("smoke")
                seeds = tuple(doc["tuning_seeds"])
                if there is None or there.seeds != seeds or there.code != catalogue.find(name).code():
                    names.append(name)
    return names


def edges(paper: str, doc: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Setting, way and value of every choice at an edge of what was tried that is no natural end (`low`, `high`)."""
    found = []
    for setting, way, values in tried(doc):
        tuned = doc["tuned"][way]
        chosen = tuned["chosen"][setting]
        inner = values[0] < chosen < values[-1]
        if not inner and chosen not in (tuned.get("low"), tuned.get("high")):
            found.append((setting, way, chosen))
    return found


def write(paper: str, doc: dict[str, Any]) -> None:
    """``chosen`` of every way and the values beyond the grids, into the file; everything else stays as it is."""
    path = course_file("experiments", f"{paper}.toml")
    text = path.read_text("utf-8")
    for way, tuned in doc["tuned"].items():
        chosen = ", ".join(f'"{setting}" = {value!r}' for setting, value in tuned["chosen"].items())
        before, head, rest = text.partition(f"[tuned.{way}]\n")
        if not head:
            raise ValueError(f"{path} must hold a line [tuned.{way}] and nothing else on it")
        text = before + head + re.sub(r"(?<=\nchosen = ){.*}", f"{{ {chosen} }}", rest, count=1)
    rows = "".join(f'\n  ["{s}", "{w}", {v!r}],' for s, w, v in doc["beyond_grid"]["values"])
    text = re.sub(r"(\[beyond_grid\]\nvalues = )\[(?:\n  \[.*\],)*\n?\]", rf"\1[{rows}{chr(10) * bool(rows)}]", text)
    path.write_text(text, "utf-8")


def reload(paper: str) -> dict[str, Any]:
    """The file as it stands now."""
    declared.document.cache_clear()
    catalogue.experiments.cache_clear()
    return declared.document(paper)


def tune(paper: str, pattern: str, workers: int) -> None:
    """Trials, choices and further trials until every choice stands."""
    while True:
        doc = reload(paper)
        for record in sweep(missing(paper, doc, pattern), "smoke", doc["tuning_seeds"], workers=workers, force=True):
            print(f"{record.experiment:<50} {record.metrics[METRIC]}  {sum(record.seconds):.0f} s", flush=True)
        further = []
        for setting, way, values in tried(doc):
            if fnmatch.fnmatch(f"{setting}/{way}", pattern):
                chosen = best(accuracies(paper, setting, way, values))
                doc["tuned"][way]["chosen"][setting] = chosen
                value = beyond(values, chosen, doc["tuned"][way], doc["beyond"])
                further += [] if value is None else [[setting, way, value]]
        doc["beyond_grid"]["values"] += further
        write(paper, doc)
        if not further:
            break
    for setting, way, value in edges(paper, reload(paper)):
        print(f"open end: {setting}/{way} chose {value:g}, the last of what was tried")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paper")
    parser.add_argument("pattern", nargs="?", default="*", help="of setting/way, for example 'digits/*'")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    tune(options.paper, options.pattern, options.workers)


if __name__ == "__main__":
    main()
