"""Medians, their intervals, and what can be said of two sides.

The ratio of two sides is the median of the ratios of rounds in which both ran, one right after the other: what slows
the machine for a while slows both. Its interval is a bootstrap over the rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Ratios nearer to 1 than this are no difference: so much the layout of memory makes of one and the same program.
MARGIN = 0.025
#: Rounds go on until the interval is this narrow to both sides, or there have been enough.
WANTED = 0.0125
LEVEL = 0.95
_RESAMPLED = 4000

SAME, FASTER, SLOWER, UNCLEAR = "same", "faster", "slower", "too noisy to tell"


@dataclass(frozen=True)
class Estimate:
    """A median and the interval that it lies in with 95 %."""

    middle: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """The farther end's distance, as a share of the median."""
        return max(self.high - self.middle, self.middle - self.low) / self.middle


def estimate(values: Sequence[float]) -> Estimate:
    """The median of values from rounds, and its interval."""
    array = np.array(values, np.float64)
    return Estimate(float(np.median(array)), *_quantiles(np.median(_drawn(array, 0), axis=1)))


def ratio(own: Sequence[float], other: Sequence[float], paired: bool = True) -> Estimate:
    """How many times `own` is `other`, in the median.

    Parameters
    ----------
    own, other
        Values of the rounds.
    paired
        Whether value i of both is from the same round.
    """
    first, second = np.array(own, np.float64), np.array(other, np.float64)
    if paired:
        return estimate(list(first / second))
    medians = np.median(_drawn(first, 0), axis=1) / np.median(_drawn(second, 1), axis=1)
    return Estimate(float(np.median(first) / np.median(second)), *_quantiles(medians))


def verdict(speed: Estimate) -> str:
    """What a ratio of speeds says: `faster`, `slower`, `same` within the margin, or `too noisy to tell`."""
    if speed.low > 1 and speed.middle >= 1 + MARGIN:
        return FASTER
    if speed.high < 1 and speed.middle <= 1 - MARGIN:
        return SLOWER
    narrow = speed.low > 1 - 2 * MARGIN and speed.high < 1 + 2 * MARGIN
    return SAME if narrow and abs(speed.middle - 1) < MARGIN else UNCLEAR


def precise(speed: Estimate) -> bool:
    """Whether more rounds are not needed."""
    return speed.half_width <= WANTED


def _drawn(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """As many again, drawn from them with replacement, many times over."""
    return np.random.default_rng(seed).choice(values, (_RESAMPLED, values.size))


def _quantiles(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
