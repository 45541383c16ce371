"""Networks: AMC-Loss's Table 2 layer by layer, parameter counts, map sizes, noise in training only."""

import pytest
import torch

from xai_course.nets.convnets import GaussianNoise, amc_figure_net, amc_net, small_cnn


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: amc_net(), 3_121_802),
        (lambda: amc_net(20), 3_123_092),
        (lambda: amc_net(channels=1), 3_119_498),
        (lambda: amc_net(released=True), 774_986),
        (lambda: amc_figure_net(features=64), 120_650),
        (lambda: amc_figure_net(features=3), 112_110),
        (lambda: amc_figure_net(features=2), 111_970),
        (lambda: amc_figure_net(features=3, linear=True), 112_110),
    ],
)
def test_parameter_counts_of_table_2(build, count):
    assert parameters(build()) == count


def test_counts_of_the_tensorflow_original_without_batchnorm_scale():
    """The original trains the shift only: one number per BatchNorm channel less."""
    for released, count in ((False, 3_119_754), (True, 774_026)):
        net = amc_net(released=released)
        scales = sum(m.weight.numel() for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
        assert parameters(net) - scales == count


@pytest.mark.parametrize(
    ("net", "image", "maps"),
    [
        (amc_net(), (3, 32, 32), (128, 6, 6)),
        (amc_net(channels=1), (1, 28, 28), (128, 5, 5)),
        (amc_net(released=True), (3, 32, 32), (128, 6, 6)),
        (amc_figure_net(), (1, 28, 28), (3, 5, 5)),
        (small_cnn(), (3, 32, 32), (64, 8, 8)),
    ],
)
def test_final_maps(net, image, maps):
    images = torch.rand(2, *image)
    net.eval()
    with torch.no_grad():
        assert net.features(images).shape == (2, *maps)
        assert net.embed(images).shape == (2, maps[0])
        assert net(images).shape == (2, 10)
        assert torch.allclose(net(images), net.head(net.embed(images)))


def test_layers_of_table_2_top():
    """Kernel sizes, widths and paddings in the printed order."""
    convs = [m for m in amc_net().modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.padding) for c in convs] == [
        (3, 128, 3, "same"),
        (128, 128, 3, "same"),
        (128, 128, 3, "same"),
        (128, 256, 3, "same"),
        (256, 256, 3, "same"),
        (256, 256, 3, "same"),
        (256, 512, 3, "valid"),
        (512, 256, 1, "same"),
        (256, 128, 1, "same"),
    ]
    slopes = [m.negative_slope for m in amc_net().modules() if isinstance(m, torch.nn.LeakyReLU)]
    assert slopes == [0.1] * 9


def test_noise_is_added_in_training_only():
    noise, images = GaussianNoise(0.15), torch.zeros(4, 1, 64, 64)
    torch.manual_seed(0)
    assert noise(images).std() == pytest.approx(0.15, rel=0.05)
    assert torch.equal(noise.eval()(images), images)


def test_linear_last_layer_reaches_negative_features():
    torch.manual_seed(0)
    images = torch.rand(64, 1, 28, 28)
    leaky, linear = amc_figure_net(), amc_figure_net(linear=True)
    share = [(net.features(images) < 0).float().mean() for net in (leaky, linear)]
    smallest = leaky.features(images).min().abs()
    assert share[1] > 0.3
    assert smallest < linear.features(images).min().abs(), "LeakyReLU shrinks what is negative to a tenth"


def test_small_cnn_seed_is_private():
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    one, two = small_cnn(seed=7), small_cnn(seed=7)
    assert torch.equal(before, torch.rand(1)), "the global generator was touched"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
