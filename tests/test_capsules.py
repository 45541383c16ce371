"""Capsule networks of patches: counts, the length layer, and fused against separate units (C18, C20)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xai_course.methods.patch_heads import LossAttention
from xai_course.nets.capsules import CapsuleLayer, capsule_lengths, capsule_net, split_units

DEAD_SHORTCUTS = 128 * (32 * 64 + 64)  # registered by the official code in each second-layer unit, never called


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(*arguments, **keywords):
    with torch.device("meta"):
        return capsule_net(*arguments, **keywords)


@pytest.mark.parametrize(
    ("name", "classes", "count", "printed"),
    [
        ("vgg11", 10, 30_749_226, "31.02"),
        ("resnet18", 10, 32_692_074, "32.96"),
        ("vgg11", 100, 31_031_172 - DEAD_SHORTCUTS, None),
        ("resnet18", 100, 32_974_020 - DEAD_SHORTCUTS, None),
        ("vgg11", 200, 31_044_072 - DEAD_SHORTCUTS, None),
        ("resnet18", 200, 32_986_920 - DEAD_SHORTCUTS, None),
        ("resnet50", 10, 46_343_530 - DEAD_SHORTCUTS, None),
        ("googlenet", 10, 28_474_890 - DEAD_SHORTCUTS, None),
    ],
)
def test_capsule_parameters(name, classes, count, printed):
    """Table II counts 270,336 parameters that the forward pass never uses; ours are the live ones."""
    assert DEAD_SHORTCUTS == 270_336
    assert parameters(on_meta(name, classes)) == count
    assert printed is None or f"{(count + DEAD_SHORTCUTS) / 1e6:.2f}" == printed


@pytest.mark.parametrize(
    ("name", "with_norm", "without", "printed"),
    [("vgg11", 33_410_304, 33_409_280, "33.41"), ("resnet18", 35_353_152, 35_352_128, "35.35")],
)
def test_routing_parameters(name, with_norm, without, printed):
    assert parameters(on_meta(name, routing=True)) == with_norm
    assert parameters(on_meta(name, routing=True, norm=False)) == without
    assert f"{with_norm / 1e6:.2f}" == f"{without / 1e6:.2f}" == printed
    if name == "vgg11":  # the votes' weights grow with the classes: why Tiny ImageNet has no routing row
        assert parameters(on_meta(name, 100, routing=True)) == 59_952_384


@pytest.mark.parametrize("size", [32, 64])
def test_capsule_shapes(size):
    images = torch.empty(2, 3, size, size, device="meta")
    net = on_meta("resnet18", 10, image_size=size)
    assert net.first(net.backbone(images)).shape == (2, 16, 32, 6, 6)
    assert net.capsules(images).shape == (2, 64, 36, 128)
    assert net.patch_logits(images).shape == (2, 64, 36, 10) and net(images).shape == (2, 10)
    assert on_meta("resnet18", 10, image_size=size, routing=True).votes(images).shape == (2, 1152, 10, 16)


@pytest.mark.parametrize("relu", [True, False])
def test_one_convolution_is_all_units(relu):  # C18, through BatchNorm in train mode
    torch.manual_seed(0)
    layer = CapsuleLayer(6, 4, 5, 3, 2, relu=relu)
    units = split_units(layer)
    x = torch.randn(3, 6, 11, 11)
    separate = torch.stack([unit(x) for unit in units], 1)
    fused = layer(x)
    assert fused.shape == (3, 5, 4, 5, 5)
    torch.testing.assert_close(fused, separate, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer.norm.running_var, torch.cat([unit[1].running_var for unit in units]))


def test_capsules_flatten_channel_first():  # index = c * 36 + m, as in the official code
    net = capsule_net("small", 3, seed=0).eval()
    images = torch.rand(2, 3, 32, 32)
    lengths = capsule_lengths(net.first(net.backbone(images)), net.trim)
    second = net.second(lengths)  # [B, D, C, 6, 6]
    flat = second.reshape(2, net.second.dim, -1).transpose(1, 2)
    torch.testing.assert_close(net.capsules(images).flatten(1, 2), flat)
    c, m = 5, 17
    torch.testing.assert_close(net.capsules(images)[:, c, m], flat[:, c * 36 + m])


def test_lengths_equal_the_loop_and_are_trimmed():  # Eq. 11
    units = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    trim = torch.tensor([0.5, 5.0, -1.0], dtype=torch.float64)
    found = capsule_lengths(units, trim)
    for b, c, i, j in [(0, 0, 0, 0), (1, 1, 1, 0), (0, 2, 0, 1)]:
        expected = max(sum(float(v) ** 2 for v in units[b, :, c, i, j]) ** 0.5 - float(trim[c]), 0.0)
        assert float(found[b, c, i, j]) == pytest.approx(expected, abs=1e-12)
    assert found[:, 1].amax() == 0 and found[:, 2].amin() >= 1


def test_lengths_have_finite_gradients_where_all_units_are_off():
    units = torch.zeros(1, 4, 2, 2, 2, requires_grad=True)
    capsule_lengths(units, torch.tensor([-1.0, 0.0])).sum().backward()
    assert units.grad.isfinite().all()
    assert capsule_lengths(units.detach().half(), torch.zeros(2)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"trim \[C\]"):
        capsule_lengths(units, torch.zeros(3))


def test_small_capsules_train():
    net = capsule_net("small", 3, seed=0)
    method = LossAttention(net)
    seen = method.attend(torch.rand(2, 3, 32, 32))
    assert seen.image.shape == (2, 3) and seen.weights.shape == (2, 36) and seen.patches.shape == (2, 36, 3)
    seen.image.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_routing_refuses_another_image_size():
    net = capsule_net("small", 3, routing=True, seed=0)
    with pytest.raises(ValueError, match="must give 144 capsules, got 256"):
        net.votes(torch.rand(1, 3, 40, 40))
    with pytest.raises(ValueError, match="at least 9x9"):
        net.votes(torch.rand(1, 3, 8, 8))


def test_a_wide_layer_is_one_matrix_product_with_the_convolutions_numbers_and_gradients():
    from xai_course.nets.patch_nets import PatchConv2d

    torch.manual_seed(0)
    for padding, bias in ((0, True), (2, False)):
        layer = PatchConv2d(128, 6, 9, 4, padding, bias=bias)
        assert layer.weight[0].numel() >= PatchConv2d.WIDE > 16 * 81  # the small networks' layer stays a convolution
        x, y = (torch.randn(2, 128, 17, 21).requires_grad_() for _ in range(2))
        y.data.copy_(x.data)
        ours = layer(x)
        direct = nn.functional.conv2d(y, layer.weight, layer.bias, 4, padding)
        torch.testing.assert_close(ours, direct, atol=1e-5, rtol=1e-5)
        weights = list(layer.parameters())
        ours, direct = (torch.autograd.grad(out.square().sum(), [at, *weights]) for out, at in ((ours, x), (direct, y)))
        for a, b in zip(ours, direct):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-5)
