"""ReFF's pseudo-annotator: pix2pix trained on a few annotated images draws annotations for all others.

Adachi and Yamaguchi, ICME 2022, Section 3.2 (the generator G of Eq. 4), Algorithm 1 and supplement Table 4b.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from .._require import require
from ..data.batch import Batch, Dataset, Splits, batches, fingerprint
from ..data.files import save_whole
from ..measure.looking import masks_of
from ..nets.modes import device_of
from ..nets.pix2pix import UNetGenerator, initialise, patch_discriminator

VERSION = 1  # part of the content hash: raise it when the training below changes what it computes


@dataclass(frozen=True)
class Pix2Pix:
    """How the pseudo-annotator is built and trained; the defaults are the paper's where it says, pix2pix's elsewhere.

    Attributes:
        size: side to which images are resized for the networks; must be a multiple of ``2 ** downs``. (224, the
            classifier's size, can be halved only five times.)
        downs, width: of the generator. ``discriminator_layers`` of the PatchGAN.
        iterations, batch_size, lr, betas: Adam (Table 4b).
        l1: weight of the L1 term.
        adversarial: False trains on L1 alone, without a discriminator.
        jitter: random crop (from a side 1/8 larger) and flip, as pix2pix; moves image and annotation together.
    """

    size: int = 256
    downs: int = 8
    width: int = 64
    discriminator_layers: int = 3
    iterations: int = 30_000
    batch_size: int = 4
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    l1: float = 100.0
    adversarial: bool = True
    jitter: bool = True

    def __post_init__(self) -> None:
        require(self.size % 2**self.downs == 0, f"size must be a multiple of 2**downs = {2**self.downs}", self.size)
        enough = self.batch_size >= 1 and self.iterations >= 0
        require(enough, "batch_size must be >= 1 and iterations >= 0", self.batch_size, self.iterations)


class PseudoAnnotator(nn.Module):
    """G of Eq. 4, frozen: images ``[B, 3, H, W]`` in [0, 1] -> annotations ``[B, H, W]`` in [0, 1], no gradient.

    Example:
        >>> annotator = PseudoAnnotator(UNetGenerator(downs=2, width=2), size=8)
        >>> drawn = annotator(torch.rand(2, 3, 16, 16))
        >>> drawn.shape, drawn.requires_grad
        (torch.Size([2, 16, 16]), False)
    """

    def __init__(self, generator: nn.Module, size: int):
        super().__init__()
        self.generator, self.size = generator.eval().requires_grad_(False), size

    def train(self, mode: bool = True) -> PseudoAnnotator:
        """Stays in evaluation mode: it is a fixed function for the classifier."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        small = resize(images, self.size) * 2 - 1
        drawn = (self.generator(small).float() + 1) / 2  # tanh's (-1, 1) -> (0, 1)
        back = F.interpolate(drawn, images.shape[-2:], mode="bilinear", align_corners=False)
        return back[:, 0].clamp(0, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """``[B, C, H, W]`` -> ``[B, C, size, size]``, bilinear with antialiasing; unchanged where it fits already.

    Example:
        >>> resize(torch.zeros(1, 3, 8, 8), 4).shape
        torch.Size([1, 3, 4, 4])
    """
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def choose_annotated(labels: Tensor, per_class: int | None, seed: int = 0) -> Tensor:
    """Which images get a human annotation: ``per_class`` of every class, drawn with a seeded generator.

    Args:
        labels: ``[N]`` int64.
        per_class: n; None for all images. A class with fewer images gives all it has.

    Returns:
        ``[N]`` bool.

    Example:
        >>> choose_annotated(torch.tensor([0, 0, 0, 1]), per_class=1).sum()
        tensor(2)
    """
    fit = labels.ndim == 1 and (per_class is None or per_class >= 0)
    require(fit, "labels must be [N] and per_class >= 0 or None", tuple(labels.shape), per_class)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for label in labels.unique():
        own = (labels == label).nonzero().flatten()
        chosen[own[torch.randperm(len(own), generator=generator)[:per_class]]] = True
    return chosen


def train_annotator(images: Tensor, masks: Tensor, preset: Pix2Pix = Pix2Pix(), seed: int = 0) -> PseudoAnnotator:
    """pix2pix from scratch on annotated pairs: discriminator step, then generator step, ``preset.iterations`` times.

    Args:
        images: ``[N, 3, H, W]`` float in [0, 1].
        masks: ``[N, H, W]`` bool or in [0, 1].
        seed: of the initialisation and of every random choice; the global generator is left alone.

    Returns:
        The frozen `PseudoAnnotator`, on the device of the images.

    Raises:
        ValueError: no pair to learn from, or shapes that do not fit.

    Example:
        >>> images, masks = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8)
        >>> plan = Pix2Pix(size=8, downs=2, width=2, discriminator_layers=1, iterations=1)
        >>> train_annotator(images, masks, plan)(images).shape
        torch.Size([2, 8, 8])
    """
    fit = len(images) and masks.shape == images[:, 0].shape
    require(fit, f"masks must be [N, H, W] with N > 0 for images {tuple(images.shape)}", tuple(masks.shape))
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(seed)
        channels, width = images.shape[1], preset.width
        generator = initialise(UNetGenerator(channels, 1, downs=preset.downs, width=width)).to(images.device)
        judges = patch_discriminator(channels + 1, width=width, layers=preset.discriminator_layers)
        judge = initialise(judges).to(images.device)
        optimisers = [torch.optim.Adam(m.parameters(), preset.lr, preset.betas) for m in (generator, judge)]
        for _ in range(preset.iterations):
            x, s = draw_pairs(images, masks, preset)
            step(generator, judge, optimisers, x, s, preset)
    return PseudoAnnotator(generator, preset.size)


def draw_pairs(images: Tensor, masks: Tensor, preset: Pix2Pix) -> tuple[Tensor, Tensor]:
    """One batch of pairs in [-1, 1], ``[b, 3, S, S]`` and ``[b, 1, S, S]``, jittered together.

    Example:
        >>> plan = Pix2Pix(size=8, downs=2, batch_size=3)
        >>> [tuple(x.shape) for x in draw_pairs(torch.rand(5, 3, 8, 8), torch.zeros(5, 8, 8), plan)]
        [(3, 3, 8, 8), (3, 1, 8, 8)]
    """
    at = torch.randint(len(images), (preset.batch_size,), device=images.device)
    both = torch.cat([images[at], masks[at].unsqueeze(1).to(images.dtype)], dim=1) * 2 - 1
    larger = preset.size + (preset.size // 8 if preset.jitter else 0)
    both = resize(both, larger)
    if preset.jitter:
        top, left = torch.randint(larger - preset.size + 1, (2,)).tolist()
        both = both[..., top : top + preset.size, left : left + preset.size]
        both = both.flip(-1) if torch.rand(()) < 0.5 else both
    return both[:, :-1], both[:, -1:]


def step(
    generator: nn.Module, judge: nn.Module, optimisers: Sequence[Optimizer], x: Tensor, s: Tensor, preset: Pix2Pix
) -> None:
    """One pix2pix step: half the discriminator's losses, then the adversarial loss plus ``l1`` times the distance.

    Example:
        >>> plan = Pix2Pix(size=8, downs=2, adversarial=False)
        >>> generator = UNetGenerator(downs=2, width=2)
        >>> before = [p.clone() for p in generator.parameters()]
        >>> step(generator, nn.Identity(), [torch.optim.SGD(generator.parameters(), 0.1)], torch.rand(2, 3, 8, 8),
        ...      torch.ones(2, 1, 8, 8), plan)
        >>> any(not torch.equal(a, b) for a, b in zip(before, generator.parameters()))
        True
    """
    drawn = generator(x)
    total = preset.l1 * F.l1_loss(drawn, s)
    if preset.adversarial:
        real, fake = judge(torch.cat([x, s], 1)), judge(torch.cat([x, drawn.detach()], 1))
        optimisers[1].zero_grad()
        ((gan_loss(real, True) + gan_loss(fake, False)) / 2).backward()
        optimisers[1].step()
        judge.requires_grad_(False)  # in the generator's step its weights need no gradient
        total = total + gan_loss(judge(torch.cat([x, drawn], 1)), True)
        judge.requires_grad_(True)
    optimisers[0].zero_grad()
    total.backward()
    optimisers[0].step()


def gan_loss(logits: Tensor, real: bool) -> Tensor:
    """The original GAN's binary cross-entropy of a patch map of logits against all real or all fake.

    Example:
        >>> gan_loss(torch.zeros(1, 1, 2, 2), real=True)  # undecided: log 2
        tensor(0.6931)
    """
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def annotator_for(
    data: Dataset, annotated: Tensor, preset: Pix2Pix = Pix2Pix(), *, seed: int = 0, cache: str | Path | None = None
) -> PseudoAnnotator:
    """The pseudo-annotator for the annotated part of a data set, trained, or loaded where it has been trained before.

    Args:
        data: with masks; only the annotated images' masks are read.
        annotated: ``[N]`` bool over the data set.
        cache: folder of trained annotators, one file each, named by a hash of pairs, preset, seed and `VERSION`; a file
            appears complete or not at all. None keeps nothing.

    Raises:
        ValueError: nothing annotated, a mask missing, or lengths that do not agree.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> data = ArrayData(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), torch.zeros(2, 8, 8, dtype=torch.bool))
        >>> annotator_for(data, torch.tensor([False, False]))
        Traceback (most recent call last):
        ValueError: annotated must mark at least one of 2 images, got 0 marks
    """
    fit = len(annotated) == len(data) and annotated.any()
    require(fit, f"annotated must mark at least one of {len(data)} images, got {int(annotated.sum())} marks")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pairs = data.__getitems__(annotated.nonzero().flatten().tolist()).to(device)
    masks = masks_of(pairs)
    key = fingerprint(VERSION, pairs.images, masks, preset, seed)
    path = None if cache is None else Path(cache) / f"annotator-{key}.pt"
    if path is not None and path.exists():
        generator = UNetGenerator(pairs.images.shape[1], 1, downs=preset.downs, width=preset.width)
        with contextlib.suppress(Exception):  # a damaged file is no file: torch.load has a dozen ways to say so
            generator.load_state_dict(torch.load(path, map_location=device, weights_only=True))
            return PseudoAnnotator(generator.to(device), preset.size)
    annotator = train_annotator(pairs.images, masks, preset, seed)
    if path is not None:
        save_whole(path, annotator.generator.state_dict(), "set XAI_COURSE_CACHE to another folder")
    return annotator


class MixedAnnotations:
    """Algorithm 1's choice for each image: its own mask where it is annotated (Eq. 3), else the generated one (Eq. 4).

    Args:
        annotated: ``[N]`` bool over the training set, looked up by ``batch.index``.
        drawn: ``[N, H, W]`` uint8 of `draw_all`: what the generator G makes of each image.

    Raises:
        ValueError: on call, an annotated image comes without its mask.
    """

    def __init__(self, annotated: Tensor, drawn: Tensor):
        self.annotated, self.drawn = annotated, drawn

    def __call__(self, batch: Batch) -> Tensor:
        index = batch.index.to(self.annotated.device)
        own = self.annotated[index].to(batch.images.device)
        if batch.masks is None and own.any():
            raise ValueError(f"masks must be given for annotated images, got none for {int(own.sum())} of them")
        drawn = self.drawn[index].to(batch.images.device).float().div_(255)
        return drawn if batch.masks is None else torch.where(own[:, None, None], batch.masks.to(drawn.dtype), drawn)


class Annotated:
    """A data set whose masks are what a rule such as `MixedAnnotations` says: ``[B, H, W]`` float32 in [0, 1], soft.

    Args:
        data: the data set underneath.
        rule: ``batch -> [B, H, W]``.
    """

    def __init__(self, data: Dataset, rule: Callable[[Batch], Tensor]):
        self.data, self.rule = data, rule

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = self.data.__getitems__(indices)
        return batch._replace(masks=self.rule(batch))


def with_pseudo_annotations(
    splits: Splits,
    per_class: int | None,
    preset: Pix2Pix = Pix2Pix(),
    *,
    seed: int = 0,
    cache: str | Path | None = None,
) -> Splits:
    """The task as Algorithm 1 sees it: n training images per class keep their masks, the annotator draws all others.

    Args:
        splits: with masks in ``train`` and labels ``[N]``.
        per_class: n; None leaves the data as they are.
        seed: of the choice of annotated images and of the annotator's training.
        cache: see `annotator_for`.

    Returns:
        Splits with soft masks in ``train``; validation and test are untouched.

    Example:
        >>> from xai_course.data.textured_digits import textured_digits
        >>> splits = textured_digits(train=20, validation=5, test=5)
        >>> plan = Pix2Pix(size=8, downs=2, width=2, discriminator_layers=1, iterations=1)
        >>> with_pseudo_annotations(splits, 1, plan).train.__getitems__([0, 1]).masks.dtype
        torch.float32
    """
    if per_class is None:
        return splits
    labels = torch.cat([batch.labels for batch in batches(splits.train)])
    annotated = choose_annotated(labels, per_class, seed)
    annotator = annotator_for(splits.train, annotated, preset, seed=seed, cache=cache)
    rule = MixedAnnotations(annotated, draw_all(annotator, splits.train))
    identity = fingerprint(splits.fingerprint, per_class, preset, seed, VERSION)
    return splits._replace(train=Annotated(splits.train, rule), fingerprint=identity)


def draw_all(annotator: PseudoAnnotator, data: Dataset) -> Tensor:
    """G on a whole data set, ``[N, H, W]`` uint8 in [0, 255] on the CPU: four times smaller, off by 1/510 at most.

    Example:
        >>> from xai_course.data.batch import ArrayData
        >>> annotator = PseudoAnnotator(UNetGenerator(downs=2, width=2), size=8)
        >>> drawn = draw_all(annotator, ArrayData(torch.rand(2, 3, 8, 8), torch.tensor([0, 1])))
        >>> drawn.shape, drawn.dtype
        (torch.Size([2, 8, 8]), torch.uint8)
    """
    device = device_of(annotator)
    return torch.cat([(annotator(b.images) * 255).round().to("cpu", torch.uint8) for b in batches(data, device=device)])
