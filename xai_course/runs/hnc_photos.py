"""HNC's rows on photographs, as data: Table 2 (ImageNet), Table 3 (CUB-200-2011) and Table 4 (COCO 2014, multi-label).

All need a data set that its owner gives out and a GPU for days. At "smoke" they show that the row runs.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F

from ..data.batch import Batch, Splits, positive_rate
from ..data.image_sets import coco, cub, imagenet
from ..measure.multilabel import multilabel_scores
from ..measure.robustness import clean_accuracy
from ..methods.base import CrossEntropy
from ..methods.classic import AttentionConsistency, Center, LargeMarginGaussian, LogitLoss, focal_loss
from ..methods.hnc import HNC
from ..nets.convnets import GapClassifier
from ..nets.resnets import torchvision_resnet
from ..preset import Preset
from .experiment import Experiment
from .hnc_digits import weighted

SMOKE = Preset(epochs=1, batch_size=16, optimizer="sgd", lr=0.001, limit=32)


def scaled_crop(batch: Batch, generator: torch.Generator, *, least: float = 0.08, flip: bool = True) -> Batch:
    """A random window of ``least`` to 1 of the area and aspect 3/4 to 4/3, resized to the image's size (bilinear).

    One window per image, drawn from ``generator``; mirrored half of the time. In HNC's released ImageNet script the
    mirroring is commented out; the repository it comes from has it.
    """
    images, count = batch.images, len(batch.images)
    area, ratio, x, y, coin = torch.rand(5, count, generator=generator, device=images.device)
    area, aspect = least + (1 - least) * area, torch.exp((2 * ratio - 1) * math.log(4 / 3) / 2)
    width, height = (area.sqrt() * aspect).clamp_max(1), (area.sqrt() / aspect).clamp_max(1)
    sign = torch.where(coin < 0.5, -1.0, 1.0) if flip else torch.ones_like(coin)
    zero = torch.zeros_like(width)
    across = torch.stack([sign * width, zero, (2 * x - 1) * (1 - width)], dim=1)
    down = torch.stack([zero, height, (2 * y - 1) * (1 - height)], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
    return batch._replace(images=F.grid_sample(images, grid, padding_mode="border", align_corners=False))


def resnet(splits: Splits, name: str, pretrained: bool) -> GapClassifier:
    return torchvision_resnet(name, len(splits.classes), pretrained)


def resnet_with_rates(splits: Splits, name: str) -> GapClassifier:
    """A pretrained network that also remembers each class's share of positive training images, for Eq. 8."""
    net, items = torchvision_resnet(name, len(splits.classes), True), getattr(splits.train, "items", None)
    if items is None:
        rates = positive_rate(splits.train)
    else:  # labels without decoding a single photograph
        rates = torch.zeros(len(splits.classes))
        for item in items:
            rates[list(item.label)] += 1 / len(items)
    net.register_buffer("positive_rate", rates)
    return net


# Table 2: lambda and k of the released script; error rates in per cent, top-1 and top-5
IMAGENET = {
    "resnet101": {
        "ce": ("Cross-entropy", CrossEntropy, "23.2", "6.7"),
        "lgm": ("LGM loss", LargeMarginGaussian, "22.7 (copied)", "7.1 (copied)"),
        "hnc_mse": ("HNC mse", partial(HNC, penalty="mse", balance=0.07, keep_top=100), "22.3", "6.4"),
        "hnc_kd": (
            "HNC kd",
            partial(HNC, penalty="kd", balance=0.0065, keep_top=100, reduction_k="sum"),
            "22.1",
            "6.4",
        ),
    },
    "resnet152": {
        "ce": ("Cross-entropy", CrossEntropy, "22.9", "6.6"),
        "hnc_mse": ("HNC mse", partial(HNC, penalty="mse", balance=0.07, keep_top=100), "21.9", "6.1"),
        "hnc_kd": (
            "HNC kd",
            partial(HNC, penalty="kd", balance=0.0048, keep_top=100, reduction_k="sum"),
            "21.8",
            "6.0",
        ),
    },
}
CUB = {
    "ce": ("Cross-entropy", CrossEntropy, "86.0"),
    "center": ("Center loss", Center, "86.5"),
    "focal": ("Focal loss", partial(LogitLoss, loss=focal_loss), "85.8"),
    "hnc_mse": ("HNC mse", partial(HNC, penalty="mse", balance=0.07), "87.1"),
    "hnc_kd": ("HNC kd", partial(HNC, penalty="kd", balance=0.65), "86.9"),
}
COCO_MEASURES = ("mAP", "CF1", "CP", "CR", "OF1", "OP", "OR")
COCO = {
    "resnet101_augmented": ("ResNet-101, more augmentation (copied)", None, "75.2 69.5 80.8 63.4 74.4 82.1 68.0"),
    "srn": ("ResNet-101-SRN (copied)", None, "77.1 71.2 81.6 65.4 75.8 82.7 69.9"),
    "sce": ("ResNet-101, Eq. 8 (paper: copied)", {"balance": 0.0}, "74.9 69.7 70.1 69.7 73.7 73.6 73.7"),
    "hnc_mse": ("+ HNC mse", {"penalty": "mse", "balance": 0.07}, "77.8 72.3 78.9 67.4 76.5 81.9 71.9"),
    "hnc_kd": ("+ HNC kd", {"penalty": "kd", "balance": 0.65}, "77.6 72.3 75.8 69.7 76.1 78.2 74.1"),
    "ac": (
        "Attention consistency (paper: copied)",
        {"balance": 0.0, "method": AttentionConsistency},
        "77.5 72.2 77.4 68.3 76.3 79.8 73.1",
    ),
    "ac_hnc_mse": (
        "AC + HNC mse",
        {"penalty": "mse", "balance": 0.07, "method": AttentionConsistency},
        "78.5 72.8 79.6 67.9 76.9 82.3 72.1",
    ),
    "ac_hnc_kd": (
        "AC + HNC kd",
        {"penalty": "kd", "balance": 0.65, "method": AttentionConsistency},
        "78.2 72.9 76.8 70.0 76.6 78.6 74.7",
    ),
}


def _imagenet() -> list[Experiment]:
    steps = {"schedule": "steps", "milestones": (30, 60, 90)}
    long = Preset(120, 256, "sgd", 0.1, weight_decay=1e-4, precision="bf16", workers=8, **steps)
    found = []
    for net, rows in IMAGENET.items():
        for row, (title, method, top1, top5) in rows.items():
            found.append(
                Experiment(
                    f"hnc/table2/{net}/{row}",
                    f"{title}, ResNet-{net[6:]}",
                    imagenet,
                    partial(resnet, name=net, pretrained=False),
                    method,
                    {"smoke": SMOKE, "paper": long},
                    (clean_accuracy,),
                    {"top-1 error": top1, "top-5 error": top5},
                    "ImageNet (1.2 million images, a licence) and GPU weeks",
                    scaled_crop,
                    ("accuracy", "top5"),
                )
            )
    return found


def _cub() -> list[Experiment]:
    steps = {"schedule": "steps", "milestones": (50,)}
    tuned = Preset(100, 16, "sgd", 0.001, weight_decay=1e-4, precision="bf16", workers=8, **steps)
    presets = {"smoke": SMOKE, "colab": tuned, "paper": tuned}
    net = partial(resnet, name="resnet50", pretrained=True)
    return [
        Experiment(
            f"hnc/table3/{row}",
            title,
            partial(cub, masks="none"),
            net,
            method,
            presets,
            (clean_accuracy,),
            {"accuracy": printed},
            "CUB-200-2011 (a download), ImageNet weights and a GPU",
            partial(scaled_crop, least=0.5),
        )
        for row, (title, method, printed) in CUB.items()
    ]


def _coco() -> list[Experiment]:
    steps = {"schedule": "steps", "milestones": (6, 8)}
    tuned = Preset(14, 24, "sgd", 0.001, weight_decay=5e-4, precision="bf16", workers=8, **steps)
    needs = "COCO 2014 (a download), ImageNet weights and a GPU"
    copied = "another paper's code: HNC copied this row from it"
    return [
        Experiment(
            f"hnc/table4/{row}",
            title,
            coco_288,
            partial(resnet_with_rates, name="resnet101"),
            partial(weighted, **(options or {"balance": 0.0})),
            {"smoke": SMOKE, "paper": tuned} if options else {},
            (multilabel_scores,),
            dict(zip(COCO_MEASURES, printed.split())),
            needs if options else copied,
            partial(scaled_crop, least=0.5),
            COCO_MEASURES,
        )
        for row, (title, options, printed) in COCO.items()
    ]


def coco_288(preset: str = "smoke", *, seed: int = 0) -> Splits:
    """COCO 2014 at the paper's 288 pixels (64 at "smoke"), without masks."""
    return coco(preset, seed=seed, size=64 if preset == "smoke" else 288)


PHOTOS: tuple[Experiment, ...] = (*_imagenet(), *_cub(), *_coco())
