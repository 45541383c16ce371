"""ReFF: every equation against autograd, finite differences or a slow loop; the escapes; the silent traps."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from xai_course.data.batch import Batch
from xai_course.maps import grad_cam, grad_cam_from
from xai_course.methods.base import Clock, CrossEntropy
from xai_course.methods.reff import (
    PAPER_WEIGHTS,
    PENALTIES,
    ReFF,
    focusing_loss,
    layer_weights,
    matching_l1,
    matching_l2,
    outside_mass,
    outside_norm,
    shares,
)
from xai_course.nets.convnets import small_cnn

LAYERS = ("body.1", "body.2", "body.3", "body.4")
seeds = st.integers(0, 10_000)


def random_maps(batch: int = 3, sizes=(8, 4, 2), dtype=torch.float64) -> list[Tensor]:
    return [torch.rand(batch, n, n, dtype=dtype).square() for n in sizes]


def random_mask(batch: int = 3, size: int = 16, dtype=torch.float64) -> Tensor:
    return (torch.rand(batch, size, size) < 0.4).to(dtype)


def problem(seed: int = 0, batch: int = 4, dtype=torch.float64) -> tuple[nn.Module, Batch]:
    """A small network and a batch with masks; nothing in it is zero or symmetric."""
    torch.manual_seed(seed)
    net = small_cnn(3, width=2).to(dtype)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):  # at zero bias whole regions would sit on the ReLU's kink
            nn.init.normal_(norm.bias, 0.3, 0.3), nn.init.normal_(norm.running_mean, 0, 0.1)
    masks = torch.zeros(batch, 16, 16, dtype=torch.bool)
    masks[:, 3:12, 5:13] = True
    return net, Batch(torch.rand(batch, 3, 16, 16, dtype=dtype), torch.arange(batch) % 3, masks, torch.arange(batch))


def gradients(net: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*net.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)))


# --- Eq. 3: the loss as a function of the maps ------------------------------------------------------------------------


def loop_loss(maps, relevant, weights) -> float:
    """Eq. 3 pixel by pixel."""
    total = 0.0
    for layer, weight in zip(maps, weights):
        full = F.interpolate(layer[:, None], relevant.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        for image, s in zip(full, relevant):
            mass = sum(image.flatten().tolist())
            for value, inside in zip(image.flatten().tolist(), s.flatten().tolist()):
                total += weight * (value / mass * (1 - inside)) ** 2 / len(full) if mass > 0 else 0.0
    return total


@given(seeds, st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_eq3_equals_the_loop(seed, batch):
    torch.manual_seed(seed)
    maps, relevant = random_maps(batch), torch.rand(batch, 16, 16, dtype=torch.float64)
    maps[1][0] = 0  # a dead map among living ones
    loss = focusing_loss(maps, relevant, weights=(2.0, 0.5, 7.0)).loss
    assert loss.item() == pytest.approx(loop_loss(maps, relevant, (2.0, 0.5, 7.0)), rel=1e-12)


def test_shares_sum_to_one_after_resizing():
    maps = random_maps()[2] * 1e-9  # a small scale catches an added epsilon
    share, dead = shares(maps.float(), (16, 16))
    torch.testing.assert_close(share.sum((1, 2)), torch.ones(3), atol=1e-6, rtol=0)
    assert not dead.any()


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_inside_the_object_costs_nothing(seed):
    torch.manual_seed(seed)
    relevant = torch.zeros(2, 8, 8, dtype=torch.float64)
    relevant[:, 2:6, 2:6] = 1
    inside = (torch.rand(2, 8, 8, dtype=torch.float64) * relevant).requires_grad_()
    for penalty in ("outside", "mass"):
        loss = focusing_loss([inside], relevant, penalty=penalty).loss
        assert loss.item() == 0
    outside = focusing_loss([inside], relevant).loss
    assert torch.autograd.grad(outside, inside)[0].abs().max() == 0


def test_everything_relevant_costs_nothing():
    maps = [m.requires_grad_() for m in random_maps()]
    for penalty in ("outside", "mass"):
        loss = focusing_loss(maps, torch.ones(3, 16, 16, dtype=torch.float64), penalty=penalty).loss
        assert loss.item() == 0 and all(g.abs().max() == 0 for g in torch.autograd.grad(loss, maps))


@pytest.mark.parametrize("penalty", sorted(PENALTIES))
def test_dead_maps_are_free_and_counted(penalty):
    maps = random_maps()
    maps[0][1:], maps[2][:] = 0, 0
    maps = [m.requires_grad_() for m in maps]
    focus = focusing_loss(maps, random_mask(), penalty=penalty)
    found = torch.autograd.grad(focus.loss, maps)
    assert all(g.isfinite().all() for g in found) and found[0][1:].abs().max() == 0 and found[2].abs().max() == 0
    torch.testing.assert_close(focus.dead, torch.tensor([2 / 3, 0, 1.0]))
    assert focus.layers[2] == 0 and focus.layers[1] > 0


def test_without_the_floor_a_dead_map_is_nan():
    dead = torch.zeros(1, 2, 2)
    assert (dead / dead.sum()).isnan().all()


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_layers_add_up(seed):
    torch.manual_seed(seed)
    maps, relevant, weights = random_maps(), random_mask(), torch.rand(3, dtype=torch.float64).tolist()
    single = [focusing_loss(maps, relevant, [float(i == k) for i in range(3)]).loss for k in range(3)]
    expected = sum(w * term for w, term in zip(weights, single))
    torch.testing.assert_close(focusing_loss(maps, relevant, weights).loss, expected, rtol=1e-12, atol=0)


def test_a_larger_object_never_costs_more():
    torch.manual_seed(0)
    maps, costs = random_maps(), []
    for edge in range(9):
        relevant = torch.zeros(3, 16, 16, dtype=torch.float64)
        relevant[:, 8 - edge : 8 + edge, 8 - edge : 8 + edge] = 1
        costs.append([focusing_loss(maps, relevant, penalty=p).loss.item() for p in ("outside", "mass")])
    assert all(a >= b for before, after in pairwise(costs) for a, b in zip(before, after))
    assert costs[-1] == [0, 0]


def test_each_layer_term_is_at_most_its_largest_share():
    maps, relevant = random_maps(), random_mask()
    bounds = [shares(m, (16, 16))[0].amax((1, 2)).mean() for m in maps]
    assert (focusing_loss(maps, relevant).layers <= torch.stack(bounds)).all()


def test_half_relevant_keeps_a_quarter_of_the_penalty():
    maps, none = random_maps(), torch.zeros(3, 16, 16, dtype=torch.float64)
    quarter = focusing_loss(maps, none + 0.5).loss / focusing_loss(maps, none).loss
    half = focusing_loss(maps, none + 0.5, penalty="mass").loss / focusing_loss(maps, none, penalty="mass").loss
    assert quarter.item() == pytest.approx(0.25) and half.item() == pytest.approx(0.5)


# --- what the norms mean ----------------------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_l1_and_l2_are_constants_plus_twice_the_mass(seed):
    torch.manual_seed(seed)
    relevant, (share, _) = random_mask(), shares(random_maps()[1], (16, 16))
    area, mass = relevant.sum((1, 2)), outside_mass(share, relevant)
    torch.testing.assert_close(matching_l1(share, relevant), area - 1 + 2 * mass, rtol=0, atol=1e-10)
    squared = share.square().sum((1, 2))
    torch.testing.assert_close(matching_l2(share, relevant), area - 2 + 2 * mass + squared, rtol=0, atol=1e-10)


@given(seeds, st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=10, deadline=None)
def test_squared_stride_undoes_nearest_upsampling(seed, stride):
    torch.manual_seed(seed)
    native = torch.rand(2, 4, 4, dtype=torch.float64)
    share, _ = shares(native, (4 * stride, 4 * stride), "nearest")
    (weight,) = layer_weights([native], (4 * stride, 4 * stride))
    expected = (native / native.sum((1, 2), keepdim=True)).square().sum((1, 2))
    torch.testing.assert_close(weight * outside_norm(share, torch.zeros_like(share)), expected, rtol=1e-12, atol=0)


def test_paper_weights_are_squared_strides():
    maps = [torch.zeros(1, n, n) for n in (56, 28, 14, 7)]
    assert layer_weights(maps, (224, 224)) == [16, 64, 256, 1024]
    assert all(abs(paper / own - 1) < 0.07 for paper, own in zip(PAPER_WEIGHTS, layer_weights(maps, (224, 224))))
    assert layer_weights(maps, (224, 224), "mass") == [1, 1, 1, 1]


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_forces_of_the_two_penalties(seed):
    """d/dI of both, in closed form: the proposition of the chapter. S is the map's sum."""
    torch.manual_seed(seed)
    raw, s = torch.rand(1, 6, 6, dtype=torch.float64, requires_grad=True), random_mask(1, 6)
    share, _ = shares(raw, (6, 6))
    total, norm, mass = raw.detach().sum(), outside_norm(share, s), outside_mass(share, s)
    (pull,) = torch.autograd.grad(norm, raw, retain_graph=True)
    torch.testing.assert_close(pull, 2 / total * (share * (1 - s).square() - norm).detach())
    (pull,) = torch.autograd.grad(mass, raw)
    torch.testing.assert_close(pull, 1 / total * (1 - s - mass).detach())


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_squared_norm_is_mass_squared_over_spread(seed):
    torch.manual_seed(seed)
    s, (share, _) = random_mask(), shares(random_maps()[0], (16, 16))
    outside = share * (1 - s)
    spread = outside.sum((1, 2)).square() / outside.square().sum((1, 2))
    torch.testing.assert_close(outside_norm(share, s), outside_mass(share, s).square() / spread)
    assert (spread <= (s == 0).sum((1, 2)) + 1e-9).all() and (spread >= 1 - 1e-9).all()


def test_the_squared_norm_prefers_all_wrong_to_half_right():
    """A diffuse map with everything outside costs less than half of it in one outside spot; the mass disagrees."""
    s = torch.zeros(1, 7, 7)
    s[:, 2:5, 2:5] = 1
    diffuse, half = (1 - s) / 40, torch.zeros(1, 7, 7)
    half[0, 3, 3], half[0, 0, 0] = 0.5, 0.5
    assert outside_norm(diffuse, s).item() == pytest.approx(1 / 40) and outside_norm(half, s).item() == 0.25
    assert outside_mass(diffuse, s).item() == pytest.approx(1) and outside_mass(half, s).item() == 0.5


# --- the double backward ----------------------------------------------------------------------------------------------


def linear_head_problem():
    """Two channels on a 2x2 map and a linear head, the chapter's example by hand."""
    features = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[0.0, 1.0], [3.0, 0.0]]]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    return features.requires_grad_(), weight.requires_grad_()


def test_two_by_two_example_by_hand():
    features, weight = linear_head_problem()
    logits = features.mean((2, 3)) @ weight.T
    (cam,) = grad_cam_from(logits, [features], torch.zeros(1, dtype=torch.int64), create_graph=True)
    torch.testing.assert_close(4 * cam[0], torch.tensor([[1, 4], [6, 1]], dtype=torch.float64))  # alpha = w / 4
    s = torch.tensor([[[0, 1], [0, 0]]], dtype=torch.float64)  # only the top right pixel is the object
    focus = focusing_loss([cam], s, weights=[1.0])
    assert focus.loss.item() == pytest.approx(38 / 144)  # (1 + 36 + 1) / 12^2
    (found,) = torch.autograd.grad(focus.loss, weight)
    # dQ/dw_d = sum_p (2/12) (I'_p (1 - s_p) - Q) A_d,p with S = 12 in units of 4 I
    force = [2 / 12 * (v / 12 * (1 - i) - 38 / 144) for v, i in zip((1, 4, 6, 1), (0, 1, 0, 0))]
    expected = [sum(f * a for f, a in zip(force, channel)) for channel in ((1, 2, 0, 1), (0, 1, 3, 0))]
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64))


def test_last_layer_alpha_is_the_head():
    net, batch = problem()
    features = net.features(batch.images)
    (cam,) = grad_cam_from(net.head(features.mean((2, 3))), [features], batch.labels)
    expected = torch.einsum("bd,bdhw->bhw", net.head.weight[batch.labels] / 16, features).relu()
    torch.testing.assert_close(cam, expected.detach())


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("penalty", ["outside", "mass"])
def test_gradient_against_finite_differences(mode, penalty):
    """Every parameter on its own: head.weight holds most of the norm and would hide a wrong convolution."""
    net, batch = problem()
    getattr(net, mode)()

    def loss() -> Tensor:
        cam = grad_cam(net, batch.images, batch.labels, LAYERS, create_graph=True)
        return focusing_loss(cam.maps, batch.masks, penalty=penalty).loss

    found = gradients(net, loss())
    assert found["head.bias"] is None  # a gradient with respect to logits does not see their bias
    for name, parameter in net.named_parameters():
        if found[name] is None:
            continue
        torch.manual_seed(1)
        direction, h = torch.randn_like(parameter), 1e-6
        with torch.no_grad():
            parameter += h * direction
            up = loss()
            parameter -= 2 * h * direction
            slope = (up - loss()) / (2 * h)
            parameter += h * direction
        assert abs(slope - (found[name] * direction).sum()) < 1e-4 * found[name].norm() * direction.norm() + 1e-8, name


def test_one_gradient_for_all_layers_is_exact():
    net, batch = problem()
    together = grad_cam(net, batch.images, batch.labels, LAYERS).maps
    for name, cam in zip(LAYERS, together):
        torch.testing.assert_close(cam, grad_cam(net, batch.images, batch.labels, [name]).maps[0], rtol=0, atol=0)


def test_maps_do_not_see_the_scale_of_the_logits():
    net, batch = problem()
    focus, _ = ReFF(net, LAYERS).focus(batch)
    for factor in (7.3, 1e-6):
        scaled = copy.deepcopy(net)
        scaled.head.weight.data *= factor
        scaled.head.bias.data += 5
        assert ReFF(scaled, LAYERS).focus(batch)[0].loss.item() == pytest.approx(focus.loss.item(), rel=1e-9)


def test_frozen_statistics_keep_samples_apart():
    """Summed logits give per-sample maps only where samples do not mix; behind the last BatchNorm they always do."""
    net, batch = problem()
    net(batch.images)  # some running statistics

    def apart(batch_norm: str, layer: str) -> float:
        whole = grad_cam(net, batch.images, batch.labels, [layer], batch_norm=batch_norm).maps[0]
        other = batch._replace(images=torch.cat([batch.images[:1], batch.images[1:].flip(0) ** 2]))
        changed = grad_cam(net, other.images, batch.labels, [layer], batch_norm=batch_norm).maps[0]
        return (whole[0] - changed[0]).abs().max().item()

    assert apart("frozen", "body.1") == 0
    assert apart("keep", "body.1") > 1e-6


def test_frozen_option_leaves_running_statistics_to_the_training_forward():
    net, batch = problem()
    twin = copy.deepcopy(net)
    next(ReFF(net, LAYERS, batch_norm="frozen").losses(batch, Clock()))
    twin(batch.images)
    for a, b in zip(net.buffers(), twin.buffers()):
        torch.testing.assert_close(a, b)
    assert all(m.training for m in net.modules())


def test_retain_graph_instead_of_create_graph_is_silently_wrong():
    """Why the second-order term is tested and not trusted: the wrong gradient raises nothing."""
    net, batch = problem()
    features = net.features(batch.images)
    logits = net.head(features.mean((2, 3)))
    score = logits.gather(1, batch.labels[:, None]).sum()

    def loss(create: bool) -> Tensor:
        (g,) = torch.autograd.grad(score, features, create_graph=create, retain_graph=True)
        return focusing_loss([torch.einsum("bd,bdhw->bhw", g.mean((2, 3)), features).relu()], batch.masks).loss

    right, wrong = (gradients(net, loss(create)) for create in (True, False))
    assert wrong["head.weight"] is None and right["head.weight"].norm() > 0


# --- the method -------------------------------------------------------------------------------------------------------


def test_whole_objective():
    net, batch = problem()
    (terms,) = ReFF(net, LAYERS, balance=3.0).losses(batch, Clock())
    torch.testing.assert_close(terms["total"].detach(), terms["classification"] + 3 * terms["focusing"])
    assert {f"dead {name}" for name in LAYERS} <= set(terms)


def test_zero_balance_is_cross_entropy_exactly():
    net, batch = problem()
    found = gradients(net, next(ReFF(net, LAYERS, balance=0.0).losses(batch, Clock()))["total"])
    expected = gradients(net, next(CrossEntropy(net).losses(batch, Clock()))["total"])
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


def test_ramp():
    net, _ = problem()
    method = ReFF(net, LAYERS, balance=2.0, ramp_epochs=2)
    at = [method.current_balance(Clock(step // 5, step, 4, 5)) for step in range(20)]
    assert at[0] == pytest.approx(0.2) and at[9:] == [2.0] * 11 and at == sorted(at)
    assert ReFF(net, LAYERS, balance=2.0).current_balance(Clock()) == 2.0


def test_single_layer_equals_one_weight():
    net, batch = problem()
    one, _ = ReFF(net, LAYERS[-1:]).focus(batch)
    all_, _ = ReFF(net, LAYERS, weights=(0, 0, 0, 16)).focus(batch)
    torch.testing.assert_close(one.loss, all_.loss)


def test_bfloat16_close_to_float32():
    """Forward in bf16, maps and penalty in float32: the loss agrees to a few per cent, the gradient in direction."""
    net, batch = problem(dtype=torch.float32, batch=16)
    exact, _ = ReFF(net, LAYERS).focus(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half, logits = ReFF(net, LAYERS).focus(batch)
    assert half.loss.dtype == torch.float32 and logits.dtype == torch.bfloat16
    assert half.loss.item() == pytest.approx(exact.loss.item(), rel=0.1)
    a, b = (torch.cat([g.flatten() for g in gradients(net, f.loss).values() if g is not None]) for f in (exact, half))
    assert F.cosine_similarity(a, b, dim=0) > 0.8


def test_half_precision_maps_do_not_underflow():
    flat = torch.ones(1, 7, 7, dtype=torch.bfloat16)
    loss = focusing_loss([flat], torch.zeros(1, 224, 224)).loss
    assert loss.item() == pytest.approx(1 / 49, rel=1e-3) and (torch.tensor(1 / 224**2).half() ** 2).item() == 0


def test_explanations():
    net, batch = problem(dtype=torch.float32)
    maps = ReFF(net.eval(), LAYERS).explain(batch.images, batch.labels)
    assert maps.shape == (4, 16, 16) and maps.min() >= 0 and maps.max() <= 1 + 1e-6 and not maps.requires_grad


def test_learns_to_look_inside():
    """A few steps of the penalty alone move the maps of a fresh network into the object."""
    net, batch = problem(dtype=torch.float32, batch=8)
    method, optimizer = ReFF(net, LAYERS, penalty="mass"), torch.optim.Adam(net.parameters(), 1e-2)
    before = method.focus(batch)[0].loss.item()
    for _ in range(20):
        optimizer.zero_grad()
        method.focus(batch)[0].loss.backward()
        optimizer.step()
    assert method.focus(batch)[0].loss.item() < 0.5 * before


# --- two processes ----------------------------------------------------------------------------------------------------


def _worker(rank: int, file: str, results) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    net, batch = problem(batch=8)
    half = Batch(*(t[rank::2] for t in batch))
    total = next(ReFF(net.eval(), LAYERS, balance=3.0).losses(half, Clock()))["total"]
    total.backward()
    wrapped = nn.parallel.DistributedDataParallel(problem(batch=8)[0].eval())
    next(ReFF(wrapped, LAYERS, balance=3.0).losses(half, Clock()))["total"].backward()
    for parameter in net.parameters():  # what the training loop does: one average after the backward passes
        dist.all_reduce(parameter.grad)
        parameter.grad /= 2
    if rank == 0:
        results.put([[p.grad.numpy() for p in m.parameters()] for m in (net, wrapped)])
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one(tmp_path):
    """With one average after the backward pass, as our loop does, and with DistributedDataParallel's own reducer."""
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_worker, args=(r, str(tmp_path / "store"), results)) for r in range(2)]
    for worker in workers:
        worker.start()
    reduced, wrapped = results.get(timeout=120)
    for worker in workers:
        worker.join(60)
    net, batch = problem(batch=8)
    expected = gradients(net.eval(), next(ReFF(net, LAYERS, balance=3.0).losses(batch, Clock()))["total"])
    for want, got, ddp in zip(expected.values(), reduced, wrapped):
        torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(torch.from_numpy(ddp), want, rtol=1e-10, atol=1e-12)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layers": ["body.9"]}, r"layers must name modules of the network \(body, body.0.*got \['body.9'\]"),
        ({"layers": []}, "layers must name"),
        ({"weights": (1.0,)}, "weights must hold 4 numbers"),
        ({"weights": (1, 1, 1, -1)}, "weights must hold 4 numbers >= 0"),
        ({"balance": -1.0}, "balance and ramp_epochs must be >= 0, got -1.0"),
        ({"penalty": "l3"}, "penalty must be one of .*got 'l3'"),
        ({"batch_norm": "off"}, "batch_norm must be one of"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ReFF(problem()[0], **{"layers": LAYERS, **options})


def test_missing_masks():
    net, batch = problem()
    with pytest.raises(ValueError, match="masks must be .* got None: use a data set with masks or a pseudo-annotator"):
        ReFF(net, LAYERS).focus(batch._replace(masks=None))


def test_multi_label():
    net, batch = problem()
    with pytest.raises(ValueError, match=r"labels must be \[B\] int64 for ReFF"):
        ReFF(net, LAYERS).focus(batch._replace(labels=torch.ones(4, 3)))


@pytest.mark.parametrize("low, high", [(-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0)])
def test_annotations_outside_the_unit_interval(low, high):
    relevant = torch.full((3, 16, 16), 0.5)
    relevant[0, 0, 0], relevant[0, 0, 1] = low, high
    with pytest.raises(ValueError, match=r"relevant must lie in \[0, 1\]"):
        focusing_loss(random_maps(), relevant)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"relevant must be \[3, H, W\], got \(2, 16, 16\)"):
        focusing_loss(random_maps(), random_mask(2))
    with pytest.raises(ValueError, match="weights must hold one number per layer"):
        focusing_loss(random_maps(), random_mask(), [1.0])
    with pytest.raises(ValueError, match="penalty must be one of"):
        focusing_loss(random_maps(), random_mask(), penalty="l0")


def test_head_without_gradient():
    class Hard(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return F.one_hot(self.body(images).mean((2, 3)).argmax(1), 3).float()

    _, batch = problem(dtype=torch.float32)
    with pytest.raises(ValueError, match="net must lead to its logits by differentiable operations"):
        ReFF(Hard(), ["body"]).focus(batch)
