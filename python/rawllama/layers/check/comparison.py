"""A formula beside what libllama computed, and how far apart the two may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPS = float(np.finfo(np.float32).eps)
"""From 1 to the next float32."""


@dataclass(frozen=True)
class Bound:
    """The largest difference that rounding explains, and why so much."""

    value: float
    reason: str


EXACT = Bound(0.0, "the same bits")


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes
    ----------
    stage
        Of the embedding layer.
    formula
        With its source.
    against
        What of libllama it is compared with.
    n
        How many numbers were.
    difference
        The largest between two of them.
    bound
        What it may be.
    """

    stage: str
    formula: str
    against: str
    n: int
    difference: float
    bound: Bound

    @property
    def is_within(self) -> bool:
        """Whether the difference is within its bound; that of NaN is not."""
        return self.difference <= self.bound.value


def compared(
    stage: str, formula: str, against: str, ours: NDArray[Any], theirs: NDArray[Any], bound: Bound
) -> Comparison:
    """The comparison of two arrays of one shape; infinities must be in the same places."""
    if ours.shape != theirs.shape:
        raise ValueError(f"{stage}: shapes {ours.shape} and {theirs.shape}")
    return Comparison(stage, formula, against, ours.size, _largest_difference(ours, theirs), bound)


def _largest_difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    differ = ours != theirs
    a, b = ours[differ].astype(np.float64), theirs[differ].astype(np.float64)
    return float(np.abs(a - b).max(initial=0))


def summed(d: int, largest: float, what: str = "numbers") -> Bound:
    """For results of sums over d float32 `what`."""
    value = 2 * EPS * float(np.sqrt(d)) * largest
    return Bound(value, f"sums of {d} float32 {what}, each rounded: 2 eps sqrt({d}) times the largest, {largest:.3g}")


def turned(x: NDArray[Any], positions: NDArray[Any], frequencies: NDArray[np.float64], magnitude: float = 1.0) -> Bound:
    """For RoPE: ggml multiplies the angle of pair i up from that of pair 0, with i roundings of float32."""
    angles = np.abs(positions).max(initial=0) * frequencies
    roundings = float((angles * (np.arange(frequencies.size) + 1)).max(initial=0))
    largest = float(np.abs(x).max(initial=0)) * magnitude
    words = f"angles up to {angles.max(initial=0):.3g}, multiplied up from pair to pair in float32"
    return Bound(EPS * (roundings + 4) * float(np.sqrt(2)) * largest, words)
