"""Min-Max entropy: every row of its tables as data, and our own rows on Textured Digits and the nuclei."""

from __future__ import annotations

from . import minmax_digits

EXPERIMENTS = minmax_digits.EXPERIMENTS
