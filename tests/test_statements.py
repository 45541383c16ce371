"""Sentences of the theory pages that one small computation decides, and the corrected ones among them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from xai_course.maps import grad_cam, normalise
from xai_course.methods.base import CrossEntropy
from xai_course.methods.loss_attention import capsule_attention, loss_attention
from xai_course.methods.minmax import MaskRule
from xai_course.methods.reff import PAPER_WEIGHTS
from xai_course.nets.convnets import small_cnn
from xai_course.runs import records

# --- ReFF: what squared strides mean ----------------------------------------------------------------------------------


def weighted_squares(layers: list[torch.Tensor]) -> list[float]:
    """w_l ||I'_l||^2 relative to the first stage, maps ``[h, h]`` enlarged to 224 pixels by repetition."""
    terms = []
    for weight, layer in zip(PAPER_WEIGHTS, layers, strict=True):
        full = F.interpolate(layer[None, None], size=(224, 224))
        terms.append(weight * (full / full.sum()).square().sum().item())
    return [term / terms[0] for term in terms]


def test_for_one_cell_of_evidence_the_layers_count_equally():
    layers = [
        F.one_hot(torch.tensor(side * side // 2), side * side).view(side, side).double() for side in (56, 28, 14, 7)
    ]
    assert weighted_squares(layers) == pytest.approx([1, 1, 1, 1], rel=0.07)


@pytest.mark.parametrize(("pixels", "said"), [(16, (1, 3.9, 15, 56)), (80, (1, 4, 17, 66))])
def test_for_the_same_spread_picture_higher_layers_count_more(pixels, said):
    line = torch.exp(-((torch.arange(224).double() - 111.5) ** 2) / (2 * pixels**2))
    picture = (line[:, None] * line)[None, None]
    layers = [F.adaptive_avg_pool2d(picture, side)[0, 0] for side in (56, 28, 14, 7)]
    assert weighted_squares(layers) == pytest.approx(said, rel=0.03)


def test_maps_at_all_layers_are_drawn_as_they_are():
    """Figures S3 to S6 of ReFF: each panel shows the layer's own Grad-CAM, divided by its maximum."""
    from xai_course.show.reff import layer_maps

    method, image = CrossEntropy(small_cnn(3, seed=0).eval()), torch.rand(3, 32, 32)
    layers = ["body.1", "body.2", "body.3"]
    drawn = [axis.images[0].get_array() for axis in layer_maps({"ce": method}, image, 1, layers).axes if axis.images]
    maps = grad_cam(method.net, image[None], torch.tensor([1]), layers).maps
    assert len(drawn) == 4
    for panel, expected in zip(drawn[1:], maps):
        torch.testing.assert_close(torch.as_tensor(panel.data).float(), normalise(expected)[0].detach())


# --- Loss-Attention ---------------------------------------------------------------------------------------------------


def test_the_two_cuts_agree_at_equal_lengths_and_with_one_survivor_and_else_not():
    """The convolutional rule and the capsules' with C = 1."""

    def both(lengths: list[float], cutoff: float) -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.tensor(lengths, dtype=torch.float64)[None, :, None]
        return loss_attention(logits, cutoff)[0], capsule_attention(logits[:, None], cutoff)[0][:, 0]

    for lengths, cutoff in (([3.0, 3.0, 3.0], 0.5), ([9.0, 0.1, 0.1], 0.9), ([3.0, 2.0, 1.0], 0.0)):
        torch.testing.assert_close(*both(lengths, cutoff))
    soft, hard = both([3.0, 2.0, 1.0], 0.3)
    assert not torch.allclose(soft, hard) and torch.equal(soft > 0, hard > 0) and soft.max() > hard.max()


def test_one_patch_may_be_the_positive_and_the_negative_one():
    """Eq. 8's conclusion: the loss of y = (1, 0) tends to 0 with a single patch c (1, -1)."""
    labels = torch.tensor([[1.0, 0.0]])
    losses = [F.binary_cross_entropy_with_logits(c * torch.tensor([[1.0, -1.0]]), labels).item() for c in (1, 5, 20)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 1e-8


def test_with_several_labels_the_bound_is_a_number_of_wrong_decisions():
    """Proposition 2's right side exceeds 1: it is no probability."""
    logits, labels = torch.tensor([-3.0, -3.0, 3.0]), torch.tensor([1.0, 1.0, 0.0])
    bound = ((1 - logits.sigmoid()) * labels + logits.sigmoid() * (1 - labels)).sum()
    assert 2 < bound < F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")


def test_one_sure_patch_with_weight_does_not_make_the_loss_small():
    """ "For any patch" after Eq. 7, read as some one patch: sure of t with a weight of 0.4, and the loss is 10."""
    patches = torch.tensor([[20.0, 0.0], [0.0, 30.0]])
    weights = loss_attention(patches, 0.0)[0]
    assert weights.tolist() == pytest.approx([0.4, 0.6], abs=1e-3)
    assert F.cross_entropy(weights @ patches, torch.tensor(0)).item() == pytest.approx(10, abs=1e-2)


# --- Min-Max ----------------------------------------------------------------------------------------------------------


def test_only_the_stretch_keeps_the_mask_below_0_982():
    maps = torch.tensor([[0.0, 30.0], [5.0, -30.0]])[None, None]
    printed, stretched = (MaskRule(over=over).apply(maps, torch.zeros(1, 1), (2, 2)) for over in ("none", "image"))
    assert stretched.max().item() == pytest.approx(0.982, abs=1e-3) and printed.max() > 0.9999


# --- what records say -------------------------------------------------------------------------------------------------


def test_labels_at_random_explain_a_third_to_three_quarters():
    """The bench: energy on the digit beyond an untrained network's, with one standard error of eight starts."""
    trained, shuffled = records.load("bench/plain/ce").metrics, records.load("bench/plain/shuffled").metrics
    start, scatter = (trained[f"energy_in_mask_untrained{end}"].mean for end in ("", "_sd"))
    found = []
    for base in (start + scatter / 8**0.5, start - scatter / 8**0.5):
        found.append((shuffled["energy_in_mask"].mean - base) / (trained["energy_in_mask"].mean - base))
    assert 0.33 < found[0] < 0.4 < 0.7 < found[1] < 0.76


def test_eleven_patches_are_kept_on_average():
    kept = records.load("loss_attention/digits/loss_attention").metrics["kept"]
    assert round(kept.mean) == 11 and max(kept.values) < 12


def test_the_raw_distance_is_more_compact_and_more_on_the_digit_on_all_seeds():
    euclid, plain = (records.load(f"amc/digits/{row}").metrics for row in ("euclid", "ce"))
    assert all(a < b for a, b in zip(euclid["map_area"].values, plain["map_area"].values, strict=True))
    assert all(a > b for a, b in zip(euclid["energy_in_mask"].values, plain["energy_in_mask"].values, strict=True))


def test_pgd_is_below_fgsm_for_most_rows_and_seeds_but_not_all():
    below = []
    for row in ("ce", "mse_1", "kd_1", "logit_1", "variance_1", "smoothing_0.1", "confidence_0.1"):
        metrics = records.load(f"hnc/digits/{row}").metrics
        below += [a < b for a, b in zip(metrics["pgd_0.01"].values, metrics["fgsm_0.01"].values, strict=True)]
    assert sum(below) == len(below) - 2
    metrics = records.load("hnc/digits/kd_1").metrics
    assert metrics["pgd_0.01"].values[1] > metrics["fgsm_0.01"].values[1]
