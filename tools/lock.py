"""Run a command while no other build works in _build: ``python -m tools.lock make pages``."""

from __future__ import annotations

import subprocess
import sys

from tools import building


def main() -> int:
    with building():
        return subprocess.run(sys.argv[1:], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
