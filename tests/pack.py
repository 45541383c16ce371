"""Where the optional pack of real images lies: ``XAI_COURSE_DATA``, or ``../shared/data`` beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pack(name: str) -> Path:
    """The folder that holds ``name``; skips the test where no folder does."""
    named = os.environ.get("XAI_COURSE_DATA", "").split(os.pathsep)
    beside = Path(__file__).parents[2] / "shared" / "data"
    for folder in (*map(Path, filter(None, named)), beside):
        if (folder / name).exists():
            return folder
    pytest.skip(f"{name} is not here: set XAI_COURSE_DATA to the folder that holds it")
