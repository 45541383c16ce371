"""Table 1's other rows: one interface, maps in [0, 1], the masks used by full supervision alone, clear errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xai_course.data.batch import ArrayData, Batch, Splits
from xai_course.measure.localising import segmentation
from xai_course.methods.minmax import scaled
from xai_course.methods.wsol import MASKS, FullSupervision, PooledMaps, TrivialMask
from xai_course.nets.unet import UNet
from xai_course.nets.wildcat import HEADS, Localiser, small_trunk
from xai_course.preset import Clock


def batch(masks=True) -> Batch:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(6, 16, 16, generator=generator) < 0.3 if masks else None
    return Batch(torch.rand(6, 3, 16, 16, generator=generator), torch.arange(6) % 3, truth, torch.arange(6))


def pooled(name: str) -> PooledMaps:
    torch.manual_seed(0)
    trunk, d = small_trunk(2)
    return PooledMaps(Localiser(trunk, HEADS[name](d, 3)))


@pytest.mark.parametrize("name", HEADS)
def test_pooled_maps(name):
    """Cross-entropy of the pooled scores; the chosen class's map, stretched to [0, 1], at image size."""
    method, b = pooled(name).eval(), batch()
    (terms,) = method.losses(b, Clock())
    assert torch.allclose(terms["total"], nn.functional.cross_entropy(method.net(scaled(b.images)), b.labels))
    maps = method.explain(b.images, b.labels)
    assert maps.shape == (6, 16, 16)
    assert torch.allclose(maps.amax((1, 2)), torch.ones(6)) and torch.allclose(maps.amin((1, 2)), torch.zeros(6))
    raw = method.net.locate(scaled(b.images))[0][2, 2]  # image 2 has label 2
    corners = (raw - raw.min()) / (raw.max() - raw.min())
    assert torch.allclose(maps[2, [0, 0, -1, -1], [0, -1, 0, -1]], corners[[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-5)


def test_full_supervision_learns_from_masks_only():
    method = FullSupervision(UNet(width=2, levels=2))
    (terms,) = method.losses(batch(), Clock())
    (same,) = method.losses(batch()._replace(labels=torch.zeros(6, dtype=torch.int64)), Clock())
    assert torch.equal(terms["total"], same["total"])
    with pytest.raises(ValueError, match="masks"):
        next(method.losses(batch(masks=False), Clock()))
    with pytest.raises(ValueError, match="masks must be"):
        next(method.losses(batch()._replace(masks=torch.zeros(6, 8, 8, dtype=torch.bool)), Clock()))
    with pytest.raises(ValueError, match="image-level"):
        method.logits(batch().images)


@pytest.mark.parametrize("kind", MASKS)
def test_trivial_masks_stand_in_every_table(kind):
    method, b = TrivialMask(nn.Identity(), kind), batch()
    (terms,) = method.losses(b, Clock())
    terms["total"].backward()
    data = ArrayData(b.images, b.labels, b.masks)
    found = segmentation(method, Splits("toy", data, data, data, ("a", "b", "c"), ""))
    assert "accuracy" not in found and 0 <= found["f1_plus"] <= 1
    if kind == "all_ones":
        a = b.masks.double().mean((1, 2))
        assert found["f1_plus"] == pytest.approx((2 * a / (1 + a)).mean().item()) and found["f1_minus"] == 0


def test_bad_kind():
    with pytest.raises(ValueError, match="kind"):
        TrivialMask(nn.Identity(), "none")


def test_a_network_without_class_maps_is_refused_at_construction():
    with pytest.raises(ValueError, match=r"net must have locate: Localiser\(trunk, .* got Identity"):
        PooledMaps(nn.Identity())
