"""Gates on assignments: what the head promises, the parts add up to; prediction, run, control and verdict in order."""

from __future__ import annotations

import re

from tools.run_notebooks import text

TITLE = re.compile(r"^## (\d)\. .+\((\d+) points(?: by hand)?, (\d+) minutes\)$", re.M)
HEAD = re.compile(r"\*\*Time\*\* (\d+) minutes for questions 1 to 6, (\d+) for the experiment · "
                  r"\*\*points\*\* (\d+), and (\d+) by hand")  # fmt: skip
STUDENT = re.compile(r'^student = "anonymous"  # your student id: .+$')
RUN = '# experiment: run\nassert len(prediction.split()) >= 8, "write your prediction first"'
WRITTEN = ["reason", "prediction", "verdict"]


def check(notebook: dict) -> list[str]:
    """What a master, or the student version of one, lacks."""
    cells = notebook["cells"]
    head = HEAD.search(text(cells[0]))
    parts = [tuple(map(int, match.groups())) for cell in cells for match in TITLE.finditer(text(cell))]
    if not head or [number for number, *_ in parts] != list(range(1, 8)):
        return ["expected a head with time and points, and parts '## 1. ... (3 points, 10 minutes)' from 1 to 7"]
    minutes, hour, points, by_hand = map(int, head.groups())
    sums = (sum(m for *_, m in parts[:-1]), parts[-1][2], sum(p for _, p, _ in parts[:-1]), parts[-1][1])
    found = [] if sums == (minutes, hour, points, by_hand) else [f"the head promises {head[0]}; the parts have {sums}"]
    graded = [cell["metadata"].get("nbgrader", {}) for cell in cells]
    if (marks := [each["points"] for each in graded if each.get("grade")]) != [p for _, p, _ in parts[:-1]]:
        found.append(f"the cells give {marks} points, the headings {[p for _, p, _ in parts[:-1]]}")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    if not STUDENT.match(text(code[1])) or "parameters" not in code[1]["metadata"].get("tags", []):
        found.append("the second code cell must be tagged 'parameters' and hold the student id alone")
    ids = [cell["metadata"].get("nbgrader", {}).get("grade_id", "") for cell in code]
    if [name for name in ids if name in WRITTEN] != WRITTEN:
        found.append(f"expected cells {', '.join(WRITTEN)} in this order")
    elif not text(code[ids.index("prediction") + 1]).startswith(RUN):
        found.append("the cell after the prediction runs without it")
    elif not text(code[ids.index("verdict") - 1]).startswith("# experiment: the "):
        found.append("no control stands between the run and the verdict")
    return found
