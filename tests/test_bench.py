"""The bench: its declarations, the choice of values, combinations, measures, statistics, and what its page says."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xai_course.data.batch import ArrayData, Batch, Splits
from xai_course.measure import energy_in_mask, faithfulness, judged, look, paired, protocol, validation_accuracy
from xai_course.measure.sanity import lambda_zero_equals_baseline, untrained, weight_randomisation
from xai_course.methods.amc import AmcLoss
from xai_course.methods.base import CrossEntropy, Method
from xai_course.methods.classic import Center
from xai_course.methods.combined import Combined, Decision, Focused
from xai_course.methods.hnc import HNC
from xai_course.methods.minmax import MinMax
from xai_course.methods.patch_heads import AttentionPooling, LossAttention
from xai_course.methods.reff import ReFF
from xai_course.nets.convnets import GapClassifier, small_cnn
from xai_course.nets.patch_nets import patch_net
from xai_course.nets.wildcat import LocaliserClassifier, minmax_head, small_trunk
from xai_course.preset import Clock
from xai_course.runs import comparison
from xai_course.runs.choices import choose
from xai_course.runs.comparison import rows_of, twin
from xai_course.runs.declared import document, experiments
from xai_course.runs.parts import bench as parts

CLOCK = Clock(epoch=5, step=5, epochs=10, steps_per_epoch=1)
LAYERS = ("body.1", "body.3")


def batch(n: int = 8, size: int = 32) -> Batch:
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(n, size, size, dtype=torch.bool)
    masks[:, 8:20, 6:22] = True
    return Batch(torch.rand(n, 3, size, size, generator=g), torch.arange(n) % 4, masks, torch.arange(n))


def splits() -> Splits:
    b = batch(24)
    data = ArrayData(b.images, b.labels, b.masks)
    return Splits("toy", data, data, data, tuple("abcd"), "0")


# --- declarations -----------------------------------------------------------------------------------------------------


def test_rows_are_plain_data_and_methods_of_one_network_share_preset_and_images():
    declared, settings = document("bench"), {e.name: e.settings("smoke") for e in experiments("bench")}
    for setting in declared["setting"]:
        found = {key: settings[f"bench/{setting}/{key}"] for key in rows_of(setting)}
        assert len({str(f["data"]) for f in found.values()}) == 1
        for key, row in found.items():
            assert row["preset"] == found[twin(key)]["preset"], key
            if twin(key) == "ce":
                assert row["net"] == found["ce"]["net"]
    assert twin("ce") == "ce" and twin("loss_attention_energy") == "mean" and twin("minmax_shared") == "wildcat"
    trials = [s for name, s in settings.items() if name.split("/")[1] in ("rate", "tuning")]
    assert trials and all(s["measures"] == ["xai_course.measure.looking.validation_accuracy"] for s in trials)
    assert declared["tuning_seed"] not in declared["seeds"]
    assert all(len(tuned["grid"]) == 3 for tuned in declared["tuned"].values())  # one budget


def test_real_images_come_in_the_shape_of_the_others(monkeypatch):
    g = torch.Generator().manual_seed(0)
    grey = ArrayData(torch.randint(1, 256, (5, 1, 28, 28), generator=g, dtype=torch.uint8), torch.arange(5))
    monkeypatch.setattr(parts, "fashion_mnist", lambda *a, **k: Splits("F", grey, grey, grey, tuple("abcde"), "0"))
    images = parts.clothes().train.images
    assert images.shape == (5, 3, 32, 32) and images.dtype == torch.uint8
    assert torch.equal(images[:, 1, 2:-2, 2:-2], grey.images[:, 0])
    assert images.float().sum() == 3 * grey.images.float().sum()  # the rim is black


def test_rows_that_need_masks_are_left_out_where_there_are_none():
    needs_masks = {"reff", "energy", "hnc_energy", "smoothing_energy", "loss_attention_energy"}
    rows = {e.name: e for e in experiments("bench")}
    for setting in ("clothes", "cifar10"):
        assert not needs_masks & set(rows_of(setting)) and comparison.primary(setting) == ("accuracy",)
    for setting in document("bench")["setting"]:
        masks = protocol.explanations in rows[f"bench/{setting}/ce"].measures
        assert masks == (setting not in ("clothes", "cifar10")) == ("energy_in_mask" in comparison.primary(setting))
    assert needs_masks <= set(rows_of("shifted"))


def test_choose_takes_the_strongest_within_one_standard_error():
    error = math.sqrt(0.9 * 0.1 / 100)
    assert choose({1.0: 0.9, 2.0: 0.9 - 0.9 * error, 3.0: 0.9 - 1.1 * error}, 100) == 2.0
    assert choose({1.0: 0.9 - 0.9 * error, 2.0: 0.9, 3.0: 0.8}, 100, strongest=False) == 1.0


# --- lambda = 0, combinations -----------------------------------------------------------------------------------------


class FirstTerm(MinMax):
    """Min-Max whose classifier teaches nothing: the twin's loss is left."""

    def losses(self, batch, clock):
        yield next(iter(super().losses(batch, clock)))


@pytest.mark.parametrize(
    "method",
    [
        partial(CrossEntropy, label_smoothing=0.0),
        partial(AmcLoss, balance=0.0),
        partial(HNC, penalty="mse", balance=0.0),
        partial(HNC, penalty="kd", balance=0.0),
        partial(ReFF, layers=LAYERS, balance=0.0),
        partial(ReFF, layers=LAYERS, balance=0.0, penalty="energy"),
    ],
)
def test_weight_zero_trains_bit_for_bit_as_cross_entropy(method):
    """Sanity control of the whole bench: nothing but the weighted term distinguishes a method from its twin."""
    net = small_cnn(4, width=4, seed=0)
    assert lambda_zero_equals_baseline(method, CrossEntropy, net, batch(), CLOCK)


def test_loss_attention_without_patch_term_and_minmax_without_classifier():
    """gamma = 0 leaves the image loss of attended logits; Min-Max without C's terms is the localiser alone."""
    from xai_course.methods.wsol import PooledMaps
    from xai_course.nets.wildcat import Localiser

    net = patch_net("small", 4, image_size=32, width=2, hidden=8)
    method, b = LossAttention(net, balance=0.0), batch()
    (terms,) = method.losses(b, CLOCK)
    assert torch.equal(terms["total"], nn.functional.cross_entropy(method.logits(b.images), b.labels))
    torch.manual_seed(0)
    body, channels = small_trunk(4)
    heads = [minmax_head(channels, 4) for _ in range(2)]
    pair = LocaliserClassifier(body, *heads)
    alone = Localiser(copy.deepcopy(body), copy.deepcopy(heads[0]))
    (ours,), (theirs,) = FirstTerm(pair).losses(b, CLOCK), PooledMaps(alone).losses(b, CLOCK)
    assert torch.equal(ours["total"], theirs["total"])


def test_a_combination_is_cross_entropy_plus_each_weighted_penalty():
    net = GapClassifier(
        nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU()),
        nn.Linear(8, 4),
    ).double()
    b = batch()
    b = b._replace(images=b.images.double())
    parts = (partial(AmcLoss, w_max=10.0), partial(HNC, balance=0.3, keep_top=2), partial(ReFF, layers=LAYERS))
    both = Combined(net, parts)
    singles = [next(iter(part(net).losses(b, CLOCK))) for part in parts]
    plain = nn.functional.cross_entropy(net(b.images), b.labels)
    expected = plain + sum(terms["total"] - plain for terms in singles)
    (terms,) = both.losses(b, CLOCK)
    assert torch.allclose(terms["total"], expected, rtol=1e-12)
    parameters = list(net.parameters())
    ours, theirs = (torch.autograd.grad(loss, parameters, retain_graph=True) for loss in (terms["total"], expected))
    assert all(torch.allclose(a, e, rtol=1e-9, atol=1e-12) for a, e in zip(ours, theirs))
    smoothed = Combined(net, (partial(CrossEntropy, label_smoothing=0.1), partial(HNC, balance=0.0)))
    (terms,) = smoothed.losses(b, CLOCK)
    target = nn.functional.cross_entropy(net(b.images), b.labels, label_smoothing=0.1)
    assert torch.allclose(terms["total"], target, rtol=1e-12)
    assert len(list(both.parameters())) == len(parameters)  # nothing is trained twice


def storages(module: nn.Module) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in module.state_dict().values()}


def test_parts_keep_what_they_own_beside_the_network():
    """Centres and attention are trained, moved, saved once, and an interrupted run goes on with them."""
    patches = partial(patch_net, "small", 4, image_size=32, width=2, hidden=8, seed=0)
    makes = (
        lambda: Combined(small_cnn(4, width=2, seed=0), (partial(Center, balance=0.5), AmcLoss)),
        lambda: Focused(patches(), AttentionPooling, partial(ReFF, penalty="energy"), ("body.0.1",)),
    )
    for make, own, trained in zip(makes, ("parts.0.spread.centers", "base.scores.score.weight"), (False, True)):
        method, b, copies = make(), batch(), []
        groups = [p for group in method.parameter_groups() for p in group["params"]]
        assert len({id(p) for p in groups}) == len(groups) == len(list(method.parameters()))
        before = method.state_dict()[own].clone()
        optimizer = torch.optim.SGD(method.parameter_groups(), 0.1)
        (terms,) = method.losses(b, CLOCK)
        terms["total"].backward()
        optimizer.step()
        assert not torch.equal(method.state_dict()[own], before)
        assert (own in dict(method.named_parameters())) == trained
        fresh = make()
        fresh.load_state_dict(copy.deepcopy(method.state_dict()))
        copies = [next(each.losses(b, CLOCK))["total"] for each in (copy.deepcopy(method), fresh, method)]
        assert copies[0] == copies[1] == copies[2]
        assert len(storages(method)) == len({*dict(method.named_parameters()), *dict(method.named_buffers())})
        assert method.double().state_dict()[own].dtype == torch.float64
        for other in (copy.deepcopy(method), untrained(method)):
            assert storages(other).isdisjoint(storages(method)) and len(storages(other)) == len(storages(method))
        next(method.losses(b._replace(images=b.images.double()), CLOCK))


def test_a_focused_method_is_randomised_where_it_looks():
    net = patch_net("small", 4, image_size=32, width=2, hidden=8, seed=0)
    method, b = (
        Focused(net, partial(AttentionPooling, gated=True), partial(ReFF, penalty="energy"), ("body.0.1",)),
        batch(),
    )
    rows = weight_randomisation(method, b.images, b.labels)
    assert rows[0]["rank_correlation"] == pytest.approx(1) and rows[-1]["rank_correlation"] < 0.99


def test_combination_refuses_what_it_cannot_weigh():
    net = small_cnn(4, width=2)
    with pytest.raises(ValueError, match="at least two methods, got 1"):
        Combined(net, (CrossEntropy,))
    with pytest.raises(ValueError, match="must have one of balance, label_smoothing, got Patchless"):
        Combined(net, (CrossEntropy, type("Patchless", (Method,), {})))


def test_focused_attention_is_the_attention_loss_plus_reff_on_its_own_decision():
    """Not on mean-pooling, which is what the patch network's forward gives."""
    net = patch_net("small", 4, image_size=32, width=2, hidden=8).double()
    b = batch()
    b = b._replace(images=b.images.double())
    base, layers = partial(LossAttention, balance=0.3), ("body.0.1", "body.0.2")
    both = Focused(net, base, partial(ReFF, penalty="energy", balance=0.5), layers)
    alone = base(net)
    focus = ReFF(Decision(alone), [f"method.net.{name}" for name in layers], penalty="energy").focus(b)[0].loss
    expected = next(iter(alone.losses(b, CLOCK)))["total"] + 0.5 * focus
    (terms,) = both.losses(b, CLOCK)
    assert torch.allclose(terms["total"], expected, rtol=1e-12) and terms["focusing"] > 0
    pooled = ReFF(net, layers, penalty="energy").focus(b)[0].loss
    assert (focus - pooled).abs() > 1e-4  # the two decisions have different maps
    assert torch.equal(both.logits(b.images), alone.logits(b.images))
    assert len(list(both.parameters())) == len(list(net.parameters()))
    assert storages(both) == storages(net)  # a checkpoint holds the network once
    gradients = torch.autograd.grad(terms["total"], list(net.parameters()))
    assert all(g.isfinite().all() for g in gradients)


# --- measures ---------------------------------------------------------------------------------------------------------


def test_perfect_maps_score_one_and_thresholds_come_from_validation():
    masks = batch(6).masks
    found = judged([({"": masks.float()}, masks)], [({"": masks.float()}, masks)])
    assert tuple(found)[:6] == comparison.MAPS and {found[name] for name in comparison.MAPS} == {1.0}
    half = masks.float() + 0.5 * (~masks)  # right above one half only: validation that likes low thresholds misleads
    everything = torch.ones_like(masks)
    right, wrong = (judged([({"": half}, truth)], [({"": half}, masks)]) for truth in (masks, everything))
    assert right["iou"] == 1.0 and right["f1_plus_relative"] == 1.0
    assert wrong["iou"] == pytest.approx(masks[0].double().mean().item()) and wrong["f1_minus_relative"] == 0.0


def test_every_measure_answers_for_every_network():
    toy = splits()
    torch.manual_seed(0)
    body, channels = small_trunk(2)
    methods = (
        CrossEntropy(small_cnn(4, width=2)),
        LossAttention(patch_net("small", 4, image_size=32, width=2, hidden=8)),
        MinMax(LocaliserClassifier(body, *(minmax_head(channels, 4) for _ in range(2)))),
    )
    price = partial(protocol.cost, baseline=lambda s: CrossEntropy(small_cnn(4, width=2)), clock=CLOCK, rounds=1)
    for method in methods:
        before = copy.deepcopy(method.state_dict())
        found = {}
        for measure in (
            validation_accuracy,
            protocol.explanations,
            partial(protocol.perturbation, images=4, steps=2),
            partial(protocol.randomisation, images=4),
            price,
        ):
            found |= measure(method, toy)
        assert {"energy_in_mask", "box_accuracy", "deletion", "insertion_random", "randomised", "time"} <= found.keys()
        assert all(math.isfinite(v) for v in found.values())
        assert all(torch.equal(a, b) for a, b in zip(before.values(), method.state_dict().values()))
    assert protocol.cost(methods[0], toy, baseline=lambda s: copy.deepcopy(methods[0]), clock=CLOCK, rounds=1)[
        "memory"
    ] == pytest.approx(1.0)


def test_measures_take_images_and_baseline_to_the_method(monkeypatch):
    """On an accelerator; here the device without values, on which a tensor left behind is an error."""
    method, places = CrossEntropy(small_cnn(4, width=2)).to("meta"), []

    def batches(data, size, device="cpu"):
        places.append(str(device))
        yield batch(4).to(device)

    for module in (protocol, faithfulness):
        monkeypatch.setattr(module, "batches", batches)
    monkeypatch.setattr(protocol, "saved_activations", lambda each: nullcontext(SimpleNamespace(peak=1)))
    protocol.cost(method, splits(), baseline=lambda s: CrossEntropy(small_cnn(4, width=2)), clock=CLOCK, rounds=3)
    for measure in (protocol.perturbation, protocol.randomisation):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):  # a number cannot be read there
            measure(method, splits())
    assert places == ["meta"] * 3


def test_trivial_controls_of_known_maps():
    method = CrossEntropy(small_cnn(4, width=2))
    found = protocol.controls(method, splits(), starts=3)
    share = batch(1).masks.double().mean().item()
    assert found["energy_in_mask_whole"] == pytest.approx(share) and found["iou_whole"] == pytest.approx(share)
    assert {f"{score}_untrained" for score in comparison.MAPS} <= found.keys()
    fresh = [list(look(untrained(method, seed=k), splits().test)) for k in range(3)]
    energies = [torch.cat([energy_in_mask(s.maps, s.masks) for s in seen]).nanmean().item() for seen in fresh]
    assert found["energy_in_mask_untrained"] == pytest.approx(sum(energies) / 3)
    assert found["energy_in_mask_untrained_sd"] > 0  # the starts differ


# --- figures ------------------------------------------------------------------------------------------


def test_figures_draw_from_small_input():
    from xai_course.show import bench as show

    found = {"a": paired([0.1, 0.3], [0.0, 0.1]), "b": paired([0.1, 0.3], [0.2, 0.1])}
    figures = (
        show.forest(
            {"accuracy": found, "energy": found}, {key: {"a": "open", "b": "lower"} for key in ("accuracy", "energy")}
        ),
        show.trade_off({"a": ([0.1, 0.2], [0.3, 0.4])}, {"whole": 0.2}, ("x", "y")),
        show.column({"plain": {"a": [0.1, 0.2], "b": [0.3]}, "noisy": {"b": [0.4]}}, "accuracy"),
    )
    for figure in figures:
        figure.canvas.draw()
        assert figure.axes
