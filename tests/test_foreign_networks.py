"""Grad-CAM, its variants and the input gradient on networks that are not ours: a matrix of backbones and variants."""

from __future__ import annotations

import copy
import functools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xai_course.maps import VARIANTS, channels_last, grad_cam, grad_cam_from, tokens

timm, transformers = pytest.importorskip("timm"), pytest.importorskip("transformers")
SIDE = 32


def timm_net(name, **settings):
    return getattr(timm.models, name)(num_classes=4, **settings)


def resnet():
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)


def densenet():
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=4, block_config=(1, 2), num_init_features=8, bn_size=2, num_classes=4)


def torchvision_vit():
    from torchvision.models import VisionTransformer

    return VisionTransformer(SIDE, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4)


def torchvision_swin():
    from torchvision.models import SwinTransformer

    return SwinTransformer([2, 2], 16, [1, 1], [1, 2], [4, 4], stochastic_depth_prob=0.0, num_classes=4)


def timm_convnext():
    return timm_net("ConvNeXt", depths=(1,) * 4, dims=(4, 8, 8, 16))


def timm_vit():
    return timm_net("VisionTransformer", img_size=SIDE, patch_size=8, embed_dim=16, depth=2, num_heads=2)


def timm_swin():
    settings = {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    return timm_net("SwinTransformer", img_size=SIDE, patch_size=2, **settings)


def hf(kind, **settings):
    config = getattr(transformers, f"{kind}Config")(image_size=SIDE, num_labels=4, **settings)
    return getattr(transformers, f"{kind}ForImageClassification")(config)


def hf_vit():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return hf("ViT", patch_size=8, **sizes)


def hf_swin():
    return hf("Swin", patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4)


def hf_resnet():
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4)
    return transformers.ResNetForImageClassification(config)


CASES = {  # how it is built, layers, reshape
    "torchvision ResNet": (resnet, ["layer1", "layer3"], None),
    "torchvision DenseNet": (densenet, ["features.denseblock1", "features"], None),
    "torchvision ViT": (torchvision_vit, [f"encoder.layers.encoder_layer_{i}.ln_1" for i in (0, 1)], tokens(1)),
    "torchvision Swin": (torchvision_swin, ["features.1", "features.3"], channels_last),
    "timm ConvNeXt": (timm_convnext, ["stages.1", "stages.3"], None),
    "timm ViT": (timm_vit, ["blocks.0.norm1", "blocks.1.norm1"], tokens(1)),
    "timm Swin": (timm_swin, ["layers.0", "layers.1"], channels_last),
    "transformers ViT": (hf_vit, ["vit.layers.0.layernorm_before", "vit.layers.1.layernorm_before"], tokens(1)),
    "transformers Swin": (hf_swin, ["swin.encoder.layers.0.blocks.0.layernorm_after", "swin.layernorm"], tokens(0)),
    "transformers ResNet": (hf_resnet, ["resnet.encoder.stages.0", "resnet.encoder.stages.1"], None),
}


@functools.cache
def network(name):
    """A small network in float64, its weights large enough that no map is lost in rounding, in eval mode."""
    torch.manual_seed(0)
    net = CASES[name][0]().double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        parameter.data += 0.1 * noise if parameter.ndim < 2 else 0.5 * noise / parameter[0].numel() ** 0.5
    return net


def pictures(size=(SIDE, SIDE), dtype=torch.double):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=dtype), torch.tensor([1, 3])


def by_hand(net, image, label, layers):
    """Features and gradient of each layer for one image, by hooks and one backward pass, as they come."""
    kept = []

    def keep(module, inputs, out):
        kept.append(out)
        return out.clone()  # DenseNet changes its features in place

    handles = [net.get_submodule(name).register_forward_hook(keep) for name in layers]
    out = net(image[None])
    for handle in handles:
        handle.remove()
    logits = out if isinstance(out, torch.Tensor) else out.logits
    return [(a.detach(), g) for a, g in zip(kept, torch.autograd.grad(logits[0, label], kept))]


def literal(variant, A, G):
    """The papers' sums for one image ``[D, h, w]``, one channel after the other, Grad-CAM++ with its powers."""
    total = torch.zeros_like(A[0])
    for a, g in zip(A, G):
        if variant == "grad_cam":
            total += g.sum() / g.numel() * a
        elif variant == "hirescam":
            total += g * a
        elif variant == "layer_cam":
            total += torch.where(g > 0, g, 0 * g) * a
        else:  # explains e^s; its derivatives are e^s times powers of g. One s for all: it divides out
            e, mass = torch.tensor(3.0).exp(), torch.where(a > 0, a, 0 * a).sum()
            alpha = torch.where(g != 0, e * g**2 / (2 * e * g**2 + mass * e * g**3), 0 * g)
            total += (alpha * (e * g).clamp_min(0)).sum() / e * a
    return total.clamp_min(0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_each_map_is_the_sum_of_its_paper(name, variant):
    (_, layers, reshape), net, (images, classes) = CASES[name], network(name), pictures()
    maps = grad_cam(net, images, classes, layers, reshape=reshape, variant=variant).maps
    assert all(m.max() > 0 for m in maps)
    for b in range(2):
        for ours, pair in zip(maps, by_hand(net, images[b], classes[b], layers)):
            A, G = (x if reshape is None else reshape(x) for x in pair)
            torch.testing.assert_close(ours[b], literal(variant, A[0], G[0]))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_each_map_are_those_of_finite_differences(name, variant):
    (_, layers, reshape), net, (images, classes) = CASES[name], network(name), pictures()

    def maps(create_graph=False):
        return grad_cam(net, images, classes, layers, reshape=reshape, variant=variant, create_graph=create_graph).maps

    scale = [m.mean() for m in maps()]

    def loss(maps):  # every cell counts, without symmetry, and no network's unit decides
        weights = [torch.linspace(0.5, 1.5, m[0].numel(), dtype=m.dtype).view(m[0].shape) for m in maps]
        return sum((m / s * w).square().mean() for m, s, w in zip(maps, scale, weights))

    parameters = list(net.parameters())
    gradients = torch.autograd.grad(loss(maps(True)), parameters, allow_unused=True)
    assert sum(g is not None and bool(g.any()) for g in gradients) > len(parameters) / 2
    generator, step, values = torch.Generator().manual_seed(2), 1e-8, []
    noise = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    along = [n / n.norm() + (0 if g is None else g / g.norm().clamp_min(1e-9)) for n, g in zip(noise, gradients)]
    for times in (1, -2, 1):
        for parameter, direction in zip(parameters, along):
            parameter.data.add_(direction, alpha=times * step)
        values.append(loss(maps()).item())
    exact = sum(float((g * d).sum()) for g, d in zip(gradients, along) if g is not None)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(exact, rel=1e-4)


# ---- tokens and channels last ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timm Swin", "torchvision Swin"])
@pytest.mark.parametrize("size", [(32, 32), (32, 64), (64, 48)])
def test_channels_last_are_refused_and_right_once_reshaped(name, size):
    (_, layers, reshape), net = CASES[name], copy.deepcopy(network(name))
    images, classes = pictures(size)
    if name == "timm Swin":
        net.set_input_size(size)
    for layer in layers:
        with pytest.raises(ValueError, match="channels last: pass reshape=channels_last"):
            grad_cam(net, images, classes, layer)
    maps = grad_cam(net, images, classes, layers, reshape=reshape).maps
    for b in range(2):
        for ours, (A, G) in zip(maps, by_hand(net, images[b], classes[b], layers)):
            right = torch.einsum("d,hwd->hw", G[0].mean((0, 1)), A[0]).relu()
            assert torch.corrcoef(torch.stack([ours[b].flatten(), right.flatten()]))[0, 1] > 0.99


def test_maps_with_channels_first_are_never_taken_for_channels_last():
    net = nn.Sequential(nn.Conv2d(3, 7, 4, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4)).double()
    for size in ((28, 28), (28, 60), (28, 400), (5, 5)):
        images, classes = pictures(size)
        assert grad_cam(net, images, classes, "0").maps[0].shape[1:] == (size[0] // 4, size[1] // 4)


@pytest.mark.parametrize("name", ["timm ViT", "torchvision ViT", "transformers ViT", "transformers Swin"])
def test_tokens_without_reshape_name_the_reshape(name):
    (_, layers, _), (images, classes) = CASES[name], pictures()
    with pytest.raises(ValueError, match=r"got tokens \(2, \d+, \d+\): pass reshape=tokens\(1\)"):
        grad_cam(network(name), images, classes, layers)


def test_tokens_of_a_grid_that_is_no_square_and_of_the_wrong_count():
    net = timm_net("VisionTransformer", img_size=(16, 24), patch_size=8, embed_dim=16, depth=1, num_heads=2).eval()
    images, classes = pictures((16, 24), torch.float32)
    assert grad_cam(net, images, classes, "blocks.0.norm1", reshape=tokens(1, grid=(2, 3))).maps[0].shape == (2, 2, 3)
    for reshape in (tokens(1), tokens(0), tokens(1, grid=(3, 3)), tokens(9)):
        with pytest.raises(ValueError, match=r"tokens must be \[B, \d \+ h\*w, D\] .* got \(2, 7, 16\)"):
            grad_cam(net, images, classes, "blocks.0.norm1", reshape=reshape)


def test_behind_the_last_attention_of_a_class_token_maps_are_zero_and_say_so():
    net, (images, classes) = network("timm ViT"), pictures()
    with pytest.warns(UserWarning, match=r"'blocks\.1'.*no position has an influence"):
        assert not grad_cam(net, images, classes, "blocks.1", reshape=tokens(1)).maps[0].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grad_cam(net, images, classes, "blocks.0", reshape=tokens(1))


def test_hirescam_of_what_only_a_layer_norm_reads_is_zero():
    # a norm has the degree 0 in its input, so by Euler the gradient is orthogonal to the features of each token
    net, (images, classes) = network("timm ViT"), pictures()
    (block,) = grad_cam(net, images, classes, "blocks.0", variant="hirescam", relu=False, reshape=tokens(1)).maps
    (norm,) = grad_cam(net, images, classes, "blocks.1.norm1", variant="hirescam", relu=False, reshape=tokens(1)).maps
    assert block.abs().max() < 1e-4 * norm.abs().max()


# ---- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timm ViT", "torchvision ViT", "transformers ViT", "timm Swin", "transformers Swin"])
def test_a_loss_on_maps_of_an_attention_network_reaches_the_parameters(name):
    (build, layers, reshape), (images, classes) = CASES[name], pictures(dtype=torch.float32)
    torch.manual_seed(0)
    net = build().train()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)  # torchvision's ViT starts with a head of zeros, and with zero maps
    maps, logits = grad_cam(net, images, classes, layers[-1], reshape=reshape, relu=False, create_graph=True)
    (F.cross_entropy(logits, classes) + maps[0].square().mean()).backward()
    unreached = {n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert all("bias" in n or "k_proj" in n for n in unreached), unreached


def test_the_fused_attention_has_no_second_derivative():
    """The control: without plain attention around the forward pass the loss cannot be differentiated on a CPU."""
    net, (images, classes) = timm_vit(), pictures(dtype=torch.float32)
    kept = []
    net.blocks[0].norm1.register_forward_hook(lambda m, i, out: kept.append(out))
    for context, fails in (
        (torch.enable_grad(), True),
        (torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), False),
    ):
        with context:
            logits = net(images)
        (maps,) = grad_cam_from(logits, kept[-1:], classes, reshape=tokens(1), create_graph=True, relu=False)
        if fails:
            with pytest.raises(RuntimeError, match="not implemented"):
                maps.square().mean().backward()
        else:
            maps.square().mean().backward()
