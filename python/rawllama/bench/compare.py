"""What changed between two records, beyond noise."""

from __future__ import annotations

from dataclasses import dataclass

from . import stats
from .record import Record, RecordError

# Fewer values than these say nothing about noise.
_LEAST = 3
# What must be equal for numbers to be comparable at all.
_MACHINE = ("processor", "cores")


@dataclass(frozen=True)
class Change:
    """One number of both records.

    Attributes
    ----------
    side, what, unit
        Which.
    before, after
        Its medians.
    speed
        How many times better it has become.
    verdict
        As `stats.verdict`.
    """

    side: str
    what: str
    unit: str
    before: float
    after: float
    speed: stats.Estimate
    verdict: str


def compare(before: Record, after: Record) -> tuple[list[Change], list[str]]:
    """The changes, and notes on what makes them doubtful.

    Ratios of sides are compared where both records have them, as what slows the machine slows both sides; then the
    numbers of each side alone.

    Raises
    ------
    RecordError
        They are of different benchmarks, or have nothing in common.
    """
    if before.kind != after.kind:
        raise RecordError(
            f"the one is of `bench {before.kind}`, the other of `bench {after.kind}`: compare like with like"
        )
    changes = [*_ratios(before, after), *_numbers(before, after)]
    if not changes:
        raise RecordError("the two have no side and number in common")
    return changes, _doubts(before, after)


def _ratios(before: Record, after: Record) -> list[Change]:
    old = {(pair.side, pair.against, pair.what): pair for pair in before.pairs}
    changes = []
    for pair in after.pairs:
        if known := old.get((pair.side, pair.against, pair.what)):
            own = [first / second for first, second in zip(pair.other, pair.own, strict=True)]
            other = [first / second for first, second in zip(known.other, known.own, strict=True)]
            speed = stats.ratio(own, other, paired=False)
            changes.append(Change(pair.side, pair.what, f"times as fast as {pair.against}", known.speed.middle,
                                  pair.speed.middle, speed, stats.verdict(speed)))  # fmt: skip
    return changes


def _numbers(before: Record, after: Record) -> list[Change]:
    old = {(*series.key, series.x): series for series in before.series}
    changes = []
    for series in after.series:
        known = old.get((*series.key, series.x))
        if known is None or not series.better or min(len(series.values), len(known.values)) < _LEAST:
            continue
        new, was = (series.values, known.values) if series.better == "higher" else (known.values, series.values)
        speed = stats.ratio(new, was, paired=False)
        middles = stats.estimate(known.values).middle, stats.estimate(series.values).middle
        changes.append(Change(series.side, series.what, series.unit, *middles, speed, stats.verdict(speed)))
    return changes


def _doubts(before: Record, after: Record) -> list[str]:
    notes = [
        f"{name}: {before.machine.get(name)} before, {after.machine.get(name)} after"
        for name in _MACHINE
        if before.machine.get(name) != after.machine.get(name)
    ]
    for name in sorted(before.options.keys() | after.options.keys()):
        was, now = before.options.get(name), after.options.get(name)
        if was != now and name not in ("pythons", "sides", "rounds"):
            notes.append(f"{name}: {was} before, {now} after")
    return notes + [f"{when}: {note}" for when, one in (("before", before), ("after", after)) for note in one.notes]
