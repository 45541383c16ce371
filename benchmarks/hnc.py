"""The HNC branch: maps of k classes gathered, chunked or all of them, against computing every map, per k.

Forward and backward of Eq. 2 from features, weight and bias, n = 1000 classes, c = 2048 channels, 7x7 cells, a batch of
32: ImageNet on a ResNet-50. Run with ``python -m benchmarks.hnc [--rounds 9] [--save "what machine this is"]``.
Gradients are compared before anything is timed; the peak is of everything allocated during one call.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.interleave import interleave, save, table
from xai_course.methods.hnc import mean_square, reduce_classes
from xai_course.methods.negatives import gathered_maps, route

KEEP_TOP = (5, 10, 50, 100, 200, 500, 999)
TARGETS = {5: 1 / 13, 10: 1 / 13, 50: 1 / 6, 100: 1.0, 200: 1 / 1.5, 500: 1.05, 999: 1.05}


def full_maps(features: Tensor, weight: Tensor, bias: Tensor, classes: Tensor) -> Tensor:
    """What one writes by hand: all n maps by one 1x1 convolution, then the chosen ones."""
    maps = F.conv2d(features, weight[:, :, None, None], bias)
    return maps.take_along_dim(classes[:, :, None, None], dim=1)


def step(maps_of: Callable, leaves: tuple[Tensor, ...], classes: Tensor) -> tuple[Tensor, ...]:
    """Penalty and its gradients with respect to features, weight and bias."""
    loss = reduce_classes(mean_square(maps_of(*leaves, classes)), reduction_k="mean")
    return torch.autograd.grad(loss, leaves)


def peak_memory(call: Callable[[], object]) -> float:
    """Largest sum of live allocations during ``call`` in MB, over what was live before (CPU allocator's own events)."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).cumsum(0)
    return live.max().item() / 2**20


def problem(batch: int, classes: int, channels: int, side: int, keep_top: int, seed: int = 0):
    """Random features, weight and bias that require gradients, and ``[B, k]`` distinct classes for each image."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, channels, side, side, generator=g, requires_grad=True)
    weight = torch.randn(classes, channels, generator=g).mul_(0.02).requires_grad_()
    bias = torch.zeros(classes, requires_grad=True)
    return (features, weight, bias), torch.rand(batch, classes, generator=g).topk(keep_top, dim=1).indices


def check(leaves: tuple[Tensor, ...], classes: Tensor) -> None:
    """The same gradients, before the same speed means anything."""
    for got, want in zip(step(gathered_maps, leaves, classes), step(full_maps, leaves, classes)):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shape", type=int, nargs=4, default=(32, 1000, 2048, 7), metavar=("B", "N", "C", "SIDE"))
    parser.add_argument("--keep-top", type=int, nargs="+", default=KEEP_TOP)
    parser.add_argument("--save", metavar="MACHINE", help="write data/results/benchmarks/hnc.json for this machine")
    arguments = parser.parse_args()
    results, memory = {}, {}
    for k in arguments.keep_top:
        leaves, classes = problem(*arguments.shape, k)
        check(leaves, classes)
        ways = {
            "full": lambda leaves=leaves, classes=classes: step(full_maps, leaves, classes),
            "xai_course": lambda leaves=leaves, classes=classes: step(gathered_maps, leaves, classes),
        }
        case = f"k = {k} ({route(arguments.shape[0], *arguments.shape[1:3], arguments.shape[3] ** 2, k)})"
        results[case] = interleave(ways, "full", rounds=arguments.rounds)
        memory[case] = {f"peak MB, {name}": round(peak_memory(call), 1) for name, call in ways.items()}
        print(table(f"{case}: CPU time relative to full, median [quartiles]", results[case]), memory[case], flush=True)
        ratio, wanted = results[case]["xai_course"].ratio, TARGETS.get(k, 1.05)
        lean = memory[case]["peak MB, xai_course"] <= 1.01 * memory[case]["peak MB, full"]
        verdicts = ("met" if ratio <= wanted else "MISSED", "met" if lean else "MISSED")
        print("  {:.1f} x faster, wanted {:.1f}: {}; memory: {}".format(1 / ratio, 1 / wanted, *verdicts), flush=True)
    if arguments.save:
        setting = {"batch, classes, channels, side": list(arguments.shape), "memory": memory}
        save("data/results/benchmarks/hnc.json", arguments.save, results, setting=setting)


if __name__ == "__main__":
    main()
