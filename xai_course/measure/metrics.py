"""What every metric means: `data/metrics.toml`, read once. A name stands for one definition, wherever it is printed."""

import difflib
import tomllib
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

from ..data.files import course_file


class MetricInfo(NamedTuple):
    """One metric as it is declared.

    Attributes:
        name: as records have it. unit: "share", "logits", "radians", ...; per cent is a way to print, not a unit.
        low, high: ends of its range, possibly infinite.
        direction: "higher" or "lower" is better, or "none".
        definition: one sentence. source: paper and section, or a reference.
        functions: names of the measures that compute it. percent: whether its papers print it in per cent.

    Example:
        >>> metric("f1_plus").percent, metric("iou").direction
        (True, 'higher')
    """

    name: str
    unit: str
    low: float
    high: float
    direction: str
    definition: str
    source: str
    functions: tuple[str, ...]
    percent: bool


def metric(name: str) -> MetricInfo:
    """The declaration of a metric: of its own name, of a name with a suffix, or of a pattern such as ``fgsm_*``.

    A suffix (``_centre``, ``_untrained``, ...) says whose score it is; the definition says so too.

    Raises:
        ValueError: no such metric; the message names the nearest.

    Example:
        >>> metric("map_area_untrained").definition.endswith("over living maps; mean over networks without training")
        True
        >>> metric("fgsm_0.02").unit
        'share'
    """
    declared = _declared()
    base, suffix = _parts(name)
    own = declared["metric"].get(base) or next(
        (info for pattern, info in declared["pattern"].items() if fnmatchcase(base, pattern)), None
    )
    if own is None:
        near = difflib.get_close_matches(name, declared["metric"], n=1)
        raise ValueError(f"unknown metric {name!r}{f', the nearest is {near[0]!r}' if near else ''}: see metrics.toml")
    whose = declared["suffix"].get(suffix, {})
    info = own | whose | {"definition": "; ".join(part["definition"] for part in (own, whose) if part)}
    low, high = (float(end) for end in info.pop("range"))
    functions, percent = tuple(info.pop("functions")), bool(info.pop("percent", False))
    return MetricInfo(name, low=low, high=high, functions=functions, percent=percent, **info)


@cache
def _declared() -> dict[str, dict[str, Any]]:
    return tomllib.loads(course_file("metrics.toml").read_text("utf-8"))


def _parts(name: str) -> tuple[str, str]:
    """The metric and the suffix that says whose score it is: only a declared metric can carry one."""
    declared = _declared()
    if name not in declared["metric"]:
        for suffix in declared["suffix"]:
            if name.removesuffix(suffix) in declared["metric"]:
                return name.removesuffix(suffix), suffix
    return name, ""
