"""Min-Max entropy's declared tables, its augmentations, its figures, and its ledger."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tools import ledger
from xai_course.data.augment import crop_and_flip, turned, warped
from xai_course.data.batch import Batch
from xai_course.methods.erasing import Erasing, erase
from xai_course.methods.minmax import MaskRule, MinMax
from xai_course.nets.wildcat import LocaliserClassifier, minmax_head, small_trunk
from xai_course.runs.declared import experiments
from xai_course.show import minmax as show

EXPERIMENTS = experiments("minmax")
TABLES = [e for e in EXPERIMENTS if e.item.startswith("table")]


def test_tables_are_complete():
    """Every printed row of Tables 1 to 3 on both data sets, with its numbers, and a reason where it was not run."""
    names = {e.name: e for e in TABLES}
    for data in ("glas", "cub5"):
        for row in ("all_ones", "cam_avg", "cam_max", "cam_lse", "wildcat", "deep_mil", "u4", "unet"):
            assert names[f"minmax/table1/{data}/{row}"].reported["f1_plus"]
        for row in ("u0", "u4"):
            assert names[f"minmax/table2/{data}/{row}"].reported["f1_minus"]
            assert bool(names[f"minmax/table3/{data}/{row}"].reported) == (
                data == "cub5"
            )  # GlaS's times are not printed
    assert all(e.needs and {"paper", "colab"} <= set(e.presets) for e in TABLES)
    assert names["minmax/table1/cub5/u4"].reported == {"error": "10.34", "f1_plus": "52.97", "f1_minus": "90.69"}
    assert len({e.name for e in EXPERIMENTS}) == len(EXPERIMENTS)


def test_every_experiment_is_plain_data():
    for experiment in EXPERIMENTS:
        assert experiment.settings(next(iter(experiment.presets)))["net"]


def test_printed_errors_are_whole_images():
    """80 test images of GlaS, 145 of CUB5 (the paper's text says 111): every printed error is a multiple of 1/n."""
    printed = [(e.name.split("/")[2], e.reported["error"]) for e in TABLES if "error" in e.reported]
    assert len(printed) == 20
    for data, error in printed:
        if error != "N/A":
            count = float(error) * {"glas": 80, "cub5": 145}[data] / 100
            assert abs(count - round(count)) < 0.011 * {"glas": 80, "cub5": 145}[data] / 100


def pairs(seed: int = 0) -> Batch:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.arange(6), images[:, 0] > 0.5, torch.arange(6))


def test_every_image_is_turned_by_itself_in_all_eight_ways():
    image = torch.arange(9.0).view(1, 3, 3)
    batch = Batch(image.expand(400, 1, 3, 3), torch.zeros(400), None, torch.arange(400))
    eight = [torch.rot90(flipped, k, (-2, -1)) for flipped in (image, image.flip(-1)) for k in range(4)]
    counts = [0] * 8
    for found in turned(batch, torch.Generator().manual_seed(0)).images:
        counts[[torch.equal(found, one) for one in eight].index(True)] += 1
    assert sum(counts) == 400 and min(counts) > 25, counts


def test_warped_is_torchvisions_affine_map():
    """A square scaled by 1 and sheared only, against the library of Min-Max's authors; masks move along."""
    from torchvision.transforms.v2 import functional as tv

    image = torch.zeros(1, 1, 33, 33)
    image[..., 4:29, 9:24] = 1
    batch = Batch(image, torch.zeros(1), image[:, 0] > 0.5, torch.arange(1))
    for seed in range(3):
        once = turned(batch, torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        out = warped(batch, generator, degrees=10, scale=(0.9, 0.9))
        assert out.masks.float().sub(out.images[:, 0]).abs().mean() < 0.02
        again = torch.Generator().manual_seed(seed)
        torch.randint(8, (1,), generator=again)
        a, b, _ = torch.rand(3, 1, generator=again)
        angle, shear = (2 * a - 1).item() * 10, (2 * b - 1).item() * 10
        bilinear = tv.InterpolationMode.BILINEAR
        theirs = tv.affine(once.images, angle, [0, 0], 0.9, [shear, 0], interpolation=bilinear)
        assert (theirs - out.images).abs().mean() < 1e-4, (angle, shear)


@pytest.mark.parametrize("augment", [turned, partial(crop_and_flip, pad=0)])
def test_augmentation_moves_mask_with_image(augment):
    changed = 0
    for seed in range(8):
        out = augment(pairs(), torch.Generator().manual_seed(seed))
        assert torch.equal(out.masks, out.images[:, 0] > 0.5)
        assert torch.allclose(out.images.sum((1, 2, 3)), pairs().images.sum((1, 2, 3)))
        changed += not torch.equal(out.images, pairs().images)
    assert changed >= 6
    assert augment(pairs()._replace(masks=None), torch.Generator().manual_seed(0)).masks is None


def test_ledger_has_no_gap():
    mine = [entry for entry in ledger.entries() if entry.paper == "minmax"]
    assert len(mine) >= 24 and {e.status for e in mine} <= {"done", "declared"}
    assert not [problem for entry in mine for problem in ledger.gaps(entry)]


def test_figures_draw():
    """Every figure of the chapter on a tiny model, and the player on each of its steps."""
    torch.manual_seed(0)
    trunk, d = small_trunk(2)
    method = MinMax(LocaliserClassifier(trunk, minmax_head(d, 3), minmax_head(d, 3))).eval()
    images, truth = torch.rand(4, 3, 16, 16), torch.zeros(4, 16, 16, dtype=torch.bool)
    truth[:, 4:12, 4:12] = True
    figures = [show.regions(images, truth), show.simplex(), show.memory((0, 1), (1.0, 1.0), (1.0, 2.0))]
    figures += [show.who_learns({"a": {"head": 0.0, "trunk": 1.0}, "b": {"head": 0.5, "trunk": 1.0}})]
    maps, logits = method.net.locate(2 * images - 1)
    figures += [show.mask_rule(maps[0], logits[0], images[0], MaskRule(omega=2.0))]
    labels = logits.argmax(1)
    steps = list(erase(method.locate, 2 * images - 1, labels, Erasing(2, rule="none")))
    figures += [show.player(step, truth) for step in steps]
    figures += [show.compare(images, truth, {"Min-Max": method.explain(images, labels)})]
    figures += [
        show.f1_against_area(truth, 0.3),
        show.scores({"a": ([1, 2], [3, 4])}),
        show.bars({"a": [1, 2]}, "F1", "a"),
    ]
    figures += [show.trust_curves({"paper": [1, 0.2, 0.1]}, "accepted")]
    for figure in figures:
        figure.canvas.draw()
