"""Rounds in which sides take turns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from . import stats
from .record import Pair

#: Rounds, before a ratio can be precise.
LEAST = 5
Side = TypeVar("Side")


def alternate(
    pairs: Sequence[tuple[Side, Side]],
    measure: Callable[[Side], float],
    name: Callable[[Side], str],
    what: str,
    rounds: int,
) -> list[Pair]:
    """Seconds of both of each pair, one right after the other, in rounds.

    In each round every pair has its own turn, and begins with the other one than in the round before; the pairs begin
    at another place. Pairs that are precise have no more turns.

    Parameters
    ----------
    pairs
        A side, and the one that it is compared with.
    measure
        Seconds of one turn.
    name
        What the side is called.
    what
        What is measured.
    rounds
        At most so many.
    """
    results = [Pair(name(own), name(other), what, [], []) for own, other in pairs]
    for number in range(rounds):
        order = [*range(number % max(1, len(pairs)), len(pairs)), *range(number % max(1, len(pairs)))]
        open_ones = [i for i in order if not (number >= LEAST and stats.precise(results[i].speed))]
        for i in open_ones:
            own, other = pairs[i]
            if number % 2:
                results[i].own.append(measure(own))
                results[i].other.append(measure(other))
            else:
                results[i].other.append(measure(other))
                results[i].own.append(measure(own))
        if not open_ones:
            break
        print(f"{what}: round {number + 1} of {rounds} at most, {len(open_ones)} pairs", file=sys.stderr)
    return results


def times_of(name: str, pairs: Sequence[Pair]) -> list[float]:
    """All seconds of one side."""
    own = [seconds for pair in pairs if pair.side == name for seconds in pair.own]
    return own + [seconds for pair in pairs if pair.against == name for seconds in pair.other]
