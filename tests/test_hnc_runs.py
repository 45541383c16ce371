"""HNC's declared rows, their data and networks on tiny inputs, and its figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from xai_course.data.augment import scaled_crop
from xai_course.data.batch import ArrayData, Batch, Splits
from xai_course.data.textured_digits import textured_digits
from xai_course.methods.hnc import HNC
from xai_course.nets.convnets import small_cnn
from xai_course.preset import Preset
from xai_course.runs import choices, records
from xai_course.runs import experiment as runner
from xai_course.runs.declared import experiments
from xai_course.runs.parts import hnc as parts
from xai_course.runs.parts.hnc import surrogate, with_rates
from xai_course.show import hnc as show

EXPERIMENTS = experiments("hnc")
ROWS = {e.name: e for e in EXPERIMENTS}
EPSILONS = (0.005, 0.01, 0.02, 0.05)


def test_every_table_is_declared():
    """Eleven losses twice, and every printed number of Tables 2 to 7."""
    printed = Counter()
    for row in EXPERIMENTS:
        printed[row.item] += sum(value not in ("", "–") for value in row.reported.values())
    expected = {"table1": 42, "table2": 14, "table3": 5, "table4": 56, "table5": 16, "table6": 24, "table7": 8}
    assert {item: count for item, count in printed.items() if count} == expected
    assert len(ROWS) == len(EXPERIMENTS)
    assert sum(name.startswith("hnc/fig4/") for name in ROWS) == 10
    for row in EXPERIMENTS:
        for preset in row.presets:
            assert row.settings(preset)


def test_copied_rows_have_nothing_to_run_and_say_so():
    copied = [row for row in EXPERIMENTS if not row.presets]
    assert [row.name for row in copied] == ["hnc/table4/resnet101_augmented", "hnc/table4/srn"]
    assert all("copied" in row.needs for row in copied)


def test_released_weights_of_the_imagenet_script():
    net = small_cnn(1000, width=2)
    mse, kd = (ROWS[f"hnc/table2/resnet101/{row}"].method(net) for row in ("hnc_mse", "hnc_kd"))
    declared = [(m.balance, *(m.homogeneity.options[o] for o in ("keep_top", "reduction_k"))) for m in (mse, kd)]
    assert declared == [(0.07, 100, "mean"), (0.0065, 100, "sum")]
    assert ROWS["hnc/table2/resnet152/hnc_kd"].method(net).balance == 0.0048


@pytest.mark.parametrize(
    "name", ["hnc/table1/cb_focal/resnet56", "hnc/table1/aam/resnet56", "hnc/table7/densenet_bc/ce"]
)
def test_rows_build_their_network_and_method(name):
    row = ROWS[name]
    splits = Splits("x", *[ArrayData(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.long))] * 3, tuple("abc"), "")
    if "aam" in name:
        pytest.importorskip("pytorch_metric_learning")
    method = row.method(row.net(splits)).eval()
    assert method.logits(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_noisy_cifar_changes_labels_only(monkeypatch):
    data = ArrayData(torch.zeros(500, 3, 2, 2), torch.arange(500) % 100)
    clean = Splits("CIFAR-100 (fine)", data, data, data, tuple(map(str, range(100))), "f")
    monkeypatch.setattr(parts, "cifar100", lambda preset, seed: clean)
    noisy = parts.noisy_cifar100(kind="asymmetric", rate=0.4)
    changed = noisy.train.labels != clean.train.labels
    assert 0.3 < changed.float().mean() < 0.5
    assert torch.equal(noisy.train.labels[changed], (clean.train.labels[changed] + 1) % 100)
    assert torch.equal(noisy.test.labels, clean.test.labels) and noisy.fingerprint != clean.fingerprint
    assert (parts.noisy_cifar100(rate=0.8).validation.labels != clean.validation.labels).any()


def test_scaled_crop_stays_inside_and_depends_on_the_generator_alone():
    ramp = torch.linspace(0, 1, 32).expand(6, 3, 32, 32).contiguous()
    batch = Batch(ramp, torch.zeros(6, dtype=torch.long), None, torch.arange(6))
    a, b = (scaled_crop(batch, torch.Generator().manual_seed(1)).images for _ in range(2))
    assert torch.equal(a, b) and a.shape == ramp.shape and a.min() >= 0 and a.max() <= 1
    whole = scaled_crop(batch, torch.Generator().manual_seed(1), least=1.0, flip=False).images
    assert (whole - ramp).abs().mean() < 0.1  # area 1: only the aspect moves


def test_positive_rates_come_from_labels_alone():
    def build(splits):
        return small_cnn(3, width=2)

    items = [SimpleNamespace(label=(0, 2)), SimpleNamespace(label=(2,))]
    splits = Splits("x", SimpleNamespace(items=items), None, None, tuple("abc"), "")
    assert with_rates(splits, of=build).positive_rate.tolist() == [0.5, 0.0, 1.0]
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    splits = splits._replace(train=ArrayData(torch.zeros(2, 1, 8, 8), labels))
    assert with_rates(splits, of=build).positive_rate.tolist() == [0.5, 0.0, 1.0]


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Rows of Textured Digits at a size for tests, records and cache in a temporary folder."""
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("XAI_COURSE_CACHE", str(tmp_path / "cache"))

    def small_row(name: str):
        row = ROWS[name]
        data = partial(row.data, train=64, validation=32, test=32)
        return replace(row, data=data, presets={"smoke": Preset(epochs=1, batch_size=32)})

    return small_row


def test_a_clean_row_measures_everything_the_page_quotes(tiny):
    record = runner.run(tiny("hnc/digits/mse_0.1"), seeds=(0,))
    wanted = {"accuracy", "validation_accuracy", "confidence", "positive_peak", "negative_peak", "peak_ratio"}
    wanted |= {f"fgsm_{e:g}" for e in EPSILONS} | {"pgd_0.01", "pgd_margin_0.01", "transfer_0.05"}
    assert wanted | {"energy_in_mask", "energy_in_mask_centre"} <= set(record.metrics)
    assert set(record.curves) == {"classification", "hnc", "total"}


def test_a_multi_label_row_uses_equation_8(tiny):
    row = tiny("hnc/multilabel/kd_0.1")
    splits = row.data(preset="smoke", seed=0)
    method = row.method(row.net(splits))
    torch.testing.assert_close(method.positive_rate, splits.train.labels.mean(0))
    assert "mAP" in runner.run(row, seeds=(0,)).metrics


def test_noise_rows_have_wrong_labels_in_training_and_validation_only():
    splits = ROWS["hnc/noise/heart/ce"].data(preset="smoke", seed=0)
    assert 0.3 < splits.train.corrupted.float().mean() < 0.42 and splits.validation.corrupted.any()
    assert not splits.test.corrupted.any()


def test_the_surrogate_is_trained_once_and_leaves_the_generator_alone(tiny):
    splits = textured_digits(train=64, validation=8, test=8, seed=5)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = surrogate(splits, plan=Preset(epochs=1, batch_size=32))
    assert torch.rand(1) == expected and surrogate(splits, plan=Preset(epochs=1, batch_size=32)) is first


def test_lambda_is_chosen_by_validation(monkeypatch):
    def fake(name, preset):
        validation = {"hnc/digits/mse_0.1": 0.7, "hnc/digits/mse_1": 0.8}[name]
        return SimpleNamespace(metrics={"validation_accuracy": records.Metric((validation,))})

    monkeypatch.setattr(records, "load", fake)
    assert choices.best_row("hnc/digits/mse_") == "hnc/digits/mse_1"
    with pytest.raises(ValueError, match="declared rows"):
        choices.best_row("hnc/digits/l1_")


def test_toy_maps_share_their_mean():
    means = [m.mean().item() for m in show.toy_maps(mean=1.5).values()]
    assert means == pytest.approx([1.5, 1.5])
    gradients = show.map_gradients(show.toy_maps()["peak"])
    assert gradients["CE, Eq. 10"].std() == 0 and gradients["HNC kd, Eq. 12"].sum().abs() < 1e-12


def test_figures_draw():
    import matplotlib

    matplotlib.use("Agg")
    nets = {"a": small_cnn(5, width=2), "b": HNC(small_cnn(5, width=2)).net}
    metrics = {m: records.Metric((0.5, 0.6)) for m in ("accuracy", "fgsm_0.1")}
    found = {"ce": SimpleNamespace(metrics=metrics), "mse_0.1": SimpleNamespace(metrics=metrics)}
    figures = [
        show.toy(show.toy_maps()),
        show.same_mean(4.0),
        show.bounds(count=3),
        show.negative_maps(nets, torch.rand(3, 32, 32), 1, "abcde", k=2),
        show.negative_maps(nets, torch.rand(3, 32, 32), 1, "abcde", k=2, shared=False),
        show.compare(found, ["accuracy", "fgsm_0.1"]),
        show.attack_curves(found, "fgsm", (0.1,)),
        show.costs(n=100),
        show.chosen_classes(2, torch.randn(5), 1, "abcde"),
    ]
    for figure in figures:
        figure.canvas.draw()
