"""Figures of "Where does a network look?"."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tools.figures.common import Diagram, dots, running_image, trained, world
from xai_course.data.batch import batches
from xai_course.maps import class_activation_map, grad_cam
from xai_course.methods.base import Method
from xai_course.show import looking as show
from xai_course.show.style import CYCLE, image_grid

ROWS = {name: f"looking/digits/{name}" for name in ("telling", "silent", "shuffled", "untrained")}
TRIVIAL = {f"looking/digits/silent {metric}_gaussian": "blind" for metric in ("energy_in_mask", "pointing", "iou")}


def _answer(method: Method, images: Tensor) -> str:
    """ "says 7"."""
    return f"says {int(method.logits(images).argmax(1))}"


def running():
    """The running image in two worlds, and what both networks' maps make of it."""
    rows, labels = [], []
    for p, where in ((0.0, "background of\nits class"), (1.0, "another\nbackground")):
        batch, row, said = running_image(p), [], []
        for name, q in (("told", 0.0), ("not told", 1.0)):
            method = trained(p=q)
            found = grad_cam(method.net, batch.images, batch.labels, ["body.1", "body.3"]).maps
            row += [show.enlarged(m.detach(), batch.images.shape[-2:])[0] for m in found]
            said.append(f"{name} {_answer(method, batch.images)}")
        rows.append([batch.images[0], *row])
        labels.append(where + "\n" + "\n".join(said))
    columns = ("image", "told:\nstage 2", "told:\nstage 4", "not told:\nstage 2", "not told:\nstage 4")
    return image_grid(rows, columns=columns, labels=labels, size=1.15)


@torch.no_grad()
def _features() -> tuple[Tensor, nn.Linear, Tensor]:
    """Last maps ``[1, C, h, w]`` of the running image, the head, and the image."""
    batch, net = running_image(), trained().net
    return net.features(batch.images), net.head, batch.images[0]


@torch.no_grad()
def network():
    """Average and linear layer may change places: two ways to one logit."""
    features, head, image = _features()
    map_ = class_activation_map(features, head.weight, classes=torch.tensor([0]))[0]
    strongest = features[0].mean((1, 2)).topk(4).indices
    limit = float(map_.abs().max())
    sheet = Diagram(7.2, 2.7)
    sheet.picture(0.6, 1.35, image, 0.9, "image")
    sheet.box(1.75, 1.35, "layers", 0.75)
    sheet.arrow((1.05, 1.35), (1.38, 1.35))
    sheet.arrow((2.13, 1.35), (2.5, 1.35))
    sheet.stack(2.95, 1.25, [features[0, c] / features[0].max() for c in strongest], 0.75)
    sheet.text(3.05, 0.7, r"maps $F_c$", fontsize=8)
    up, down = CYCLE[0], CYCLE[1]
    sheet.arrow((3.75, 1.65), (4.3, 2.1), colour=up)
    sheet.box(4.7, 2.15, r"mean $f_c$", 0.8, colour=up)
    sheet.arrow((5.1, 2.15), (6.25, 2.15), r"weigh by $W_{kc}$", colour=up)
    sheet.arrow((3.75, 1.05), (4.3, 0.65), colour=down)
    sheet.text(3.78, 0.62, r"weigh by $W_{kc}$", fontsize=8, color=down)
    sheet.picture(4.75, 0.6, map_, 0.8, "", down, limit)
    sheet.text(4.75, 1.13, r"map $M_k$", fontsize=8, color=down)
    sheet.arrow((5.15, 0.6), (6.25, 0.6), "mean", colour=down)
    sheet.box(6.7, 1.35, r"logit $o_k$", 0.85)
    sheet.arrow((6.25, 2.15), (6.6, 1.6), colour=up)
    sheet.arrow((6.25, 0.6), (6.6, 1.1), colour=down)
    return sheet.figure


@torch.no_grad()
def gaps():
    """Three maps of one answer: as trained, with a map that all classes share, with the positions moved."""
    features, head, image = _features()
    pull = torch.linspace(-1, 1, features.shape[-1]).expand(features.shape[-2:])
    # the direction in channel space whose map looks most like a slope from left to right
    shared = torch.linalg.lstsq(features[0].flatten(1).T, pull.flatten()).solution * 15
    cases = {
        "as trained": (features, head.weight),
        "every class + one map": (features, head.weight + shared),
        "positions moved": (features.roll((3, -3), (2, 3)), head.weight),
    }
    sheet = Diagram(7.2, 1.75)
    sheet.picture(0.75, 0.98, image, 1.15, "image")
    for place, (title, (maps, weight)) in enumerate(cases.items()):
        map_ = class_activation_map(maps, weight, classes=torch.tensor([0]))[0]
        probability = (maps.mean((2, 3)) @ weight.T + head.bias).softmax(1)[0, 0]
        said = f"{title}\nprobability {probability:.3f}"
        sheet.picture(2.6 + 1.75 * place, 0.98, map_, 1.15, limit=float(map_.abs().max()))
        sheet.text(2.6 + 1.75 * place, 0.18, said, fontsize=8)
    return sheet.figure


def field():
    """What one cell of the last maps reads."""
    images = running_image().images.clone().requires_grad_()
    value = trained().net.features(images)[0, :, 1, 1].sum()
    (gradient,) = torch.autograd.grad(value, images)
    return show.seen_by_one_cell(images.detach()[0], gradient[0].abs().sum(0), (1, 1), (8, 8))


def coupled():
    """Two images of one class under a BatchNorm in training mode: alone, and asked for together."""
    torch.manual_seed(0)
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8), *pool, nn.Linear(8, 10))
    other = next(i for i in range(1, 99) if world().test.labels[i] == running_image().labels[0])
    images = torch.cat([running_image().images, world().test.__getitems__([other]).images])
    columns = []
    for classes, policy in (((0, 0), "frozen"), ((0, 0), "keep"), ((0, 4), "keep")):
        found = grad_cam(net, images, torch.tensor(classes), ["0"], batch_norm=policy).maps[0].detach()
        columns.append(found if found.max() > 1e-6 else torch.zeros_like(found))
    top = [c.amax((1, 2), keepdim=True).clamp_min(1e-12) for c in columns]
    rows = [[image, *(c[i] / t[i] for c, t in zip(columns, top))] for i, image in enumerate(images)]
    return image_grid(
        rows, columns=("image", "statistics\nfrozen", "both asked\nfor class 0", "asked for\n0 and 4"), size=1.3
    )


def blind():
    """How often an object covers each pixel, and three maps that never look."""
    masks = next(batches(world().train, 2000)).masks.float()
    often, (height, width) = masks.mean(0), masks.shape[1:]
    box = torch.zeros(height, width)
    box[height // 4 : -height // 4, width // 4 : -width // 4] = 1
    pixel = torch.zeros(height * width).index_fill(0, often.argmax(), 1).view(height, width)
    maps = {"whole image": torch.ones(height, width), "box": box, "best pixel": pixel}
    columns = ["share of images\nwhose digit is here", "a digit"]
    columns += [f"{name}\n{float((m * often).sum() / m.sum()):.2f}" for name, m in maps.items()]
    return image_grid([[often, running_image().masks[0].float(), *maps.values()]], columns=columns, size=1.35)


def results():
    """Four networks: accuracy, and energy of the map on the digit at two depths."""
    metrics = {
        "accuracy": "accuracy",
        "energy_body.1": "energy, stage 2",
        "energy_in_mask": "energy, CAM",
        "pointing": "pointing, CAM",
    }
    return dots(ROWS, metrics, lines=TRIVIAL)


def deletion():
    """The probability that stays while pixels are removed, by three orders."""
    metrics = {
        "deletion_auc": "by the own CAM",
        "deletion_auc_mask": "the true digit",
        "deletion_auc_random": "random pixels",
    }
    return dots({name: ROWS[name] for name in ("telling", "silent", "shuffled")}, metrics)
