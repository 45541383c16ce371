"""``python -m tools.gates sources claims executed html``: print every problem; the exit status is 1 if there is one."""

from __future__ import annotations

import sys

from tools import ROOT, claims
from tools.gates import executed, html, sources

GATES = {
    "sources": sources.check_all,
    "claims": claims.check_all,
    "executed": executed.check_all,
    "html": html.check_all,
}


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(GATES))
    if unknown or not names:
        print(f"gates to choose from: {', '.join(GATES)}; got {unknown or 'none'}", file=sys.stderr)
        return 2
    problems = [f"{name}: {problem}" for name in names for problem in GATES[name](ROOT)]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"gates {', '.join(names)}: {len(problems)} problems" if problems else f"gates {', '.join(names)}: clean")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
