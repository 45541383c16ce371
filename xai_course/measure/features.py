r"""How deep features cluster: homogeneity and completeness, angles within and between classes.

Homogeneity and completeness need a clustering. AMC-Loss (Sec. 4.1) does not say which; its released code takes the
*classifier's predictions*, which measures the confusion matrix and not the features. Both are here, under two names.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .._require import require
from ..data.batch import Dataset, Splits
from ..nets.modes import device_of
from .looking import Measurable, collect

SAMPLE = 2000  # images whose pairwise angles are measured: 2000^2 angles are 32 MB in float64


class Features(NamedTuple):
    """Deep features ``[N, p]``, logits ``[N, K]`` and labels ``[N]`` of a data set, on the CPU."""

    features: Tensor
    logits: Tensor
    labels: Tensor


@torch.no_grad()
def deep_features(method: Measurable, data: Dataset, *, size: int = 256) -> Features:
    """What ``method.net.embed`` and its head say of every image, in eval mode; the modes are put back afterwards.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> deep_features(CrossEntropy(small_cnn(width=2)), data).logits.shape
        torch.Size([4, 10])
    """
    net = method.net
    features, labels = collect(method, data, lambda b: (net.embed(b.images).float(), b.labels), size=size)
    return Features(features, net.head(features.to(device_of(method))).cpu(), labels)


def homogeneity_completeness(labels: Tensor, clusters: Tensor) -> tuple[float, float]:
    r"""Homogeneity :math:`1 - H(C|K)/H(C)` and completeness :math:`1 - H(K|C)/H(K)` (AMC-Loss, Sec. 4.1).

    C is the class, K the cluster. 1 is best; a single class (cluster) counts as perfectly homogeneous (complete).

    Args:
        labels, clusters: ``[N]`` integers, N at least 1; any names of classes and clusters.

    Raises:
        ValueError: empty, or of different shapes.

    Example:
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> torn = homogeneity_completeness(labels, torch.tensor([0, 1, 2, 3]))  # no cluster mixes two classes
        >>> round(torn[0], 4), round(torn[1], 4)
        (1.0, 0.5)
    """
    fit = labels.shape == clusters.shape and labels.ndim == 1 and len(labels)
    require(fit, "labels and clusters must both be [N]", tuple(labels.shape), tuple(clusters.shape))
    from sklearn.metrics import homogeneity_completeness_v_measure

    homogeneity, completeness, _ = homogeneity_completeness_v_measure(labels.cpu().numpy(), clusters.cpu().numpy())
    return float(homogeneity), float(completeness)


def kmeans(rows: Tensor, clusters: int, *, seed: int = 0) -> Tensor:
    """K-means cluster ``[N]`` of each row ``[N, p]``, the best of ten starts.

    Raises:
        ValueError: fewer rows than clusters, or a row that is not finite.

    Example:
        >>> found = kmeans(torch.tensor([[0.0], [0.1], [9.0]]), 2)
        >>> bool(found[0] == found[1] != found[2])
        True
    """
    fit = len(rows) >= clusters and rows.isfinite().all()
    require(fit, f"rows must be finite and at least clusters={clusters}, got {len(rows)} rows")
    from sklearn.cluster import KMeans

    found = KMeans(clusters, n_init=10, random_state=seed).fit_predict(rows.cpu().double().numpy())
    return torch.from_numpy(found).long()


def angles(features: Tensor, labels: Tensor, *, margin: float = 0.5) -> dict[str, float]:
    r"""Mean angle in radians between test images of one class and of different classes, over all pairs.

    Args:
        features: ``[N, p]``; rows shorter than 1e-6 have no direction and are left out.
        labels: ``[N]`` integers.
        margin: :math:`m_g`; ``active_negatives`` is the share of different-class pairs closer than it, which are the
            only ones that AMC-Loss pushes apart.

    Returns:
        ``angle_within``, ``angle_between``, ``active_negatives``; NaN where there is no such pair.

    Example:
        >>> found = angles(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
        >>> found["angle_within"], round(found["angle_between"], 4)
        (0.0, 1.5708)
    """
    alive = features.norm(dim=1) > 1e-6
    z, labels = torch.nn.functional.normalize(features[alive].cpu().double(), dim=1), labels[alive].cpu()
    i, j = torch.triu_indices(len(z), len(z), offset=1)
    theta = torch.acos((z @ z.T).clamp(-1, 1)[i, j])
    same = labels[i] == labels[j]
    return {
        "angle_within": float(theta[same].mean()),
        "angle_between": float(theta[~same].mean()),
        "active_negatives": float((theta[~same] < margin).double().mean()),
    }


def clusters(method: Measurable, splits: Splits, *, margin: float = 0.5) -> dict[str, float]:
    """Every cluster measure of the test set: a measure for `Experiment.measures`.

    ``homogeneity`` and ``completeness`` are those of k-means on the normalised features, with as many clusters as
    classes; ``..._of_predictions`` are the released code's. Angles are those of the first 2000 test images.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> from xai_course.methods.base import CrossEntropy
        >>> from xai_course.nets.convnets import small_cnn
        >>> data = ArrayData(torch.rand(4, 3, 16, 16), torch.arange(4), torch.rand(4, 16, 16) < 0.5)
        >>> splits = Splits("toy", data, data, data, tuple("abcd"), "")
        >>> 0 <= clusters(CrossEntropy(small_cnn(width=2)), splits)["homogeneity"] <= 1
        True
    """
    features, logits, labels = deep_features(method, splits.test)
    z = torch.nn.functional.normalize(features, dim=1)
    found: dict[str, float] = {}
    for suffix, groups in {"": kmeans(z, len(splits.classes)), "_of_predictions": logits.argmax(dim=1)}.items():
        names = (f"homogeneity{suffix}", f"completeness{suffix}")
        found |= zip(names, homogeneity_completeness(labels, groups))
    found["feature_length"] = float(features.norm(dim=1).mean())
    return found | angles(features[:SAMPLE], labels[:SAMPLE], margin=margin)
