"""Relevant feature focusing (ReFF): a penalty on the network's own Grad-CAM outside the object.

Adachi and Yamaguchi, ICME 2022 (arXiv 2202.04237). Symbols: maps I_l, annotation s, layer weights w_l, ``balance``
for lambda. Eq. 1 and 2 (Grad-CAM and its channel weights) live in `xai_course.maps`, Eq. 3 and the whole objective
here, Eq. 4 and Algorithm 1 here and in `pseudo_annotator`.
"""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from .._require import require
from ..data.batch import Batch
from ..maps import BATCH_NORM, GradCam, enlarge, grad_cam, normalise
from ..maps.hooks import find_layers
from ..measure.looking import masks_of
from ..preset import Clock
from .base import Losses, Method, classification_loss
from .explanation_loss import ExplanationLoss, Focus, check_weights
from .guidance import as_criterion

PAPER_WEIGHTS = (15.0, 60.0, 250.0, 1000.0)  # Section 4.2, ResNet-50's layer1..layer4 at 224 pixels


def focusing_loss(
    maps: Tensor | Sequence[Tensor],
    relevant: Tensor,
    weights: Sequence[float] | None = None,
    penalty: str | ExplanationLoss = "outside",
) -> Focus:
    r"""Eq. 3 (and, with generated annotations, Eq. 4) with several layers.

    .. math:: \mathcal L = \frac1B \sum_b \sum_l w_l \, \| I'_l \odot (1 - s) \|_2^2

    Args:
        maps: one ``[B, h_l, w_l]`` per layer (or a single tensor), non-negative Grad-CAMs that still carry their graph.
        relevant: ``[B, H, W]`` in [0, 1], 1 where the network may look; soft values are allowed.
        weights: one :math:`w_l` per layer; None for squared strides (1 for losses that do not depend on the size).
        penalty: a name in `guidance.FAMILY` or a criterion of that family: "outside" is the paper's, "energy" the
            Energy loss, "l1" and "l2" those of supplement B.

    Returns:
        A scalar >= 0, mean over the batch; the unweighted per-layer terms; per layer the share of dead maps, which cost
        nothing and learn nothing: an escape to be watched.

    Raises:
        ValueError: unknown penalty, shapes or weights that do not fit, an empty batch, annotations outside [0, 1].

    Example:
        >>> from torch import tensor
        >>> maps, masks = tensor([[[1.0, 4.0], [6.0, 1.0]]]), tensor([[[0, 1], [0, 0]]])
        >>> print(f"{focusing_loss(maps, masks).loss:.4f}, {focusing_loss(maps, masks, penalty='energy').loss:.4f}")
        0.2639, 0.6667
    """
    return as_criterion(penalty, weights).look(maps, relevant)


def own_masks(batch: Batch) -> Tensor:
    """The data set's masks as annotations ``[B, H, W]`` float32: every image is annotated.

    Raises:
        ValueError: the data set has no masks.

    Example:
        >>> batch = Batch(torch.zeros(1, 3, 1, 2), torch.tensor([0]), torch.tensor([[[True, False]]]), torch.arange(1))
        >>> own_masks(batch)
        tensor([[[1., 0.]]])
    """
    return masks_of(batch).float()


class ReFF(Method):
    r"""Classification loss plus the focusing loss, :math:`\mathcal L_{main} + \lambda \mathcal L_{ReFF}`.

    Gradients are taken with respect to feature maps only, once for all layers, and the loop calls backward once.

    Args:
        net: a classifier with logits ``[B, K]``.
        layers: names of the modules whose outputs are explained, low to high.
        weights: :math:`w_l`; None for squared strides, the paper's own as `PAPER_WEIGHTS`.
        balance: :math:`\lambda`.
        penalty: "outside" (the paper), another name in `guidance.FAMILY`, or a criterion of that family.
        annotations: ``batch -> [B, H, W]`` in [0, 1]; default the data set's masks, `MixedAnnotations` for Algorithm 1.
        ramp: :math:`\lambda` rises linearly from 0 over this share of the run; 0 switches the ramp off. A ramp lets
            the shortcut be learned first.
        batch_norm: "keep" explains the training forward (BatchNorm then mixes the samples of a batch into each other's
            maps); "frozen" explains a second forward with running statistics, exact per sample and dearer.

    Raises:
        ValueError: an option outside its range.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> method = ReFF(small_cnn(3, width=2, seed=0), ["body.3", "body.4"], penalty="energy", balance=0.1)
        >>> masks = torch.ones(2, 32, 32, dtype=torch.bool)
        >>> batch = Batch(torch.rand(2, 3, 32, 32), torch.tensor([0, 2]), masks, torch.arange(2))
        >>> next(method.losses(batch, Clock()))["focusing"]  # everything is relevant
        tensor(0.)
    """

    def __init__(
        self,
        net: nn.Module,
        layers: Sequence[str],
        *,
        weights: Sequence[float] | None = None,
        balance: float = 1.0,
        penalty: str | ExplanationLoss = "outside",
        annotations: Callable[[Batch], Tensor] = own_masks,
        ramp: float = 0.0,
        batch_norm: str = "keep",
    ):
        super().__init__(net)
        find_layers(net, layers)
        if weights is not None:
            check_weights(weights, len(layers))
        require(balance >= 0 and 0 <= ramp <= 1, "balance must be >= 0 and ramp lie in [0, 1]", balance, ramp)
        require(batch_norm in BATCH_NORM, f"batch_norm must be one of {BATCH_NORM}", repr(batch_norm))
        self.layers, self.weights, self.balance, self.penalty = tuple(layers), weights, balance, str(penalty)
        self.criterion = as_criterion(penalty, weights)
        require(self.criterion.reduction != "none", "the penalty's reduction must be mean or sum", self.criterion)
        self.annotations, self.ramp, self.batch_norm = annotations, ramp, batch_norm

    def focus(self, batch: Batch) -> tuple[Focus, Tensor]:
        """The focusing loss of a batch and the logits ``[B, K]`` of the training forward.

        Raises:
            ValueError: multi-label batches (which class to explain is not defined), or missing masks.
        """
        require(batch.labels.ndim == 1, "labels must be [B] int64 for ReFF", tuple(batch.labels.shape))
        relevant = self.annotations(batch)
        answers = self.net(batch.images) if self.batch_norm == "frozen" else None
        maps, logits = self.cams(batch, self.batch_norm)
        return self.criterion.look(maps, relevant), logits if answers is None else answers

    def cams(self, batch: Batch, batch_norm: str) -> GradCam:
        """Grad-CAM of the true classes at all layers, differentiable; and the logits of the same forward.

        Raises:
            ValueError: the logits carry no gradient (an argmax, a detach, a rounding on the way).
        """
        return grad_cam(self.net, batch.images, batch.labels, self.layers, create_graph=True, batch_norm=batch_norm)

    def current_balance(self, clock: Clock) -> float:
        """:math:`\\lambda` at this step: the ramp, then constant."""
        done = (clock.step + 1) / (clock.epochs * clock.steps_per_epoch)
        return self.balance * (min(1.0, done / self.ramp) if self.ramp else 1.0)

    def losses(self, batch: Batch, clock: Clock) -> Iterator[Losses]:
        focus, logits = self.focus(batch)
        main = classification_loss(logits, batch.labels)
        total, dead = main + self.current_balance(clock) * focus.loss, zip(self.layers, focus.dead)
        terms = {"total": total, "classification": main.detach(), "focusing": focus.loss.detach()}
        yield terms | {f"dead {name}": share for name, share in dead}

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        """Grad-CAM of the last named layer for ``classes [B]``: ``[B, H, W]`` in [0, 1]."""
        maps, _ = grad_cam(self.net, images, classes, self.layers[-1:])
        return normalise(enlarge(maps[0], images.shape[-2:]))
