"""A ReFF training step against cross-entropy and against the other ways to a differentiable Grad-CAM.

ResNet-18, four layers, train mode, SGD step included; ``python -m benchmarks.reff [--rounds 9] [--save MACHINE]``,
needs captum. All routes are checked to give the same gradient of the penalty before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.interleave import interleave, save, table
from xai_course.data.batch import Batch
from xai_course.methods.base import CrossEntropy
from xai_course.methods.reff import ReFF, focusing_loss
from xai_course.preset import Clock

STAGES = ("layer1", "layer2", "layer3", "layer4")
TARGETS = (  # faster, slower, wanted
    ("xai_course", "cross-entropy", 1.9),
    ("xai_course", "one gradient per layer", 0.75),
    ("xai_course", "captum, differentiable", 1 / 3.4),
)
MEMORY_WANTED = 1.2


def make_batch(images: int, side: int) -> Batch:
    masks = torch.zeros(images, side, side, dtype=torch.bool)
    masks[:, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
    return Batch(torch.randn(images, 3, side, side), torch.arange(images) % 10, masks, torch.arange(images))


def per_layer(net: nn.Module, batch: Batch) -> Tensor:
    """One forward, then one ``autograd.grad`` for each layer: what a loop over layers does."""
    kept: list[Tensor] = []
    handles = [net.get_submodule(s).register_forward_hook(lambda m, i, o: kept.append(o)) for s in STAGES]
    logits = net(batch.images)
    for handle in handles:
        handle.remove()
    score = logits.gather(1, batch.labels[:, None]).sum()
    slopes = [torch.autograd.grad(score, a, create_graph=True)[0] for a in kept]
    maps = [(g.mean((2, 3), keepdim=True) * a).sum(1).relu() for g, a in zip(slopes, kept)]
    return F.cross_entropy(logits, batch.labels) + focusing_loss(maps, batch.masks).loss


def by_captum(net: nn.Module, batch: Batch) -> Tensor:
    """captum's public call, told to keep the graph: one forward and one gradient for each layer."""
    from captum.attr import LayerGradCam

    maps = []
    for stage in STAGES:
        cam = LayerGradCam(net, net.get_submodule(stage))
        found = cam.attribute(batch.images, batch.labels, relu_attributions=True, grad_kwargs={"create_graph": True})
        maps.append(found[:, 0])
    return F.cross_entropy(net(batch.images), batch.labels) + focusing_loss(maps, batch.masks).loss


def candidates(net: nn.Module, batch: Batch) -> dict[str, Callable[[], Tensor]]:
    """Total loss by every route."""
    ours, plain = ReFF(net, STAGES), CrossEntropy(net)
    return {
        "cross-entropy": lambda: next(plain.losses(batch, Clock()))["total"],
        "xai_course": lambda: next(ours.losses(batch, Clock()))["total"],
        "one gradient per layer": lambda: per_layer(net, batch),
        "captum, differentiable": lambda: by_captum(net, batch),
    }


def check(net: nn.Module, routes: dict[str, Callable[[], Tensor]]) -> None:
    """Every route but plain cross-entropy gives the same gradient, parameter by parameter, in eval mode and float64."""
    want = None
    for name in ("xai_course", "one gradient per layer", "captum, differentiable"):
        found = torch.autograd.grad(routes[name](), list(net.parameters()))
        for got, exact in zip(found, want or found):
            torch.testing.assert_close(got, exact, rtol=1e-8, atol=1e-10)
        want = want or found


def kept_bytes(net: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Bytes that a step's graph holds for its backward pass, parameters included: every storage counted once."""
    held = {p.untyped_storage().data_ptr(): p for p in net.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor  # kept, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total = loss()
    size = sum(t.untyped_storage().nbytes() for t in held.values())
    del total
    return size


def main() -> None:
    from torchvision.models import resnet18

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--save", metavar="MACHINE", help="write data/results/benchmarks/reff.json for this machine")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    batch, exact = make_batch(arguments.batch, arguments.side), resnet18(num_classes=10).double().eval()
    few = make_batch(4, arguments.side)
    check(exact, candidates(exact, few._replace(images=few.images.double())))
    net = resnet18(num_classes=10)
    routes, optimizer = candidates(net, batch), torch.optim.SGD(net.parameters(), 0.01)

    def step(loss: Callable[[], Tensor]) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    timings = interleave(
        {name: lambda r=r: step(r) for name, r in routes.items()}, "cross-entropy", rounds=arguments.rounds
    )
    print(table("ReFF step, ResNet-18, 4 layers: CPU time relative to cross-entropy, median [quartiles]", timings))
    stored = kept_bytes(net, routes["xai_course"]) / kept_bytes(net, routes["cross-entropy"])
    for faster, slower, wanted in TARGETS:
        ratio = timings[faster].ratio / timings[slower].ratio
        print(f"{faster} / {slower} = {ratio:.3f}, wanted <= {wanted:.3f}: {'met' if ratio <= wanted else 'MISSED'}")
    verdict = "met" if stored <= MEMORY_WANTED else "MISSED"
    print(f"bytes kept for backward {stored:.3f}, wanted <= {MEMORY_WANTED}: {verdict}")
    if arguments.save:
        setting = {"network": "ResNet-18, train, float32", "batch": arguments.batch, "side": arguments.side}
        setting["bytes kept for backward relative to cross-entropy"] = round(stored, 3)
        save("data/results/benchmarks/reff.json", arguments.save, {"step": timings}, setting=setting)


if __name__ == "__main__":
    main()
