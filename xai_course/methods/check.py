"""Does a loss on explanations train what it seems to train? Autograd against finite differences, and dead maps.

A map that is detached, or whose inner gradient was taken with ``retain_graph`` where ``create_graph`` was needed, gives
the right value of the loss and a wrong gradient or none, without an error. It has happened in published code: the
attention distillation of FACIL never trained anything (github.com/mmasana/FACIL, issues 9 and 37), and attributions of
common libraries carry no graph (github.com/meta-pytorch/captum, issue 361).
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .._require import require

Loss = Callable[[nn.Module, Any], Tensor]
VERDICTS = ("reached", "missing", "wrong", "idle")
STEPS = (1e-6, 1e-5, 1e-7)  # of the finite differences; a kink of a ReLU spoils one step, a wrong gradient all
DETACHED = "keep the graph of the map: no detach(), .data, item() or no_grad() between the network and the loss"
FIRST_ORDER = (
    "take the gradient inside the map with create_graph=True (retain_graph=True keeps memory, not the derivative), "
    "and detach neither channel weights nor features"
)
CONSTANT = (
    "explain the network that is trained, at a layer before its pooling: a map of one cell is constant once it is "
    "normalised, and a batch whose maps are all dead has no gradient"
)
ZERO_SUM = "divide maps by their sum or peak only where it is not zero (maps.unit_mass); take no root or log of zero"


@dataclass(frozen=True)
class ExplanationLossReport:
    """What `check_explanation_loss` found; printed, it says what is wrong and what cures it.

    Attributes:
        value: of the loss.
        reached: parameters whose gradient agrees with finite differences and is not zero.
        missing: parameters that move the loss and get no gradient.
        wrong: parameters whose gradient disagrees with finite differences.
        idle: parameters that do not move the loss, such as the bias of a last layer under a Grad-CAM.
        problems: one sentence and its cure for each fault.
    """

    value: float
    reached: tuple[str, ...]
    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    idle: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No fault was found."""
        return not self.problems

    def __str__(self) -> str:
        total = len(self.reached) + len(self.missing) + len(self.wrong)
        head = f"explanation loss {self.value:.4g}: {'ok' if self.ok else 'FAULTY'}"
        lines = [f"{head}, the right gradient reaches {len(self.reached)} of {total} parameters that it should"]
        lines += [f"- {problem}" for problem in self.problems]
        return "\n".join([*lines, *([f"  not in the loss: {_few(self.idle)}"] if self.idle else [])])


def check_explanation_loss(
    net: nn.Module,
    loss: Loss,
    batch: Any,
    *,
    reach: Sequence[str] = (),
    directions: int = 3,
    tolerance: float = 1e-2,
    seed: int = 0,
) -> ExplanationLossReport:
    """Whether the gradient of a loss on explanations is right, reaches what it should, and survives dead maps.

    Works on a float64 copy of the network on the CPU whose parameters are shifted a little, so that nothing sits on a
    kink or hides behind a zero; the network itself is not touched. Running statistics are held fixed: no gradient goes
    through them. A parameter should be reached when finite differences say that it moves the loss. Maps are made dead
    by a last linear or convolutional layer of zeros, then of negative weights.

    Args:
        net: the network; its train or eval mode is kept.
        loss: ``(net, batch) -> scalar``, the explanation term alone. It must use the network it is given.
        batch: whatever ``loss`` takes; tensors in tuples, lists and dictionaries are copied, floating ones in float64.
            A few images will do: the loss is computed at least ``2 * directions`` times for each parameter tensor.
        reach: names of modules or parameters that the loss is meant to train; it is a fault if one is not reached.
        directions: random directions for each parameter tensor.
        tolerance: largest difference, relative to a typical slope.
        seed: of directions, shift, and whatever is random in the loss (dropout).

    Returns:
        An `ExplanationLossReport`: ``.ok``, and readable when printed.

    Raises:
        ValueError: a loss that is no scalar tensor or rounds float64 to float32, a network without trainable
            parameters, or an unknown name.

    Example:
        >>> from xai_course.maps import grad_cam
        >>> from xai_course.methods.guidance import Energy
        >>> def energy(net, batch, graph=True):
        ...     images, labels, masks = batch
        ...     return Energy()(grad_cam(net, images, labels, ["1"], create_graph=graph).maps, masks)
        >>> _ = torch.manual_seed(0)
        >>> images = torch.rand(4, 1, 4, 4)
        >>> batch = images, torch.tensor([0, 1, 0, 1]), images[:, 0] > 0.5
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> print(check_explanation_loss(net, energy, batch))  # doctest: +ELLIPSIS
        explanation loss ...: ok, the right gradient reaches 3 of 3 parameters that it should
          not in the loss: 4.bias
        >>> print(check_explanation_loss(net, lambda *both: energy(*both, graph=False), batch))  # doctest: +ELLIPSIS
        explanation loss ...: FAULTY, the right gradient reaches 0 of 3 parameters that it should
        - no gradient at all: keep the graph of the map: no detach(), .data, item() or no_grad() ...
          not in the loss: 4.bias
    """
    unknown = set(reach) - {name for name, _ in [*net.named_modules(), *net.named_parameters()]}
    require(not unknown, "reach must name modules or parameters of the network", sorted(unknown))
    probe = _Probe(net, loss, batch, seed)
    value, gradients = probe.differentiate()
    if not math.isfinite(value):
        return ExplanationLossReport(value, (), (), (), (), (f"the loss is {value}: {ZERO_SUM}",))
    verdicts = {name: probe.verdict(name, g, value, directions, tolerance) for name, g in gradients.items()}
    reached, missing, wrong, idle = (tuple(name for name, v in verdicts.items() if v == kind) for kind in VERDICTS)
    problems = [*_gradient_problems(reached, missing, wrong), *_reach_problems(reach, reached), *probe.dead_problems()]
    return ExplanationLossReport(value, reached, missing, wrong, idle, tuple(problems))


def _gradient_problems(reached: Sequence[str], missing: Sequence[str], wrong: Sequence[str]) -> Iterator[str]:
    if missing and not reached and not wrong:
        yield f"no gradient at all: {DETACHED}"
    elif not reached and not missing and not wrong:
        yield f"no parameter moves the loss: {CONSTANT}"
    elif missing or wrong:
        missed = f"no gradient for {_few(missing)}, which move the loss" if missing else ""
        off = f"the gradient of {_few(wrong)} disagrees with finite differences" if wrong else ""
        yield f"{'; '.join(filter(None, (missed, off)))}: {FIRST_ORDER}"


def _reach_problems(reach: Sequence[str], reached: Sequence[str]) -> Iterator[str]:
    for name in reach:
        if not any(f"{each}.".startswith(f"{name}.") for each in reached):
            yield f"{name} is meant to be trained and is not reached: explain a layer whose map depends on it"


class _Probe:
    """A float64 copy of network and batch, and the loss as a function of nothing but its parameters."""

    def __init__(self, net: nn.Module, loss: Loss, batch: Any, seed: int):
        self.net, self.loss, self.seed = copy.deepcopy(net).double().cpu(), loss, seed
        self.batch = tree_map(_double, batch)
        self.generator = torch.Generator().manual_seed(seed)
        self.parameters = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        kind = type(net).__name__
        require(self.parameters, f"net must have parameters that require a gradient, got {kind} without any")
        with torch.no_grad():
            for p in self.parameters.values():
                p.add_(1e-2 * p.square().mean().sqrt().clamp_min(0.1) * self.direction(p))
        for norm in (m for m in self.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            norm.momentum = 0.0
        self.buffers = {name: buffer.clone() for name, buffer in self.net.named_buffers()}

    def direction(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=torch.float64)

    def value(self) -> Tensor:
        """The loss, each time from the same buffers and random numbers."""
        with torch.no_grad():
            for name, buffer in self.net.named_buffers():
                buffer.copy_(self.buffers[name])
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(self.seed)
            value = self.loss(self.net, self.batch)
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        require(got == (), "loss must return a scalar tensor", got)
        kept = value.dtype == torch.float64
        require(kept, f"loss must keep the network's float64 when checked, got {value.dtype}: drop its .float()")
        return value

    def differentiate(self) -> tuple[float, dict[str, Tensor | None]]:
        value = self.value()
        if not value.requires_grad:
            return value.item(), dict.fromkeys(self.parameters)
        gradients = torch.autograd.grad(value, list(self.parameters.values()), allow_unused=True)
        return value.item(), dict(zip(self.parameters, gradients))

    def verdict(self, name: str, gradient: Tensor | None, value: float, directions: int, tolerance: float) -> str:
        """One of the lists of the report for a parameter."""
        p = self.parameters[name]
        got = torch.zeros_like(p) if gradient is None else gradient
        norm, moves = float(got.norm()), False
        for _ in range(directions):
            direction = self.direction(p)
            expected = float((got * direction).sum())
            for step in STEPS:  # directions have entries of size 1: a slope is about as large as the gradient
                slope, noise = self.slope(p, direction, step), 16 * torch.finfo(p.dtype).eps * abs(value) / step
                if agrees := abs(slope - expected) <= tolerance * norm + noise:
                    break
            if not agrees:
                return "wrong" if norm else "missing"
            moves |= abs(slope) > noise
        return "reached" if norm and moves else "idle"

    @torch.no_grad()
    def slope(self, p: Tensor, direction: Tensor, step: float) -> float:
        before, ends = p.clone(), []
        for side in (step, -step):
            p.copy_(before + side * direction)
            ends.append(self.value().item())
        p.copy_(before)
        return (ends[0] - ends[1]) / (2 * step)

    def dead_problems(self) -> Iterator[str]:
        linear = [m.weight for m in self.net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        cases = {"zero": torch.zeros_like, "negative": lambda w: -torch.ones_like(w)}
        for word, make in cases.items() if linear else ():
            with torch.no_grad():
                linear[-1].copy_(make(linear[-1]))
            value, gradients = self.differentiate()
            bad = [name for name, g in gradients.items() if g is not None and not g.isfinite().all()]
            if bad or not math.isfinite(value):
                what = f"the gradient of {_few(bad)} is not finite" if math.isfinite(value) else f"the loss is {value}"
                yield f"on dead maps ({word} weights in the last layer) {what}: {ZERO_SUM}"


def _double(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    copied = value.detach().cpu().clone()
    copied = copied.double() if copied.is_floating_point() else copied
    return copied.requires_grad_(value.requires_grad)


def _few(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
