"""Each formula against libllama: what `rawllama layers` prints, and the tests read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import formulas, stages
from .comparison import Bound, Comparison
from .run import compute

if TYPE_CHECKING:
    from rawllama.model import Model

__all__ = ["Bound", "Comparison", "compare"]


def compare(model: Model, texts: Sequence[str]) -> list[Comparison]:
    """Each stage that the model has, on these texts; and the formulas alone, on random numbers.

    Raises
    ------
    InvalidArgumentError
        No texts, or a model that was loaded from an open file.
    """
    return [*stages.comparisons(compute(model, texts)), *formulas.comparisons()]
