"""Min-Max entropy on Textured Digits: Table 1's methods side by side, and what becomes of erasing there."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import nn

from ..data.batch import Splits
from ..data.textured_digits import textured_digits
from ..measure.localising import segmentation
from ..measure.looking import validation_error
from ..measure.minmax import answers, mining
from ..methods.erasing import Erasing
from ..methods.minmax import MaskRule, MinMax
from ..methods.wsol import FullSupervision, PooledMaps, TrivialMask
from ..nets.role_norm import norms_by_role
from ..nets.unet import UNet
from ..nets.wildcat import HEADS, Localiser, LocaliserClassifier, minmax_head, small_trunk
from ..preset import Preset
from ..train import fit
from .experiment import Experiment

PRESETS = {
    "smoke": Preset(8, 32, lr=0.03, schedule="one_cycle"),
    "colab": Preset(20, 128, lr=0.03, schedule="one_cycle"),
    "paper": Preset(40, 128, lr=0.03, schedule="one_cycle"),
}
NUCLEI_PRESETS = {
    "smoke": Preset(10, 10, lr=0.03, schedule="one_cycle"),
    "colab": Preset(40, 16, lr=0.03, schedule="one_cycle"),
}
ON_NUCLEI = ("all_ones", "random", "cam_avg", "wildcat_ours", "u0", "u4", "unet")
trunk = partial(small_trunk, 8)
REACH = 17  # pixels that a cell of the maps sees; 33 is the whole digit
SHOWN = ("error", "f1_plus", "f1_minus", "chosen_plus", "chosen_minus", "chosen_mean")


def digits(preset: str = "smoke", *, seed: int = 0, **knobs) -> Splits:
    """Textured Digits with a background that tells nothing; shape and texture of the digit both tell the label."""
    sizes = {"train": 800, "validation": 400, "test": 600} if preset == "smoke" else {}
    return textured_digits(preset, seed=seed, **{"p": 1.0, "q": 0.0, **sizes, **knobs})


def pooled(splits: Splits, *, head: str) -> Localiser:
    body, channels = trunk(reach=REACH)
    return Localiser(body, HEADS[head](channels, len(splits.classes)))


def same_head(splits: Splits, *, reach: int = REACH) -> Localiser:
    """M on its own: WILDCAT with Min-Max's own pooling, so that only the entropies and the erasing differ."""
    body, channels = trunk(reach=reach)
    return Localiser(body, minmax_head(channels, len(splits.classes)))


def pair(splits: Splits, *, shared: bool = True, roles: bool = False, reach: int = REACH) -> LocaliserClassifier:
    """M and C; ``roles`` keeps the running statistics of whole and masked images apart."""
    body, channels = trunk(reach=reach)
    other = None if shared else trunk(reach=reach)[0]
    heads = [minmax_head(channels, len(splits.classes)) for _ in range(2)]
    net = LocaliserClassifier(body, *heads, classifier_trunk=other)
    return norms_by_role(net) if roles else net


def pretrained(splits: Splits, *, alone: bool = False) -> nn.Module:
    """A trunk that can already classify: trained on other images of the same kind, as ImageNet is for birds."""
    from torch.random import fork_rng

    body, channels = trunk(reach=REACH)
    classes = len(splits.classes)
    with fork_rng(devices=[]):
        method = PooledMaps(Localiser(body, HEADS["cam_avg"](channels, classes)))
        fit(method, digits("smoke", seed=1000).train, PRESETS["smoke"], seed=1000)
    body = body.cpu()
    if alone:
        return Localiser(body, minmax_head(channels, classes))
    return norms_by_role(LocaliserClassifier(body, minmax_head(channels, classes), minmax_head(channels, classes)))


def unet(splits: Splits) -> UNet:
    return UNet(width=8, levels=3)


def nothing(splits: Splits) -> nn.Module:
    return nn.Identity()


def row(item: str, name: str, title: str, net, method, measures=(segmentation,), presets=PRESETS) -> Experiment:
    return Experiment(f"minmax/{item}/{name}", title, digits, net, method, presets, measures, shown=SHOWN)


ROLES = partial(pair, roles=True)
OURS = (segmentation, answers, mining)
ONCE = {name: replace(preset, epochs=1, limit=50) for name, preset in PRESETS.items()}  # nothing to train
POOLED = {
    "cam_avg": "CAM-Avg",
    "cam_max": "CAM-Max",
    "cam_lse": "CAM-LSE",
    "wildcat": "WILDCAT",
    "deep_mil": "Deep MIL",
}
DIGITS = (
    row("digits", "all_ones", "All-ones", nothing, partial(TrivialMask, kind="all_ones"), presets=ONCE),
    row("digits", "random", "Random pixels", nothing, partial(TrivialMask, kind="random"), presets=ONCE),
    row("digits", "centre", "Centred square", nothing, partial(TrivialMask, kind="centre"), presets=ONCE),
    *(row("digits", name, title, partial(pooled, head=name), PooledMaps) for name, title in POOLED.items()),
    row("digits", "wildcat_ours", "WILDCAT with our head (M alone)", same_head, PooledMaps),
    row("digits", "u0", "Min-Max, no erasing (u = 0)", pair, MinMax, OURS),
    *(
        row("digits", f"u{u}", f"Min-Max, u = {u}", pair, partial(MinMax, erasing=Erasing(u, start_epoch=1)), OURS)
        for u in (1, 2, 4)
    ),
    row("digits", "unet", "U-Net, full supervision", unet, FullSupervision),
)

DEEP = Erasing(4, start_epoch=1)
OFFICIAL = partial(MinMax, mask=MaskRule(over="batch"), erasing=Erasing(3, compound=True, teach="all", start_epoch=1))
ATTACHED = MaskRule(attach=True)
VARIANTS = {
    "u0": ("u = 0, statistics per role", ROLES, MinMax),
    "u4": ("u = 4, statistics per role", ROLES, partial(MinMax, erasing=DEEP)),
    "separate": ("u = 0, separate trunks", partial(ROLES, shared=False), MinMax),
    "attached": ("u = 0, attached mask (ours)", ROLES, partial(MinMax, mask=ATTACHED)),
    "batch": ("u = 0, T stretched over the batch", ROLES, partial(MinMax, mask=MaskRule(over="batch"))),
    "literal": ("u = 0, T not stretched", ROLES, partial(MinMax, mask=MaskRule(over="none"))),
    "label_u4": ("u = 4, trust: label only", ROLES, partial(MinMax, erasing=replace(DEEP, rule="label"))),
    "raw_u4": ("u = 4, untrusted: raw mask", ROLES, partial(MinMax, erasing=replace(DEEP, untrusted="raw"))),
    "official_u4": ("u = 4, as the official code", pair, OFFICIAL),
    "pretrained_u0": ("u = 0, pre-trained trunk", pretrained, MinMax),
    "pretrained_u4": ("u = 4, pre-trained trunk", pretrained, partial(MinMax, erasing=DEEP)),
}
WHY = (
    *(row("why", name, title, net, method, OURS) for name, (title, net, method) in VARIANTS.items()),
    *(
        part
        for reach in (9, 33)
        for part in (
            row(
                "why",
                f"reach{reach}_m",
                f"M alone, cells see {reach} pixels",
                partial(same_head, reach=reach),
                PooledMaps,
            ),
            row(
                "why", f"reach{reach}_u0", f"u = 0, cells see {reach} pixels", partial(ROLES, reach=reach), MinMax, OURS
            ),
        )
    ),
    row("why", "pretrained_m", "M alone, pre-trained trunk", partial(pretrained, alone=True), PooledMaps),
)


def tuning_row(name: str, net, method, rate: float) -> Experiment:
    presets = {"smoke": replace(PRESETS["smoke"], lr=rate)}
    title = f"{name}, learning rate {rate:g}"
    data = partial(digits, test=10)  # the test split is never looked at here
    return Experiment(
        f"minmax/tuning/{name}_{rate:g}",
        title,
        data,
        net,
        method,
        presets,
        (validation_error,),
        shown=("validation_error",),
    )


# The learning rate of all rows, chosen by classification error on the validation split with a seed that no row uses.
TUNING = tuple(
    tuning_row(name, net, method, rate)
    for name, net, method in (("wildcat_ours", same_head, PooledMaps), ("u0", ROLES, MinMax))
    for rate in (0.01, 0.03)
)
EXPERIMENTS = DIGITS + WHY + TUNING
