"""Records as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rawllama.errors import MissingExtraError

from . import compare, profile, stats
from .record import Pair, Record, Series

PERCENTILES = (50, 90, 99)
MARKDOWN = "github"


@dataclass(frozen=True)
class Table:
    """A table of words: a title, names of its columns, and its lines."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]

    def text(self, style: str = "simple") -> str:
        """For people; `style` is tabulate's, `github` for Markdown.

        Raises
        ------
        MissingExtraError
            tabulate is not there.
        """
        try:
            from tabulate import tabulate
        except ImportError:
            raise MissingExtraError("tabulate is not installed: pip install 'rawllama[bench]'") from None
        align = ("left", *("right" for _ in self.columns[1:]))
        shown = tabulate(
            self.lines, self.columns, tablefmt=style, colalign=align if self.lines else None, disable_numparse=True
        )
        return f"{'### ' if style == MARKDOWN else ''}{self.title}\n\n{shown}"


def text(record: Record, style: str = "simple") -> str:
    """All that is to be read of a record."""
    title, *lines = _machine(record)
    heading = [f"## {title}", "```", *lines, "```"] if style == MARKDOWN else [title, *lines]
    parts = [table.text(style) for table in tables(record)]
    return "\n\n".join(["\n".join(heading), *parts, *_notes(record)])


def tables(record: Record) -> list[Table]:
    """A record's tables."""
    make = _MAKERS.get(record.kind)
    return list(make(record)) if make else []


def changes(found: Sequence[compare.Change]) -> Table:
    """What `compare` found."""
    lines = [
        (
            one.side,
            f"{one.what}, {one.unit}",
            _number(one.before),
            _number(one.after),
            _interval(one.speed),
            one.verdict,
        )
        for one in found
    ]
    return Table("after against before", ("side", "number", "before", "after", "times better (95 %)", ""), lines)


def _machine(record: Record) -> list[str]:
    """Where and how it was measured."""
    machine = record.machine
    build = machine["build"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    options = ", ".join(f"{name} {_words(value)}" for name, value in record.options.items())
    return [
        f"rawllama bench {record.kind}, {machine['time']}",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
        f"Python {machine['python']}, {packages}",
        f"llama.cpp {build['commit']}, {build['compiler']}, {build['build_type']} {build['cxx_flags']}".rstrip(),
        f"    {build['ggml_options']}",
        options,
        *(f"    {name}: {about}" for name, about in record.sides.items()),
    ]


def _notes(record: Record) -> Iterator[str]:
    if record.notes:
        yield "\n".join(f"note: {note}" for note in record.notes)


def _pairs(record: Record, unit: str, better: str) -> Iterator[Table]:
    """Each side's numbers, and its ratio to the one that it is compared with."""
    pairs = {(pair.side, pair.what): pair for pair in record.pairs}
    for what in dict.fromkeys(series.what for series in record.chosen(unit=unit)):
        lines = [
            (series.side, *_spread(series), *_against(pairs.get((series.side, what)), better))
            for series in record.chosen(what, unit)
        ]
        yield Table(f"{what}: {unit}", ("side", "median", "least", "most", f"its {better} (95 %)", "to", ""), lines)


def _against(pair: Pair | None, better: str) -> tuple[str, str, str]:
    if pair is None:
        return "", "", ""
    speed = pair.speed if better == "speed" else stats.ratio(pair.own, pair.other)
    return _interval(speed), pair.against, stats.verdict(pair.speed)


def _embed(record: Record) -> Iterator[Table]:
    yield from _pairs(record, "texts/s", "speed")
    starts = {series.side: series.values[0] for series in record.chosen("start", "s")}
    cosines = record.details.get("cosines", {})
    lines = [
        (
            side,
            f"{seconds:.2f}",
            *(f"{cosines[side][name]:.6f}" if side in cosines else "" for name in ("least", "mean")),
        )
        for side, seconds in starts.items()
    ]
    yield Table(
        "start in s (imports and model), cosine to fp32", ("side", "start", "least cosine", "mean cosine"), lines
    )
    memory = record.chosen(unit="MB")
    if memory:
        names = list(dict.fromkeys(series.what for series in memory))
        found = {(series.side, series.what): f"{series.values[0]:.0f}" for series in memory}
        sides = dict.fromkeys(series.side for series in memory)
        yield Table(
            "peak memory in MB (10^6 bytes)", ("side", *names), [(s, *(found[s, n] for n in names)) for s in sides]
        )
    if agreement := record.details.get("agreement"):
        yield _agreement(agreement)


def _agreement(times: dict[str, list[float]]) -> Table:
    """llama-embedding's times, by itself and from outside."""
    ratio = stats.ratio(times["outside"], times["printed"])
    line = (f"{np.median(times['printed']):.3f}", f"{np.median(times['outside']):.3f}", _interval(ratio))
    return Table("llama-embedding's computing time in s", ("as it prints it", "from outside", "ratio (95 %)"), [line])


def _latency(record: Record) -> Iterator[Table]:
    lines = []
    pairs = {pair.side: pair for pair in record.pairs}
    for series in record.chosen("one query", "ms"):
        points = np.percentile(series.values, PERCENTILES)
        shown = (f"{value:.2f}" for value in points)
        lines.append((series.side, f"{min(series.values):.2f}", *shown, *_against(pairs.get(series.side), "latency")))
    columns = ("side", "least", *(f"p{p}" for p in PERCENTILES), "its latency (95 %)", "to", "")
    yield Table("one query: ms", columns, lines)


def _check(record: Record) -> Iterator[Table]:
    lines = [
        (pair.what, pair.side, _interval(pair.speed), f"{len(pair.own)}", stats.verdict(pair.speed))
        for pair in record.pairs
    ]
    yield Table("speed against `first`", ("trial", "side", "its speed (95 %)", "rounds", ""), lines)
    times = record.options["times"]
    yield Table(
        "right verdicts",
        ("side", "right", "of"),
        [(side, str(n), str(times)) for side, n in record.details["right"].items()],
    )


def _calls(record: Record) -> Iterator[Table]:
    lines = []
    for function in dict.fromkeys(series.what for series in record.chosen(unit="ns")):
        sides = {series.side: series for series in record.chosen(function, "ns")}
        lines += [(function, side, *_spread(series)) for side, series in sides.items()]
    yield Table("one call: ns", ("function", "way", "median", "least", "most"), lines)
    yield Table(
        "in a new process: ms",
        ("", "median", "least", "most"),
        [(series.what, *_spread(series)) for series in record.chosen(unit="ms")],
    )


def _batch(record: Record) -> Iterator[Table]:
    for other in dict.fromkeys(pair.against for pair in record.pairs):
        lines = []
        for pair in record.pairs:
            if pair.against == other:
                theirs, ours = (
                    next(s for s in record.chosen(pair.what) if s.side == side) for side in (other, pair.side)
                )
                lines.append(
                    (
                        pair.what,
                        _plus_minus(theirs),
                        _plus_minus(ours),
                        _interval(pair.speed),
                        stats.verdict(pair.speed),
                    )
                )
        yield Table(f"{other}: tokens/s", ("test", other, "rawllama", "its speed (95 %)", ""), lines)


def _scale(record: Record) -> Iterator[Table]:
    for what, unit in dict.fromkeys((series.what, series.unit) for series in record.series):
        found = record.chosen(what, unit)
        sides = list(dict.fromkeys(series.side for series in found))
        cells = {(series.side, series.x): _number(stats.estimate(series.values).middle) for series in found}
        points = sorted({series.x for series in found if series.x is not None})
        yield Table(
            f"{what}: {unit}",
            ("n", *sides),
            [(f"{x:.0f}", *(cells.get((side, x), "") for side in sides)) for x in points],
        )


def _profile(record: Record) -> Iterator[Table]:
    middle = {series.what: stats.estimate(series.values).middle for series in record.series}
    whole = sum(middle[name] for name in profile.STAGES)
    lines = [(name, f"{middle[name]:.1f}", f"{middle[name] / whole:.1%}") for name in profile.STAGES]
    lines += [("all of these", f"{whole:.1f}", ""), ("`encode`, undisturbed", f"{middle[profile.WHOLE]:.1f}", "")]
    yield Table(f"{record.options['texts']} texts, by stage", ("stage", "ms", "share"), lines)
    for what in ("texts", "query"):
        yield _operations(record, what)
    yield _products(record)


def _operations(record: Record, what: str) -> Table:
    found: dict[str, dict[str, float]] = record.details[f"operations, {what}"]
    whole = sum(one["seconds"] for one in found.values())
    order = sorted(found.items(), key=lambda item: -item[1]["seconds"])
    lines = [
        (name, f"{one['count']:.0f}", f"{one['seconds'] / one['count'] * 1e6:.1f}", f"{one['seconds'] / whole:.1%}")
        for name, one in order
    ]
    return Table(f"computing {what}, by operation", ("operation", "times", "us each", "share"), lines)


def _products(record: Record) -> Table:
    peak: float = record.details["peak GFLOP/s"]
    lines = []
    for what in ("texts", "query"):
        for name, one in record.details[f"products, {what}"].items():
            rate = one["flops"] / one["seconds"] / 1e9
            lines.append((f"{name}, {what}", f"{one['flops'] / one['bytes']:.1f}", f"{rate:.0f}", f"{rate / peak:.0%}"))
    title = f"matrix products; numpy's peak here is {peak:.0f} GFLOP/s, copying {record.details['peak GB/s']:.1f} GB/s"
    return Table(title, ("product", "FLOP/byte", "GFLOP/s", "of the peak"), lines)


_MAKERS: dict[str, Callable[[Record], Iterator[Table]]] = {
    "embed": _embed, "latency": _latency, "check": _check, "calls": _calls, "batch": _batch, "scale": _scale,
    "profile": _profile,
}  # fmt: skip


def _spread(series: Series) -> tuple[str, str, str]:
    return tuple(_number(value) for value in (np.median(series.values), min(series.values), max(series.values)))  # type: ignore[return-value]


def _plus_minus(series: Series) -> str:
    """As llama-bench has it: mean and standard deviation."""
    deviation = np.std(series.values, ddof=1) if len(series.values) > 1 else 0.0
    return f"{np.mean(series.values):.2f} ± {deviation:.2f}"


def _interval(one: stats.Estimate) -> str:
    return f"{one.middle:.3f} ({one.low:.3f} to {one.high:.3f})"


def _number(value: float) -> str:
    """Three digits or more."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
