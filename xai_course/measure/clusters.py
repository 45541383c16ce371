r"""How deep features cluster: homogeneity and completeness, angles within and between classes, Table 1's t-test.

Homogeneity and completeness need a clustering. AMC-Loss (Sec. 4.1) does not say which; its released code takes the
*classifier's predictions*, which measures the confusion matrix and not the features. Both are here, under two names.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..data.batch import batches
from ..nets.modes import device_of, evaluating

SAMPLE = 2000  # images whose pairwise angles are measured: 2000^2 angles are 32 MB in float64


class Features(NamedTuple):
    """Deep features ``[N, p]``, logits ``[N, K]`` and labels ``[N]`` of a data set, on the CPU."""

    features: Tensor
    logits: Tensor
    labels: Tensor


@torch.no_grad()
def deep_features(method, data, *, size: int = 256) -> Features:
    """What ``method.net.embed`` and its head say of every image, in eval mode; the modes are put back afterwards."""
    net = method.net
    device = device_of(net)
    with evaluating(method):
        parts = [(net.embed(b.images).float(), b.labels) for b in batches(data, size, device)]
        features = torch.cat([p[0] for p in parts])
        return Features(features.cpu(), net.head(features).cpu(), torch.cat([p[1] for p in parts]).cpu())


def homogeneity_completeness(labels: Tensor, clusters: Tensor) -> tuple[float, float]:
    r"""Homogeneity :math:`1 - H(C|K)/H(C)` and completeness :math:`1 - H(K|C)/H(K)` (AMC-Loss, Sec. 4.1).

    C is the class, K the cluster. 1 is best; a single class (cluster) counts as perfectly homogeneous (complete).

    Args:
        labels, clusters: ``[N]`` integers, N at least 1; any names of classes and clusters.

    Raises:
        ValueError: empty, or of different shapes.
    """
    if labels.shape != clusters.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels and clusters must both be [N], got {tuple(labels.shape)} and {tuple(clusters.shape)}")
    _, c = labels.unique(return_inverse=True)
    _, k = clusters.unique(return_inverse=True)
    joint = torch.zeros(int(c.max()) + 1, int(k.max()) + 1, dtype=torch.float64)
    joint.index_put_((c, k), torch.ones(len(c), dtype=torch.float64), accumulate=True)
    joint /= len(c)
    classes, groups, both = _entropy(joint.sum(1)), _entropy(joint.sum(0)), _entropy(joint)
    # H(C|K) = H(C, K) - H(K)
    homogeneity = 1.0 if classes == 0 else 1 - (both - groups) / classes
    completeness = 1.0 if groups == 0 else 1 - (both - classes) / groups
    return homogeneity, completeness


def _entropy(p: Tensor) -> float:
    return float(-torch.special.xlogy(p, p).sum())


def kmeans(rows: Tensor, clusters: int, *, seed: int = 0) -> Tensor:
    """K-means cluster ``[N]`` of each row ``[N, p]``, the best of ten starts.

    Raises:
        ValueError: fewer rows than clusters, or a row that is not finite.
    """
    if len(rows) < clusters or not torch.isfinite(rows).all():
        raise ValueError(f"rows must be finite and at least clusters={clusters}, got {len(rows)} rows")
    from sklearn.cluster import KMeans

    found = KMeans(clusters, n_init=10, random_state=seed).fit_predict(rows.double().numpy())
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
    """
    alive = features.norm(dim=1) > 1e-6
    z, labels = torch.nn.functional.normalize(features[alive].double(), dim=1), labels[alive]
    i, j = torch.triu_indices(len(z), len(z), offset=1)
    theta = torch.acos((z @ z.T).clamp(-1, 1)[i, j])
    same = labels[i] == labels[j]
    return {
        "angle_within": float(theta[same].mean()),
        "angle_between": float(theta[~same].mean()),
        "active_negatives": float((theta[~same] < margin).double().mean()),
    }


def clusters(method, splits, *, margin: float = 0.5) -> dict[str, float]:
    """Every cluster measure of the test set: a measure for `Experiment.measures`.

    ``homogeneity`` and ``completeness`` are those of k-means on the normalised features, with as many clusters as
    classes; ``..._of_predictions`` are the released code's. Angles are those of the first 2000 test images.
    """
    features, logits, labels = deep_features(method, splits.test)
    z = torch.nn.functional.normalize(features, dim=1)
    homogeneity, completeness = homogeneity_completeness(labels, kmeans(z, len(splits.classes)))
    of_predictions = homogeneity_completeness(labels, logits.argmax(dim=1))
    return {
        "homogeneity": homogeneity,
        "completeness": completeness,
        "homogeneity_of_predictions": of_predictions[0],
        "completeness_of_predictions": of_predictions[1],
        "feature_length": float(features.norm(dim=1).mean()),
        **angles(features[:SAMPLE], labels[:SAMPLE], margin=margin),
    }


def t_test(
    mean_a: float, sd_a: float, runs_a: int, mean_b: float, sd_b: float, runs_b: int, *, welch: bool = False
) -> tuple[float, float]:
    r"""Two-sided two-sample t-test from printed means and standard deviations (AMC-Loss, Table 1).

    .. math:: t = \frac{\bar a - \bar b}{s\sqrt{1/n_a + 1/n_b}}, \qquad
              s^2 = \frac{(n_a-1)s_a^2 + (n_b-1)s_b^2}{n_a+n_b-2}

    Args:
        mean_a, sd_a, runs_a: mean, *sample* standard deviation and number of runs of one arm; likewise b.
        welch: do not assume equal variances.

    Returns:
        t and the probability that ``|t|`` is at least as large if both arms had one mean.

    Raises:
        ValueError: fewer than two runs in an arm, or a negative deviation.
    """
    if min(runs_a, runs_b) < 2 or min(sd_a, sd_b) < 0:
        raise ValueError(
            f"each arm needs at least 2 runs and sd >= 0, got runs {runs_a}, {runs_b} and sd {sd_a}, {sd_b}"
        )
    from scipy.stats import ttest_ind_from_stats

    t, p = ttest_ind_from_stats(mean_a, sd_a, runs_a, mean_b, sd_b, runs_b, equal_var=not welch)
    return float(t), float(p)
