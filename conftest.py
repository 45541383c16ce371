"""Examples in docstrings run as tests: with torch at hand, under one seed, printed in one way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _example(request: pytest.FixtureRequest) -> Iterator[None]:
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    import torch

    request.getfixturevalue("doctest_namespace")["torch"] = torch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.set_printoptions(precision=4, sci_mode=False, linewidth=100)
        yield
        torch.set_printoptions(profile="default")
