"""The front door: what one import offers, that it costs nothing until used, and that listing and truth agree."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import xai_course

ROOT = Path(xai_course.__file__).parent
ROOMS = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("**/__init__.pyi"))
ROOMS = [".".join(("xai_course", *Path(room).parts)) for room in ROOMS]


def loaded_by(program: str) -> set[str]:
    """Modules that a fresh interpreter holds after ``program`` and did not hold before."""
    script = f"import sys; before = set(sys.modules)\n{program}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    return set(done.stdout.split())


def test_one_import_offers_the_maps_the_methods_and_the_rooms():
    from xai_course import HNC, AmcLoss, LossAttention, MinMax, ReFF, class_activation_map, fit, grad_cam
    from xai_course.maps import grad_cam as same

    assert grad_cam is same and xai_course.methods.reff.ReFF is ReFF
    assert {"grad_cam", "ReFF", "methods", "data", "Preset"} <= set(dir(xai_course))
    assert all(map(callable, (HNC, AmcLoss, LossAttention, MinMax, class_activation_map, fit)))
    with pytest.raises(AttributeError, match="grad_cm"):
        _ = xai_course.grad_cm


def test_the_import_costs_nothing_until_something_is_used():
    own = loaded_by("import xai_course")
    assert len(own) < 50 and not {"torch", "numpy", "torchvision", "matplotlib"} & {name.split(".")[0] for name in own}
    assert "torch" not in loaded_by("import xai_course; dir(xai_course); dir(xai_course.data)")


def test_a_loss_brings_no_data_loader_no_figure_and_no_training_loop():
    own = loaded_by("from xai_course import HNC, ReFF, AmcLoss, LossAttention, MinMax")
    assert "xai_course.methods.hnc" in own
    assert not [name for name in own if name.startswith(("xai_course.show", "xai_course.train", "xai_course.runs"))]
    assert {name for name in own if name.startswith("xai_course.data.")} <= {
        "xai_course.data.batch",
        "xai_course.data.boxes",
    }
    assert not {"torchvision", "matplotlib", "accelerate", "sklearn"} & {name.split(".")[0] for name in own}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_offers_what_its_stub_lists_and_each_name_is_there(room):
    module = importlib.import_module(room)
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text("utf-8"))
    listed = [(node.module, alias) for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(alias.asname == alias.name for _, alias in listed), "a type checker hides names without `as`"
    names = [alias.name for _, alias in listed]
    assert len(names) == len(set(names)) and sorted(names) == sorted(module.__all__) == sorted(dir(module))
    for home, alias in listed:
        target = f"{room}.{home or alias.name}"
        expected = importlib.import_module(target)
        assert getattr(module, alias.name) is (getattr(expected, alias.name) if home else expected), alias.name


def test_a_module_never_hides_the_function_of_its_name():
    """Whichever of the two was imported first: lazy_loader 0.4 and 0.5, which Colab may have, give the module then."""
    clashes = []
    for room in ROOMS:
        stub = ast.parse((ROOT.parent / room.replace(".", "/") / "__init__.pyi").read_text("utf-8"))
        nodes = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
        clashes += [(room, node.module) for node in nodes if node.module in [alias.name for alias in node.names]]
    assert ("xai_course.data", "textured_digits") in clashes
    lines = [f"import {room}.{name}; from {room} import {name}; assert callable({name})" for room, name in clashes]
    loaded_by("\n".join(lines))


def test_every_name_in_every_all_is_there():
    for found in pkgutil.walk_packages([str(ROOT)], "xai_course."):
        if "_data" in found.name:
            continue
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{found.name}.{name}"


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").exists()
