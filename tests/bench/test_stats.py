"""Medians, intervals and verdicts, on numbers whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from rawllama.bench import stats
from rawllama.bench.rounds import alternate, times_of

RNG = np.random.default_rng(7)


def test_the_median_and_its_interval() -> None:
    found = stats.estimate([1.0, 2.0, 3.0, 4.0, 100.0])
    assert found.middle == 3.0
    assert found.low in (1.0, 2.0)
    assert found.high in (4.0, 100.0)
    constant = stats.estimate([2.5] * 5)
    assert (constant.middle, constant.low, constant.high, constant.half_width) == (2.5, 2.5, 2.5, 0.0)


def test_the_interval_has_the_median_in_19_of_20_cases() -> None:
    inside = 0
    for _ in range(200):
        found = stats.estimate(RNG.normal(1.0, 0.1, 41).tolist())
        inside += found.low <= 1.0 <= found.high
    assert 180 <= inside <= 200


def test_paired_ratios_do_not_see_what_slows_both() -> None:
    slow = RNG.uniform(1, 5, 21)
    own, other = slow * 2.0, slow * 1.0
    found = stats.ratio(own.tolist(), other.tolist())
    assert (found.middle, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    apart = stats.ratio(own.tolist(), other.tolist(), paired=False)
    assert apart.middle == pytest.approx(2.0)
    assert apart.low < 1.6
    assert apart.high > 2.4


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.05, 1.03, 1.07), stats.FASTER),
        ((0.95, 0.93, 0.97), stats.SLOWER),
        ((1.0, 0.99, 1.01), stats.SAME),
        ((1.02, 1.01, 1.03), stats.SAME),  # real perhaps, and less than the margin
        ((0.98, 0.97, 0.99), stats.SAME),
        ((1.0, 0.9, 1.1), stats.UNCLEAR),
        ((1.04, 0.99, 1.09), stats.UNCLEAR),
        ((0.96, 0.92, 1.001), stats.UNCLEAR),
    ],
)
def test_verdicts(interval: tuple[float, float, float], verdict: str) -> None:
    assert stats.verdict(stats.Estimate(*interval)) == verdict


def noisy(slowdown: float, noise: float) -> tuple[list[str], int]:
    """Verdicts of 30 trials with sides of known times, and rounds in all."""
    verdicts, rounds = [], 0
    for _ in range(30):

        def measure(side: str) -> float:
            return (1.0 + slowdown * (side == "slow")) * float(RNG.normal(1.0, noise))

        (pair,) = alternate([("slow", "fast")], measure, str, "trial", 41)
        verdicts.append(stats.verdict(pair.speed))
        rounds += len(pair.own)
    return verdicts, rounds


def test_five_percent_are_found_in_noise_of_two() -> None:
    verdicts, rounds = noisy(0.05, 0.02)
    assert verdicts.count(stats.SLOWER) >= 28
    assert stats.FASTER not in verdicts
    assert rounds < 41 * 30  # and not always with all rounds


def test_nothing_is_found_where_nothing_is() -> None:
    verdicts, _ = noisy(0.0, 0.02)
    assert verdicts.count(stats.SAME) >= 28
    assert stats.UNCLEAR in noisy(0.0, 0.3)[0]


def test_sides_take_turns() -> None:
    order: list[str] = []

    def measure(side: str) -> float:
        order.append(side)
        return {"a": 2.0, "b": 1.0, "c": 4.0}[side] + len(order) * 0.5  # never precise

    pairs = alternate([("a", "b"), ("c", "b")], measure, str, "it", 4)
    assert order[:8] == ["b", "a", "b", "c", "c", "b", "a", "b"]
    assert [len(pair.own) for pair in pairs] == [4, 4]
    assert [pair.side for pair in pairs] == ["a", "c"]
    assert len(times_of("b", pairs)) == 8
    assert times_of("a", pairs) == pairs[0].own


def test_precise_pairs_have_no_more_turns() -> None:
    pairs = alternate([("a", "b")], lambda side: {"a": 1.0, "b": 2.0}[side], str, "it", 41)
    assert len(pairs[0].own) == 5
    assert pairs[0].speed.middle == 2.0
