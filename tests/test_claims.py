"""Sentences of the chapters about single seeds ("on every seed", "not on every seed"), which no record role can carry.

Each line is one such sentence; a record that is made anew and contradicts it fails here, and the page has to change.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from xai_course.methods.loss_attention import loss_attention
from xai_course.runs import records


def values(name: str, metric: str) -> tuple[float, ...]:
    return records.load(name).metrics[metric].values


def above(name: str, other: str, metric: str) -> list[bool]:
    """Seed by seed: is the first row's value higher?"""
    return [a > b for a, b in zip(values(name, metric), values(other, metric), strict=True)]


ALWAYS = [  # row, metric, a row with lower values on every seed
    # Where does a network look?
    ("looking/digits/silent", "energy_in_mask", "looking/digits/telling"),
    ("looking/digits/silent", "pointing", "looking/digits/telling"),
    ("looking/digits/silent", "iou", "looking/digits/shuffled"),
    ("looking/digits/silent", "energy_body.1", "looking/digits/shuffled"),
    ("looking/digits/silent", "energy_body.3", "looking/digits/shuffled"),
    # AMC-Loss
    ("amc/digits/ce", "accuracy", "amc/digits/amc_w100_true"),
    ("amc/digits/ce", "accuracy", "amc/digits/amc_w100_late"),
    ("amc/digits/euclid", "energy_in_mask", "amc/digits/ce"),
    # HNC
    ("hnc/digits/logit_1", "fgsm_0.01", "hnc/digits/ce"),
    ("hnc/digits/logit_1", "pgd_margin_0.01", "hnc/digits/ce"),
    ("hnc/digits/logit_1", "energy_in_mask", "hnc/digits/ce"),
    ("hnc/digits/ce", "energy_in_mask", "hnc/digits/kd_0.1"),
    ("hnc/digits/ce", "energy_in_mask", "hnc/digits/variance_0.1"),
    ("hnc/multilabel/sce", "mAP", "hnc/multilabel/mse_0.1"),
    ("hnc/multilabel/sce", "mAP", "hnc/multilabel/kd_0.1"),
    ("hnc/noise/heart/mse_0.1", "accuracy", "hnc/noise/heart/ce"),
    ("hnc/noise/heart/mse_1", "accuracy", "hnc/noise/heart/ce"),
    ("hnc/noise/early/mse_0.1", "accuracy", "hnc/noise/early/ce"),
    ("hnc/noise/early/ce", "accuracy", "hnc/noise/early/mse_1"),
    ("hnc/noise/early/ce", "accuracy", "hnc/noise/early/kd_1"),
    ("hnc/noise/early/ce", "accuracy", "hnc/noise/early/variance_1"),
    ("hnc/noise/heart/ce", "memorised", "hnc/noise/heart/mse_1"),
    # Loss-based attention
    ("loss_attention/digits/loss_attention", "accuracy", "loss_attention/digits/mean"),
    ("loss_attention/digits/loss_attention", "accuracy", "loss_attention/digits/gated"),
    ("loss_attention/digits/gamma_0", "plain_recall", "loss_attention/digits/gated"),
    ("loss_attention/digits/gated", "plain_f", "loss_attention/digits/loss_attention"),
    ("loss_attention/digits/loss_attention", "plain_f", "loss_attention/digits/gamma_0"),
    ("loss_attention/digits/loss_attention", "recall", "loss_attention/digits/gated"),
    ("loss_attention/digits/loss_attention", "f", "loss_attention/digits/code"),
    ("loss_attention/two_digits/loss_attention", "mAP", "loss_attention/two_digits/relu_norm"),
    # Min-max entropy
    ("minmax/why/attached", "f1_plus", "minmax/why/u0"),
    ("minmax/why/attached", "chosen_mean", "minmax/why/u0"),
    ("minmax/why/u0", "chosen_mean", "minmax/why/batch"),
    ("minmax/why/u0", "chosen_mean", "minmax/why/literal"),
    ("minmax/why/literal", "area", "minmax/why/u0"),
    ("minmax/why/u0", "area", "minmax/why/batch"),
    ("minmax/why/pretrained_m", "chosen_mean", "minmax/digits/wildcat_ours"),
    ("minmax/why/pretrained_u0", "chosen_mean", "minmax/why/pretrained_u4"),
]
MIXED = [  # row, metric, other row: higher on some seeds, not on all
    ("loss_attention/digits/detached", "f", "loss_attention/digits/loss_attention"),
    ("loss_attention/two_digits/plain", "mAP", "loss_attention/two_digits/loss_attention"),
    ("looking/digits/shuffled", "pointing", "looking/digits/silent"),
    ("hnc/keep_top/mse_1", "accuracy", "hnc/digits/ce"),
    ("hnc/noise/early/logit_1", "accuracy", "hnc/noise/early/ce"),
    ("hnc/digits/kd_1", "fgsm_0.01", "hnc/digits/ce"),
    ("hnc/digits/variance_1", "pgd_margin_0.01", "hnc/digits/ce"),
    ("minmax/digits/u0", "chosen_mean", "minmax/digits/wildcat_ours"),
    ("minmax/why/attached", "area", "minmax/why/u0"),
    ("minmax/why/pretrained_u0", "chosen_mean", "minmax/why/pretrained_m"),
]


@pytest.mark.parametrize(("name", "metric", "other"), ALWAYS)
def test_on_every_seed(name, metric, other):
    assert all(above(name, other, metric))


@pytest.mark.parametrize(("name", "metric", "other"), MIXED)
def test_not_on_every_seed(name, metric, other):
    assert len(set(above(name, other, metric))) == 2


def test_the_cam_of_the_telling_network_would_pass_alone():
    telling = records.load("looking/digits/telling").metrics
    assert min(telling["energy_in_mask"].values) > max(telling["energy_in_mask_whole"].values)


def test_random_labels_were_not_learnt_by_heart():
    for curve in records.load("looking/digits/shuffled").curves["total"]:
        assert 0.2 < 1 - curve[-1] / curve[0] < 0.5  # "fallen by about a third"


def test_early_cross_entropy_matches_late_flatness():
    """HNC under label noise: plain cross-entropy of the second regime and mse with lambda 1 of the first."""
    early, late = (records.load(f"hnc/noise/{row}").metrics["accuracy"].mean for row in ("early/ce", "heart/mse_1"))
    assert abs(early - late) < 0.03


def test_the_norm_share_may_shorten_a_right_patch():
    """Loss-based attention: its advantage is negative where the image's logits say the label more loudly already."""
    patches = torch.tensor([[4.0, 0, 0], [0, 1, 0], [2, 0, 0]], dtype=torch.float64, requires_grad=True)
    weights, _ = loss_attention(patches, 0.0)
    loss = F.cross_entropy((weights[:, None] * patches.detach()).sum(0), torch.tensor(0))
    (gradient,) = torch.autograd.grad(loss, patches)  # through the weights only
    assert gradient[2] @ patches[2] > 0 and patches[2].argmax() == 0
