"""ReFF as a method: the double backward, the whole objective, two processes, bad input."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from reff_cases import LAYERS, gradients, problem, random_maps, random_mask
from torch import Tensor, nn

from xai_course.data.batch import Batch
from xai_course.maps import grad_cam, grad_cam_from
from xai_course.methods.base import CrossEntropy
from xai_course.methods.reff import (
    ReFF,
    focusing_loss,
)
from xai_course.preset import Clock

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
@pytest.mark.parametrize("penalty", ["outside", "energy"])
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
    method = ReFF(net, LAYERS, balance=2.0, ramp=0.5)
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
    maps = ReFF(net, LAYERS).explain(batch.images, batch.labels)
    assert maps.shape == (4, 16, 16) and maps.min() >= 0 and maps.max() <= 1 + 1e-6 and not maps.requires_grad
    (last,) = grad_cam(net, batch.images, batch.labels, [LAYERS[-1]]).maps
    full = F.interpolate(last[:, None], (16, 16), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps, full / full.amax((1, 2), keepdim=True).clamp_min(1e-30))
    assert full.amax() > 0


def test_learns_to_look_inside():
    """A few steps of the penalty alone move the maps of a fresh network into the object."""
    net, batch = problem(dtype=torch.float32, batch=8)
    method, optimizer = ReFF(net, LAYERS, penalty="energy"), torch.optim.Adam(net.parameters(), 1e-2)
    before = method.focus(batch)[0].loss.item()
    for _ in range(20):
        optimizer.zero_grad()
        method.focus(batch)[0].loss.backward()
        optimizer.step()
    assert method.focus(batch)[0].loss.item() < 0.5 * before


# --- two processes ----------------------------------------------------------------------------------------------------


def _worker(rank: int, file: str, results) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)  # a forked process must not use its parent's thread pool
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    net, batch = problem(batch=8)
    half = Batch(*(t[rank::2] for t in batch[:4]))
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
    # forked where possible: a spawned process would import everything again, which takes longer than the test
    methods = torch.multiprocessing.get_all_start_methods()
    context = torch.multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    results = context.Queue()
    workers = [context.Process(target=_worker, args=(r, str(tmp_path / "store"), results)) for r in range(2)]
    for worker in workers:
        worker.start()
    reduced, wrapped = results.get(timeout=200)
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
        ({"layers": ["body.9"]}, "layers: .body.9. is none of the 22 modules of net; nearest are"),
        ({"layers": []}, "layers must name"),
        ({"weights": (1.0,)}, "weights must hold one number per layer .4."),
        ({"weights": (1, 1, 1, -1)}, "weights must hold one number per layer .4., each >= 0"),
        ({"balance": -1.0}, "balance must be >= 0 and ramp lie in .0, 1., got -1.0"),
        ({"balance": float("nan")}, "balance must be >= 0 and ramp lie in .0, 1., got nan"),
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
    with pytest.raises(ValueError, match=r"masks must lie in \[0, 1\]"):
        focusing_loss(random_maps(), relevant)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"masks must be \[3, H, W\], got \(2, 16, 16\)"):
        focusing_loss(random_maps(), random_mask(2))
    with pytest.raises(ValueError, match="weights must hold one number per layer"):
        focusing_loss(random_maps(), random_mask(), [1.0])
    with pytest.raises(ValueError, match="penalty must be one of"):
        focusing_loss(random_maps(), random_mask(), penalty="l0")
    for weights in ((1.0, 1.0, -1.0), (1.0, 1.0, float("nan"))):
        with pytest.raises(ValueError, match="each >= 0, got"):
            focusing_loss(random_maps(), random_mask(), weights)
    odd = random_maps()
    odd[1] = odd[1][:1]
    for maps in ([], [m[:0] for m in random_maps()], odd, [m[0] for m in random_maps()]):
        with pytest.raises(ValueError, match=r"maps must be one or more \[B, h, w\] with one B >= 1, got \["):
            focusing_loss(maps, random_mask())
    with pytest.raises(ValueError, match=r"masks must be \[3, H, W\], got \(3, 0, 4\)"):
        focusing_loss(random_maps(), torch.zeros(3, 0, 4))


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
