"""The first line of every notebook: which device, which profile, how long it will take. Changes nothing else."""

import functools
import logging
import os
import sys
from typing import NamedTuple

__all__ = ["BUDGETS", "PROFILES", "Setup", "device", "profile", "resolve", "say_once", "setup"]

PROFILES = ("smoke", "colab", "paper")
BUDGETS = {"smoke": "2 min, 2 GB", "colab": "30 min, 8 GB on the GPU", "paper": "hours to days"}  # of one lab


class Setup(NamedTuple):
    """What ``setup`` found: ``device`` "cpu" | "cuda" | "mps", the profile, and a lab's budget in words.

    Example:
        >>> Setup("cpu", "smoke", BUDGETS["smoke"]).budget
        '2 min, 2 GB'
    """

    device: str
    profile: str
    budget: str

    def _ipython_display_(self) -> None:
        """Nothing: the line is printed already, and the first cell of a notebook ends with this value."""


def device() -> str:
    """The accelerator that PyTorch can use here, else "cpu".

    Example:
        >>> device() in ("cpu", "cuda", "mps")
        True
    """
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve(name: str = "auto") -> str:
    """The profile behind a name; ``"auto"`` is colab on a GPU and smoke elsewhere.

    Raises:
        ValueError: another name than auto, smoke, colab or paper.

    Example:
        >>> resolve("paper"), resolve() in ("smoke", "colab")
        ('paper', True)
    """
    if name not in ("auto", *PROFILES):
        raise ValueError(f"profile must be one of {('auto', *PROFILES)}, got {name!r}")
    return name if name != "auto" else "colab" if device() == "cuda" else "smoke"


def profile(name: str = "auto") -> str:
    """What the parameters cell asks for; the budget is said where it is not the one that `setup` has told already.

    Example:
        >>> profile("huge")
        Traceback (most recent call last):
        ValueError: profile must be one of ('auto', 'smoke', 'colab', 'paper'), got 'huge'
    """
    found = resolve(name)
    if found != resolve():
        say_once(f"profile: {found} | time and memory: {BUDGETS[found]}")
    return found


def setup() -> Setup:
    """Say in one line what this machine offers. Installs, mounts, downloads and asks nothing.

    Example:
        >>> found = setup()
        device: ... | profile: ... | time and memory: ...
    """
    found = Setup(device(), resolve(), BUDGETS[resolve()])
    print(f"device: {_describe(found.device)} | profile: {found.profile} | time and memory: {found.budget}")
    if found.device == "cpu" and "COLAB_RELEASE_TAG" in os.environ:
        print("for a GPU: Runtime > Change runtime type > T4 GPU, then run this cell again")
    _quiet_figures()
    return found


@functools.cache
def say_once(text: str) -> None:
    """Print a line that would only be noise a second time in the same kernel.

    Example:
        >>> say_once("the CPU is slow"), say_once("the CPU is slow")
        the CPU is slow
        (None, None)
    """
    print(text, flush=True)


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
