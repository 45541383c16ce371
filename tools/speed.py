"""The speed page's tables, made from the records that ``benchmarks/*.py`` write."""

from __future__ import annotations

import json

from xai_course.runs.catalogue import PAPERS
from xai_course.runs.records import results_folder


def speed_markdown() -> str:
    """Every case of every benchmark as a Markdown table, each candidate beside the reference it is divided by.

    Raises:
        ValueError: a record without cases, or no record at all.
    """
    paths = sorted((results_folder() / "benchmarks").glob("*.json"))
    if not paths:
        raise ValueError("no benchmark records: run `make bench`")
    parts = []
    for path in paths:
        record = json.loads(path.read_text("utf-8"))
        if not record.get("cases"):
            raise ValueError(f"{path.name} holds no cases: run its benchmark again")
        title = PAPERS.get(path.stem, path.stem.capitalize())
        parts.append(f"## {title}\n\n{_conditions(record)}")
        parts += [_case(name, timings) for name, timings in record["cases"].items()]
    return "\n\n".join(parts)


def _conditions(record: dict) -> str:
    threads = f"{record['threads']} thread{'s' * (record['threads'] != 1)}"
    return f"*{record['machine']}; {threads}, Python {record['python']}, torch {record['torch']}.*"


def _case(name: str, timings: dict[str, dict]) -> str:
    reference = next((who for who, t in timings.items() if t["ratio"] == t["low"] == t["high"] == 1.0), "the reference")
    lines = [f"| {name} | CPU time ÷ {reference} | middle half | ms |", "| --- | --- | --- | --- |"]
    for who, t in timings.items():
        lines.append(f"| {who} | {t['ratio']:.2f} | {t['low']:.2f} to {t['high']:.2f} | {t['milliseconds']:.1f} |")
    return "\n".join(lines)
