"""The first code cell of every notebook: one text, here, and nowhere else by hand."""

from __future__ import annotations

TAGS = ["setup", "hide-input"]
PARAMETERS = """\
profile = "auto"  # smoke | colab | paper; auto picks from the hardware
retrain = False  # True: train the rows of the tables, do not read the records"""

SOURCE = """\
import importlib.util
import os

if importlib.util.find_spec("xai_course") is None:
    url = os.environ.get(
        "XAI_COURSE_URL",
        "git+https://github.com/OWNER/REPO.git",
    )
    %pip install -q --no-deps "xai-course @ {url}"

import xai_course

xai_course.setup()"""


def source(repo: str) -> str:
    """The cell's text for the repository ``owner/name``."""
    return SOURCE.replace("OWNER/REPO", repo)
