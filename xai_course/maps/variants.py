r"""From features and their gradient to a map: Grad-CAM and three relatives, each one line of its paper.

All read features :math:`A_d(i)` and :math:`G_d(i) = \partial s / \partial A_d(i)`, ``[B, D, h, w]``, and give
``[B, h, w]`` before the last ReLU. Behind global average pooling and a linear layer the gradient is the same at all
positions: HiResCAM is then the CAM divided by :math:`hw`, as Grad-CAM is.
"""

import torch
from torch import Tensor


def grad_cam_sum(features: Tensor, gradient: Tensor) -> Tensor:
    r"""Grad-CAM (Selvaraju et al., ICCV 2017, Eq. 1-2): :math:`\sum_d \bar G_d A_d(i)`, :math:`\bar G` the mean.

    Example:
        >>> grad_cam_sum(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[4.0, 0.0]]]]))
        tensor([[[2., 4.]]])
    """
    return torch.einsum("bd,bdhw->bhw", gradient.mean(dim=(2, 3)), features)


def hirescam_sum(features: Tensor, gradient: Tensor) -> Tensor:
    r"""HiResCAM (Draelos and Carin, arXiv 2011.08891): :math:`\sum_d G_d(i) A_d(i)`, the gradient where it acts.

    The paper keeps the sign (``relu=False``): behind piecewise linear layers without biases the map then adds up to the
    logit. In front of a LayerNorm alone it is zero, as the norm does not see the length of what it reads.

    Example:
        >>> hirescam_sum(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[4.0, 0.0]]]]))
        tensor([[[4., 0.]]])
    """
    return (gradient * features).sum(1)


def layer_cam_sum(features: Tensor, gradient: Tensor) -> Tensor:
    r"""LayerCAM (Jiang et al., IEEE TIP 2021): :math:`\sum_d \mathrm{ReLU}(G_d(i)) A_d(i)`.

    Example:
        >>> layer_cam_sum(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[4.0, -3.0]]]]))
        tensor([[[4., 0.]]])
    """
    return (gradient.relu() * features).sum(1)


def grad_cam_plus_plus_sum(features: Tensor, gradient: Tensor) -> Tensor:
    r"""Grad-CAM++ (Chattopadhay et al., WACV 2018): weights that do not shrink with the area of the evidence.

    .. math:: w_d = \sum_i \alpha_d(i)\, \mathrm{ReLU}(G_d(i)), \qquad
              \alpha_d(i) = \frac{G_d(i)^2}{2 G_d(i)^2 + \sum_j A_d(j)\, G_d(i)^3} = \frac{1}{2 + G_d(i) \sum_j A_d(j)}

    The paper explains :math:`e^s` and takes the network as piecewise linear, so that all derivatives are powers of G;
    its common factor :math:`e^s > 0` is left out here, which changes the scale of a map and not its shape. Only the
    positive part of A enters the sum: for the paper's maps, behind a ReLU, it is A itself; on signed maps the printed
    fraction has a pole.

    Example:
        >>> grad_cam_plus_plus_sum(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[2.0, -3.0]]]]))
        tensor([[[0.2500, 0.5000]]])
    """
    positive = gradient.relu()
    mass = features.relu().sum(dim=(2, 3), keepdim=True)
    return torch.einsum("bd,bdhw->bhw", (positive / (2 + positive * mass)).sum(dim=(2, 3)), features)


VARIANTS = {
    "grad_cam": grad_cam_sum,
    "hirescam": hirescam_sum,
    "layer_cam": layer_cam_sum,
    "grad_cam++": grad_cam_plus_plus_sum,
}
