"""Cluster measures against scikit-learn and by hand; the p-values of AMC-Loss's Table 1."""

from functools import partial
from math import pi, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind_from_stats as t_test

from xai_course.data.batch import ArrayData, Splits
from xai_course.measure import features as measure
from xai_course.measure.localising import map_area
from xai_course.methods.base import CrossEntropy
from xai_course.nets.convnets import small_cnn


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=1, max_size=40))
def test_homogeneity_and_completeness_equal_scikit_learn(pairs):
    from sklearn.metrics import completeness_score, homogeneity_score

    labels, groups = torch.tensor(pairs).T
    got = measure.homogeneity_completeness(labels, groups)
    expected = homogeneity_score(labels.numpy(), groups.numpy()), completeness_score(labels.numpy(), groups.numpy())
    assert got == pytest.approx(expected, abs=1e-9)


def test_homogeneity_by_hand():
    """Two classes of two; splitting one class in two keeps homogeneity at 1, and completeness falls to 2/3."""
    labels = torch.tensor([0, 0, 1, 1])
    assert measure.homogeneity_completeness(labels, labels + 7) == (1, 1)
    split = measure.homogeneity_completeness(labels, torch.tensor([0, 1, 2, 2]))
    assert split == pytest.approx((1, 2 / 3))
    assert measure.homogeneity_completeness(labels, torch.zeros(4).long()) == (0, 1)


def test_predictions_say_nothing_about_features():
    """Discrepancy D10: the same confusion matrix gives the same score, whatever the features look like."""
    labels = torch.arange(10).repeat(20)
    tight = torch.eye(10)[labels] + 0.01 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    loose = torch.randn(200, 10, generator=torch.Generator().manual_seed(1))
    of_features = [measure.homogeneity_completeness(labels, measure.kmeans(f, 10))[0] for f in (tight, loose)]
    assert of_features[0] == pytest.approx(1) and of_features[1] < 0.3
    assert measure.homogeneity_completeness(labels, labels)[0] == pytest.approx(1), "of predictions: 1 for both"


def test_angles_by_hand():
    """Two classes on two axes, one of them with 60 degrees inside."""
    x = torch.tensor([[2.0, 0, 0], [5.0, 0, 0], [0, 1, 0], [0, 0.5, sqrt(3) / 2], [0, 0, 0]])
    got = measure.angles(x, torch.tensor([0, 0, 1, 1, 1]), margin=2.0)
    assert got["angle_within"] == pytest.approx((0 + pi / 3) / 2, abs=1e-6)
    assert got["angle_between"] == pytest.approx(pi / 2)
    assert got["active_negatives"] == 1
    assert measure.angles(x, torch.tensor([0, 0, 1, 1, 1]), margin=0.5)["active_negatives"] == 0


@pytest.mark.parametrize(
    ("data_set", "amc", "euclid", "printed"),
    [
        ("MNIST", (99.66, 0.01), (99.65, 0.01), 0.1525),
        ("CIFAR10", (82.97, 0.20), (82.60, 0.21), 0.0214),
        ("SVHN", (95.52, 0.05), (95.29, 0.06), 0.0002),
        ("CIFAR100", (66.19, 0.22), (65.57, 0.20), 0.0016),
    ],
)
def test_p_values_of_table_1(data_set, amc, euclid, printed):
    """All four follow from the rounded means and deviations with five runs per arm."""
    assert t_test(*amc, 5, *euclid, 5)[1] == pytest.approx(printed, abs=5e-5)


def test_p_values_to_more_digits_and_those_the_paper_leaves_out():
    assert t_test(99.66, 0.01, 5, 99.65, 0.01, 5)[1] == pytest.approx(0.15250, abs=5e-6)
    assert t_test(82.97, 0.20, 5, 82.60, 0.21, 5)[1] == pytest.approx(0.02138, abs=5e-6)
    assert t_test(95.52, 0.05, 5, 95.29, 0.06, 5)[1] == pytest.approx(0.00017, abs=5e-6)
    assert t_test(95.52, 0.05, 5, 95.29, 0.06, 5, equal_var=False)[1] == pytest.approx(0.00020, abs=5e-6)
    assert t_test(66.19, 0.22, 5, 65.57, 0.20, 5)[1] == pytest.approx(0.00162, abs=5e-6)
    assert t_test(82.60, 0.21, 5, 82.35, 0.17, 5)[1] == pytest.approx(0.072, abs=5e-4)


def toy_splits(n=40):
    images = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = ArrayData(images, torch.arange(n) % 4)
    return Splits("toy", data, data, data, tuple("abcd"), "0")


def test_the_measure_leaves_the_method_as_it_was():
    method, splits = CrossEntropy(small_cnn(4, width=4, seed=0)), toy_splits()
    method.train()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    got = partial(measure.clusters, margin=0.5)(method, splits)
    assert method.training
    assert all(torch.equal(before[k], v) for k, v in method.state_dict().items())
    assert {"homogeneity", "completeness_of_predictions", "angle_within", "active_negatives"} < set(got)
    assert all(0 <= got[k] <= 1 for k in ("homogeneity", "completeness", "active_negatives"))
    features, logits, labels = measure.deep_features(method, splits.test)
    assert features.shape == (40, 16) and logits.shape == (40, 4) and labels.shape == (40,)
    assert torch.allclose(logits, method.eval().logits(splits.test.images), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: measure.homogeneity_completeness(torch.zeros(0), torch.zeros(0)), "labels"),
        (lambda: measure.homogeneity_completeness(torch.zeros(3), torch.zeros(4)), "clusters"),
        (lambda: measure.kmeans(torch.randn(3, 2), 10), "rows"),
        (lambda: measure.kmeans(torch.full((20, 2), torch.nan), 2), "finite"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


class Spot(CrossEntropy):
    """Explains every image by the same map: one quarter of it bright, the rest at 0.4."""

    def explain(self, images, classes):
        maps = torch.full((len(images), 32, 32), 0.4)
        maps[:, :16, :16] = 1
        maps[0] = 0  # a dead map is left out
        return maps


def test_map_area_of_a_known_map():
    method = Spot(small_cnn(4, width=4, seed=0))
    assert map_area(method, toy_splits()) == {"map_area": 0.25}
    assert map_area(method, toy_splits(), level=0.3) == {"map_area": 1.0}
    with pytest.raises(ValueError, match="level"):
        map_area(method, toy_splits(), level=0)
