"""Localisation measures: values by hand, peers, trivial maps, images without an object."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_course.data.batch import ArrayData, Splits
from xai_course.maps import grad_cam
from xai_course.measure import scores
from xai_course.measure.faithfulness import deletion, deletion_auc, insertion_auc
from xai_course.measure.localising import AT_A_LEVEL, NAMES, SCORES, best_levels, energy_by_layer, judged, localisation
from xai_course.measure.looking import accuracy, look
from xai_course.measure.sanity import rank_correlation
from xai_course.measure.scores import (
    LEVELS,
    box_accuracy,
    boxes_of,
    dead,
    energy_in_mask,
    iou,
    pixel_average_precision,
    pointing_game,
    thresholded,
)
from xai_course.measure.trivial import (
    TRIVIAL,
    blind_map,
    centre_box,
    coin,
    edges,
    gaussian_centre,
    random_map,
    whole_image,
)
from xai_course.methods.base import CrossEntropy, Method
from xai_course.nets.convnets import small_cnn


def iou_at(maps, masks, level):
    return iou(thresholded(maps, level), masks)


few = settings(max_examples=15, deadline=None, derandomize=True)


def random_pair(seed: int, batch: int = 3, height: int = 5, width: int = 6):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, 5, (batch, height, width), generator=generator).double()  # with ties
    masks = torch.rand(batch, height, width, generator=generator) < 0.4
    masks[:, 0, 0] = True
    return maps, masks


def test_by_hand_2x2():
    maps = torch.tensor([[[4.0, 1.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[-5.0, 2.0], [2.0, -1.0]]])
    masks = torch.tensor([[[True, False], [False, True]]] * 3)
    assert torch.equal(energy_in_mask(maps, masks), torch.tensor([0.5, 0.0, 0.0], dtype=torch.double))
    assert torch.equal(dead(maps), torch.tensor([False, True, False]))
    # one maximum inside; all four equal, two of them inside; two equal maxima, none inside
    assert torch.equal(pointing_game(maps, masks), torch.tensor([1.0, 0.5, 0.0], dtype=torch.double))
    # level .5: {4, 3} against two cells: 1 of 3; the dead map chooses nothing; {2, 2}: 0 of 4
    torch.testing.assert_close(iou_at(maps, masks, 0.5), torch.tensor([1 / 3, 0.0, 0.0], dtype=torch.double))


@few
@given(st.integers(0, 999))
def test_loops_agree(seed):
    maps, masks = random_pair(seed)
    for b in range(3):
        cells = [(i, j) for i in range(5) for j in range(6)]
        inside = [c for c in cells if masks[b][c]]
        total, peak = sum(maps[b][c] for c in cells), max(maps[b][c] for c in cells)
        top = [c for c in cells if maps[b][c] == peak]
        chosen = {c for c in cells if maps[b][c] > 0 and maps[b][c] / peak >= 0.5}
        assert energy_in_mask(maps, masks)[b].item() == pytest.approx(sum(maps[b][c] for c in inside) / total)
        assert pointing_game(maps, masks)[b].item() == pytest.approx(sum(c in inside for c in top) / len(top))
        want = len(chosen & set(inside)) / len(chosen | set(inside))
        assert iou_at(maps, masks, 0.5)[b].item() == pytest.approx(want)


@few
@given(st.integers(0, 999), st.sampled_from([1e-9, 3.0, 1e9]))
def test_scale_of_the_map_does_not_matter_and_batch_equals_one_by_one(seed, scale):
    maps, masks = random_pair(seed)
    for score in (energy_in_mask, pointing_game, lambda m, t: iou_at(m, t, 0.3)):
        torch.testing.assert_close(score(maps, masks), score(scale * maps, masks))
        alone = torch.cat([score(maps[i : i + 1], masks[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(score(maps, masks), alone)
        assert ((score(maps, masks) >= 0) & (score(maps, masks) <= 1)).all()


def test_a_perfect_map_scores_one_everywhere():
    _, masks = random_pair(0)
    for score in (energy_in_mask, pointing_game, lambda m, t: iou_at(m, t, 0.5)):
        assert (score(masks.double(), masks) == 1).all()
    assert pixel_average_precision(masks.double(), masks) == 1


def test_the_whole_image_scores_the_share_of_the_area():
    _, masks = random_pair(1)
    area = masks.double().mean((1, 2))
    ones = whole_image(torch.zeros(3, 3, 5, 6)).double()
    for score in (energy_in_mask, pointing_game, lambda m, t: iou_at(m, t, 0.5)):
        torch.testing.assert_close(score(ones, masks), area)
    assert pixel_average_precision(ones, masks) == pytest.approx(masks.double().mean().item())


def test_a_random_map_scores_the_share_of_the_area_on_average():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 1:5, 2:7] = True
    maps, masks = random_map(torch.zeros(4000, 1, 8, 8)), mask.expand(4000, -1, -1)
    area = mask.double().mean().item()
    for score in (energy_in_mask, pointing_game):
        values = score(maps, masks)
        assert abs(values.mean().item() - area) < 4 * values.std().item() / math.sqrt(4000)


def test_empty_masks_are_left_out():
    maps, masks = random_pair(2)
    masks[1] = False
    for score in (energy_in_mask, pointing_game, lambda m, t: iou_at(m, t, 0.5)):
        assert score(maps, masks).isnan().tolist() == [False, True, False]
    assert math.isnan(pixel_average_precision(maps[1:2], masks[1:2]))


@few
@given(st.integers(0, 999))
def test_pixel_average_precision_equals_sklearn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    maps, masks = random_pair(seed)
    maps[0] = maps[0] / maps[0].max()
    unit = maps / maps.amax((1, 2), keepdim=True)
    want = metrics.average_precision_score(masks.flatten().numpy(), unit.flatten().numpy())
    assert pixel_average_precision(maps, masks) == pytest.approx(want)


def test_iou_equals_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    maps, masks = random_pair(3)
    for b in range(3):
        want = metrics.jaccard_score(masks[b].flatten(), (maps[b] / maps[b].max() >= 0.5).flatten())
        assert iou_at(maps, masks, 0.5)[b].item() == pytest.approx(want)


def test_box_of_the_largest_part_with_diagonal_neighbours():
    maps = torch.zeros(2, 8, 10)
    maps[0, 1, 1] = 1.0  # the peak is alone
    maps[0, 4, 3] = maps[0, 5, 4] = maps[0, 6, 5] = 0.6  # three cells joined by their corners
    maps[0, 7, 9] = 0.3  # below the level
    assert boxes_of(thresholded(maps, 0.5)).tolist() == [[3, 4, 6, 7], [0, 0, 0, 0]]
    assert boxes_of(thresholded(maps, 0.7)).tolist()[0] == [1, 1, 2, 2]


def test_box_accuracy():
    predicted, masks = (torch.zeros(3, 10, 10, dtype=torch.bool) for _ in range(2))
    predicted[0, 2:6, 2:6] = True  # exact
    predicted[1, 2:6, 2:4] = True  # half the box: IoU .5
    predicted[2, 2:6, 2:6] = True  # no object: left out
    masks[:2, 2:6, 2:6] = True
    assert box_accuracy(predicted, masks).tolist()[:2] == [1.0, 1.0] and box_accuracy(predicted, masks).isnan()[2]
    assert box_accuracy(predicted, masks, overlap=0.51).tolist()[:2] == [1.0, 0.0]


def test_trivial_maps():
    images = torch.rand(4, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    for name, trivial in TRIVIAL.items():
        maps = trivial(images)
        assert maps.shape == (4, 12, 20) and maps.dtype == torch.float32 and maps.min() >= 0, name
    assert centre_box(images).mean().item() == pytest.approx(0.25) and centre_box(images)[0, 3:9, 5:15].all()
    assert torch.equal(gaussian_centre(images), gaussian_centre(images).flip((1, 2)))
    assert torch.equal(random_map(images), random_map(images)) and not torch.equal(
        random_map(images), random_map(images, 1)
    )
    assert torch.equal(coin(images), (random_map(images) < 0.5).float())
    step = torch.zeros(1, 1, 6, 6)
    step[..., 3:] = 1
    assert (edges(step)[0, :, 2:4] == 4).all() and (edges(step)[0, :, [0, 1, 4, 5]] == 0).all()


@few
@given(st.integers(0, 999))
def test_no_guess_that_is_the_same_for_all_images_beats_the_blind_map(seed):
    """Mean pointing and, cut at its best level, mean IoU against every single-pixel guess and centred boxes."""
    _, masks = random_pair(seed, batch=6)
    blind = blind_map(masks).expand(6, -1, -1)
    guesses = torch.eye(30).view(30, 1, 5, 6).expand(-1, 6, -1, -1)
    best = max(pointing_game(guess, masks).mean() for guess in guesses)
    assert pointing_game(blind, masks).mean() == pytest.approx(float(best))
    most = max(iou_at(blind, masks, level).mean() for level in LEVELS)
    boxes = torch.stack([centre_box(torch.zeros(6, 1, 5, 6), area) for area in (0.1, 0.25, 0.5, 1.0)])
    assert all(iou(box.bool(), masks).mean() <= most + 0.15 for box in boxes)


def test_a_cut_is_a_share_of_the_peak_or_a_value():
    maps = torch.tensor([[[0.1, 0.2, 0.4]], [[0.0, 0.6, 0.9]], [[0.0, 0.0, 0.0]]])
    assert thresholded(maps, 0.5).tolist() == [[[False, True, True]], [[False, True, True]], [[False] * 3]]
    assert thresholded(maps, 0.5, "absolute").tolist() == [[[False] * 3], [[False, True, True]], [[False] * 3]]
    assert thresholded(maps, 0, "absolute").all()
    for scale in (0.1, 7.0):
        assert torch.equal(thresholded(scale * maps, 0.3), thresholded(maps, 0.3))


class Elsewhere(torch.Tensor):
    """A tensor on a device without float64, as Apple's: double precision is an error until it is brought to the CPU."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("this device has no float64")


def test_double_precision_only_on_the_cpu():
    maps, masks = random_pair(0)
    far, where = maps.float().as_subclass(Elsewhere), masks.as_subclass(Elsewhere)
    for score in (energy_in_mask, pointing_game, pixel_average_precision):
        assert torch.as_tensor(score(far, where)).allclose(torch.as_tensor(score(maps.float(), masks)))
    for score in (iou, scores.f1_foreground, box_accuracy):
        torch.testing.assert_close(score(thresholded(far, 0.5), where), score(thresholded(maps.float(), 0.5), masks))
    torch.testing.assert_close(rank_correlation(far, far), rank_correlation(maps, maps))


# ---- of a trained method ------------------------------------------------------------------------------------------


class Pointer(Method):
    """Knows the answer: the class is the brightest channel, the map is the image's first channel."""

    def logits(self, images):
        return images.mean((2, 3))

    def explain(self, images, classes):
        self.asked = classes
        return images[:, 0]


def bright_squares(n: int = 12, empty: int = 0, masks: bool = True) -> Splits:
    images, truth = torch.zeros(n, 3, 8, 8), torch.zeros(n, 8, 8, dtype=torch.bool)
    for i in range(n):
        truth[i, i % 4 : i % 4 + 4, 2:5] = True
    images[:, 0] = truth.float()
    truth[:empty] = False
    data = ArrayData(images, torch.zeros(n, dtype=torch.int64), truth if masks else None)
    return Splits("squares", data, data, data, ("0", "1", "2"), "x")


def test_localisation_of_a_method_beside_trivial_maps():
    method = Pointer(torch.nn.Linear(1, 1))
    result = localisation(method, bright_squares(empty=2))
    assert result["energy_in_mask"] == result["pointing"] == result["iou"] == 1.0
    assert result["images_with_mask"] == 10 and result["dead_maps"] == 0
    area = 12 / 64
    assert result["energy_in_mask_whole"] == result["iou_whole"] == result["pointing_whole"] == pytest.approx(area)
    names = {f"{score}_{name}" for score in ("energy_in_mask", "pointing", "iou") for name in TRIVIAL}
    assert names <= set(result) and all(isinstance(v, float) for v in result.values())
    assert accuracy(method, bright_squares()) == {"accuracy": 1.0}


def test_without_masks_there_is_nothing_to_score():
    for measure in (localisation, lambda m, s: energy_by_layer(m, s, ["body.1"])):
        with pytest.raises(ValueError, match="masks must be .* got None"):
            measure(CrossEntropy(small_cnn(3, width=2)), bright_squares(masks=False))


def test_the_level_comes_from_the_validation_split_only():
    method, good = Pointer(torch.nn.Linear(1, 1)), bright_squares()
    soft = good.validation.images.clone()
    soft[:, 0] += 0.4 * (1 - soft[:, 0])  # background at .4: levels above it are right
    validation = ArrayData(soft, good.validation.labels, good.validation.masks)
    splits = good._replace(validation=validation)
    level = min(l for l in LEVELS if l > 0.4)
    assert localisation(method, splits)["iou_level"] == level
    other = splits._replace(test=ArrayData(soft * 0.5, good.test.labels, good.test.masks))
    assert localisation(method, other)["iou_level"] == level
    assert localisation(method, splits, cut="absolute", scores=["iou"], trivial=False)["iou_absolute"] == 1.0
    assert localisation(method, other, cut="absolute", scores=["iou"], trivial=False)["iou_absolute"] == 1.0
    half = other._replace(test=ArrayData(soft * 0.4, good.test.labels, good.test.masks))  # 0.4 at most: below the value
    assert localisation(method, half, cut="absolute", scores=["iou"], trivial=False)["iou_absolute"] == 0.0


@pytest.mark.parametrize("cut", NAMES)
def test_every_score_has_a_level_of_its_own_and_the_best_of_validation(cut):
    maps, masks = random_pair(4, batch=8)
    maps = maps / 4
    found = judged([({"": maps}, masks)], [({"": maps}, masks)], SCORES, cut)
    for score, names in NAMES[cut].items():
        own = [sum(f(thresholded(maps, l, cut), masks).nanmean() for f in AT_A_LEVEL[score]) for l in LEVELS]
        own = own[1::2] if score == "box_accuracy" else own
        assert sum(found[name] for name in names[:-1]) == pytest.approx(float(max(own))), score
        assert best_levels([({"": maps}, masks)], [score], cut)[score, ""] == found[names[-1]]
    with pytest.raises(ValueError, match="scores must be of"):
        judged([], [], ("dice",))


def test_look_explains_predicted_or_label_and_restores_modes():
    method = CrossEntropy(small_cnn(10, width=2, seed=0)).train()
    method.net.body[0].eval()
    modes = [m.training for m in method.modules()]
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    data = ArrayData(images, torch.tensor([3, 1, 4, 1, 5]), torch.ones(5, 16, 16, dtype=torch.bool))
    seen = list(look(method, data, size=2))
    assert [len(s.maps) for s in seen] == [2, 2, 1] and modes == [m.training for m in method.modules()]
    method.eval()
    predicted = torch.cat([s.logits for s in seen]).argmax(1)
    torch.testing.assert_close(torch.cat([s.maps for s in seen]), method.explain(images, predicted).detach())
    labelled = torch.cat([s.maps for s in look(method, data, classes="label")])
    torch.testing.assert_close(labelled, method.explain(images, data.labels).detach())
    with pytest.raises(ValueError, match="classes must be"):
        next(look(method, data, classes="all"))


def test_multi_label_data():
    images = torch.tensor([[2.0, -1.0, 3.0], [-1.0, 1.0, -2.0]]).view(2, 3, 1, 1).expand(2, 3, 8, 8).clone()
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    data = ArrayData(images, labels, torch.ones(2, 8, 8, dtype=torch.bool))
    splits, method = Splits("multi", data, data, data, ("a", "b", "c"), "x"), Pointer(torch.nn.Linear(1, 1))
    assert accuracy(method, splits)["accuracy"] == pytest.approx(5 / 6)
    list(look(method, data, classes="label"))
    assert method.asked.tolist() == [0, 1]
    assert localisation(method, splits)["energy_in_mask"] == 0.5  # the second map has no positive value


def test_energy_by_layer_is_that_of_the_enlarged_maps():
    method, splits = CrossEntropy(small_cnn(3, width=2, seed=0)).eval(), bright_squares(empty=1)
    batch = splits.test.__getitems__(range(12))
    maps = grad_cam(method.net, batch.images, method.logits(batch.images).argmax(1), ["body.1", "body.4"]).maps
    found = energy_by_layer(method, splits, ["body.1", "body.4"])
    for name, own in zip(("energy_body.1", "energy_body.4"), maps):
        large = torch.nn.functional.interpolate(own[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0]
        assert found[name] == pytest.approx(energy_in_mask(large, batch.masks).nanmean().item())


# ---- deletion and insertion ------------------------------------------------------------------------------------------


def test_deletion_and_insertion_by_hand():
    # The score is the share of bright pixels left; half of the pixels are bright, and the map finds them first.
    images = torch.zeros(1, 1, 4, 4)
    images[..., :2] = 1
    good, bad = images[:, 0], 1 - images[:, 0]

    def score(x):
        return x.mean((1, 2, 3)) * 2

    dark = torch.zeros(1)
    assert deletion_auc(score, images, good, steps=4, baseline=dark).item() == pytest.approx(0.25)
    assert deletion_auc(score, images, bad, steps=4, baseline=dark).item() == pytest.approx(0.75)
    assert insertion_auc(score, images, good, steps=4, baseline=dark).item() == pytest.approx(0.75)
    assert insertion_auc(score, images, bad, steps=4, baseline=dark).item() == pytest.approx(0.25)


def test_portions_are_weighed_by_their_true_size():
    """Five pixels in three steps: 2, 1 and 2 of them go, so the trapezoids are not equally wide."""
    images = torch.tensor([0.0, 0.2, 0.4, 0.6, 1.0]).view(1, 1, 1, 5)
    left = {0: 1.0, 2: 1.0, 3: 0.0, 5: 0.0}

    def score(x):
        return torch.tensor([left[int((x < 0).sum())]])

    area = deletion_auc(score, images, images[:, 0], steps=3, baseline=torch.tensor(-1.0))
    assert area.item() == pytest.approx(2 / 5 * 1 + 1 / 5 * 0.5 + 2 / 5 * 0)  # 0.5 by symmetry of 2, 1, 2
    left |= {3: 1.0}
    longer = deletion_auc(score, images, images[:, 0], steps=3, baseline=torch.tensor(-1.0))
    assert longer.item() == pytest.approx(3 / 5 + 2 / 5 * 0.5)  # with equal widths 0.8333


def test_deletion_of_a_method():
    method = Pointer(torch.nn.Linear(1, 1))
    scores = deletion(method, bright_squares(), images=6, steps=4)
    assert scores["deletion_auc"] == scores["deletion_auc_mask"] < scores["deletion_auc_random"]
    assert set(scores) == {"deletion_auc", "deletion_auc_random", "deletion_auc_edges", "deletion_auc_mask"}
    assert "deletion_auc_mask" not in deletion(method, bright_squares(masks=False), images=6, steps=4)
    blind = deletion(method, bright_squares(), images=6, steps=4, trivial=("centre", "gaussian"))
    assert set(blind) == {"deletion_auc", "deletion_auc_centre", "deletion_auc_gaussian", "deletion_auc_mask"}


def test_deletion_baselines_and_errors():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for baseline in ("mean", "blur"):
        ends: list[torch.Tensor] = []

        def score(x, kept=ends):
            kept.append(x)
            return x.mean((1, 2, 3))

        deletion_auc(score, images, images[:, 0], steps=2, baseline=baseline)
        assert torch.equal(ends[0], images)
        torch.testing.assert_close(ends[-1].mean((2, 3)), images.mean((2, 3)), atol=0.1, rtol=0)
        assert ends[-1].var() < images.var()
    for arguments, message in (
        ((images, images[:, 0, :4]), "maps must be"),
        ((images, images[:, 0], 0), "steps"),
        ((images, images[:, 0], 2, "black"), "baseline"),
    ):
        with pytest.raises(ValueError, match=message):
            deletion_auc(lambda x: x.mean((1, 2, 3)), *arguments[:2], **dict(zip(("steps", "baseline"), arguments[2:])))


def test_wrong_inputs():
    maps, masks = random_pair(0)
    spoilt = maps.clone()
    spoilt[1, 0, 0] = torch.nan
    measures = (*(energy_in_mask, pointing_game, pixel_average_precision, lambda m, t: iou_at(m, t, 0.5)),)
    for call, message in (
        (lambda: energy_in_mask(maps[:2], masks), r"\(2, 5, 6\) and \(3, 5, 6\)"),
        (lambda: pointing_game(maps, masks.float()), "float32"),
        (lambda: energy_in_mask(maps[0], masks[0]), r"\[B, H, W\]"),
        (lambda: iou(maps, masks), "threshold the maps first"),
        (lambda: iou_at(maps, masks, 0.0), r"\(0, 1\], got 0.0"),
        (lambda: iou_at(maps, masks, 1.5), r"\(0, 1\], got 1.5"),
        (lambda: thresholded(maps, -0.1, "absolute"), r"\[0, 1\], got -0.1"),
        (lambda: thresholded(maps, 0.5, "peak"), "cut must be one of relative, absolute"),
        (lambda: box_accuracy(masks, masks[:2]), "both be"),
        (lambda: centre_box(maps[:, None], 0.0), "area must lie"),
        (lambda: blind_map(maps), "masks must be"),
        *((lambda m=measure: m(spoilt, masks), "NaN or infinity in 1 of 3") for measure in measures),
    ):
        with pytest.raises(ValueError, match=message):
            call()
