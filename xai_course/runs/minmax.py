"""Min-Max entropy: every row of its tables as data; our own rows on Textured Digits are in `minmax_digits`."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from ..data.batch import Batch, Splits
from ..data.folders import in_memory
from ..data.image_sets import cub5, glas, nuclei
from ..measure.localising import segmentation
from ..methods.erasing import Erasing
from ..methods.minmax import MinMax
from ..methods.wsol import FullSupervision, PooledMaps, TrivialMask
from ..nets.role_norm import norms_by_role
from ..nets.unet import UNet
from ..nets.wildcat import HEADS, Localiser, LocaliserClassifier, minmax_head, resnet_trunk
from ..preset import Preset
from . import minmax_digits
from .experiment import Experiment

WEIGHTS = "IMAGENET1K_V1"
DROPOUT = {"glas": 0.75, "cub5": 0.85}
SHOWN = ("error", "f1_plus", "f1_minus", "chosen_plus", "chosen_minus")
NEEDS = {
    "glas": "GlaS (free, from its owners after registration), ImageNet weights and a GPU",
    "cub5": "CUB-200-2011 (1.1 GB), ImageNet weights and a GPU",
}
PRINTED = {  # error, F1+, F1- as in Table 1
    "all_ones": {"glas": ("N/A", "66.01", "00.00"), "cub5": ("N/A", "23.72", "00.00")},
    "cam_avg": {"glas": ("1.25", "67.20", "18.90"), "cub5": ("11.72", "37.08", "69.54")},
    "cam_max": {"glas": ("0.00", "66.90", "23.26"), "cub5": ("45.51", "24.76", "79.97")},
    "cam_lse": {"glas": ("1.25", "65.83", "25.88"), "cub5": ("35.86", "34.79", "78.27")},
    "wildcat": {"glas": ("0.00", "67.11", "21.24"), "cub5": ("35.86", "35.63", "76.89")},
    "deep_mil": {"glas": ("2.50", "69.40", "50.41"), "cub5": ("18.62", "27.44", "56.60")},
    "u0": {"glas": ("1.25", "39.99", "65.30"), "cub5": ("19.31", "40.07", "89.99")},
    "u4": {"glas": ("0.00", "72.54", "66.51"), "cub5": ("10.34", "52.97", "90.69")},
    "unet": {"glas": ("N/A", "90.19", "88.52"), "cub5": ("N/A", "60.06", "93.73")},
}
MINUTES = {"u0": {"glas": "", "cub5": "65"}, "u4": {"glas": "", "cub5": "141 (2.16 times)"}}

glas480 = partial(glas, size=480)
cub5_480 = partial(cub5, size=480)
DATA = {"glas": glas480, "cub5": cub5_480}


def presets(epochs: int, batch: int, lr: float, decay: float) -> dict[str, Preset]:
    """The paper's recipe (a tenth every 40 epochs, not below 1e-7), and a tenth of its length for Colab."""
    how = {"optimizer": "sgd", "lr": lr, "weight_decay": decay, "schedule": "steps", "nesterov": True, "workers": 4}
    drops = min(round(math.log10(lr / 1e-7)), (epochs - 1) // 40)
    return {
        "paper": Preset(epochs, batch, milestones=tuple(40 * (i + 1) for i in range(drops)), **how),
        "colab": Preset(
            max(1, epochs // 10), batch, precision="bf16", milestones=tuple(4 * (i + 1) for i in range(drops)), **how
        ),
    }


OURS = presets(400, 8, 1e-3, 1e-5)
OTHERS = {"glas": presets(160, 32, 0.01, 1e-4), "cub5": presets(90, 8, 0.01, 1e-4)}


def turned(batch: Batch, generator: torch.Generator) -> Batch:
    """GlaS: each batch mirrored at random in both directions and turned by a random quarter, masks with it."""
    flip_x, flip_y, quarters = (
        int(torch.randint(n, (), generator=generator, device=generator.device)) for n in (2, 2, 4)
    )
    dims = [d for d, on in ((-1, flip_x), (-2, flip_y)) if on]

    def move(x: Tensor) -> Tensor:
        return torch.rot90(x.flip(dims), quarters, (-2, -1))

    return batch._replace(images=move(batch.images), masks=None if batch.masks is None else move(batch.masks))


def mirrored(batch: Batch, generator: torch.Generator) -> Batch:
    """CUB5: left and right exchanged in half of the images."""
    on = torch.rand(len(batch.images), generator=generator, device=generator.device) < 0.5
    images = torch.where(on.view(-1, 1, 1, 1), batch.images.flip(-1), batch.images)
    masks = None if batch.masks is None else torch.where(on.view(-1, 1, 1), batch.masks.flip(-1), batch.masks)
    return batch._replace(images=images, masks=masks)


AUGMENT = {"glas": turned, "cub5": mirrored}


def pooled(splits: Splits, *, head: str, depth: int = 18) -> Localiser:
    trunk, channels = resnet_trunk(depth, deep_stem=False, weights=WEIGHTS)
    return Localiser(trunk, HEADS[head](channels, len(splits.classes)))


def pair(splits: Splits, *, dropout: float, depth: int = 101, roles: bool = False) -> LocaliserClassifier:
    trunk, channels = resnet_trunk(depth, deep_stem=False, weights=WEIGHTS)
    heads = [minmax_head(channels, len(splits.classes), dropout=dropout) for _ in range(2)]
    net = LocaliserClassifier(trunk, *heads)
    return norms_by_role(net) if roles else net


def unet(splits: Splits) -> UNet:
    return UNet()


def nothing(splits: Splits) -> nn.Module:
    return nn.Identity()


WHOLE = partial(segmentation, size=8, multiple=32)
ERASING = partial(MinMax, erasing=Erasing(4, start_epoch=1))


def printed(row: str, data: str) -> dict[str, str]:
    return dict(zip(("error", "f1_plus", "f1_minus"), PRINTED[row][data])) if row in PRINTED else {}


def row(table: int, data: str, name: str, title: str, net, method, plan, reported=None) -> Experiment:
    return Experiment(
        f"minmax/table{table}/{data}/{name}",
        f"{title}, {data.upper() if data == 'cub5' else 'GlaS'}",
        DATA[data],
        net,
        method,
        plan,
        (WHOLE,),
        reported=printed(name, data) if reported is None else reported,
        needs=NEEDS[data],
        augment=AUGMENT[data],
        shown=SHOWN,
    )


def table1(data: str) -> tuple[Experiment, ...]:
    """All methods on one data set, then two rows that the comparison lacks: the same trunk, and statistics per role."""
    ours, drop = partial(pair, dropout=DROPOUT[data]), DROPOUT[data]
    return (
        row(1, data, "all_ones", "All-ones", nothing, partial(TrivialMask, kind="all_ones"), OTHERS[data]),
        *(
            row(1, data, name, title, partial(pooled, head=name), PooledMaps, OTHERS[data])
            for name, title in minmax_digits.POOLED.items()
        ),
        row(1, data, "u4", "Min-Max, u = 4", ours, ERASING, OURS),
        row(1, data, "unet", "U-Net, full supervision", unet, FullSupervision, OTHERS[data]),
        row(
            1, data, "wildcat_101", "WILDCAT, ResNet-101", partial(pooled, head="wildcat", depth=101), PooledMaps, OURS
        ),
        row(
            1, data, "u4_18", "Min-Max, u = 4, ResNet-18", partial(pair, dropout=drop, depth=18), ERASING, OTHERS[data]
        ),
        row(1, data, "u4_roles", "Min-Max, u = 4, statistics per role", partial(ours, roles=True), ERASING, OURS),
    )


def table2_and_3(data: str) -> tuple[Experiment, ...]:
    """With and without erasing: scores (Table 2) and training time (Table 3, in a record's seconds)."""
    net = partial(pair, dropout=DROPOUT[data])
    methods = {"u0": ("Min-Max, u = 0", MinMax), "u4": ("Min-Max, u = 4", ERASING)}
    return tuple(
        row(table, data, name, title, net, method, OURS, {"minutes": MINUTES[name][data]} if table == 3 else None)
        for table in (2, 3)
        for name, (title, method) in methods.items()
    )


def small_nuclei(preset: str = "smoke", *, seed: int = 0) -> Splits:
    """Stained tissue against fluorescence, with the nuclei as masks; decoded once."""
    return in_memory(nuclei(preset, seed=seed, size=64 if preset == "smoke" else 128))


def nuclei_row(like: Experiment) -> Experiment:
    """A row of the digits on the nuclei."""
    name = f"minmax/nuclei/{like.name.rsplit('/', 1)[1]}"
    needs = "the nuclei archive of the 2018 Data Science Bowl in XAI_COURSE_DATA"
    plans = minmax_digits.NUCLEI_PRESETS
    return Experiment(
        name, like.title, small_nuclei, like.net, like.method, plans, (segmentation,), needs=needs, shown=SHOWN
    )


NUCLEI = tuple(nuclei_row(e) for e in minmax_digits.DIGITS if e.name.rsplit("/", 1)[1] in minmax_digits.ON_NUCLEI)
TABLES = tuple(e for data in DATA for e in table1(data)) + tuple(e for data in DATA for e in table2_and_3(data))
EXPERIMENTS = TABLES + minmax_digits.EXPERIMENTS + NUCLEI
