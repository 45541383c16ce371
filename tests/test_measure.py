"""The room as a whole: its front door, what its numbers mean, and methods of any kind."""

from __future__ import annotations

import importlib
import json
import pkgutil
import types

import pytest
import torch

from tools.fences import record_text
from xai_course import measure
from xai_course.data.batch import ArrayData, Splits
from xai_course.data.files import course_file
from xai_course.measure.metrics import metric
from xai_course.runs import records


def test_every_name_at_the_front_door_is_a_function_or_class_whatever_was_imported_before():
    for module in pkgutil.iter_modules(measure.__path__):
        importlib.import_module(f"xai_course.measure.{module.name}")
    found = {name: getattr(measure, name) for name in measure.__all__}
    assert set(measure.__all__) <= set(dir(measure)) and len(found) > 90
    assert not [name for name, value in found.items() if isinstance(value, types.ModuleType)]


def test_every_public_function_has_an_example_and_is_at_the_front_door():
    for name in (module.name for module in pkgutil.iter_modules(measure.__path__)):
        module = importlib.import_module(f"xai_course.measure.{name}")
        for key, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__ and isinstance(value, (type, types.FunctionType))
            if own and not key.startswith("_"):
                assert key in measure.__all__, f"{key} of measure.{name}"
                documented = ">>>" in (value.__doc__ or "") or hasattr(value, "_fields")
                assert documented, f"measure.{name}.{key} lacks an example"


# --- what the numbers mean --------------------------------------------------------------------------------------------


def all_records() -> dict[str, dict]:
    paths = sorted(course_file("results").rglob("*.json"))
    read = {str(path): json.loads(path.read_text("utf-8")) for path in paths if "benchmarks" not in path.parts}
    assert len(read) > 300
    return read


def test_every_metric_of_every_record_is_declared_in_range_and_made_by_a_measure_that_the_record_lists():
    problems = []
    for path, content in all_records().items():
        measures = [m if isinstance(m, str) else m["call"] for m in content["settings"]["measures"]]
        made_by = {m.rsplit(".", 1)[-1] for m in measures}
        for name, values in content["metrics"].items():
            info = metric(name)
            if not all(info.low <= value <= info.high for value in values):
                problems.append(f"{path}: {name} must lie in [{info.low:g}, {info.high:g}], got {values}")
            if not made_by & set(info.functions):
                problems.append(f"{path}: {name} is declared as made by {info.functions}, the record has {made_by}")
    assert not problems, "\n".join(problems[:10])


def test_every_declared_function_exists():
    from xai_course.runs.parts import looking

    names = {function for name in declared() for function in metric(name).functions}
    missing = {n for n in names if not any(hasattr(room, n) for room in (measure, looking))}
    assert not missing


def declared() -> list[str]:
    import tomllib

    content = tomllib.loads(course_file("metrics.toml").read_text("utf-8"))
    suffixed = [base + suffix for suffix in content["suffix"] for base in ("energy_in_mask", "f")]
    patterns = [pattern.replace("*", "x").replace("?", "1") for pattern in content["pattern"]]
    return [*content["metric"], *suffixed, *patterns]


def test_names_are_read_as_metric_suffix_or_pattern():
    assert metric("energy_in_mask").definition.startswith("Share of the map's positive mass")
    assert metric("energy_body.1").functions == ("energy_by_layer",)
    assert metric("dead_seen").functions != metric("dead_stage.0").functions
    assert metric("pgd_margin_0.02").definition != metric("pgd_0.01").definition
    assert "standard deviation over networks" in metric("iou_untrained_sd").definition
    assert metric("iou_untrained_sd").direction == "none" and metric("iou_untrained").direction == "higher"
    for name, near in (("acuracy", "'accuracy'"), ("f1_plu", "'f1_plus'"), ("iou_nowhere", "iou")):
        with pytest.raises(ValueError, match=f"unknown metric {name!r}.*{near}"):
            metric(name)
    with pytest.raises(ValueError, match="unknown metric 'qqqqqq': see"):
        metric("qqqqqq")


def test_two_meanings_have_two_names():
    """A column holds one name: no table mixes two. The review's case: F1+ at 0.5 and at a chosen share of the peak."""
    bench, lab = (records.load(name) for name in ("bench/plain/minmax_shared", "minmax/digits/u0"))
    columns = [next(n for n in record.metrics if n.startswith("f1_plus")) for record in (bench, lab)]
    for one, other in (columns, ["deletion", "deletion_auc"], ["accuracy", "validation_accuracy"], ["iou", "kept"]):
        assert one != other and metric(one).definition != metric(other).definition
    assert metric("f1_plus_relative_centre").definition.startswith(metric("f1_plus_relative").definition)


def test_a_page_prints_shares_in_per_cent_on_request():
    plain, percent = (record_text(f"minmax/digits/u0 f1_plus{word}") for word in ("", " %"))
    assert (plain, percent) == ("0.434 ± 0.048 (3 seeds)", "43.4 ± 4.8 (3 seeds)")
    assert record_text("minmax/digits/u0 f1_plus smoke %") == percent
    with pytest.raises(ValueError, match="angle_within is no share: it is measured in radians"):
        record_text("amc/digits/ce angle_within %")
    for wrong in ("%", "minmax/digits/u0 %", "minmax/digits/u0 f1_plus smoke 3 %"):
        with pytest.raises(ValueError, match="expected 'experiment metric"):
            record_text(wrong)


def test_no_two_metrics_have_one_definition():
    definitions = [metric(name).definition for name in declared()]
    assert len(set(definitions)) == len(definitions)


# --- methods of any kind ----------------------------------------------------------------------------------------------


class Plain(measure.Measurable):
    """A method without parameters and buffers: the class and the map are what the image shows."""

    def logits(self, images):
        return images.mean((2, 3))

    def explain(self, images, classes):
        return images[:, 0]


@pytest.fixture
def toy() -> Splits:
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(6, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    data = ArrayData(images, images.mean((2, 3)).argmax(1), masks)
    data.corrupted = torch.tensor([True] * 3 + [False] * 3)
    return Splits("toy", data, data, data, ("r", "g", "b"), "")


def test_a_method_without_parameters_works_in_every_measure(toy):
    method = Plain()
    assert measure.accuracy(method, toy) == {"accuracy": 1.0} == measure.accuracy(method, toy)
    assert measure.validation_accuracy(method, toy) == {"validation_accuracy": 1.0}
    assert measure.validation_error(method, toy) == {"validation_error": 0.0}
    found = {}
    for each in (
        measure.calibration,
        measure.localisation,
        measure.segmentation,
        measure.explanations,
        measure.map_area,
        measure.deletion,
        measure.perturbation,
        measure.clean_accuracy,
        measure.fgsm_accuracy,
        measure.pgd_accuracy,
        measure.memorised,
    ):
        found |= each(method, toy)
    multi = ArrayData(toy.test.images, torch.eye(3)[toy.test.labels])
    found |= measure.multilabel_scores(method, toy._replace(test=multi))
    for name, value in found.items():
        assert metric(name).low <= value <= metric(name).high, name
    assert found["area"] == pytest.approx(found["map_area"], abs=0.05)  # both cut near 0.5 of these bright maps


def test_modes_are_put_back(toy):
    from xai_course.methods.base import CrossEntropy
    from xai_course.nets.convnets import small_cnn

    method = CrossEntropy(small_cnn(3, width=2, seed=0)).train()
    for each in (measure.calibration, measure.localisation, measure.segmentation, measure.deletion):
        each(method, toy)
        assert all(part.training for part in method.modules())
