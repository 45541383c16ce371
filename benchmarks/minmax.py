"""Min-Max entropy: what a step costs at depth u, in time against the passes it makes, and in memory.

Targets: step time at most 1.1 times what the passes of M and C explain; saved activations flat in u within 5 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.interleave import Timing, interleave, save, table
from xai_course.data.batch import Batch
from xai_course.measure.memory import saved_activations
from xai_course.methods.erasing import Erasing
from xai_course.methods.minmax import MinMax
from xai_course.nets.wildcat import LocaliserClassifier, minmax_head, resnet_trunk
from xai_course.preset import Clock

DEPTHS = (0, 1, 2, 4)


def network() -> LocaliserClassifier:
    torch.manual_seed(0)
    trunk, d = resnet_trunk(18, deep_stem=False)
    return LocaliserClassifier(trunk, minmax_head(d, 5), minmax_head(d, 5))


def batch(images: int = 8, side: int = 96) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(images, 3, side, side, generator=generator)
    return Batch(pixels, torch.arange(images) % 5, None, torch.arange(images))


def recursion(net: LocaliserClassifier, depth: int, data: Batch, joint: bool = False) -> Callable[[], None]:
    """One gradient of Algorithm 1; trust always given, so that all ``depth + 1`` steps run."""
    method = MinMax(net, erasing=Erasing(depth, rule="none"))

    def step() -> None:
        method.zero_grad()
        if joint:
            sum(terms["total"] for terms in method.losses(data, Clock())).backward()
            return
        for terms in method.losses(data, Clock()):
            terms["total"].backward()

    return step


def passes(net: LocaliserClassifier, depth: int, data: Batch) -> Callable[[], None]:
    """The bare passes: ``depth + 1`` of M and two of C, forward and backward; no mask, no trust, no erasing."""

    def step() -> None:
        net.zero_grad()
        for _ in range(depth + 1):
            nn.functional.cross_entropy(net.locate(data.images)[1], data.labels).backward()
        both = [nn.functional.cross_entropy(net.classify(data.images), data.labels) for _ in range(2)]
        sum(both).backward()

    return step


def times(rounds: int = 9) -> dict[str, dict[str, Timing]]:
    """Every depth for itself: ours against the bare passes of that depth, in turn, so that a ratio is of one round."""
    net, data = network(), batch()
    return {
        f"u={u}": interleave(
            {"bare passes": passes(net, u, data), "ours": recursion(net, u, data)}, "bare passes", rounds=rounds
        )
        for u in DEPTHS
    }


def peaks() -> dict[str, float]:
    """Peak of the saved activations in MB, step by step and as one graph."""
    net, data, found = network(), batch(), {}
    for joint in (False, True):
        for u in DEPTHS:
            with saved_activations(net) as account:
                recursion(net, u, data, joint)()
            found[f"{'one joint graph' if joint else 'step by step'}, u={u}"] = account.peak / 2**20
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", metavar="MACHINE", help="write data/results/benchmarks/minmax.json for this machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a thread that waits for others counts as CPU time
    timed = times(arguments.rounds)
    for depth, timings in timed.items():
        print(table(f"Min-Max step, ResNet-18, 8 images of 96x96, {depth}: CPU time against its passes", timings))
        ratio = timings["ours"].ratio
        print(f"{depth}: {ratio:.3f} of what the passes explain, wanted <= 1.100: {verdict(ratio <= 1.1)}")
    held = peaks()
    for name, megabytes in held.items():
        print(f"saved activations, {name}: {megabytes:.1f} MB")
    flat = [held[f"step by step, u={u}"] for u in DEPTHS]
    print(f"flat in u within 5 %: {verdict(max(flat) <= 1.05 * min(flat))}")
    if arguments.save:
        setting = {"network": "ResNet-18, shared trunk", "batch": 8, "side": 96, "saved_activations_mb": held}
        save("data/results/benchmarks/minmax.json", arguments.save, timed, setting=setting)


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


if __name__ == "__main__":
    main()
