"""The first line of every notebook: which device, which profile, how long it will take. Changes nothing else."""

from __future__ import annotations

import logging
import os
import sys
from typing import NamedTuple

PROFILES = ("smoke", "colab", "paper")
BUDGETS = {"smoke": "2 min, 2 GB", "colab": "30 min, 8 GB on the GPU", "paper": "hours to days"}  # of one lab


class Setup(NamedTuple):
    """What ``setup`` found: ``device`` "cpu" | "cuda" | "mps", the profile, and a lab's budget in words."""

    device: str
    profile: str
    budget: str

    def _ipython_display_(self) -> None:
        """Nothing: the line is printed already, and the first cell of a notebook ends with this value."""


def device() -> str:
    """The accelerator that PyTorch can use here, else "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def profile(name: str = "auto") -> str:
    """The profile that a notebook's parameters cell asks for; ``"auto"`` is colab on a GPU and smoke elsewhere.

    Raises:
        ValueError: another name than auto, smoke, colab or paper.
    """
    if name == "auto":
        return "colab" if device() == "cuda" else "smoke"
    if name not in PROFILES:
        raise ValueError(f"profile must be one of {('auto', *PROFILES)}, got {name!r}")
    return name


def setup(name: str = "auto") -> Setup:
    """Say in one line what this machine offers. Installs, mounts, downloads and asks nothing."""
    found = Setup(device(), profile(name), BUDGETS[profile(name)])
    print(f"device: {_describe(found.device)} | profile: {found.profile} | time and memory: {found.budget}")
    _quiet_figures()
    return found


def _describe(where: str) -> str:
    import torch

    if where == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB"
    threads = torch.get_num_threads()
    return f"{where}, {threads} of {os.cpu_count()} threads"


def _quiet_figures() -> None:
    """Settings for figures in a notebook, noted for the backend to read when it starts: matplotlib is not imported.

    The font manager's remark about building its cache (first import on a machine) would otherwise land on a page.
    """
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.config.InlineBackend.figure_formats = {"png"}
        shell.config.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "dpi": 110}
