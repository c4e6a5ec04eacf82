"""What a benchmark has measured, as it is kept in JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import stats

FORMAT = 1


class RecordError(ValueError):
    """A file that is no record, or not one of this version."""


@dataclass
class Series:
    """Values of one side, one a round or a call.

    Attributes
    ----------
    side
        Whose.
    what
        What was measured, e.g. `300 texts`.
    unit
        Of the values, e.g. `texts/s`.
    better
        `higher`, `lower`, or "" where neither is.
    values
        The values, in their order.
    x
        Where on the axis of the picture; None where there is none.
    """

    side: str
    what: str
    unit: str
    better: str
    values: list[float]
    x: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is called in other records too."""
        return self.side, self.what, self.unit


@dataclass
class Pair:
    """Seconds of one side and of the one that it is compared with, of the same rounds."""

    side: str
    against: str
    what: str
    own: list[float]
    other: list[float]

    @property
    def speed(self) -> stats.Estimate:
        """How many times `side` is as fast as `against`."""
        return stats.ratio(self.other, self.own)


@dataclass
class Record:
    """One run of a benchmark.

    Attributes
    ----------
    kind
        The benchmark's name.
    machine
        See `machine.facts`.
    options
        What it was run with.
    sides
        For each side, versions and settings in words.
    series, pairs
        What was measured.
    notes
        What a reader should know: peers that are missing, noise.
    details
        More of the benchmark's own.
    """

    kind: str
    machine: dict[str, Any]
    options: dict[str, Any]
    sides: dict[str, str] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, side: str, what: str, unit: str, better: str, values: list[float], x: float | None = None) -> None:
        """Add a series."""
        self.series.append(Series(side, what, unit, better, values, x))

    def chosen(self, what: str | None = None, unit: str | None = None) -> list[Series]:
        """The series of this name and unit."""
        return [one for one in self.series if what in (None, one.what) and unit in (None, one.unit)]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        text = json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """Read what `Record.write` has written.

    Raises
    ------
    OSError
        The file cannot be read.
    RecordError
        It is something else.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.pop("format") != FORMAT:
            raise RecordError(f"{path} is of another version of rawllama; measure again with this one")
        record = Record(**facts)
        record.series = [Series(**one) for one in facts["series"]]
        record.pairs = [Pair(**one) for one in facts["pairs"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path} is no record of `rawllama bench`: name a file that its --json has written") from None
    return record
