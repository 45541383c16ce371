"""What stands around ReFF: figures, declared rows, the spot cue and the measure that sees through maps."""

from __future__ import annotations

import pytest
import torch
from reff_cases import LAYERS, problem
from torch import nn

from xai_course.data.batch import ArrayData
from xai_course.measure.statistics import paired
from xai_course.methods.base import CrossEntropy
from xai_course.methods.guidance import RelevantFocus
from xai_course.methods.reff import (
    PAPER_WEIGHTS,
    ReFF,
)

# --- what the pages show ----------------------------------------------------------------------------------------------


def test_figures():
    """Every figure function draws from small input without a record on disk."""
    from types import SimpleNamespace

    from xai_course.runs.records import Metric
    from xai_course.show import reff as show

    net, batch = problem(dtype=torch.float32)
    methods = {"a": ReFF(net.eval(), LAYERS), "b": CrossEntropy(net)}
    names = ("accuracy", "accuracy_seen", "outside_seen", "dead_seen", "outside_body.4", "outside_pixels")
    record = SimpleNamespace(metrics={name: Metric((0.2, 0.4)) for name in names})
    figures = [
        show.forces(torch.tensor([[1.0, 4], [6, 1]]), torch.tensor([[0.0, 1], [0, 0]])),
        show.spread(5),
        show.compare_maps(methods, batch.images, batch.labels, batch.masks),
        show.layer_maps(methods, batch.images[0], 1, LAYERS),
        show.bars({"x": {"ce": record}, "y": {"energy": record}}, "accuracy", "accuracy"),
        show.examples_and_bars(batch.images, {"ce": record, "reff": None}, "title"),
        show.maps_and_pixels({"x": {"ce": record, "reff": record}, "y": {"energy": record}}, ["body.4"]),
        show.weights_tried({0.1: record, 0.2: record}, 0.5, "title"),
    ]
    for figure in figures:
        figure.canvas.draw()
        assert figure.axes


def test_spread_map_keeps_its_mass():
    from xai_course.show.reff import spread_map

    for cells in (1, 7, 40):
        cam, relevant = spread_map(cells)
        assert cam.sum().item() == pytest.approx(1) and (cam * relevant).sum().item() == pytest.approx(0.5)
        assert RelevantFocus()(cam[None], relevant[None]).item() == pytest.approx(0.25 / cells)


# --- what the tables declare ------------------------------------------------------------------------------------------


def test_preset_of_the_paper():
    from xai_course.runs.catalogue import find

    single = find("reff/table2/size28/single")
    paper = single.preset("paper")
    assert (paper.optimizer, paper.lr, paper.momentum, paper.weight_decay) == ("sgd", 0.01, 0.8, 1e-5)
    assert (paper.epochs, paper.batch_size, paper.schedule, paper.clip_norm) == (50, 32, "constant", None)
    options = single.method.keywords
    assert options["balance"] * options["weights"][0] == PAPER_WEIGHTS[-1]
    assert find("reff/table2/size28/reff").method.keywords["weights"] == PAPER_WEIGHTS


def test_every_row_of_the_paper_is_declared():
    from collections import Counter

    from xai_course.runs.declared import experiments

    rows = experiments("reff")
    found = Counter(e.item for e in rows if e.reported)
    printed = {"table1a": 12, "table1b": 12, "table2": 15, "table3a": 21, "table3b": 7, "table_s2": 12, "table_s3": 12}
    assert found == printed
    for experiment in rows:
        assert all(experiment.settings(preset) for preset in ("smoke", "colab", "paper"))
        assert bool(experiment.reported) == bool(experiment.needs)


# --- the shortcut and its measure ------------------------------------------------------------------------------------


def spot_splits():
    from xai_course.data.textured_digits import textured_digits

    return textured_digits("smoke", p=1.0, digit_size=(18, 24), train=60, validation=20, test=60)


def spots_seen(after) -> torch.Tensor:
    """The code of each image's spot: nine bits."""
    corners = [(slice(None, 6), slice(None, 6)), (slice(None, 6), slice(-6, None))]
    corners += [(slice(-6, None), a[1]) for a in corners]
    grids = torch.stack([after.images[:, 0, r, c][:, 1::2, 1::2] for r, c in corners], 1)
    spot = torch.stack([g[int(((g == 0) | (g == 255)).sum((1, 2)).argmax())] for g in grids]).flatten(1)
    return (spot > 127).long() @ (2 ** torch.arange(9))


def test_spot_tells_the_label_in_training_only():
    from xai_course.data.spot import with_spot

    splits = spot_splits()
    made = with_spot(splits, seed=1)
    assert made.fingerprint != splits.fingerprint
    for before, after, told in zip(splits[1:4], made[1:4], (True, True, False)):
        changed = (before.images != after.images).any(1)
        assert changed.sum((1, 2)).max() <= 36 and not (after.masks & changed).any()
        assert torch.equal(after.labels, before.labels)
        codes = spots_seen(after)
        seen = {int(y): set(codes[after.labels == y].tolist()) for y in after.labels.unique()}
        assert all(len(s) == 1 for s in seen.values()) is told


def test_a_share_p_of_the_spots_is_random():
    from xai_course.data.spot import with_spot
    from xai_course.data.textured_digits import textured_digits

    splits = textured_digits("smoke", p=1.0, digit_size=(18, 24), train=600, validation=10, test=10)
    sure, loose = (spots_seen(with_spot(splits, p=p, seed=1).train) for p in (0.0, 0.3))
    share = (sure != loose).double().mean().item()  # a random pattern is right once in ten
    assert share == pytest.approx(0.27, abs=4 * (0.27 * 0.73 / 600) ** 0.5)
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 1.5"):
        with_spot(splits, p=1.5)


@pytest.mark.parametrize("size", [0, 5, 18])
def test_spot_of_a_wrong_size(size):
    from xai_course.data.spot import with_spot

    with pytest.raises(ValueError, match="size must be a multiple of 3 up to 16"):
        with_spot(spot_splits(), size=size)


def test_the_measure_sees_through_a_map_on_the_object():
    """The network of the chapter's proof: its map lies on the object, its answer comes from beside it."""
    from xai_course.measure.outside import outside_shares

    class Leak(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 1, 9, padding=4), nn.ReLU())
            self.head = nn.Linear(1, 2)
            with torch.no_grad():
                for p in self.parameters():
                    p.zero_()
                conv = self.body[0]
                conv.weight[0, 0, 4, 4], conv.weight[0, 0, 4, 6] = 1.0, -1.0  # here on the object, two further not
                conv.weight[0, 1, 4, 6], conv.bias[0] = 1.0, -1.0
                self.head.weight[1] = 1.0

        def forward(self, images):
            return self.head(self.body(images).mean((2, 3)))

    torch.manual_seed(0)
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    masks[:, 6:10, 6:10] = True
    images = torch.stack([masks.float(), 0.2 + 0.7 * torch.rand(4, 16, 16), torch.zeros(4, 16, 16)], 1)
    data = ArrayData(images, torch.ones(4, dtype=torch.int64), masks)
    method = CrossEntropy(Leak())
    mass, dead, pixels = outside_shares(method, data, ["body"])
    assert mass.item() < 1e-6 and dead.item() == 0  # a perfect explanation
    assert pixels.item() == pytest.approx(2 / 3)  # one third of the gradient is the gate's, on the object
    inside, outside = images.clone(), images.clone()
    inside[:, 1] *= ~masks
    outside[:, 1] *= masks
    assert torch.equal(method.net(images), method.net(inside))  # the object's own texture is not read
    assert (method.net(images)[:, 1] > 0).all() and (method.net(outside)[:, 1] == 0).all()  # only the background speaks


def test_seen_does_not_open_the_test_split():
    from xai_course.data.batch import Splits
    from xai_course.measure.outside import seen, shortcut

    net, batch = problem(dtype=torch.float32)
    data = ArrayData(batch.images, batch.labels, batch.masks)
    splits = Splits("x", data, data, None, ("0", "1", "2"), "")
    assert set(seen(CrossEntropy(net), splits, layers=LAYERS)) == {"accuracy_seen", "outside_seen", "dead_seen"}
    everything = shortcut(CrossEntropy(net), splits._replace(test=data), layers=LAYERS)
    assert {"accuracy", "outside_body.4", "dead_body.1", "outside_pixels", "outside_seen"} <= set(everything)


# --- what the chapter says of the records -----------------------------------------------------------------------------


def gaps(better: str, worse: str, metric: str = "accuracy") -> torch.Tensor:
    """Differences seed by seed of two rows of reff/digits, over the seeds that both have."""
    from xai_course.runs import records

    both = [records.load(f"reff/digits/{name}") for name in (better, worse)]
    values = [dict(zip(r.seeds, r.metrics[metric].values)) for r in both]
    shared = sorted(values[0].keys() & values[1].keys())
    assert len(shared) >= 5
    return torch.tensor([values[0][s] - values[1][s] for s in shared], dtype=torch.float64)


def shows_nothing(differences: torch.Tensor) -> bool:
    """Student's 95 % interval holds zero."""
    found = paired(differences.tolist(), [0.0] * len(differences))
    return found.low < 0 < found.high


def test_what_the_chapter_says_of_background_cues():
    for setting in ("easy", "middle", "hard", "q0.0", "p0.02", "size16"):
        assert (gaps(f"{setting}/energy", f"{setting}/ce") > 0).all(), setting
    assert (gaps("middle/energy", "middle/reff") > 0).all() and (gaps("middle/reff", "middle/ce") > 0).sum() == 4
    for better, worse in (("energy", "ce"), ("energy", "reff"), ("reff", "ce")):  # what fresh seeds repeat
        assert (gaps(f"fresh/{better}", f"fresh/{worse}") > 0).all()
    assert (gaps("hard/reff", "hard/ce") > 0).all() and (gaps("easy/reff", "easy/ce") < 0).sum() == 3
    assert (gaps("middle/energy", "middle/ce", "accuracy_seen") > 0).all()
    for row in ("reff", "energy"):  # no cost that could be told from none
        assert shows_nothing(gaps(f"fresh/{row}", "fresh/ce", "accuracy_seen"))
    for row in ("reff_last", "energy_last"):
        assert gaps(f"middle/{row}", "middle/ce").abs().max() <= 0.05
    for row in ("l1", "l2"):
        assert gaps(f"middle/{row}", "middle/ce").abs().max() <= 0.02
        assert (gaps(f"middle/{row}_strong", "middle/energy") > 0).double().mean() > 0.5
        assert gaps(f"middle/{row}_strong", "middle/energy_strong").mean() > 0
        assert gaps(f"middle/{row}_strong", "middle/energy_strong", "accuracy_seen").mean() > 0
    assert (gaps("middle/abn", "middle/abn0") > 0).all()
    assert gaps("middle/reff", "middle/abn").mean() < 0 < gaps("middle/energy", "middle/abn").mean()
    for row in ("reff", "energy", "abn"):
        assert abs(gaps(f"middle/{row}_n1", f"middle/{row}").mean()) < 0.02
    for row in ("reff", "energy"):
        assert gaps(f"size16/{row}", "size16/ce", "dead_body.4").mean() < 0
        assert (gaps("middle/ce_p1", f"middle/{row}", "outside_pixels") < 0).double().mean() > 0.5


def test_what_the_chapter_says_of_the_spot():
    """The order of the two norms turns with the cue."""
    from xai_course.runs import records

    for row in ("ce", "reff", "energy"):
        assert records.load(f"reff/digits/spot/{row}").metrics["accuracy"].mean < 0.13  # a floor: ten classes
    assert (gaps("spot0.2/reff", "spot0.2/energy") > 0).sum() == 4
    assert shows_nothing(gaps("spot0.2_fresh/reff", "spot0.2_fresh/energy"))
    lead = [gaps(f"{setting}/energy", f"{setting}/reff") for setting in ("fresh", "spot0.2_fresh")]
    assert (lead[0] > 0).all() and lead[0].min() > lead[1].max()  # the lead of the linear form is gone
    assert (gaps("spot0.2/energy", "spot0.2/reff", "outside_body.1") < 0).all()  # a better map, a worse answer
    assert (gaps("spot/energy", "spot/ce", "outside_body.1") < -0.2).all()
