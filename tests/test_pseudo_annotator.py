"""The pseudo-annotator: who is annotated, how pix2pix trains, what is reused, and Algorithm 1's choice."""

from __future__ import annotations

import resource
import signal

import pytest
import torch

from xai_course.data.batch import ArrayData, Splits
from xai_course.measure.scores import iou
from xai_course.methods import pseudo_annotator
from xai_course.methods.pseudo_annotator import (
    Annotated,
    MixedAnnotations,
    Pix2Pix,
    PseudoAnnotator,
    annotator_for,
    choose_annotated,
    draw_all,
    draw_pairs,
    gan_loss,
    train_annotator,
    with_pseudo_annotations,
)
from xai_course.methods.reff import ReFF, focusing_loss
from xai_course.nets.convnets import small_cnn

BYTES = {"atol": 1 / 510 + 1e-6, "rtol": 0}  # a drawn mask is kept in 256 steps
TINY = Pix2Pix(size=16, downs=2, width=8, discriminator_layers=1, iterations=40, lr=5e-3, jitter=False)


@pytest.fixture(scope="module")
def data() -> ArrayData:
    """Bright squares on a dark ground: an annotation task that a tiny U-Net learns in a second."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(24, 16, 16, dtype=torch.bool)
    for i in range(24):
        top, left = torch.randint(0, 8, (2,), generator=generator)
        masks[i, top : top + 8, left : left + 8] = True
    images = 0.2 * torch.rand(24, 3, 16, 16, generator=generator) + 0.7 * masks[:, None]
    return ArrayData(images, torch.arange(24) % 3, masks)


@pytest.fixture(scope="module")
def annotator(data) -> PseudoAnnotator:
    return train_annotator(data.images[:12], data.masks[:12], TINY, seed=0)


# --- who is annotated -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_class", [0, 1, 5])
def test_per_class(data, per_class):
    chosen = choose_annotated(data.labels, per_class, seed=3)
    assert [int(chosen[data.labels == c].sum()) for c in range(3)] == [per_class] * 3
    assert torch.equal(chosen, choose_annotated(data.labels, per_class, seed=3))


def test_another_seed_chooses_others_and_none_means_all(data):
    assert not torch.equal(choose_annotated(data.labels, 2, seed=0), choose_annotated(data.labels, 2, seed=1))
    assert choose_annotated(data.labels, None).all() and choose_annotated(data.labels, 99).all()


# --- training ---------------------------------------------------------------------------------------------------------


def test_learns_to_annotate_images_it_has_not_seen(data, annotator):
    drawn = annotator(data.images[12:])
    assert drawn.shape == (12, 16, 16) and drawn.min() >= 0 and drawn.max() <= 1
    assert iou(drawn >= 0.5, data.masks[12:]).mean() > 0.8


def test_training_is_reproducible_and_leaves_the_global_generator_alone(data, annotator):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = train_annotator(data.images[:12], data.masks[:12], TINY, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(annotator.state_dict().values(), again.state_dict().values()):
        assert torch.equal(a, b)


def test_frozen_and_always_in_evaluation_mode(data, annotator):
    annotator.train()
    assert not any(m.training for m in annotator.modules())
    assert not any(p.requires_grad for p in annotator.parameters())
    assert not annotator(data.images[:1].clone().requires_grad_()).requires_grad


def test_other_image_sizes_are_resized_and_brought_back(annotator):
    assert annotator(torch.rand(2, 3, 28, 20)).shape == (2, 28, 20)


def test_jitter_moves_image_and_annotation_together(data):
    torch.manual_seed(0)
    shown = data.masks[:, None].float().expand(-1, 3, -1, -1).contiguous()  # images that show their own mask
    for _ in range(5):
        x, s = draw_pairs(shown, data.masks, Pix2Pix(size=16, downs=2, batch_size=4))
        assert x.shape == (4, 3, 16, 16) and s.shape == (4, 1, 16, 16)
        torch.testing.assert_close(x[:, :1], s)


def test_gan_loss_by_hand():
    assert gan_loss(torch.zeros(2, 1, 3, 3), True).item() == pytest.approx(0.693147, rel=1e-5)
    assert gan_loss(torch.full((1, 1, 1, 1), 20.0), True) < 1e-8 < gan_loss(torch.full((1, 1, 1, 1), 20.0), False)


def test_one_step_trains_both_networks(data):
    from xai_course.nets.pix2pix import UNetGenerator, patch_discriminator

    torch.manual_seed(0)
    nets = [UNetGenerator(downs=2, width=4), patch_discriminator(4, width=4, layers=1)]
    before = [[p.clone() for p in net.parameters()] for net in nets]
    x, s = draw_pairs(data.images, data.masks, TINY)
    pseudo_annotator.step(*nets, [torch.optim.Adam(n.parameters()) for n in nets], x, s, TINY)
    for net, old in zip(nets, before):
        assert all(not torch.equal(a, b) for a, b in zip(net.parameters(), old))
        assert all(p.requires_grad for p in net.parameters())


def test_defaults_are_the_papers():
    preset = Pix2Pix()
    assert (preset.lr, preset.betas, preset.batch_size, preset.iterations) == (2e-4, (0.5, 0.999), 4, 30_000)
    assert (preset.l1, preset.downs, preset.size, preset.width) == (100.0, 8, 256, 64)


# --- saved and reused -------------------------------------------------------------------------------------------------


def test_reused_by_content(data, tmp_path, monkeypatch):
    some = choose_annotated(data.labels, 2)
    first = annotator_for(data, some, TINY, cache=tmp_path)
    files = list(tmp_path.iterdir())
    assert len(files) == 1 and files[0].suffix == ".pt"
    monkeypatch.setattr(pseudo_annotator, "train_annotator", None)  # training again would fail
    second = annotator_for(data, some, TINY, cache=tmp_path)
    torch.testing.assert_close(first(data.images), second(data.images), rtol=0, atol=0)
    for other in ({"seed": 1}, {"preset": Pix2Pix(size=16, downs=2, width=4)}):
        with pytest.raises(TypeError):
            annotator_for(data, some, **{"preset": TINY, "cache": tmp_path, **other})
    changed = ArrayData(data.images, data.labels, ~data.masks)
    with pytest.raises(TypeError):
        annotator_for(changed, some, TINY, cache=tmp_path)


def test_an_interrupted_save_leaves_nothing(data, tmp_path, monkeypatch):
    def killed(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        annotator_for(data, choose_annotated(data.labels, 1), Pix2Pix(16, 2, 4, iterations=0), cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_and_leaves_nothing(data, tmp_path):
    """The limit is the system's own: no file of this process may grow beyond 4 KiB."""
    some, preset = choose_annotated(data.labels, 1), Pix2Pix(16, 2, 4, iterations=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"annotator-\w+\.pt cannot be written .*XAI_COURSE_CACHE"):
            annotator_for(data, some, preset, cache=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
    annotator_for(data, some, preset, cache=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt"]


# --- Algorithm 1 ------------------------------------------------------------------------------------------------------


def test_true_masks_where_annotated_generated_ones_elsewhere(data, annotator):
    annotated = choose_annotated(data.labels, 4)
    rule = MixedAnnotations(annotated, draw_all(annotator, data))
    batch = data.__getitems__(range(5, 20))
    mixed, own = rule(batch), annotated[batch.index]
    assert own.any() and not own.all()
    assert torch.equal(mixed[own], batch.masks[own].float())
    torch.testing.assert_close(mixed[~own], annotator(batch.images)[~own], **BYTES)


def test_what_is_drawn_beforehand_is_kept_as_bytes(data, annotator):
    drawn = draw_all(annotator, data)
    assert drawn.dtype == torch.uint8 and drawn.shape == (24, 16, 16)
    batch = data.__getitems__([3, 1, 2])._replace(masks=None)
    ready = MixedAnnotations(torch.zeros(24, dtype=torch.bool), drawn)(batch)
    torch.testing.assert_close(ready, annotator(batch.images), **BYTES)


def test_a_mixed_batch_is_the_mean_of_eq_3_and_eq_4(data, annotator):
    annotated = torch.zeros(24, dtype=torch.bool)
    annotated[:3] = True
    torch.manual_seed(0)
    rule = MixedAnnotations(annotated, draw_all(annotator, data))
    method = ReFF(small_cnn(3, width=2).eval(), ["body.2", "body.4"], annotations=rule)
    batch = data.__getitems__(range(6))
    cams = method.cams(batch, "keep").maps
    eq3 = focusing_loss([c[:3] for c in cams], batch.masks[:3]).loss
    eq4 = focusing_loss([c[3:] for c in cams], rule(batch)[3:]).loss
    torch.testing.assert_close(method.focus(batch)[0].loss, (eq3 + eq4) / 2)


def test_splits_with_pseudo_annotations(data):
    splits = Splits("squares", data, data, data, ("a", "b", "c"), "0")
    made = with_pseudo_annotations(splits, 2, TINY)
    batch = made.train.__getitems__(range(24))
    assert isinstance(made.train, Annotated) and len(made.train) == 24 and batch.masks.dtype == torch.float32
    own = choose_annotated(data.labels, 2)
    assert torch.equal(batch.masks[own], data.masks[own].float())
    assert made.test is data and made.fingerprint != splits.fingerprint
    assert with_pseudo_annotations(splits, None) is splits


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda d: Pix2Pix(size=224), r"size must be a multiple of 2\*\*downs = 256, got 224"),
        (lambda d: Pix2Pix(iterations=-1), "iterations >= 0"),
        (lambda d: choose_annotated(d.labels, -1), "per_class >= 0"),
        (lambda d: train_annotator(d.images[:0], d.masks[:0], TINY), "masks must be"),
        (lambda d: train_annotator(d.images, d.masks[:2], TINY), "masks must be"),
        (lambda d: annotator_for(d, torch.zeros(24, dtype=torch.bool), TINY), "at least one of 24 images, got 0"),
        (
            lambda d: annotator_for(ArrayData(d.images, d.labels), torch.ones(24, dtype=torch.bool), TINY),
            "masks must be",
        ),
    ],
)
def test_errors(data, call, message):
    with pytest.raises(ValueError, match=message):
        call(data)


def test_annotated_image_without_mask(data, annotator):
    batch = data.__getitems__(range(4))._replace(masks=None)
    with pytest.raises(ValueError, match="masks must be given for annotated images, got none for 4"):
        MixedAnnotations(torch.ones(24, dtype=torch.bool), draw_all(annotator, data))(batch)
