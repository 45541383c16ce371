"""The library's page, written from the package itself: one section per room, one automodule per file."""

from __future__ import annotations

from pathlib import Path

from tools import ROOT

# From the top of the house down; a file of the package that no room names fails the build.
ROOMS = {
    "Data": ("data",),
    "Networks": ("nets",),
    "Maps": ("maps",),
    "Measures": ("measure",),
    "Methods": ("methods",),
    "Training": (
        "preset",
        "train",
    ),
    "Figures": ("show",),
    "Checks and classroom": ("checks", "classroom"),
    "Experiments and records": ("runs",),
    "Starting a notebook, command line": ("colab", "cli"),
}


def modules(package: Path) -> list[str]:
    """Dotted names below the package; private files are left out."""
    names = [path.relative_to(package).with_suffix("").parts for path in sorted(package.rglob("*.py"))]
    graded = {("checks", name) for name in ("cam", "amc", "hnc", "loss_attention", "minmax", "reff")}  # hold references
    return [".".join(parts) for parts in names if parts not in graded and not any(p.startswith("_") for p in parts)]


def markdown(package: Path = ROOT / "xai_course") -> str:
    """Markdown with one ``automodule`` per public module."""
    left = modules(package)
    parts = []
    for title, rooms in ROOMS.items():
        here = [name for name in left if name.split(".")[0] in rooms]
        left = [name for name in left if name not in here]
        if here:
            parts.append(f"## {title}\n")
        parts += [section(f"{package.name}.{name}") for name in here]
    if left:
        raise ValueError(f"modules without a room in tools/api.py: {', '.join(left)}")
    return "\n".join(parts)


def section(module: str) -> str:
    return f"### `{module}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"
