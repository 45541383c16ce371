"""Live controls driven through a real kernel, as a front end does it: a message moves one, a new figure comes back.

Colab has ipywidgets 7.7. These tests run with it in an environment of its own that sees the packages of this one::

    python -m venv /tmp/w; site=lib/python3.11/site-packages; echo "$PWD/.venv/$site" > /tmp/w/$site/course.pth
    /tmp/w/bin/pip install --no-deps ipywidgets==7.7.1 widgetsnbextension==3.6.10 ipython_genutils
    /tmp/w/bin/python -m pytest tests/test_labs_live.py
"""

from __future__ import annotations

import ast
import os
from importlib.metadata import version
from pathlib import Path

import pytest
import small_labs
from jupyter_client.manager import start_new_kernel

from tools import ROOT, notebook_paths
from xai_course.show.slider import interact, live

HERE = Path(__file__).parent
FIGURE = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
from xai_course.show.slider import interact, live
from xai_course.show.style import canvas

def line(slope, colour):
    with canvas(2, 2) as (figure, axis):
        axis.plot([0, slope], color=colour)
        axis.set_ylim(0, 3)
        return figure
"""
ALT = "A line from the origin that rises with the chosen slope."


class Kernel:
    """A kernel of its own and what it sends to the screen."""

    def __init__(self, page: bool):
        environment = {k: v for k, v in os.environ.items() if k != "XAI_COURSE_PAGE"} | {"OMP_NUM_THREADS": "1"}
        environment |= {"XAI_COURSE_PAGE": "1"} if page else {}
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=environment)

    def sent(self, ask) -> list[dict]:
        """The contents of everything that the kernel publishes in answer to a message."""
        mine, found = ask(), []
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != mine:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return found
            assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
            found.append(message["content"] | {"type": message["msg_type"]})

    def run(self, code: str) -> list[dict]:
        return self.sent(lambda: self.client.execute(code))

    def shown(self, messages: list[dict], mime: str) -> list[str]:
        return [m["data"][mime] for m in messages if mime in m.get("data", {})]

    def printed(self, code: str) -> str:
        return "".join(m["text"] for m in self.run(code) if m["type"] == "stream")

    def move(self, model: str, index: int) -> list[dict]:
        """What a front end sends when the reader moves a selection slider."""
        content = {"comm_id": model, "data": {"method": "update", "state": {"index": index}, "buffer_paths": []}}
        message = self.client.session.msg("comm_msg", content)

        def ask():
            self.client.shell_channel.send(message)
            return message["header"]["msg_id"]

        return self.sent(ask)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(request):
    made = Kernel(page=getattr(request, "param", False))
    yield made
    made.close()


def test_a_moved_control_draws_anew(kernel):
    kernel.run(FIGURE.format(root=str(ROOT), here=str(HERE)))
    assert kernel.printed("import ipywidgets; print(ipywidgets.__version__)").strip() == version("ipywidgets")
    call = f"interact(line, {ALT!r}, start=dict(slope=2), slope=[1, 2, 3], colour=['red', 'blue'])"
    first = kernel.run(f"box = {call}\nbox")
    assert len(kernel.shown(first, "image/png")) == 1
    assert kernel.shown(first, "application/vnd.jupyter.widget-view+json") and not kernel.shown(first, "text/html")
    assert kernel.printed("print(live(), box.kwargs)").startswith("True")
    models = kernel.printed("print(*(child.model_id for child in box.children[:-1]))").split()
    pictures = []
    for model, index in ((models[0], 0), (models[0], 2), (models[1], 1)):
        (picture,) = kernel.shown(kernel.move(model, index), "image/png")
        pictures.append(picture)
    assert len(set(pictures)) == 3
    assert "{'slope': 3, 'colour': 'blue'}" in kernel.printed("print(box.kwargs)")
    (again,) = kernel.shown(kernel.run("box.children[0].value = 1"), "image/png")
    assert again not in pictures


@pytest.mark.parametrize("kernel", [True], indirect=True)
def test_a_page_gets_the_slider_and_no_widget(kernel):
    kernel.run(FIGURE.format(root=str(ROOT), here=str(HERE)))
    shown = kernel.run(f"interact(line, {ALT!r}, start=dict(colour='blue'), slope=[1, 2, 3], colour=['red', 'blue'])")
    (page,) = kernel.shown(shown, "text/html")
    assert page.count("<img ") == 3 and "slope" in page
    assert not kernel.shown(shown, "application/vnd.jupyter.widget-view+json")
    assert kernel.printed("print(live())") == "False\n"


def test_training_shows_one_bar_with_the_time_left_where_there_is_a_reader(kernel):
    kernel.run(f"import sys; sys.path[:0] = [{str(ROOT)!r}]")
    fit = """
import torch
from xai_course import CrossEntropy, nets
from xai_course.data.batch import ArrayData
from xai_course.preset import Preset
from xai_course.runs import lab
data = ArrayData(torch.rand(16, 3, 16, 16), torch.arange(16) % 4)
lab.fit(CrossEntropy(nets.small_cnn(4, width=2)), data, Preset(epochs=3, batch_size=8), resume=False)
"""
    sent = kernel.run(fit)
    bars = [m for m in sent if m["type"] == "comm_msg" and "6/6" in str(m["data"])]
    assert bars, [m["type"] for m in sent]


def test_without_a_kernel_there_is_nobody_to_move_a_control():
    assert not live()
    with pytest.raises(ValueError, match="at least one value for each control"):
        interact(print, ALT, slope=[])
    with pytest.raises(ValueError, match="start only these"):
        interact(print, ALT, start={"hue": 1}, slope=[1])
    with pytest.raises(ValueError):
        interact(print, ALT, start={"slope": 7}, slope=[1])


def needed(sources: list[str], last: int) -> list[str]:
    """The cells before ``last`` that define what it uses, or what these use: none that only prints or draws."""
    names = [[n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)] for source in sources]
    used, kept = {n.id for n in names[last]}, []
    for at in reversed(range(last)):
        tree = ast.walk(ast.parse(sources[at]))
        made = {n.id for n in names[at] if isinstance(n.ctx, ast.Store)}
        for node in tree:
            made |= {node.name} if isinstance(node, ast.FunctionDef) else set()
            made |= {a.asname or a.name for a in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
        if made & used:
            used |= {n.id for n in names[at]}
            kept.append(sources[at])
    return kept[::-1]


# The networks of lab 8 are large: it runs where ``XAI_COURSE_TORTURE=long`` asks.
LABS = notebook_paths() if os.environ.get("XAI_COURSE_TORTURE") == "long" else notebook_paths()[:7]


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_every_control_of_a_lab_draws_another_figure(path, kernel):
    sources = small_labs.cells(path)
    kernel.run(f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(HERE)!r}]; import xai_course, small_labs")
    kernel.run("small_labs.hurry()")
    done, moved = set(), 0
    for at in [at for at, source in enumerate(sources) if "interact(" in source and "import interact" not in source]:
        for source in [source for source in needed(sources, at) if source not in done]:
            kernel.run(source)
            done.add(source)
        assert len(kernel.shown(kernel.run(sources[at]), "image/png")) == 1, sources[at]
        each = "(f'{w.model_id} {w.index} {len(w.options)}' for w in Out[max(Out)].children[:-1])"
        sliders = kernel.printed(f"print(*{each}, sep='\\n')")
        for model, index, options in (line.split() for line in sliders.splitlines()):
            other = (int(index) + 1) % int(options)
            assert other == int(index) or len(kernel.shown(kernel.move(model, other), "image/png")) == 1, sources[at]
            moved += other != int(index)
        done.add(sources[at])
    assert moved >= 2
