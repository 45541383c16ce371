r"""AMC-Loss: cross-entropy plus a contrastive term measured in angles (Choi, Som and Turaga, 2020, arXiv:2004.09805).

In the paper's order: the angle, the loss of a pair (Eq. 1 and 2), the loss of a batch (Algorithm 1), the criteria, and
last the methods. Which rows pair up, which classes they have, and how a method trains with pairs, is in `pairs`.
"""

from math import pi

import torch
from torch import Tensor

from .._require import require
from .base import FunctionCriterion, full_precision
from .pairs import SHORTEST, PairMethod, contrastive, pair_up, reduced_pairs, upper_triangle


def unit_rows(features: Tensor) -> tuple[Tensor, Tensor]:
    r"""Points on the unit sphere, :math:`z_i = x_i / \|x_i\|` (Sec. 3).

    Args:
        features: ``[n, p]`` float32 or float64.

    Returns:
        ``z [n, p]`` and ``dead [n]`` bool. A row with :math:`\|x_i\| < 10^{-6}` has no direction: it is dead, its ``z``
        is exactly 0 and so is the gradient it gets. A row too long to be squared (1.8e19 in float32) becomes NaN.

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        (tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]]), tensor([False,  True]))
    """
    squares = features.square().sum(dim=1, keepdim=True)
    if _any(squares.isinf()):  # 1 / inf would make a finite row zero, silently
        squares = squares.masked_fill(squares.isinf(), torch.nan)
    dead = squares < SHORTEST**2
    if _any(dead):
        squares = squares.masked_fill(dead, torch.inf)
    return features * squares.rsqrt(), dead.squeeze(1)


def _any(flags: Tensor) -> bool:
    """Whether some flag is set; on an accelerator always True, since looking would make the host wait."""
    return flags.device.type != "cpu" or bool(flags.any())


def angle(u: Tensor, v: Tensor, *, form: str = "atan2", clip: float = 1e-7) -> Tensor:
    r"""Geodesic distance :math:`\theta = \cos^{-1}\langle u, v\rangle` of unit rows, in radians (Sec. 3).

    ``atan2`` computes :math:`2\,\mathrm{atan2}(\|u - v\|, \|u + v\|)`, the same number, accurate at both ends.
    ``arccos`` is the official code's form: its slope is infinite at :math:`\pm1`, so it needs a clip, and below
    :math:`\cos^{-1}(1 - \mathrm{clip})` it returns a constant without gradient.

    Args:
        u, v: ``[P, p]``, unit rows (zero rows are allowed and give a finite angle).
        form: ``"atan2"`` or ``"arccos"``.
        clip: distance kept from :math:`\pm1` in the arccos form (official code 1e-7, a PyTorch port 1e-5; 0 for none).

    Returns:
        ``[P]`` in :math:`[0, \pi]`. Where ``u == v`` or ``u == -v`` the direction is undefined and the gradient is 0.

    Raises:
        ValueError: different shapes or an unknown form.

    Example:
        >>> u, v = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> angle(u, v), angle(u, v, form="arccos", clip=1e-5)
        (tensor([1.5708, 0.0000]), tensor([1.5708, 0.0045]))
    """
    require(u.shape == v.shape and u.ndim == 2, "u and v must both be [P, p]", tuple(u.shape), tuple(v.shape))
    require(form in ("atan2", "arccos"), "form must be 'atan2' or 'arccos'", repr(form))
    if form == "arccos":
        return _clipped_arccos((u * v).sum(dim=1), clip)
    apart, together = torch.linalg.vector_norm(u - v, dim=1), torch.linalg.vector_norm(u + v, dim=1)
    return 2 * torch.atan2(apart, together + 1e-15)  # + 1e-15 only matters for two zero rows: no 0/0 behind it


def _clipped_arccos(cosine: Tensor, clip: float) -> Tensor:
    return torch.acos(cosine.clamp(-1 + clip, 1 - clip) if clip else cosine)


# --- the loss of a pair -----------------------------------------------------------------------------------------------


def amc_pair_loss(za: Tensor, zb: Tensor, same: Tensor, margin: float = 0.5) -> Tensor:
    r"""Angular margin contrastive loss of each pair (Eq. 2), :math:`L_A(z_i, z_j, S_{ij})`.

    Args:
        za, zb: ``[P, p]`` unit rows.
        same: ``[P]`` bool.
        margin: :math:`m_g` in radians, in :math:`(0, \pi]`; 0.5 is 28.6 degrees.

    Returns:
        ``[P]``, in :math:`[0, \pi^2]` for same-class pairs and :math:`[0, m_g^2]` for the others.

    Raises:
        ValueError: a margin that is no angle, or shapes that differ.

    Example:
        >>> za, zb = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
        >>> amc_pair_loss(za, zb, torch.tensor([True, False, False]))  # a right angle, twice; no angle at all
        tensor([2.4674, 0.0000, 0.2500])
    """
    _check_angle(margin)
    return contrastive(angle(za, zb), same, margin)


def _check_angle(margin: float) -> None:
    require(0 < margin <= pi, "margin must be an angle in (0, pi] radians", margin)


def euclidean_pair_loss(xa: Tensor, xb: Tensor, same: Tensor, margin: float = 1.0) -> Tensor:
    r"""Euclidean contrastive loss of each pair (Eq. 1) on the raw features, with :math:`m_e` = ``margin``. ``[P]``.

    The distance is the root of the *sum* of squares, as printed; where two rows coincide its gradient is taken as 0.

    Example:
        >>> xa, xb = torch.zeros(2, 2), torch.tensor([[3.0, 4.0], [0.3, 0.4]])
        >>> euclidean_pair_loss(xa, xb, torch.tensor([True, False]))
        tensor([25.0000,  0.2500])
    """
    return contrastive(_euclidean_distance(xa, xb), same, margin)


def _euclidean_distance(xa: Tensor, xb: Tensor) -> Tensor:
    require(xa.shape == xb.shape and xa.ndim == 2, "xa and xb must both be [P, p]", tuple(xa.shape), tuple(xb.shape))
    return torch.linalg.vector_norm(xa - xb, dim=1)


# --- the loss of a batch ----------------------------------------------------------------------------------------------


def angular_margin_contrastive(
    features: Tensor,
    classes: Tensor,
    *,
    margin: float = 0.5,
    pairing: str | int = "halves",
    form: str = "atan2",
    clip: float = 1e-7,
    reduction: str = "mean",
) -> Tensor:
    r"""AMC-Loss of a batch: Eq. 2 over the pairs of Algorithm 1.

    .. math:: \frac1h \sum_{i=1}^{h} L_A(z_i,\, z_{i+h},\, S_{i,\,i+h}), \qquad h = \lfloor n/2 \rfloor

    Args:
        features: ``[n, p]`` deep features x, not normalised; half precision is computed in float32, float64 is kept.
        classes: ``[n]`` integer, from `pair_classes`.
        margin: :math:`m_g` in radians.
        pairing: see `pair_up`. ``"all"`` is one matrix product, which has no accurate small-angle form: clipped arccos.
        form, clip: see `angle`.
        reduction: over the pairs, see `reduced_pairs`; ``"batch"`` is Algorithm 1 as printed.

    Returns:
        Scalar, float32 or float64. A pair with a dead row (see `unit_rows`) counts as 0; n < 2 gives 0, with a graph.

    Raises:
        ValueError: wrong shapes or arguments, or (checked on the CPU only: elsewhere the host would wait) features that
            are NaN or too long to be squared.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0], [0.0, 2.0]])
        >>> angular_margin_contrastive(features, torch.tensor([0, 0, 0, 1]))  # (pi/2)**2 and 0.5**2, two pairs
        tensor(1.3587)
    """
    _check_angle(margin)
    with full_precision(features):
        z, dead = unit_rows(_checked(features, classes))
        if pairing == "all":
            distance = upper_triangle(_clipped_arccos(z @ z.T, clip))
        else:
            distance = angle(*pair_up(z, pairing), form=form, clip=clip)
        losses = contrastive(distance, torch.eq(*pair_up(classes, pairing)), margin)
        return reduced_pairs(_alive(losses, dead, pairing), z, reduction)


def euclidean_contrastive(
    features: Tensor,
    classes: Tensor,
    *,
    margin: float = 1.0,
    pairing: str | int = "halves",
    normalised: bool = False,
    reduction: str = "mean",
) -> Tensor:
    r"""The paper's ``+Euclid`` baseline: Eq. 1 over the same pairs, with the same reduction, as the angular loss.

    Args:
        normalised: measure between the unit rows z instead of x; then ``margin`` is a chord, and :math:`2\sin(m_g/2)`
            matches the angle :math:`m_g`. All else as in `angular_margin_contrastive`.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0], [0.0, 2.0]])
        >>> [euclidean_contrastive(features, torch.tensor([0, 0, 0, 1]), normalised=n).item() for n in (False, True)]
        [13.0, 1.5]
    """
    with full_precision(features):
        x = _checked(features, classes)
        x, dead = unit_rows(x) if normalised else (x, torch.zeros_like(classes, dtype=torch.bool))
        if pairing == "all":
            distance = upper_triangle(torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist"))
        else:
            distance = _euclidean_distance(*pair_up(x, pairing))
        losses = contrastive(distance, torch.eq(*pair_up(classes, pairing)), margin)
        return reduced_pairs(_alive(losses, dead, pairing), x, reduction)


def _checked(features: Tensor, classes: Tensor) -> Tensor:
    fit = features.ndim == 2 and classes.shape == features.shape[:1] and not classes.is_floating_point()
    require(fit, "features must be [n, p] and classes [n] integer", tuple(features.shape), classes)
    return features if features.dtype == torch.float64 else features.float()


def _alive(losses: Tensor, dead: Tensor, pairing: str | int) -> Tensor:
    """The losses of the pairs, 0 where a row of the pair is dead."""
    return losses.masked_fill(torch.logical_or(*pair_up(dead, pairing)), 0) if _any(dead) else losses


# --- criteria and methods ---------------------------------------------------------------------------------------------


_NOTHING = (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))  # no feature at all: options alone can be wrong


class AngularMarginContrastive(FunctionCriterion, of=angular_margin_contrastive):
    r"""`angular_margin_contrastive` as a criterion, for anybody's training loop.

    .. math:: L = L_C + \lambda\, L_{\mathrm{pairs}}(x, \tilde y), \qquad \lambda = 0.1 \text{ in the paper}

    Args:
        margin, pairing, form, clip, reduction: see there. Called with ``features [n, p]`` and ``classes [n]``: the
            predicted ones (Eq. 3, `pair_classes`) or the labels.

    Raises:
        ValueError: a wrong option, when it is made.

    Example:
        >>> from torch import nn
        >>> body, head = nn.Sequential(nn.Flatten(), nn.Linear(4, 8)), nn.Linear(8, 3)
        >>> criterion = AngularMarginContrastive(margin=0.5)
        >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> features = body(images)
        >>> logits = head(features)
        >>> loss = nn.functional.cross_entropy(logits, labels) + 0.1 * criterion(features, logits.argmax(1))
        >>> loss.backward()
    """

    trial = _NOTHING


class EuclideanMarginContrastive(FunctionCriterion, of=euclidean_contrastive):
    """`euclidean_contrastive` as a criterion; all else as in `AngularMarginContrastive`.

    Example:
        >>> criterion = EuclideanMarginContrastive(margin=1.0)
        >>> criterion(torch.tensor([[0.0, 0.0], [0.6, 0.8]]), torch.tensor([1, 1]))
        tensor(1.)
    """

    trial = _NOTHING


class AmcLoss(PairMethod):
    """Cross-entropy plus `AngularMarginContrastive`. Defaults are the paper's; arguments as in `PairMethod`.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> from xai_course.preset import Clock
        >>> method = AmcLoss(small_cnn(4, width=2), margin=0.4, w_max=100)
        >>> [round(method.weight(Clock(epoch=e, epochs=30)), 3) for e in (0, 4, 8)]
        [0.067, 2.865, 10.0]
    """

    name, criterion = "amc", AngularMarginContrastive


class EuclideanContrastive(PairMethod):
    """Cross-entropy plus `EuclideanMarginContrastive`. Defaults are the paper's; arguments as in `PairMethod`.

    Example:
        >>> from xai_course.nets.convnets import small_cnn
        >>> EuclideanContrastive(small_cnn(4, width=2)).pair_loss
        EuclideanMarginContrastive(margin=1.0, pairing='halves', normalised=False, reduction='mean')
    """

    name, criterion = "euclid", EuclideanMarginContrastive
