"""The bench: every method of the course, its plain twin and some combinations under one protocol, as data.

``bench/<setting>/<method>`` are the final rows (seeds `SEEDS`), ``bench/tuning/<setting>_<method>_<value>`` the trials
that decided their values (seed `TUNING_SEED`, validation split only), ``bench/rate/<network>_<value>`` those that
decided the learning rate of each network, with its plain method in the plain setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..methods.base import CrossEntropy
from .bench_parts import (
    COMBINED,
    REAL,
    ROWS,
    SETTINGS,
    chosen_method,
    digits,
    measures,
    net_of,
    presets,
    rows_of,
    shown,
    small,
    validation_accuracy,
    with_shuffled_labels,
)
from .experiment import Experiment

RATES = {"ce": (4e-3, 8e-3, 1.6e-2), "mean": (1e-2, 2e-2, 4e-2), "wildcat": (5e-3, 1e-2, 2e-2)}


DATA = {
    **{setting: partial(digits, **knobs) for setting, (_, knobs) in SETTINGS.items()},
    **{setting: real.data for setting, real in REAL.items()},
}


def _final() -> Iterator[Experiment]:
    for setting, data in DATA.items():
        for key in rows_of(setting):
            net = net_of(key)
            yield Experiment(
                f"bench/{setting}/{key}",
                COMBINED[key][0] if key in COMBINED else ROWS[key].title,
                data,
                net,
                chosen_method(setting, key),
                presets(net, setting),
                measures(setting, key),
                needs=REAL[setting].needs if setting in REAL else "",
                shown=shown(setting),
            )
    yield Experiment(
        "bench/plain/shuffled",
        "control: cross-entropy on shuffled labels",
        partial(with_shuffled_labels, **SETTINGS["plain"][1]),
        small,
        CrossEntropy,
        presets(small, "plain"),
        measures("plain", "shuffled"),
        shown=shown("plain"),
    )


def _trial(name: str, title: str, setting: str, net, method, rate: float | None = None) -> Experiment:
    """A trial never opens the test split."""
    plan, needs = presets(net, setting, rate), REAL[setting].needs if setting in REAL else ""
    seen = ("validation_accuracy",)
    measure = (validation_accuracy,)
    return Experiment(f"bench/{name}", title, DATA[setting], net, method, plan, measure, needs=needs, shown=seen)


def _rates() -> Iterator[Experiment]:
    for key, grid in RATES.items():
        row = ROWS[key]
        for rate in grid:
            title = f"{row.title}, learning rate {rate:g}"
            yield _trial(f"rate/{key}_{rate:g}", title, "plain", row.net, row.method(), rate)


def _tuning() -> Iterator[Experiment]:
    for setting in DATA:
        for key in rows_of(setting):
            row = ROWS.get(key)
            for value in row.grid if row else ():
                title = f"{setting}: {row.title}, {row.knob} = {value:g}"
                yield _trial(f"tuning/{setting}_{key}_{value:g}", title, setting, row.net, row.method(value))


EXPERIMENTS: tuple[Experiment, ...] = (*_final(), *_rates(), *_tuning())
