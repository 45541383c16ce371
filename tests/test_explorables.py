"""The explorables compute what the package computes: both get the same 200 random inputs. Skipped without a browser."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tools.browser import HINT, Browser, find
from tools.figures import live
from xai_course.maps import class_activation_map
from xai_course.measure.minmax import conditional_entropy
from xai_course.measure.scores import energy_in_mask
from xai_course.measure.statistics import paired
from xai_course.methods import amc, hnc, loss_attention, minmax
from xai_course.methods.guidance import Energy, RelevantFocus
from xai_course.nets.convnets import small_cnn

FOLDER = Path(__file__).parents[1] / "book" / "_static" / "explorables"
NAMES = sorted(path.stem for path in FOLDER.glob("*.js") if path.stem != "core")
needs_browser = pytest.mark.skipif(find() is None, reason=HINT)
CASES = 200
OUTSIDE, ENERGY = RelevantFocus(), Energy()


@pytest.fixture(scope="module")
def browser():
    with Browser(find()) as opened:
        opened.open("about:blank")
        for name in ("core", *NAMES):
            opened.evaluate(
                (FOLDER / f"{name}.js").read_text("utf-8").replace("const Explorable", "var Explorable") + ";0"
            )
        yield opened


@pytest.fixture
def javascript(browser):
    def call(name: str, expression: str, cases: list) -> list:
        """The expression's value for each case ``x``, with the explorable's pure functions as ``core``."""
        each = f"{json.dumps(cases)}.map((x) => ({expression}))"
        return browser.evaluate(f"((core) => {each})(Explorable.known.{name}.core)")

    return call


def random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(found: list, expected: list, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64),
        torch.tensor(expected, dtype=torch.float64),
        rtol=tolerance,
        atol=tolerance,
    )


@needs_browser
def test_looking(javascript):
    maps, common = random(CASES, 3, 16, seed=0, scale=2), random(16, seed=1)
    shifted = maps + 0.7 * common
    x = [[m.tolist(), common.tolist()] for m in maps]
    assert_same(javascript("looking", "core.probabilities(x[0])", x), maps.mean(2).softmax(1).tolist())
    assert_same(
        javascript("looking", "core.probabilities(core.shifted(x[0], x[1], 0.7))", x), maps.mean(2).softmax(1).tolist()
    )
    assert_same(javascript("looking", "core.logits(core.shifted(x[0], x[1], 0.7))", x), shifted.mean(2).tolist())
    assert_same(javascript("looking", "core.logits([core.paint(x[0][0], 5, 3)])[0]", x), maps[:, 0].mean(1).tolist())
    mask = random(CASES, 4, 4, seed=2) > 0
    x = [[m[0].tolist(), k.flatten().tolist()] for m, k in zip(maps, mask)]
    expected = energy_in_mask(maps[:, 0].view(-1, 4, 4), mask)
    assert_same(javascript("looking", "core.energyInMask(x[0], x[1])", x), expected.tolist())


@torch.no_grad()
def lively(seed: int) -> torch.nn.Module:
    """A `small_cnn` whose BatchNorms have seen something, in evaluation mode."""
    net = small_cnn(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for norm in [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]:
        for values, low in ((norm.running_mean, -0.3), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -0.2)):
            values.copy_(low + torch.rand(values.shape, generator=generator))
    return net.eval()


def test_rounding_the_weights_changes_no_answer():
    net, images = lively(0), torch.rand(CASES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = net(images), live.restored(live.exported(net))(images)
    assert (before.softmax(1) - after.softmax(1)).abs().max() < 1e-3


@needs_browser
def test_a_network_of_the_labs_gives_pytorchs_maps_and_logits(browser):
    data = live.exported(lively(0))
    net, images = live.restored(data), torch.rand(CASES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = class_activation_map(net.features(images), net.head.weight, classes=torch.arange(10).expand(CASES, 10))
        logits = net(images)
    browser.evaluate(f"window.net = Explorable.known.live.core.network({json.dumps(data)}); 0")
    script = "((e) => [...e.cams.flat(), ...e.logits])(Explorable.known.live.core.explained(net, new Float32Array(x)))"
    for part in range(0, CASES, 50):  # 3,072 numbers each
        cases = json.dumps([[round(v, 7) for v in image.flatten().tolist()] for image in images[part : part + 50]])
        found = browser.evaluate(f"{cases}.map((x) => {script})")
        expected = torch.cat([maps[part : part + 50].flatten(1), logits[part : part + 50]], 1)
        assert_same(found, expected.tolist(), 1e-4)


@needs_browser
@pytest.mark.parametrize(
    ("kind", "loss"), [("angle", amc.angular_margin_contrastive), ("euclid", amc.euclidean_contrastive)]
)
def test_amc(javascript, kind, loss):
    cases, expected = [], []
    for seed in range(CASES):
        features = random(5, 2, seed=seed).requires_grad_()
        classes = torch.randint(3, (5,), generator=torch.Generator().manual_seed(seed))
        value = loss(features, classes, margin=0.8, pairing=2)  # two shifts of five: each of the ten pairs once
        (gradient,) = torch.autograd.grad(value, features)
        cases.append([features.tolist(), classes.tolist()])
        expected.append([value.item(), *gradient.flatten().tolist()])
    script = f"(({{loss, gradient}}) => [loss, ...gradient.flat()])(core.contrastive(x[0], x[1], 0.8, '{kind}'))"
    assert_same(javascript("amc", script, cases), expected)


@needs_browser
def test_the_arccos_of_float32_is_a_constant_for_small_angles(javascript):
    found = javascript("amc", "core.clippedArccos(x)", [1e-5, 1e-4, 0.3])
    assert found[0] == found[1] > 3e-4 and found[2] == pytest.approx(0.3, abs=1e-5)


@needs_browser
@pytest.mark.parametrize(
    ("kind", "penalty"),
    [
        ("mse", hnc.mean_square),
        ("kd", hnc.uniform_divergence),
        ("logit", hnc.squared_logit),
        ("variance", hnc.spatial_variance),
    ],
)
def test_hnc(javascript, kind, penalty):
    maps = random(CASES, 1, 6, 6, seed=3, scale=3).requires_grad_()
    values = penalty(maps)
    (gradient,) = torch.autograd.grad(values.sum(), maps)
    expected = torch.cat([values, gradient.flatten(1)], 1)
    script = f"((p) => [p.value, ...p.gradient])(core.penalties(x).{kind})"
    assert_same(javascript("hnc", script, maps.flatten(1).tolist()), expected.tolist())


@needs_browser
@pytest.mark.parametrize("cutoff", [0.0, 0.1, 0.6, 0.98])
def test_loss_attention(javascript, cutoff):
    patches = random(CASES, 4, 2, seed=4, scale=2)
    weights, before = loss_attention.loss_attention(patches, cutoff)
    decision = loss_attention.attended_logits(weights, patches)
    script = f"((a) => [...a.before, ...a.weights, ...core.decide(a.weights, x)])(core.attention(x, {cutoff}))"
    assert_same(
        javascript("loss_attention", script, patches.tolist()), torch.cat([before, weights, decision], 1).tolist()
    )


@needs_browser
def test_minmax(javascript):
    logits = random(CASES, 3, seed=5, scale=4)
    label = torch.zeros(CASES, dtype=torch.int64)
    columns = minmax.decided_loss(logits, label), minmax.undecided_loss(logits), conditional_entropy(logits)
    script = "[core.decidedLoss(x, 0), core.undecidedLoss(x), core.entropy(x)]"
    assert_same(javascript("minmax", script, logits.tolist()), torch.stack(columns, 1).tolist())


@needs_browser
def test_reff(javascript):
    shares = random(CASES, 4, 4, seed=6).abs()
    shares = shares / shares.sum((1, 2), keepdim=True)
    mask = (random(CASES, 4, 4, seed=7) > 0).double()
    x = [[a.flatten().tolist(), m.flatten().tolist()] for a, m in zip(shares, mask)]
    expected = torch.stack([OUTSIDE.cost(shares, mask), ENERGY.cost(shares, mask)], 1)
    assert_same(
        javascript("reff", "[core.outsideSquare(x[0], x[1]), core.outsideMass(x[0], x[1])]", x), expected.tolist()
    )


@needs_browser
@pytest.mark.parametrize("kind", ["outside", "energy"])
def test_the_toy_of_reff_is_trained_by_the_slope_of_its_penalty(javascript, kind):
    """Autograd through the map of the toy: an object of nine cells beside a cue of four, one of them on the object."""
    penalty = (OUTSIDE if kind == "outside" else ENERGY).cost
    mask = torch.zeros(1, 4, 4, dtype=torch.float64)
    mask[:, :3, :3] = 1
    cue = torch.zeros(1, 4, 4, dtype=torch.float64)
    cue[:, 2:, 2:] = 1 / 4
    cases, expected = [], []
    for seed in range(CASES):
        w = (random(2, seed=seed).abs() + 0.05).requires_grad_()
        value = penalty((w[0] * mask / 9 + w[1] * cue) / w.sum(), mask).sum()
        (gradient,) = torch.autograd.grad(value, w)
        cases.append(w.tolist())
        expected.append([value.item(), *gradient.tolist()])
    script = f"((p) => [p.cost, ...p.slope])(core.penalty(x, '{kind}', 4, 1 / 4))"
    assert_same(javascript("reff", script, cases), expected)


@needs_browser
@pytest.mark.parametrize("seeds", [2, 5, 20])
def test_bench(javascript, seeds):
    ours, theirs = random(CASES, seeds, seed=8), random(CASES, seeds, seed=9)
    x = [[a.tolist(), b.tolist()] for a, b in zip(ours, theirs)]
    expected = [list(paired(a, b)[:3]) for a, b in x]
    script = "((d) => [d.mean, d.low, d.high])(core.paired(x[0], x[1]))"
    assert_same(javascript("bench", script, x), expected, 1e-4)


@needs_browser
def test_the_toys_normal_distribution(javascript):
    x = torch.linspace(-5, 5, CASES, dtype=torch.float64)
    expected = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    assert_same(javascript("reff", "core.normalCdf(x)", x.tolist()), expected.tolist())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.js")), ids=lambda p: p.name)
def test_scripts_stay_small_and_ask_nobody(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= (350 if path.stem == "core" else 250)
    assert not any(word in text for word in ("fetch(", "XMLHttpRequest", "import(", "https://"))
    assert text.count("http:") == (path.stem == "core")  # the name of SVG's vocabulary, which is no request
