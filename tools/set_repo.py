"""``make set-repo REPO=owner/name``: write a fork's address wherever the repository names itself."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tools import ROOT, assignment_paths, bootstrap, default_repo, notebook_paths, write_if_changed
from tools.run_notebooks import code_cells

TEXTS = ("_config.yml", "CITATION.cff", "README.md", "pyproject.toml")


def set_notebook(path: Path, repo: str) -> bool:
    """Give a notebook the bootstrap cell of ``repo``; everything else in the file stays as it is."""
    notebook = json.loads(path.read_text("utf-8"))
    setup = [cell for cell in code_cells(notebook) if "setup" in cell["metadata"].get("tags", [])]
    if len(setup) != 1:
        raise ValueError(f"{path.name}: expected one cell tagged 'setup', got {len(setup)}")
    setup[0]["source"] = bootstrap.source(repo).splitlines(keepends=True)
    return write_if_changed(path, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())


def set_repo(repo: str, root: Path = ROOT) -> list[str]:
    """Rewrite the address in the `TEXTS` and all notebooks; returns the files changed."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"REPO must be owner/name, got {repo!r}")
    old = default_repo(root)
    changed = []
    for path in [root / name for name in TEXTS]:
        if path.is_file() and write_if_changed(path, path.read_text("utf-8").replace(old, repo).encode()):
            changed.append(path.relative_to(root).as_posix())
    notebooks = [*notebook_paths(root), *assignment_paths(root)]
    return changed + [path.relative_to(root).as_posix() for path in notebooks if set_notebook(path, repo)]


def main() -> int:
    if len(sys.argv) != 2:
        print("use: make set-repo REPO=owner/name", file=sys.stderr)
        return 2
    try:
        changed = set_repo(sys.argv[1])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(changed)} files now name {sys.argv[1]}; commit and push them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
