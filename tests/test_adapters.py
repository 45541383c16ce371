"""Foreign networks as GAP classifiers: the same logits and parameters, exact maps, or a refusal that says why."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from xai_course.maps import class_activation_map, gap_head, grad_cam
from xai_course.nets.adapters import gap_classifier
from xai_course.nets.convnets import small_cnn


def tv(name, **settings):
    from torchvision import models

    return models.get_model(name, weights=None, num_classes=5, **settings)


def from_timm(name, **settings):
    return getattr(pytest.importorskip("timm").models, name)(num_classes=5, **settings)


def timm_swin():
    sizes = {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    return from_timm("SwinTransformer", img_size=64, patch_size=4, **sizes)


def timm_convnext(**settings):
    return from_timm("ConvNeXt", depths=(1,) * 4, dims=(4, 8, 8, 16), **settings)


def hf_resnet():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    return transformers.ResNetForImageClassification(config)


def timm_resnet():
    block = pytest.importorskip("timm").models.resnet.BasicBlock
    return from_timm("ResNet", block=block, layers=(1,) * 4, channels=(8, 8, 8, 16))


def timm_vit():
    return from_timm("VisionTransformer", img_size=32, depth=1, embed_dim=16, num_heads=1)


def vgg(pooling: bool):
    """torchvision's VGG with few channels; its own head, of 100 million weights, is never filled."""
    from torchvision.models import vgg

    with torch.device("meta"):
        net = vgg.VGG(nn.Identity(), num_classes=5, init_weights=False)
    net.features = vgg.make_layers([8, "M", 16, "M", 16])
    if pooling:
        net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 5)
    else:
        net.classifier = nn.Sequential(nn.Linear(16 * 49, 32), *net.classifier[1:3], nn.Linear(32, 5))
    return net


def pooled(*between):
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *between, nn.Linear(8, 5))


TAKEN = {  # how it is built, the layer of the last maps
    "ours": (lambda: small_cnn(5, width=4), "body"),
    "torchvision ResNet": (lambda: tv("resnet18"), "layer4"),
    "torchvision DenseNet": (lambda: tv("densenet121"), "features"),
    "torchvision EfficientNet": (lambda: tv("efficientnet_b0"), "features"),
    "torchvision MobileNetV2": (lambda: tv("mobilenet_v2"), "features"),
    "torchvision RegNet": (lambda: tv("regnet_y_400mf"), "trunk_output"),
    "torchvision ShuffleNet": (lambda: tv("shufflenet_v2_x0_5"), "conv5"),
    "torchvision VGG with pooling": (lambda: vgg(pooling=True), "features"),
    "timm ResNet": (timm_resnet, "layer4"),
    "timm Swin": (timm_swin, "norm"),
    "transformers ResNet": (hf_resnet, "resnet.encoder.stages.1"),
    "dropout": (lambda: pooled(nn.Dropout(0.5)), "2"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_the_view_has_the_logits_the_parameters_and_exact_maps(name):
    build, layer = TAKEN[name]
    torch.manual_seed(0)
    net = build().train()
    state = copy.deepcopy(net.state_dict())
    view = gap_classifier(net)
    assert view.layer == layer and view.net is net and all(m.training for m in net.modules())
    assert all(torch.equal(a, b) for a, b in zip(state.values(), net.state_dict().values()))
    assert [id(p) for p in view.parameters()] == [id(p) for p in net.parameters()]
    assert set(view.state_dict()) == {f"net.{key}" for key in state}
    for module in net.modules():  # as after a training: nothing at its initial value
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    view.eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    out = net(images)
    logits = out if isinstance(out, torch.Tensor) else out.logits
    assert torch.equal(view(images), logits)
    head, features = gap_head(view), view.features(images)
    assert features.shape[:2] == (2, head.in_features) and features.shape[2] > 1
    torch.testing.assert_close(head(view.embed(images)), logits, rtol=1e-4, atol=1e-5)
    cam = class_activation_map(features, head.weight, head.bias, classes=[4, 1])
    torch.testing.assert_close(cam.mean((1, 2)), logits[[0, 1], [4, 1]], rtol=1e-4, atol=1e-5)
    assert not any(len(m._forward_hooks) for m in view.modules())


REFUSED = {
    "VGG": (lambda: vgg(pooling=False), r"classifier\.0 \(Linear\).* between the last maps and 'classifier\.3'"),
    "MobileNetV3": (lambda: tv("mobilenet_v3_small"), r"classifier\.1 \(Hardswish\) stand between"),
    "ConvNeXt": (timm_convnext, r"head\.norm \(LayerNorm2d\) stand between the last maps and 'head\.fc': use grad_cam"),
    "a 1x1 convolution": (lambda: tv("squeezenet1_1"), "whose logits no linear layer gives"),
    "no image": (lambda: nn.Linear(3, 5), r"must run on the example \(2, 3, 64, 64\): .*mat1 and mat2"),
    "maps everywhere": (lambda: nn.Linear(64, 5), "net must end in"),
    "a norm, idle while untrained": (lambda: pooled(nn.BatchNorm1d(8)), r"5 \(BatchNorm1d\) stand between .* '6'"),
    "a wrong size": (timm_vit, "example=images"),
    "the maximum": (lambda: pooled()[:3] + nn.Sequential(nn.AdaptiveMaxPool2d(1), *pooled()[4:]), "AdaptiveMaxPool2d"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_exact_map_is_refused_with_the_reason(name):
    build, message = REFUSED[name]
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        gap_classifier(build())


def test_a_norm_in_front_of_the_pooling_is_no_obstacle():
    assert gap_classifier(nn.Sequential(nn.GroupNorm(1, 3), pooled())).layer == "1.2"


def test_channels_and_precision_of_the_trial_are_those_of_the_network():
    net = pooled()
    net[0] = nn.Conv2d(1, 8, 3)
    assert gap_classifier(net.double()).layer == "2"
    assert gap_classifier(net.bfloat16(), torch.rand(1, 1, 9, 11).bfloat16()).layer == "2"


def test_maps_of_one_cell_say_nothing():
    with pytest.raises(ValueError, match="stand between the last maps"):
        gap_classifier(pooled(), torch.rand(2, 3, 3, 3))


def test_an_in_place_operation_behind_the_features_leaves_them_alone():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, images):
            features = self.net[0](images)
            return self.net[1:](features.mul_(1)), features.zero_()  # the logits first; then nothing is left

    view, images = gap_classifier(InPlace()), torch.rand(2, 3, 8, 8)
    assert view.features(images).any()
    torch.testing.assert_close(view.head(view.embed(images)), view(images))


def test_methods_take_the_view():
    from xai_course.data.batch import Batch
    from xai_course.methods.hnc import HNC
    from xai_course.preset import Clock

    view = gap_classifier(pooled())
    method, labels = HNC(view, "mse", 0.1, keep_top=1), torch.tensor([0, 3])
    batch = Batch(torch.rand(2, 3, 16, 16), labels, None, torch.arange(2))
    (losses,) = method.losses(batch, Clock(0, 0, 1, 1))
    losses["total"].backward()
    assert all(p.grad.any() for p in view.net[0].parameters())
    assert method.explain(batch.images, labels).shape == (2, 16, 16)
    assert grad_cam(view, batch.images, labels, "net.2").maps[0].shape == (2, 14, 14)
    twin = copy.deepcopy(view)
    assert twin.head is twin.net[5] and twin.head is not view.head


def test_a_module_that_runs_twice_is_not_taken_for_its_last_run():
    relu, conv = nn.ReLU(), [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)]
    net = nn.Sequential(conv[0], relu, conv[1], relu, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    view, images = gap_classifier(net), torch.rand(2, 3, 16, 16)
    assert (view.layer, view.reading) == ("2", "relu")
    torch.testing.assert_close(view.head(view.embed(images)), view(images))
