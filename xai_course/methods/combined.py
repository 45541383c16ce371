"""Several methods on one network: the classification loss counts once, every regulariser with its own weight.

The network is a submodule of the whole and of every part, so that what a part owns beside it (centres, attention) is
trained, saved and moved too. PyTorch counts a shared parameter once: one entry in ``parameters()``, one copy when a
checkpoint is written; only its names repeat in ``state_dict()``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch
from ..preset import Clock
from .base import Losses, Method
from .reff import ReFF

STRENGTHS = ("balance", "label_smoothing")


class Combined(Method):
    r"""The sum of what k methods add to cross-entropy, :math:`L = L_C + \sum_i \lambda_i R_i`.

    Each part computes :math:`L_C + k\lambda_i R_i`, and the mean of the k totals is the sum above. This is exact where
    a part's loss is linear in its strength (AMC-Loss, HNC, ReFF and label smoothing are) and a second forward pass
    gives the same logits (no dropout; BatchNorm sees the same batch each time). It costs k forward passes.

    Args:
        net: the shared network; its class activation map is the explanation.
        parts: each called with the network gives a `Method` that yields once per batch; each takes a ``balance`` or a
            ``label_smoothing`` as keyword, and is made with k times what it has without.

    Raises:
        ValueError: fewer than two parts, or one without a strength.

    Example:
        >>> from functools import partial
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.methods.reff import ReFF
        >>> from xai_course.nets.convnets import small_cnn
        >>> parts = [partial(CrossEntropy, label_smoothing=0.1), partial(ReFF, layers=["body.4"], balance=3.0)]
        >>> smoothed, focused = Combined(small_cnn(3, width=2), parts).parts
        >>> smoothed.label_smoothing, focused.balance
        (0.2, 6.0)
    """

    def __init__(self, net: nn.Module, parts: Sequence[Callable[..., Method]]):
        super().__init__(net)
        require(len(parts) >= 2, "parts must be at least two methods", len(parts))
        self.parts = nn.ModuleList(strengthened(part, net, len(parts)) for part in parts)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        found = [next(iter(cast(Method, part).losses(batch, clock))) for part in self.parts]
        terms = {f"{type(p).__name__} {k}": v for p, f in zip(self.parts, found) for k, v in f.items()}
        first, *others = [each["total"] for each in found]
        yield terms | {"total": sum(others, first) / len(found)}


def strengthened(part: Callable[..., Method], net: nn.Module, factor: float) -> Method:
    """The method that ``part`` makes on ``net``, with ``factor`` times the strength it would have: set, or by default.

    Raises:
        ValueError: the method has none of `STRENGTHS`.

    Example:
        >>> from functools import partial
        >>> from xai_course.methods.base import CrossEntropy
        >>> strengthened(partial(CrossEntropy, label_smoothing=0.1), nn.Linear(2, 2), 2).label_smoothing
        0.2
    """
    method = part(net)
    own = [name for name in STRENGTHS if hasattr(method, name)]
    require(own, f"parts must have one of {', '.join(STRENGTHS)}", type(method).__name__)
    return part(net, **{own[0]: factor * getattr(method, own[0])})


class Decision(nn.Module):
    """What a method decides with, as a network: ``forward`` gives the method's logits.

    Example:
        >>> from xai_course.methods.base import CrossEntropy
        >>> Decision(CrossEntropy(nn.Identity()))(torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.]])
    """

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> Tensor:
        return self.method.logits(images)


class Focused(Method):
    r"""ReFF on the logits that another method decides with: :math:`L = L_{base} + \lambda L_{ReFF}`.

    Where the base weighs patches or pools maps in its own way, its network's ``forward`` is not its decision, so
    `Combined` would focus the wrong one. It costs a second forward pass.

    Args:
        net: the network of the base.
        base: called with the network gives a `Method` that yields once per batch; its map is the explanation.
        focus: called with the decision and ``layers`` gives a `ReFF`.
        layers: names of modules of ``net``.

    Example:
        >>> from functools import partial
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> Focused(small_cnn(3, width=2), CrossEntropy, partial(ReFF, balance=3.0), ["body.4"]).focus.layers
        ('method.net.body.4',)
    """

    def __init__(
        self,
        net: nn.Module,
        base: Callable[[nn.Module], Method],
        focus: Callable[..., ReFF],
        layers: Sequence[str],
    ):
        super().__init__(net)
        method = base(net)
        self.base = method
        self.focus = focus(Decision(method), layers=[f"method.net.{layer}" for layer in layers])

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        terms, (focus, _) = next(iter(self.base.losses(batch, clock))), self.focus.focus(batch)
        total = terms["total"] + self.focus.current_balance(clock) * focus.loss
        yield {**terms, "focusing": focus.loss.detach(), "dead": focus.dead.mean(), "total": total}

    def logits(self, images: Tensor) -> Tensor:
        return self.base.logits(images)

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        return self.base.explain(images, classes)
