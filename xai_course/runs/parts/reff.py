"""What ReFF's rows need: few masks by hand, the spot cue, ABN's branch."""

from collections.abc import Callable
from typing import Any

from ...data.batch import Splits
from ...data.files import cache_folder
from ...data.spot import with_spot
from ...methods.pseudo_annotator import Pix2Pix, with_pseudo_annotations
from ...nets.abn import AttentionBranchNetwork, abn_from
from ...nets.convnets import GapClassifier
from .common import digits


def few_shot(
    preset: str = "smoke",
    *,
    seed: int = 0,
    source: Callable[..., Splits],
    per_class: int,
    annotators: dict[str, Pix2Pix],
) -> Splits:
    """``source`` with human masks for ``per_class`` training images only, pix2pix's drawings for the rest."""
    splits, folder = source(preset=preset, seed=seed), cache_folder() / "annotators"
    return with_pseudo_annotations(splits, per_class, annotators[preset], seed=seed, cache=folder)


def spotted(preset: str = "smoke", *, seed: int = 0, spot: float = 0.0, **knobs: Any) -> Splits:
    """`digits` where a six-pixel spot in a corner tells the label, except in a share ``spot`` of the images."""
    return with_spot(digits(preset, seed=seed, **knobs), p=spot, seed=seed)


def with_branch(splits: Splits, *, of: Callable[[Splits], GapClassifier]) -> AttentionBranchNetwork:
    """``of`` with ABN's attention branch."""
    return abn_from(of(splits))
