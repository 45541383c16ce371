"""What the records say on "What are masks worth?", made at staging: ``{masks} <part>``, and what its figures draw.

A condition is a name such as "digits/full". Where it has no row of cross-entropy of its own (its masks are what
differs, and cross-entropy sees none) its ways are compared with that of all exact masks, on the same images and seeds.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from statistics import stdev
from typing import Any

from tools import tuning
from xai_course.measure.statistics import Difference, detectable, holm, paired
from xai_course.runs import records
from xai_course.runs.declared import document
from xai_course.runs.report import table

# In the order of a reader who has ever better masks: condition to what it is called.
SITUATIONS = {
    "weak": "a mask for every image, the cue fails in 5 %",
    "few1": "one mask for each class",
    "few10": "ten masks for each class",
    "full": "a mask for every image",
    "dilated": "masks three pixels too wide",
    "shifted": "masks five pixels off",
    "boxes": "boxes",
    "inside": "boxes, and the cue lies in the box",
}
SETS = {"digits": "digits", "garments": "garments", "mnist": "MNIST on textures", "tiny20": "photographs"}
SHORT = {"rrr": "RRR", "smoothing_energy": "Smoothing + Energy loss", "ppce": "PPCE", "abn": "ABN's map loss"}
LEVEL = 0.05


@cache
def declared() -> dict[str, Any]:
    return document("masks")


def title(way: str) -> str:
    """As the figures call a way."""
    return SHORT.get(way, declared()["method"][way].get("title", way))


def conditions() -> list[str]:
    """All that a reader may be in; the rows that train without a cue are no condition but a bound."""
    return [s for s in declared()["setting"] if "bound" not in s]


def called(condition: str) -> str:
    """ "digits, one mask for each class"."""
    of, _, own = condition.partition("/")
    exact = "a box for every image" if condition == "tiny20/full" else SITUATIONS[own]
    return f"{SETS[of]}, {exact}"


def record(condition: str, way: str) -> records.Record | None:
    """The final row, or None: not run."""
    name = f"masks/{condition}/{way}"
    return records.load(name) if records.record_path(name, "smoke").exists() else None


def plain(condition: str) -> str:
    """The condition whose cross-entropy the ways are compared with."""
    return condition if "ce" in tuning.ways(declared(), condition) else f"{condition.split('/')[0]}/full"


def bound(condition: str) -> str:
    """The condition without a cue in training."""
    return "tiny20/inside_bound" if condition == "tiny20/inside" else f"{condition.split('/')[0]}/bound"


def gaps(condition: str, metric: str = "accuracy") -> dict[str, Difference]:
    """Every way that was run minus cross-entropy, on the seeds that both have; empty where that was not run."""
    beside, found = record(plain(condition), "ce"), {}
    for way in tuning.ways(declared(), condition):
        own = record(condition, way)
        if way == "ce" or own is None or beside is None:
            continue
        ours, theirs = (dict(zip(r.seeds, r.metrics[metric].values)) for r in (own, beside))
        seeds = [seed for seed in ours if seed in theirs]
        if len(seeds) > 1:
            found[way] = paired([ours[s] for s in seeds], [theirs[s] for s in seeds])
    return found


def verdicts(condition: str) -> dict[str, str]:
    """ "higher", "lower" or "open" of every way that was run, corrected with Holm over the condition."""
    found = gaps(condition)
    adjusted = holm({way: d.p for way, d in found.items()})
    return {w: "open" if adjusted[w] >= LEVEL else "higher" if d.mean > 0 else "lower" for w, d in found.items()}


def lost(condition: str) -> float | None:
    """What the cue costs cross-entropy: mean accuracy without a cue in training minus that with one; None: not run."""
    above, beside = record(bound(condition), "ce"), record(plain(condition), "ce")
    return above.metrics["accuracy"].mean - beside.metrics["accuracy"].mean if above and beside else None


# --- blocks -----------------------------------------------------------------------------------------------------------


def missing() -> str:
    """What of the declared rows has a record, in sentences."""
    found: dict[str, dict[str, list[str]]] = {"Run in full": {}, "Run but for some rows": {}, "Not run yet": {}}
    for condition, own in declared()["setting"].items():
        ways = tuning.ways(declared(), condition)
        lacking = [way for way in ways if record(condition, way) is None]
        of, _, said = own["title"].partition(", ")
        words = "Not run yet" if len(lacking) == len(ways) else "Run but for some rows" if lacking else "Run in full"
        if words == "Run but for some rows":
            said += f" (without {', '.join(map(title, lacking))})"
        found[words].setdefault(of, []).append(said)
    whole = Counter(own["title"].partition(", ")[0] for own in declared()["setting"].values())
    if not found["Run but for some rows"] and not found["Not run yet"]:
        return "Every declared row has been run."
    sentences = []
    for words, sets in found.items():
        parts = [of if len(said) == whole[of] else f"{of}: {', '.join(said)}" for of, said in sets.items()]
        sentences += [f"**{words}:** {'; '.join(parts)}."] if parts else []
    return " ".join(sentences)


def _said(way: str, found: Difference, verdict: str, count: int) -> str:
    least = detectable(stdev(found.values), len(found.values), level=LEVEL / count)
    tail = f"open: {least:.2f} would have shown" if verdict == "open" else f"{found.low:+.2f} … {found.high:+.2f}"
    return f"{title(way)}: {found.mean:+.2f} ({tail})"


def answers() -> str:
    """For every condition that was run: cross-entropy, the best way and the best penalty on a map or a gradient."""
    lines = []
    for condition in conditions():
        found, said = gaps(condition), verdicts(condition)
        if not found:
            continue
        order = sorted(found, key=lambda way: -found[way].mean)
        penalties = [w for w in order if w in PENALTIES and w != order[0]]
        cells = [_said(way, found[way], said[way], len(found)) for way in (order[0], *penalties[:1])]
        beside = record(plain(condition), "ce")
        assert beside is not None
        lines.append([called(condition), f"{beside.metrics['accuracy'].mean:.2f}", *cells, *[""] * (2 - len(cells))])
    if not lines:
        return "No final row has been run yet."
    return table(["your masks", "cross-entropy", "highest mean", "the best penalty beside it"], lines)


PENALTIES = ("rrr", "cdep", "energy", "l1", "ppce", "reff", "abn", "smoothing_energy")


def numbers() -> str:
    """Every final row: accuracy with the cue broken and with it, the verdict, seeds."""
    lines = []
    for condition in declared()["setting"]:
        said = verdicts(condition)
        for way in tuning.ways(declared(), condition):
            own = record(condition, way)
            if own is not None:
                cells = [str(own.metrics[m]) for m in ("accuracy", "accuracy_seen")]
                lines.append([declared()["setting"][condition]["title"], title(way), *cells, said.get(way, "")])
    head = ["condition", "way", "accuracy, cue broken", "accuracy, cue seen", "against cross-entropy"]
    return table(head, lines) if lines else "No final row has been run yet."


def settled(setting: str, way: str, values: list[float]) -> bool:
    """Whether all trials of a way have a record, and the chosen value is what the rule makes of them."""
    if not all(records.record_path(f"masks/trial/{setting}/{way}_{v:g}", "smoke").exists() for v in values):
        return False
    own, best = declared()["tuned"][way], tuning.best(tuning.accuracies("masks", setting, way, values))
    return best == own["chosen"][setting] and tuning.beyond(values, best, own, declared()["beyond"]) is None


def tuned() -> str:
    """What every way tried, and what was chosen, where the rule has come to its end."""
    lines = []
    for setting, way, values in tuning.tried(declared()):
        own = declared()["tuned"][way]
        if settled(setting, way, values):
            chosen, extra = own["chosen"][setting], len(values) - len(own["grid"])
            place = "inside" if values[0] < chosen < values[-1] else "natural end"
            if (setting, way, chosen) in tuning.edges("masks", declared()):
                place = "**last of those tried**"
            range_ = f"{values[0]:g} … {values[-1]:g}" + (f" ({extra} beyond the grid)" if extra else "")
            lines.append([called(setting), title(way), own["knob"].replace("_", " "), range_, f"{chosen:g}", place])
    head = ["condition", "way", "knob", "tried", "chosen", "where"]
    return table(head, lines) if lines else "No trial has been run yet."


def sets() -> str:
    """A figure for every set of which a condition with masks has been run."""
    made = []
    for name, words in SETS.items():
        found = gaps(f"{name}/full")
        if found:
            best = title(max(found, key=lambda way: found[way].mean))
            made.append(
                f"```{{picture}} masks.{name}\n:name: fig-masks-{name}\n"
                f":alt: Paired differences to cross-entropy on {words} for {len(found)} ways; the highest mean: "
                f"{best}.\n"
                f"{words[0].upper() + words[1:]}: accuracy with the cue broken, each way minus cross-entropy on the "
                "same seeds (strokes), with 95 % intervals. Coloured: survives Holm's correction over the figure.\n```"
            )
    return "\n\n".join(made) or "No final row has been run yet."


PARTS = {"missing": missing, "answers": answers, "numbers": numbers, "tuned": tuned, "sets": sets}


def masks_markdown(part: str) -> str:
    """One part of the page as Markdown.

    Raises:
        ValueError: an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"parts are {', '.join(PARTS)}, got {part!r}")
    return PARTS[part]()
