"""Figures of the bench's chapter, and the numbers that its explorable shows."""

from __future__ import annotations

from xai_course.runs import comparison, records

QUESTIONS = {
    "plain": ("all is well", "The background tells nothing and labels are right."),
    "shifted": ("a shortcut that goes", "In training the background gives the class away, in the test it does not."),
    "noisy": ("wrong labels", "Some of the training labels are wrong."),
    "multi": ("several labels", "Each image shows several objects."),
    "clothes": ("photographs", "Photographs of clothes, without masks."),
}

LEFT_OUT = ("minmax_shared", "shuffled")  # a known fault and a control: they would set every scale


def data() -> list[dict]:
    """For each situation: its question, and each method's value per seed beside its twin's, verdict and cost."""
    settings = []
    for setting in comparison.measured():
        metric = comparison.primary(setting)[0]
        rows = []
        for key, verdict in comparison.verdicts(setting, metric).items():
            if key in LEFT_OUT:
                continue
            ours, theirs = (comparison.values(setting, k, metric) for k in (key, comparison.twin(key)))
            plain = records.record_path(f"bench/plain/{key}", "smoke")
            cost = records.load(f"bench/plain/{key}").metrics.get("time") if plain.exists() else None
            pair = {"ours": [ours[s] for s in ours], "theirs": [theirs[s] for s in ours]}
            rows.append({"title": comparison.title(key), "verdict": verdict, "time": cost and cost.mean, **pair})
        title, question = QUESTIONS.get(setting, (setting, ""))
        named = {"key": setting, "title": title, "question": question, "metric": comparison.NAMES[metric]}
        settings.append({**named, "rows": rows})
    return settings


def of_class(label: int, count: int, **how) -> list:
    """Grey Textured Digits of one class, ``[3, 32, 32]`` in [0, 1], the running image's kind."""
    from xai_course.data import textured_digits

    options = {"seed": 0, "chroma": 0, "amplitude": 0.08, "q": 1.0, "train": 40 * count, "validation": 1, "test": 1}
    found = textured_digits(**{**options, **how}).train
    return [image / 255 for image, own in zip(found.images, found.labels) if int(own) == label][:count]


def situations():
    """Training and test images of the settings with digits."""
    import matplotlib.pyplot as plt

    from xai_course.data import textured_digits
    from xai_course.show.style import style

    noisy = of_class(8, 1, p=1.0) + of_class(3, 2, p=1.0, seed=2)
    two = textured_digits(seed=0, chroma=0, amplitude=0.08, q=1.0, objects=2, train=6, validation=1, test=1).train
    columns = {
        "plain": (of_class(3, 3, p=1.0), of_class(3, 3, p=1.0, seed=1)),
        "shifted": (of_class(3, 3, p=0.0), of_class(3, 3, p=1.0, seed=1)),
        "noisy": (noisy, of_class(3, 3, p=1.0, seed=1)),
        "multi": ([i / 255 for i in two.images[:3]], [i / 255 for i in two.images[3:6]]),
    }
    with style():
        figure = plt.figure(figsize=(8.6, 2.0))
        parts = figure.subfigures(1, 4)
        for part, (name, both) in zip(parts, columns.items()):
            axes = part.subplots(2, 3)
            part.suptitle({"noisy": "noisy: all called “3”"}.get(name, name), fontsize=9)
            for row, images, side in zip(axes, both, ("training", "test")):
                for axis, image in zip(row, images):
                    axis.imshow(image.permute(1, 2, 0))
                    axis.set(xticks=[], yticks=[])
                    axis.spines[:].set_visible(False)
                if name == "plain":
                    row[0].set_ylabel(side)
    plt.close(figure)
    return figure


def pairing():
    """The same ten numbers twice: as two clouds, and joined by seed."""
    import matplotlib.pyplot as plt

    from xai_course.show.style import CYCLE, style

    ours, theirs = (comparison.values("shifted", key, "accuracy") for key in ("energy", "ce"))
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.6), sharey=True)
        for axis, title in zip(axes, ("two means with their scatter", "the same, joined by seed")):
            for place, values in enumerate((theirs, ours)):
                axis.plot([place] * len(values), list(values.values()), "o", color=CYCLE[place], ms=5)
            axis.set(title=title, xticks=(0, 1), xticklabels=("cross-entropy", "Energy loss"), xlim=(-0.5, 1.5))
        for place, values in enumerate((theirs, ours)):
            found = records.Metric(tuple(values.values()))
            axes[0].errorbar(place + 0.15, found.mean, found.sd, fmt="_", color=CYCLE[place], capsize=4, ms=10)
        for seed in ours:
            axes[1].plot((0, 1), (theirs[seed], ours[seed]), color="0.55", lw=1, zorder=0)
        axes[0].set_ylabel("accuracy, shifted")
    plt.close(figure)
    return figure


def luck():
    """Chance of at least one false verdict against the number of comparisons."""
    import matplotlib.pyplot as plt

    from xai_course.show.style import CYCLE, style

    counts = range(1, 31)
    with style():
        figure, axis = plt.subplots(figsize=(4.8, 2.5))
        axis.plot(counts, [1 - 0.95**m for m in counts], "o-", ms=3, color=CYCLE[1], label="each at 5 %")
        axis.plot(counts, [1 - (1 - 0.05 / m) ** m for m in counts], "o-", ms=3, color=CYCLE[0], label="Holm")
        axis.set(xlabel="comparisons of methods that do nothing", ylabel="chance of a false verdict", ylim=(0, 1))
        axis.legend()
    plt.close(figure)
    return figure


def _forest(setting: str):
    from xai_course.show import bench

    panels, said = {}, {}
    for metric in comparison.primary(setting):
        name = comparison.NAMES[metric]
        found = {k: d for k, d in comparison.differences(setting, metric).items() if k not in LEFT_OUT}
        verdicts = comparison.verdicts(setting, metric)
        panels[name] = {comparison.title(key): d for key, d in found.items()}
        said[name] = {comparison.title(key): verdicts[key] for key in found}
    return bench.forest(panels, said)


def plain():
    """Verdicts where backgrounds tell nothing."""
    return _forest("plain")


def shifted():
    """Verdicts where the background's cue goes away."""
    return _forest("shifted")


def noisy():
    """Verdicts under wrong labels."""
    return _forest("noisy")


def multi():
    """Verdicts with several labels."""
    return _forest("multi")


def clothes():
    """Verdicts on photographs of clothes."""
    return _forest("clothes")


def maps():
    """Accuracy against what the map has on the digit, beside maps that know nothing."""
    from xai_course.show import bench

    keys = [k for k in comparison.rows_run("plain") if k not in LEFT_OUT]
    points = {
        comparison.title(k): tuple(
            list(comparison.values("plain", k, m).values()) for m in ("accuracy", "energy_in_mask")
        )
        for k in keys
    }
    there = records.load("bench/plain/ce").metrics
    names = {"centre": "box in the middle", "gaussian": "bell in the middle", "untrained": "untrained network"}
    blind = {words: there[f"energy_in_mask_{name}"].mean for name, words in names.items()}
    return bench.trade_off(points, blind, ("accuracy, plain", "share of the map on the digit"))


def cost():
    """Time of a training step and memory of its graph, as multiples of cross-entropy's."""
    from tools.figures.common import dots

    there = [k for k in comparison.rows_run("plain") if k not in LEFT_OUT]
    rows = {comparison.title(key): f"bench/plain/{key}" for key in there}
    return dots(rows, {"time": "time × CE", "memory": "memory × CE"})
