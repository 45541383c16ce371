"""Attention branch network: the release's sizes and wiring, and the map loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xai_course.data.batch import Batch
from xai_course.methods.abn import ABN
from xai_course.methods.guidance import AttentionDistance
from xai_course.nets.abn import abn_from
from xai_course.nets.convnets import small_cnn
from xai_course.nets.resnets import torchvision_resnet
from xai_course.preset import Clock


def abn_resnet(depth: int, classes: int) -> nn.Module:
    return abn_from(torchvision_resnet(f"resnet{depth}", classes))


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.fixture
def net():
    torch.manual_seed(0)
    return abn_from(small_cnn(3, width=2))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    return Batch(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]), masks, torch.arange(4))


@pytest.mark.parametrize(
    "depth, classes, expected", [(50, 10, 38_518_046), (50, 1000, 43_584_866), (18, 10, 19_581_726)]
)
def test_sizes(depth, classes, expected):
    with torch.device("meta"):
        assert count(abn_resnet(depth, classes)) == expected


def test_resnet_map_is_twice_the_last_stage():
    with torch.device("meta"):
        out = abn_resnet(18, 10).eval().attend(torch.zeros(2, 3, 224, 224))
    assert out.attention.shape == out.perception.shape == (2, 10) and out.map.shape == (2, 14, 14)


def test_branch_shares_nothing_with_the_last_stage(net):
    own = {p.data_ptr() for p in net.branch.parameters()}
    assert own.isdisjoint(p.data_ptr() for m in (net.trunk, net.stage, net.head) for p in m.parameters())


def test_perception_sees_features_times_one_plus_attention(net, batch):
    net.eval()
    features = net.trunk(batch.images)
    scores, attention = net.branch(features)
    expected = net.head(net.stage(features + features * attention[:, None]).mean((2, 3)))
    out = net.attend(batch.images)
    torch.testing.assert_close(out.perception, expected)
    torch.testing.assert_close(out.attention, scores)
    torch.testing.assert_close(net(batch.images), expected)
    assert out.map.min() > 0 and out.map.max() < 1


def test_map_loss_by_hand():
    attention = torch.tensor([[[0.5, 0.0], [1.0, 0.25]]])
    relevant = torch.zeros(1, 4, 4)
    relevant[0, :2, :2] = 1  # averages to 1 in the first cell of the 2x2 map
    assert AttentionDistance()(attention, relevant).item() == pytest.approx((0.25 + 0 + 1 + 0.0625) / 4)


def test_map_loss_averages_areas():
    relevant = torch.zeros(1, 4, 4)
    relevant[0, 0, 0] = 1
    assert AttentionDistance()(torch.tensor([[[0.25, 0.0], [0.0, 0.0]]]), relevant).item() == 0


def test_total_is_both_heads_plus_weighted_map(net, batch):
    (terms,) = ABN(net, balance=10.0).losses(batch, Clock())
    expected = terms["attention"] + terms["classification"] + 10 * terms["map"]
    torch.testing.assert_close(terms["total"].detach(), expected)
    terms["total"].backward()
    assert all(p.grad is not None for p in net.parameters())


def test_plain_abn_needs_no_masks(net, batch):
    (terms,) = ABN(net, balance=0.0).losses(batch._replace(masks=None), Clock())
    assert "map" not in terms


def test_explanation_is_the_attention_map(net, batch):
    maps = ABN(net).explain(batch.images, batch.labels)
    assert maps.shape == (4, 16, 16) and maps.min() >= 0 and maps.max() <= 1


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: ABN(small_cnn(3, width=2)),
            "net must have attend, as nets.abn.AttentionBranchNetwork has, got GapClassifier",
        ),
        (lambda: ABN(abn_from(small_cnn(3, width=2)), -1.0), "balance must be >= 0, got -1.0"),
        (lambda: ABN(abn_from(small_cnn(3, width=2)), float("nan")), "balance must be >= 0, got nan"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_branch_has_the_dtype_and_device_of_the_network(batch):
    net = abn_from(small_cnn(3, width=2).double())
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    (terms,) = ABN(net).losses(batch._replace(images=batch.images.double()), Clock())
    assert terms["total"].isfinite()
    assert {p.device.type for p in abn_from(small_cnn(3, width=2).to("meta")).parameters()} == {"meta"}


def test_missing_masks(net, batch):
    with pytest.raises(ValueError, match="masks must be"):
        next(ABN(net).losses(batch._replace(masks=None), Clock()))
