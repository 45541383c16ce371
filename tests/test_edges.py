"""Edges, signs and defaults that a mutation of the library showed no other test to hold: `python -m tools.mutate`."""

from __future__ import annotations

import dataclasses
import signal
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xai_course import train
from xai_course.data.batch import ArrayData, Splits
from xai_course.maps import tokens
from xai_course.maps.hooks import check_net
from xai_course.measure import faithfulness, outside, protocol, robustness, scores, statistics, trivial
from xai_course.methods import amc, explanation_loss, groups, loss_attention, minmax, pairs, patch_heads
from xai_course.methods import pseudo_annotator as pseudo
from xai_course.methods.base import CrossEntropy
from xai_course.methods.check import _gradient_problems
from xai_course.nets.convnets import small_cnn
from xai_course.nets.patch_nets import patch_net
from xai_course.preset import Preset, half_precision
from xai_course.runs import claims, records
from xai_course.runs.claims import Claim
from xai_course.runs.records import Metric, Record


@pytest.mark.parametrize("given", [{"up": 0.5}, {"share": 0.0}, {"share": 1.0}, {"up": 0.5, "share": 0.5}])
def test_jtt_wants_both_a_weight_and_a_share(given):
    with pytest.raises(ValueError, match="up must be >= 1 and share lie in"):
        groups.JTT(small_cnn(3, width=2), **given)
    assert groups.JTT(small_cnn(3, width=2), up=1.0).up == 1.0


@pytest.mark.parametrize("p", [claims.LEVEL, 0.01])
def test_a_claim_at_the_level_is_open_and_without_a_difference_has_no_direction(tmp_path, monkeypatch, p):
    monkeypatch.setenv("XAI_COURSE_RESULTS", str(tmp_path))
    model = Record("", "smoke", (), {}, {}, {}, {}, "", {}, "", "", (), 0.0, "")
    for name, values in {"ce": (0.5, 0.5, 0.5, 0.5, 0.5), "same": (0.75, 0.25, 0.5, 0.625, 0.375)}.items():
        metrics = {"accuracy": Metric(values)}
        records.save(dataclasses.replace(model, experiment=f"toy/t/{name}", seeds=(0, 1, 2, 3, 4), metrics=metrics))
    monkeypatch.setattr(claims, "claims", lambda: {})
    monkeypatch.setattr(claims, "_p", lambda claim: p)
    said = {
        direction: claims.judge(Claim("toy/x", "toy/t/same", "toy/t/ce", "accuracy", direction, margin=0.1)).holds
        for direction in ("higher", "lower", "equal", "open")
    }
    level = p == claims.LEVEL
    assert said == {"higher": False, "lower": False, "equal": not level, "open": level}


class Answers(nn.Module):
    """A judge that says ``bias`` of every pair."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(0.5))

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        return pairs[:, -1:] * self.bias


def test_the_judge_learns_that_drawn_is_fake_and_real_is_real():
    """At real annotations of +1 and drawn ones of -1, both halves of the judge's loss raise its factor by sigma(-w)."""
    judge, generator = Answers(), nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        generator.weight.zero_(), generator.bias.fill_(-1.0)
    steps = [torch.optim.SGD(m.parameters(), lr=1.0) for m in (generator, judge)]
    plan = pseudo.Pix2Pix(size=8, downs=2, l1=0.0)
    pseudo.step(generator, judge, steps, torch.rand(2, 3, 8, 8), torch.ones(2, 1, 8, 8), plan)
    shrunk = torch.sigmoid(torch.tensor(-0.5)).item()
    assert judge.bias.item() == pytest.approx(0.5 + shrunk, abs=1e-5)
    # the generator wants to be called real by the judge as it is now: d softplus(-w b) / db = -w sigma(-w b)
    w = judge.bias.item()
    pulled = w * torch.sigmoid(torch.tensor(w)).item()
    assert generator.bias.item() == pytest.approx(-1.0 + pulled, abs=1e-5)


def test_a_checkpoint_inside_an_epoch_waits_for_its_seconds(tmp_path, monkeypatch):
    """The clock goes on by one second whenever it is read; a save is due when more than six have passed."""
    now, saved = [1000.0], []

    def tick() -> float:
        now[0] += 1
        return now[0]

    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr(train, "save_whole", lambda path, state, cure: saved.append(state["progress"]["step"]))
    data = ArrayData(torch.rand(40, 3, 8, 8), torch.arange(40) % 3)
    for seconds, steps in ((6.0, [6, 13, 0]), (1e9, [0])):  # the last save is the epoch's own
        saved.clear()
        preset = Preset(epochs=1, batch_size=2, checkpoint_seconds=seconds)
        train.fit(CrossEntropy(small_cnn(3, width=2)), data, preset, out=tmp_path)
        assert saved == steps


def test_a_parameter_that_no_loss_uses_is_left_alone_by_one_process():
    """Adam with weight decay would shrink it, were its missing gradient taken as zero."""

    class Idle(CrossEntropy):
        def __init__(self, net):
            super().__init__(net)
            self.idle = nn.Parameter(torch.ones(3))

    method = Idle(small_cnn(3, width=2))
    data = ArrayData(torch.rand(8, 3, 8, 8), torch.arange(8) % 3)
    train.fit(method, data, Preset(epochs=1, batch_size=4, weight_decay=0.1))
    assert torch.equal(method.idle.detach(), torch.ones(3))


def test_a_quiet_training_shows_no_bar_and_a_loud_one_starts_where_it_is_resumed(tmp_path, monkeypatch, capsys):
    data = ArrayData(torch.rand(8, 3, 8, 8), torch.arange(8) % 3)
    preset = Preset(epochs=1, batch_size=4)
    train.fit(CrossEntropy(small_cnn(3, width=2)), data, preset)
    assert "CrossEntropy" not in capsys.readouterr().err
    train.fit(CrossEntropy(small_cnn(3, width=2)), data, preset, quiet=False)
    assert "CrossEntropy" in capsys.readouterr().err

    class Stopped(Exception):
        pass

    def bar(*given, initial, **others):
        raise Stopped(initial)

    def stop(run, batch):
        if run.step == 1:
            raise Stopped
        return step(run, batch)

    step, often = train._Run.train_step, dataclasses.replace(preset, batch_size=2, checkpoint_seconds=0.0)
    monkeypatch.setattr(train._Run, "train_step", stop)
    with pytest.raises(Stopped):
        train.fit(CrossEntropy(small_cnn(3, width=2)), data, often, out=tmp_path)
    monkeypatch.setattr("tqdm.auto.tqdm", bar)
    with pytest.raises(Stopped, match="^1$"):  # of four steps
        train.fit(CrossEntropy(small_cnn(3, width=2)), data, often, out=tmp_path)


@pytest.mark.parametrize(("path", "world", "listens"), [("x", 1, True), ("x", 2, False), (None, 1, False)])
def test_only_a_lone_process_with_a_place_to_save_listens_for_the_end(path, world, listens):
    before = signal.getsignal(signal.SIGTERM)
    with train._asked_to_end(SimpleNamespace(path=path, world=world)):
        assert (signal.getsignal(signal.SIGTERM) is not before) == listens
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_the_first_gpu_with_bfloat16_uses_it(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert half_precision("auto", "cuda") is dtype


def test_the_annotator_hands_over_images_between_minus_one_and_one_and_reads_the_answer_so():
    class First(nn.Module):
        def forward(self, images):
            seen.append(images)
            return images[:, :1]

    seen, images = [], torch.rand(2, 3, 8, 8)
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0.0, 1.0
    drawn = pseudo.PseudoAnnotator(First(), size=8)(images)
    torch.testing.assert_close(drawn, images[:, 0])
    torch.testing.assert_close(seen[0], 2 * images - 1)


def test_a_network_compiled_in_place_is_refused_as_a_wrapped_one_is():
    net = small_cnn(3, width=2)
    check_net(net)
    net.compile()
    with pytest.raises(ValueError, match="must not be compiled"):
        check_net(net)
    with pytest.raises(ValueError, match="must not be compiled"):
        check_net(torch.compile(small_cnn(3, width=2)))


@pytest.mark.parametrize(
    ("reached", "missing", "wrong", "said"),
    [
        ("a", "b", "", "no gradient for b, which move the loss: "),
        ("a", "", "b", "the gradient of b disagrees with finite differences: "),
        ("", "b", "a", "no gradient for b, which move the loss; the gradient of a disagrees"),
        ("", "b", "", "no gradient at all: "),
        ("", "", "", "no parameter moves the loss: "),
        ("a", "", "", None),
    ],
)
def test_the_report_says_what_is_missing_what_is_wrong_and_both(reached, missing, wrong, said):
    found = list(_gradient_problems(tuple(reached), tuple(missing), tuple(wrong)))
    assert len(found) == (said is not None) and all(line.startswith(said) for line in found)


@pytest.mark.parametrize("area", [0.0, 1.5, -1.0])
def test_a_centre_box_is_a_part_of_the_image(area):
    with pytest.raises(ValueError, match="area must lie in"):
        trivial.centre_box(torch.zeros(1, 3, 4, 4), area)
    assert trivial.centre_box(torch.zeros(1, 3, 4, 4), 1.0).all()


@pytest.mark.parametrize("grid", [(4, 0), (0, 4)])
def test_a_grid_of_tokens_without_a_side_is_refused(grid):
    with pytest.raises(ValueError, match="tokens must be"):
        tokens(1, grid=grid)(torch.zeros(1, 1, 2))


def test_an_attack_of_no_size_changes_nothing():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(robustness.pgd(small_cnn(3, width=2), images, torch.tensor([0, 1]), 0.0, steps=1), images)


def test_the_default_step_is_two_and_a_half_radii_shared_by_the_steps():
    """The loss is highest at 0.55: each step overshoots it and the next one goes back."""

    def scores(x: torch.Tensor) -> torch.Tensor:
        gap = (x.flatten(1) - 0.55).square()
        return torch.cat([gap, -gap], 1)

    image = torch.full((1, 1, 1, 1), 0.5)
    attacked = robustness.pgd(scores, image, torch.tensor([0]), 0.125, steps=3)
    assert attacked.item() == pytest.approx(0.5 + 2.5 * 0.125 / 3)


def test_an_attack_leaves_a_pixel_without_influence_alone():
    images = torch.rand(2, 3, 8, 8)
    attacked = robustness.pgd(lambda x: x[:, :, 0].mean(2), images, torch.tensor([0, 1]), 0.1, steps=2)
    assert (attacked != images)[:, :, 0].any() and torch.equal(attacked[:, :, 1:], images[:, :, 1:])


def test_controls_say_nothing_of_thresholds_and_counts_of_untrained_networks():
    data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
    splits = Splits("toy", data, data, data, tuple("abcd"), "")
    found = [name for name in protocol.controls(CrossEntropy(small_cnn(4, width=2)), splits, starts=2) if "_un" in name]
    assert len(found) > 6
    assert not [name for name in found if "_level_" in name or name.startswith(("dead_maps", "images_with_mask"))]


def test_randomisation_speaks_of_the_network_with_every_layer_made_anew(monkeypatch):
    stages = [{"rank_correlation": 0.1 * i} for i in range(4)]
    monkeypatch.setattr(protocol, "weight_randomisation", lambda method, images, classes: stages)
    data = ArrayData(torch.rand(4, 3, 8, 8), torch.arange(4) % 3)
    found = protocol.randomisation(
        CrossEntropy(small_cnn(3, width=2)), Splits("toy", data, data, data, tuple("abc"), "")
    )
    assert found == {"randomised": pytest.approx(0.3)}


def test_at_the_threshold_a_map_is_dead_or_constant_and_a_row_is_not():
    tiny = torch.full((1, 2, 2), 1e-20, dtype=torch.float64)
    assert explanation_loss.peak_maps(tiny, (2, 2))[1].all() and not explanation_loss.peak_maps(2 * tiny, (2, 2))[1]
    ulps = 16 * torch.finfo(torch.float32).eps  # so far rounding may go
    flat, spread = (torch.tensor([[[[1 - k * ulps, 1.0]]]]) for k in (1, 2))
    assert not minmax.rescaled(flat).any() and minmax.rescaled(spread).flatten().tolist() == [0, 1]
    row = torch.tensor([[pairs.SHORTEST, 0.0]], dtype=torch.float64)
    assert not amc.unit_rows(row)[1] and amc.unit_rows(0.5 * row)[1]


@pytest.mark.parametrize("cutoff", [-0.1, 1.5])
def test_a_cutoff_is_a_share(cutoff):
    with pytest.raises(ValueError, match="cutoff"):
        loss_attention.LossBasedAttention(cutoff=cutoff)
    assert [loss_attention.LossBasedAttention(cutoff=edge).options["cutoff"] for edge in (0.0, 1.0)] == [0.0, 1.0]


@pytest.mark.parametrize("given", [{"balance": -1.0}, {"ramp": 1.5}, {"ramp": -0.5}])
def test_a_patch_method_refuses_either_a_negative_balance_or_a_ramp_that_is_no_share(given):
    with pytest.raises(ValueError, match="balance must not be negative and ramp lie in"):
        patch_heads.PatchMethod(patch_net("small", 3, width=2, hidden=4), **given)


def test_routing_once_is_the_squashed_mean_share():
    votes = torch.rand(2, 5, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(patch_heads.dynamic_routing(votes, 1), patch_heads.squash(votes.sum(1) / 3))


def test_pairs_are_enlarged_by_an_eighth_before_they_are_cut(monkeypatch):
    asked, resize = [], pseudo.resize
    monkeypatch.setattr(pseudo, "resize", lambda images, size: asked.append(size) or resize(images, size))
    for jitter in (True, False):
        plan = pseudo.Pix2Pix(size=16, downs=2, jitter=jitter)
        pseudo.draw_pairs(torch.rand(5, 3, 16, 16), torch.zeros(5, 16, 16), plan)
    assert asked == [18, 16]


def test_two_runs_are_enough_and_one_is_not():
    assert statistics.detectable(1.0, 2) > statistics.detectable(1.0, 3) > 0
    with pytest.raises(ValueError, match="runs at least 2"):
        statistics.detectable(1.0, 1)


def test_one_pixel_found_is_all_of_one_pixel():
    one = torch.zeros(1, 2, 2, dtype=torch.bool)
    one[0, 1, 0] = True
    assert scores.iou(one, one).item() == 1.0


def test_a_blur_of_a_small_image_reaches_one_pixel():
    images = torch.zeros(1, 1, 4, 5)
    images[0, 0, 2, 2] = 1.0
    blurred = faithfulness._baseline(images, "blur")[0, 0]
    assert blurred[1:4, 1:4].all() and blurred.count_nonzero() == 9


@pytest.mark.parametrize(
    ("device", "workers", "pinned"), [("cuda", 0, False), ("cuda", 1, True), ("cpu", 1, False), ("cpu", 0, False)]
)
def test_workers_stay_and_memory_is_pinned_where_a_gpu_is_fed_by_workers(monkeypatch, device, workers, pinned):
    class Method:
        def to(self, *given, **others):
            return self

        train = to

    given = {}
    monkeypatch.setattr(torch.utils.data, "DataLoader", lambda data, **options: given.update(options))
    train._Run.place(SimpleNamespace(preset=Preset(workers=workers), device=torch.device(device)), Method(), object())
    assert (given["num_workers"], given["pin_memory"], given["persistent_workers"]) == (workers, pinned, pinned)


def test_the_share_outside_is_the_mean_over_living_maps():
    """A map that is equal everywhere lies outside the mask as far as the image does; a black image has none."""
    net = nn.Module()
    net.body, net.head = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU()), nn.Linear(1, 2)
    net.forward = lambda images: net.head(net.body(images).mean((2, 3)))
    nn.init.ones_(net.body[0].weight), nn.init.ones_(net.head.weight)
    images, masks = torch.ones(4, 3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.bool)
    images[0], masks[:, :2] = 0.0, True
    data = ArrayData(images, torch.tensor([0, 1, 0, 1]), masks)
    mass, dead, _ = outside.outside_shares(CrossEntropy(net), data, ["body"])
    assert mass.item() == pytest.approx(0.75) and dead.item() == 0.25
