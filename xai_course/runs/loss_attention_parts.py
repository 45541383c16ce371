"""What the rows of Loss-Attention are made of: data with their sizes, networks, presets, augmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..data.batch import ArrayData, Batch, Splits, fingerprint
from ..data.image_sets import coco, tiny_imagenet
from ..data.textured_digits import textured_digits
from ..data.vision import cifar10, cifar100, svhn
from ..nets.capsules import capsule_net
from ..nets.convnets import small_cnn
from ..nets.patch_backbones import plain_net
from ..nets.patch_nets import patch_net
from ..preset import Preset

# --- networks --------------------------------------------------------------------------------------------------------


def plain(splits: Splits, *, name: str, size: int, **options) -> nn.Module:
    """The backbone as a classifier, pools and strides kept (``size`` only decides patch networks)."""
    return plain_net(name, len(splits.classes), **options)


def conv(splits: Splits, *, name: str, size: int = 32, **options) -> nn.Module:
    """The convolutional architecture."""
    return patch_net(name, len(splits.classes), image_size=size, **options)


def capsules(splits: Splits, *, name: str, size: int = 32) -> nn.Module:
    """The capsule architecture."""
    return capsule_net(name, len(splits.classes), image_size=size)


def routing(splits: Splits, *, name: str, size: int = 32) -> nn.Module:
    """Primary capsules and their votes."""
    return capsule_net(name, len(splits.classes), image_size=size, routing=True)


def strided(splits: Splits) -> nn.Module:
    """The small network of CPU labs, with strides and global average pooling."""
    return small_cnn(len(splits.classes))


# --- data ------------------------------------------------------------------------------------------------------------


def few(load: Callable[..., Splits], *, preset: str, seed: int) -> Splits:
    """At "smoke" 16/8/8 images, enough to show that a row of a big network runs; else everything."""
    return load(preset, seed=seed, **({"limit": (16, 8, 8)} if preset == "smoke" else {}))


def enlarged(load: Callable[..., Splits], *, preset: str, seed: int) -> Splits:
    """32-pixel images at 64 pixels, bilinear (Table VII); kept as uint8."""
    splits = few(load, preset=preset, seed=seed)
    sets = []
    for data in (splits.train, splits.validation, splits.test):
        chunks = [F.interpolate(part.float(), scale_factor=2, mode="bilinear") for part in data.images.split(1024)]
        sets.append(ArrayData(torch.cat([(chunk + 0.5).byte() for chunk in chunks]), data.labels))
    return Splits(f"{splits.name} at 64 px", *sets, splits.classes, fingerprint(splits.fingerprint, 64))


def crop_and_flip(batch: Batch, generator: torch.Generator, *, pad: int = 4, flip: bool = True) -> Batch:
    """Each image moved by up to ``pad`` pixels (zeros come in) and mirrored half of the time; masks move along."""
    n, _, height, width = batch.images.shape

    def draw(values: int) -> torch.Tensor:
        return torch.randint(values, (n, 1), generator=generator, device=batch.images.device)

    rows = draw(2 * pad + 1) + torch.arange(height, device=batch.images.device)
    columns = draw(2 * pad + 1) + torch.arange(width, device=batch.images.device)
    if flip:
        columns = torch.where(draw(2).bool(), columns.flip(1), columns)
    where = (torch.arange(n, device=rows.device)[:, None, None], rows[:, :, None], columns[:, None, :])
    images = F.pad(batch.images, (pad,) * 4).permute(0, 2, 3, 1)[where].permute(0, 3, 1, 2)
    masks = None if batch.masks is None else F.pad(batch.masks, (pad,) * 4)[where]
    return batch._replace(images=images, masks=masks)


@dataclass(frozen=True)
class Source:
    """A data set as the rows use it."""

    title: str
    load: Callable[..., Splits]
    size: int = 32
    download: str = "a download"
    augment: Callable | None = crop_and_flip


CIFAR10 = Source("CIFAR-10", partial(few, cifar10))
CIFAR100 = Source("CIFAR-100", partial(few, cifar100))
SVHN = Source("SVHN", partial(few, svhn), augment=partial(crop_and_flip, flip=False))  # a mirrored digit is none
TINY = Source("Tiny ImageNet", partial(few, tiny_imagenet), 64)
COCO = Source("COCO 2014", partial(few, partial(coco, size=64, classes=91)), 64)
CIFAR10_64 = Source("CIFAR-10 at 64 px", partial(enlarged, cifar10), 64)


def digits(preset: str, *, seed: int, **knobs) -> Splits:
    """Textured Digits where only the shape tells the class; 1500/400/800 images at "smoke"."""
    sizes = {"train": 1500, "validation": 400, "test": 800} if preset == "smoke" else {}
    return textured_digits(preset, seed=seed, q=1.0, **sizes, **knobs)


DIGITS = partial(digits, digit_size=(14, 18))
TWO_DIGITS = partial(digits, digit_size=(14, 16), objects=2)

# --- presets ---------------------------------------------------------------------------------------------------------

ONE = Preset(1, 8, optimizer="sgd", lr=0.01, limit=16)  # a smoke run of a big network: two steps
GPU = Preset(
    30, 512, optimizer="sgd", lr=0.4, weight_decay=5e-4, schedule="one_cycle", precision="bf16", channels_last=True
)
PAPER = Preset(200, 128, optimizer="sgd", lr=0.1, weight_decay=5e-4, schedule="steps", milestones=(100, 150))
SGD: Mapping[str, Preset] = {
    "smoke": ONE,
    "colab": GPU,
    "paper": PAPER,
}
ADAM: Mapping[str, Preset] = {
    "smoke": ONE,
    "colab": Preset(30, 512, lr=0.003, schedule="one_cycle", precision="bf16", channels_last=True),
    "paper": Preset(200, 128, lr=0.003, schedule="gaussian_ramps", ramp_up=0.4, ramp_down=0.4),
}
BATCH_48 = {**SGD, "paper": replace(PAPER, batch_size=48)}
SMALL = {
    "smoke": Preset(6, 64, lr=2e-2, schedule="one_cycle"),
    "colab": Preset(20, 128, lr=2e-2, schedule="one_cycle"),
    "paper": Preset(40, 128, lr=2e-2, schedule="one_cycle"),
}
GMACS = {"vgg11": 10.2, "resnet18": 12.2, "resnet50": 25.9, "googlenet": 7.6}


def machine(data: Source, net: str, head: str) -> str:
    """What a row needs beyond a CPU."""
    work = GMACS.get(net, 0) * (1.05 if data.size == 64 else 1)
    cost = f", {work:.0f} billion multiply-adds per image" if head != "plain" and work else ""
    return f"{data.title} ({data.download}) and a GPU for 200 epochs{cost}"
