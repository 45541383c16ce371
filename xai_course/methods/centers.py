"""Losses that pull the pooled features of an image to one point of its class: center loss and L-GM."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Criterion, check_labels, full_precision, reduced, wide


def center_loss(embeddings: Tensor, labels: Tensor, centers: Tensor, reduction: str = "mean") -> Tensor:
    r"""Wen et al. 2016, Eq. 2, :math:`\frac12 \|x - c_y\|^2` of each image (they print the sum).

    Example:
        >>> center_loss(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([0, 1]), torch.zeros(2, 2), "none")
        tensor([12.5000,  0.5000])
    """
    check_labels(labels, len(embeddings), len(centers))
    return reduced(0.5 * (wide(embeddings) - centers[labels]).square().sum(dim=1), reduction)


@torch.no_grad()
def move_centers(centers: Tensor, embeddings: Tensor, labels: Tensor, rate: float = 0.5) -> None:
    r"""Wen et al. 2016, Eq. 4, in place: :math:`c_j \gets c_j - \alpha \sum_{y_i=j}(c_j - x_i) / (1 + N_j)`.

    Example:
        >>> centers = torch.zeros(2, 1)
        >>> move_centers(centers, torch.tensor([[3.0], [9.0]]), torch.tensor([0, 0]))
        >>> centers
        tensor([[2.],
                [0.]])
    """
    members = F.one_hot(labels, len(centers)).to(embeddings.dtype).T
    count = members.sum(dim=1, keepdim=True)
    centers.sub_(rate * ((count * centers - members @ embeddings) / (1 + count)).to(centers.dtype))


class CenterLoss(Criterion):
    """`center_loss` as a criterion that owns the centres: in train mode they move after each call, in eval mode not.

    Args:
        classes, size: the shape of ``centers``, a buffer that starts at 0 and is saved with the criterion.
        rate: alpha of `move_centers`.

    Example:
        >>> criterion = CenterLoss(classes=2, size=1)
        >>> embeddings, labels = torch.tensor([[3.0], [9.0]], requires_grad=True), torch.tensor([0, 0])
        >>> [criterion(embeddings, labels).item() for _ in range(2)]
        [22.5, 12.5]
    """

    centers: Tensor

    def __init__(self, classes: int, size: int, rate: float = 0.5, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.rate = rate
        self.register_buffer("centers", torch.zeros(classes, size))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        loss = center_loss(embeddings, labels, self.centers.clone(), **self.options)
        if self.training:
            move_centers(self.centers, embeddings.detach(), labels, self.rate)
        return loss


def gaussian_logits(embeddings: Tensor, means: Tensor) -> Tensor:
    r"""L-GM (Wan et al. 2018) with identity covariance: :math:`-\frac12\|x-\mu_o\|^2`, ``[B, c], [n, c] -> [B, n]``.

    Subtracts before it squares, in float32 at least, also under autocast: the expanded product cancels where features
    are long (-8 for -0.003 at length 1000). Holds B n c numbers.

    Example:
        >>> gaussian_logits(torch.tensor([[1000.0, 0.0]]), torch.tensor([[1000.0, 0.0], [1000.0, 0.125]]))
        tensor([[-0.0000, -0.0078]])
    """
    with full_precision(embeddings):
        return -0.5 * (wide(embeddings)[:, None] - wide(means)).square().sum(dim=2)


class LargeMarginGaussianLoss(Criterion):
    r"""L-GM loss with identity covariance, called with ``embeddings [B, c], means [n, c], labels [B]``.

    .. math:: -\log\frac{e^{-(1+\alpha) d_y}}{e^{-(1+\alpha) d_y} + \sum_{o \ne y} e^{-d_o}} + \lambda\, d_y,
              \qquad d_o = \tfrac12 \|x - \mu_o\|^2

    Args:
        margin: :math:`\alpha`, the true class's distance counts ``1 + margin`` times.
        balance: :math:`\lambda`, weighs the likelihood term.

    Example:
        >>> means = torch.nn.Parameter(torch.eye(3))
        >>> criterion = LargeMarginGaussianLoss(margin=0.0, balance=0.0)
        >>> criterion(torch.eye(3), means, torch.arange(3))  # distances 0 and 1
        tensor(0.5514, grad_fn=<AddBackward0>)
    """

    def __init__(self, margin: float = 0.1, balance: float = 0.01, reduction: str = "mean"):
        super().__init__(margin=margin, balance=balance, reduction=reduction)
        self.margin, self.balance, self.reduction = margin, balance, reduction

    def terms(self, embeddings: Tensor, means: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The classification and the likelihood term, each reduced, the latter before ``balance``."""
        check_labels(labels, len(embeddings), len(means))
        logits = gaussian_logits(embeddings, means)
        own = F.one_hot(labels, len(means))
        answers = F.cross_entropy(logits * (1 + self.margin * own), labels, reduction="none")
        return reduced(answers, self.reduction), reduced(-logits.gather(1, labels[:, None])[:, 0], self.reduction)

    def forward(self, embeddings: Tensor, means: Tensor, labels: Tensor) -> Tensor:
        answer, likelihood = self.terms(embeddings, means, labels)
        return answer + self.balance * likelihood
