"""What the bench's records say: paired differences with intervals, and verdicts.

Every method is compared with its twin, the same network without it, seed by seed: both saw the same images and started
from the same numbers. Five differences give a mean and Student's 95 % interval. A verdict asks more: a p-value that
survives Holm's correction over all methods of a setting.
"""

from ..measure.statistics import Difference, holm, paired
from ..measure.trivial import TRIVIAL
from . import records
from .catalogue import experiments
from .experiment import Experiment
from .report import table

NAMES = {
    "accuracy": "accuracy",
    "validation_accuracy": "accuracy where the cue holds",
    "mAP": "mAP",
    "OF1": "F1 of all decisions",
    "fgsm_0.02": "FGSM 0.02",
    "pgd_margin_0.02": "PGD 0.02",
    "ece": "calibration error",
    "memorised": "wrong labels learnt",
    "energy_in_mask": "energy in mask",
    "pointing": "pointing",
    "iou": "IoU",
    "f1_plus_relative": "F1+",
    "f1_minus_relative": "F1−",
    "box_accuracy": "box accuracy",
    "deletion": "deletion",
    "insertion": "insertion",
    "time": "time × CE",
    "memory": "memory × CE",
}
MAPS = ("energy_in_mask", "pointing", "iou", "f1_plus_relative", "f1_minus_relative", "box_accuracy")
TRIALS = ("rate", "tuning")


def settings() -> tuple[str, ...]:
    """The bench's settings in their order."""
    return tuple(dict.fromkeys(e.item for e in experiments().values() if e.paper == "bench" and e.item not in TRIALS))


def rows_of(setting: str) -> dict[str, Experiment]:
    """The compared rows of a setting by key: methods and their twins; controls are left out."""
    start = f"bench/{setting}/"
    rows = {name.removeprefix(start): e for name, e in experiments().items() if name.startswith(start)}
    twins = {twin(key) for key in rows if twin(key) != key}
    return {key: e for key, e in rows.items() if twin(key) != key or key in twins}


def _row(key: str) -> Experiment:
    return next(experiments()[name] for s in settings() if (name := f"bench/{s}/{key}") in experiments())


def title(key: str) -> str:
    return _row(key).title


def twin(key: str) -> str:
    """The row a method is compared with; its own name where it is the plain one."""
    return _row(key).twin.rpartition("/")[2] or key


def primary(setting: str) -> tuple[str, ...]:
    """The columns declared to decide: accuracy (mAP with several labels), and energy in the mask where there is one."""
    shown = next(iter(rows_of(setting).values())).shown
    return tuple(metric for metric in ("accuracy", "mAP", "energy_in_mask") if metric in shown)


def rows_run(setting: str) -> tuple[str, ...]:
    """The rows of a setting that have a record, and so has their twin."""

    def there(key: str) -> bool:
        return records.record_path(f"bench/{setting}/{key}", "smoke").exists()

    return tuple(key for key in rows_of(setting) if there(key) and there(twin(key)))


def measured() -> tuple[str, ...]:
    """The settings in which some method has run beside its twin."""
    return tuple(s for s in settings() if any(twin(key) != key for key in rows_run(s)))


def values(setting: str, key: str, metric: str) -> dict[int, float]:
    """One metric of one row by seed."""
    record = records.load(f"bench/{setting}/{key}")
    return dict(zip(record.seeds, record.metrics[metric].values))


def differences(setting: str, metric: str) -> dict[str, Difference]:
    """Every method of a setting against its twin, seeds matched by number.

    Raises:
        ValueError: a method and its twin were run with other seeds. FileNotFoundError: a row was not run.
    """
    found = {}
    for key in rows_run(setting):
        if twin(key) == key:
            continue
        ours, theirs = values(setting, key, metric), values(setting, twin(key), metric)
        if ours.keys() != theirs.keys():
            raise ValueError(f"bench/{setting}/{key} and {twin(key)} must have the same seeds, got other ones")
        found[key] = paired([ours[s] for s in ours], [theirs[s] for s in ours])
    return found


def verdicts(setting: str, metric: str, level: float = 0.05) -> dict[str, str]:
    """ "higher", "lower" or "open" for each method against its twin."""
    found = differences(setting, metric)
    adjusted = holm({key: d.p for key, d in found.items()})
    return {key: "open" if adjusted[key] >= level else "higher" if d.mean > 0 else "lower" for key, d in found.items()}


def mean_sd(setting: str, key: str, metric: str) -> str:
    """ "0.884 ± 0.003", or nothing where the row lacks the metric."""
    return str(records.load(f"bench/{setting}/{key}").metrics.get(metric, ""))


def maps_table(setting: str) -> str:
    """Scores of the maps, the trivial ones and the untrained network's first."""
    metrics = [m for m in MAPS if m != "box_accuracy" or setting != "multi"]
    rows = [
        [f"*{name.replace('_', ' ')}*", *(mean_sd(setting, "ce", f"{m}_{name}") for m in metrics)]
        for name in (*TRIVIAL, "untrained")
    ]
    if "loss_attention" in rows_run(setting):
        untrained = [mean_sd(setting, "loss_attention", f"{m}_untrained") for m in metrics]
        rows.append(["*untrained, Loss-Attention*", *untrained])
    rows += [[title(key), *(mean_sd(setting, key, m) for m in metrics)] for key in rows_run(setting)]
    return table(["", *(NAMES[m] for m in metrics)], rows)
