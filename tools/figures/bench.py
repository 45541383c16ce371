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


def data() -> list[dict]:
    """For each situation: its question, and each method's value per seed beside its twin's, verdict and cost."""
    settings = []
    for setting in comparison.measured():
        metric = comparison.primary(setting)[0]
        rows = []
        for key, verdict in comparison.verdicts(setting, metric).items():
            ours, theirs = (comparison.values(setting, k, metric) for k in (key, comparison.twin(key)))
            plain = records.record_path(f"bench/plain/{key}", "smoke")
            cost = records.load(f"bench/plain/{key}").metrics.get("time") if plain.exists() else None
            pair = {"ours": [ours[s] for s in ours], "theirs": [theirs[s] for s in ours]}
            rows.append({"title": comparison.title(key), "verdict": verdict, "time": cost and cost.mean, **pair})
        title, question = QUESTIONS.get(setting, (setting, ""))
        named = {"key": setting, "title": title, "question": question, "metric": comparison.NAMES[metric]}
        settings.append({**named, "rows": rows})
    return settings
