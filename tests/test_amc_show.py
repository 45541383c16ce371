"""Figures and experiments of the AMC-Loss chapter: everything is drawn, everything is declared."""

from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
from matplotlib.figure import Figure

from xai_course.runs.declared import experiments
from xai_course.runs.records import Metric
from xai_course.show import amc as show

EXPERIMENTS = experiments("amc")
FakeRecord = SimpleNamespace(metrics={"accuracy": Metric((0.5, 0.7))}, curves={"total": [[2.0, 1.0], [2.1, 0.9]]})
FEATURES, LABELS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 10
PANELS = {"a": (FEATURES, LABELS), "b": (FEATURES + 1, LABELS)}
FLAT = {"a": (FEATURES[:, :2], LABELS)}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: show.pair_on_sphere(45),
        lambda: show.pair_on_sphere(180, margin=1.0),
        lambda: show.arccos_cliff(pairs=2, width=8),
        lambda: show.angle_histogram(FEATURES, LABELS, 1.0),
        lambda: show.rays(FLAT),
        lambda: show.globes(PANELS),
        lambda: show.tsne(PANELS),
        lambda: show.weight_sweep({0: FakeRecord, 1: FakeRecord}, metrics=["accuracy"], labels=["accuracy"]),
        lambda: show.loss_curves({"a": FakeRecord}),
        lambda: show.lottery(torch.rand(100), 0.5),
        lambda: show.hinge(),
    ],
)
def test_every_figure_is_drawn(draw):
    figure = draw()
    assert isinstance(figure, Figure)
    figure.canvas.draw()


def test_every_row_of_the_paper_is_declared():
    names = {e.name for e in EXPERIMENTS}
    for data in ("mnist", "cifar10", "svhn", "cifar100"):
        assert {f"amc/table1/{data}/{row}" for row in ("ce", "euclid", "amc", "amc_w100")} <= names
    for item in ("fig2", "fig4", "fig5", "fig6"):
        assert {f"amc/{item}/{row}" for row in ("ce", "euclid", "amc")} <= names
    assert "amc/fig1/ce" in names
    assert sum(n.startswith("amc/fig7/lambda") for n in names) == 5
    assert sum(n.startswith("amc/fig7/margin") for n in names) == 4
    printed = {e.name: e.reported["accuracy"] for e in EXPERIMENTS if e.reported}
    assert len(printed) == 12 and printed["amc/table1/svhn/amc"] == "95.52 ± 0.05"


def test_settings_are_plain_data_and_paper_presets_are_the_papers():
    for experiment in EXPERIMENTS:
        for preset in experiment.presets:
            assert experiment.settings(preset)["preset"]["lr"] == 0.003
    paper = {e.name: e.preset("paper") for e in EXPERIMENTS}
    table, figure = paper["amc/table1/cifar10/amc"], paper["amc/fig4/amc"]
    released = paper["amc/table1/cifar10/released_amc"]
    for plan, expected in ((table, (300, 80, 50)), (figure, (150, 40, 30)), (released, (200, 50, 30))):
        epochs = plan.epochs
        assert (epochs, plan.ramp_up * epochs, plan.ramp_down * epochs) == pytest.approx(expected)
        assert plan.batch_size == 128 and plan.schedule == "gaussian_ramps"
    assert released.ema == 0.999 and table.ema is None


def test_methods_and_nets_of_small_rows_can_be_built():
    by_name = {e.name: e for e in EXPERIMENTS}
    row = by_name["amc/digits/amc_w100_true"]
    splits = row.data(preset="smoke", seed=0)
    method = row.method(row.net(splits))
    assert method.w_max == 100 and method.pair_labels == "true" and method.pair_loss.options["margin"] == 0.5
    assert by_name["amc/digits/ce"].measures == row.measures
