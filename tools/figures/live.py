"""Two small networks of the first lab for the reader's browser: weights, exported while the book is staged, and images.

BatchNorm is folded into the convolutions and all numbers are rounded to half precision, which keeps the page small; no
answer changes by it. `restored` is the network that is shown, as PyTorch computes it.
"""

from __future__ import annotations

import base64

import numpy as np
import torch
from torch import Tensor

from tools.figures.common import trained, world
from xai_course.nets.convnets import GapClassifier, small_cnn

SHOWN = (0, 3, 5, 8, 11, 14)  # test images


def packed(values: Tensor) -> str:
    """Half precision, little-endian, in base64."""
    return base64.b64encode(values.detach().double().numpy().astype("<f2").tobytes()).decode()


def unpacked(text: str, *shape: int) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)).view(shape)


@torch.no_grad()
def exported(net: GapClassifier) -> dict:
    """The layers and the head of a `small_cnn` in evaluation mode, for ``live.js``."""
    layers = []
    for convolution, norm, *_ in net.body:
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        layers.append(
            {
                "inputs": convolution.in_channels,
                "outputs": convolution.out_channels,
                "stride": convolution.stride[0],
                "dilation": convolution.dilation[0],
                "weight": packed(convolution.weight.double() * scale[:, None, None, None]),
                "bias": packed(norm.bias.double() - norm.running_mean.double() * scale),
            }
        )
    head = {"weight": packed(net.head.weight), "bias": packed(net.head.bias)}
    return {"classes": net.head.out_features, "layers": layers, "head": head}


@torch.no_grad()
def restored(data: dict) -> GapClassifier:
    """The exported network as a `small_cnn`, its BatchNorms doing nothing but adding the bias."""
    layers, outputs = data["layers"], data["layers"][-1]["outputs"]
    net = small_cnn(data["classes"], channels=layers[0]["inputs"], width=layers[0]["outputs"], seed=0).eval()
    for (convolution, norm, *_), layer in zip(net.body, layers):
        convolution.weight.copy_(unpacked(layer["weight"], layer["outputs"], layer["inputs"], 3, 3))
        norm.bias.copy_(unpacked(layer["bias"], layer["outputs"]))
        norm.running_var.fill_(1 - norm.eps)
    net.head.weight.copy_(unpacked(data["head"]["weight"], data["classes"], outputs))
    net.head.bias.copy_(unpacked(data["head"]["bias"], data["classes"]))
    return net


def data() -> dict:
    """Both networks, and the same digits on the background of their class and on another."""
    images = [
        {"label": int(label), "pixels": base64.b64encode(image.numpy().tobytes()).decode()}
        for at in SHOWN
        for image, label in [(world(p).test.images[at], world(p).test.labels[at]) for p in (0.0, 1.0)]
    ]
    return {"told": exported(trained(p=0.0).net), "silent": exported(trained(p=1.0).net), "images": images}
