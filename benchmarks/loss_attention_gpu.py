"""Training throughput of the paper's networks on an accelerator, as a share of its measured matrix rate.

Run: ``python benchmarks/loss_attention_gpu.py [--net resnet18] [--batch 512]``. bfloat16, channels_last, images already
on the device. Without a GPU it runs the small network once, to show that the script works; nothing is saved then.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
from benchmarks.interleave import Timing, save
from xai_course.data.batch import Batch
from xai_course.methods.patch_heads import LossAttention
from xai_course.nets.patch_nets import patch_net
from xai_course.preset import Clock

RESULT = Path(__file__).parents[1] / "data/results/benchmarks/loss_attention_gpu.json"
CIFAR_TRAIN = 45_000  # images in an epoch: 5,000 of the 50,000 are held out


class Rate(NamedTuple):
    seconds: float
    flops: float

    @property
    def tera(self) -> float:
        return self.flops / self.seconds / 1e12


def timed(job, device: str, rounds: int) -> float:
    """Seconds per call, after three untimed ones."""
    for _ in range(3):
        job()
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    for _ in range(rounds):
        job()
    wait()
    return (time.perf_counter() - start) / rounds


def matrix_rate(device: str, side: int, rounds: int) -> Rate:
    """A square bfloat16 matrix product: what the machine can do at best."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return Rate(timed(lambda: a @ b, device, rounds), 2 * side**3)


def training_rate(name: str, device: str, batch_size: int, rounds: int) -> Rate:
    """One step of Eq. 9: forward, backward, SGD."""
    method = LossAttention(patch_net(name, 10, seed=0)).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(method.parameters(), 0.1, momentum=0.9)
    images = torch.rand(batch_size, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    index = torch.arange(batch_size, device=device)
    batch = Batch(images, index % 10, None, index)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            terms = next(iter(method.losses(batch, Clock())))
        terms["total"].backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    return Rate(timed(step, device, rounds), counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", default="resnet18")
    parser.add_argument("--batch", type=int, default=512)
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    device, name = ("cuda", options.net) if gpu else ("cpu", "small")
    best = matrix_rate(device, 8192 if gpu else 256, 20 if gpu else 2)
    batch = options.batch if gpu else 16
    step = training_rate(name, device, batch, 10 if gpu else 1)
    share = step.tera / best.tera
    epoch = step.seconds * CIFAR_TRAIN / batch
    print(f"matrix product {best.tera:.3g} TFLOP/s; {name}, batch {batch}: {step.tera:.3g} TFLOP/s, share {share:.0%}")
    print(f"{1000 * step.seconds:.1f} ms per step, {epoch:.1f} s per CIFAR-10 epoch of {CIFAR_TRAIN} images")
    if gpu:
        row = Timing(share, share, share, 1000 * step.seconds)
        save(RESULT, torch.cuda.get_device_name(), {f"{name}, batch {batch}, share of matrix rate": {"step": row}})


if __name__ == "__main__":
    main()
