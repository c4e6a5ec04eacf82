"""Records as pictures, in colours that colour-blind people tell apart (Okabe and Ito's)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama.errors import MissingExtraError

from . import profile, scale, stats
from .record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, OTHERS, BOUND = "#0072B2", "#6E6E6E", "#D55E00"
COLOURS = (OURS, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#8C6D31")
MARKERS = "osD^vPX*"
_SIZE = (7.2, 4.0)  # inches; at 150 dpi as wide as a README
_DPI = 150


def save(record: Record, folder: Path) -> list[Path]:
    """Write a record's pictures as PNG files; their paths.

    Raises
    ------
    MissingExtraError
        matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib is not installed: pip install 'rawllama[bench]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in _PICTURES.get(record.kind, {}).items():
        figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(record, axes)
        written.append(folder / f"{record.kind}-{name}.png")
        figure.savefig(written[-1])
    return written


def throughput(record: Record, axes: Axes) -> None:
    """Texts a second of all sides, with the least and most of the rounds."""
    found = sorted(record.chosen(unit="texts/s"), key=lambda series: float(np.median(series.values)))
    middles = [float(np.median(series.values)) for series in found]
    ends = [(m - min(s.values), max(s.values) - m) for m, s in zip(middles, found, strict=True)]
    colours = [OURS if series.side.startswith("rawllama") else OTHERS for series in found]
    axes.barh([series.side for series in found], middles, color=colours)
    axes.errorbar(middles, range(len(found)), xerr=np.transpose(ends), fmt="none", ecolor="black", capsize=3)
    for y, middle in enumerate(middles):  # where no error bar is
        axes.text(max(middles) / 100, y, f"{middle:.0f}", color="white", weight="bold", va="center")
    axes.set_xlabel(f"texts a second ({record.options['texts']} texts, {record.options['threads']} threads)")
    axes.set_title("Throughput: median, least and most of the rounds")


def latencies(record: Record, axes: Axes) -> None:
    """The distribution of one query's latency."""
    for number, series in enumerate(record.chosen("one query", "ms")):
        values = np.sort(series.values)
        style = "-" if series.side.startswith("rawllama") else ("--", ":")[number // len(COLOURS)]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(values, np.arange(1, values.size + 1) / values.size * 100, style, color=colour, label=series.side)
    axes.set_xscale("log", base=2)
    axes.set_xlim(right=1.1 * max(np.percentile(series.values, 99) for series in record.chosen("one query", "ms")))
    _plain(axes.xaxis)
    axes.set_xlabel("latency in ms, log scale")
    axes.set_ylabel("calls that took at most so long, %")
    axes.set_title(f"One query of {record.details['tokens'][0]} tokens, {record.options['threads']} threads")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")


def by_length(record: Record, axes: Axes) -> None:
    """What a text costs against its length."""
    _lines(record, axes, scale.LENGTH, "ms")
    axes.set_yscale("log", base=2)
    _plain(axes.yaxis)
    axes.set_xlabel("tokens of one text")
    axes.set_ylabel("ms")
    axes.set_title(f"Cost against length, {record.options['threads']} threads")


def by_call(record: Record, axes: Axes) -> None:
    """Throughput by batch."""
    _lines(record, axes, scale.CALL, "texts/s")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("texts of 32 tokens in a call")
    axes.set_ylabel("texts a second")
    axes.set_title(f"Throughput by batch, {record.options['threads']} threads")


def memory(record: Record, axes: Axes) -> None:
    """Peak memory against the number of texts."""
    _lines(record, axes, scale.TEXTS, "MB")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.2 * max(series.values[0] for series in record.chosen(scale.TEXTS, "MB")))
    _plain(axes.xaxis)
    axes.set_xlabel("mixed texts, log scale")
    axes.set_ylabel("peak memory of the process in MB (10⁶ bytes)")
    axes.set_title("Memory against the number of texts")


def roofline(record: Record, axes: Axes) -> None:
    """What the matrix products reach, and what the machine could do."""
    peak, bandwidth = record.details["peak GFLOP/s"], record.details["peak GB/s"]
    intensities = np.geomspace(0.3, 300, 200)
    axes.plot(intensities, np.minimum(peak, bandwidth * intensities), color=BOUND,
              label=f"bound: numpy {peak:.0f} GFLOP/s, copying {bandwidth:.0f} GB/s")  # fmt: skip
    for what, marker, colour in (("texts", "o", OURS), ("query", "D", "#E69F00")):
        found = record.details[f"products, {what}"]
        x = [one["flops"] / one["bytes"] for one in found.values()]
        y = [one["flops"] / one["seconds"] / 1e9 for one in found.values()]
        axes.scatter(
            x,
            y,
            marker=marker,
            color=colour,
            label=f"products of {'a batch' if what == 'texts' else 'one query'}",
            zorder=3,
        )
        for names, left, height in _labels(list(found), x, y):
            axes.annotate(names, (left, height), textcoords="offset points", xytext=(0, -14), fontsize=8, ha="center")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        _plain(axis)
    axes.set_ylim(bottom=axes.get_ylim()[0] / 2)  # room for a label
    axes.set_xlabel("FLOP a byte, log scale")
    axes.set_ylabel("GFLOP/s, log scale")
    axes.set_title(f"Roofline, {record.options['threads']} threads")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")


def _labels(names: list[str], x: list[float], y: list[float]) -> list[tuple[str, float, float]]:
    """A label for the points that are near each other: the first words of their names, below the lowest."""
    groups: list[list[int]] = []
    for i in sorted(range(len(x)), key=x.__getitem__):
        if groups and x[i] < 1.1 * x[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    words = [", ".join(dict.fromkeys(names[i].split("_")[0] for i in group)) for group in groups]
    words = [names[group[0]] if len(group) == 1 else word for word, group in zip(words, groups, strict=True)]
    return [(word, x[group[0]], min(y[i] for i in group)) for word, group in zip(words, groups, strict=True)]


def shares(record: Record, axes: Axes) -> None:
    """Where the time goes: stages, and operations within the computation."""
    middle = {series.what: stats.estimate(series.values).middle for series in record.series}
    whole = sum(middle[name] for name in profile.STAGES)
    found = record.details["operations, texts"]
    computed = sum(one["seconds"] for one in found.values())
    parts = {name: middle[name] / whole for name in profile.STAGES if name != profile.COMPUTING}
    parts |= {
        f"computing: {name}": one["seconds"] / computed * middle[profile.COMPUTING] / whole
        for name, one in found.items()
    }
    parts = {name: share for name, share in sorted(parts.items(), key=lambda item: item[1]) if share >= 0.001}
    colours = [OURS if name.startswith("computing") else "#E69F00" for name in parts]
    bars = axes.barh(list(parts), [share * 100 for share in parts.values()], color=colours)
    axes.bar_label(bars, [f"{share:.1%}" for share in parts.values()], padding=3)
    axes.set_xlim(right=112 * max(parts.values()))
    axes.set_xlabel(f"share of the time in % ({record.options['texts']} texts, {record.options['threads']} threads)")
    axes.set_title("Where the time goes")


def batches(record: Record, axes: Axes) -> None:
    """Rawllama's speed against the C programs', test by test."""
    estimates = [pair.speed for pair in record.pairs]
    y = range(len(estimates))
    ends = [(one.middle - one.low, one.high - one.middle) for one in estimates]
    axes.errorbar([one.middle for one in estimates], y, xerr=np.transpose(ends), fmt="o", color=OURS, capsize=3)
    axes.axvline(1, color=BOUND, label="as fast as the C program")
    axes.set_yticks(y, [pair.what for pair in record.pairs], fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel("rawllama's speed over llama-bench's or llama-batched-bench's (95 % interval)")
    axes.set_title(f"Prompt processing and generation, {record.options['threads']} threads")
    axes.legend(fontsize="small")


def calls(record: Record, axes: Axes) -> None:
    """Nanoseconds a call."""
    functions = list(dict.fromkeys(series.what for series in record.chosen(unit="ns") if series.side != "Python"))
    sides = list(dict.fromkeys(series.side for series in record.chosen(unit="ns") if series.side != "Python"))
    width = 0.8 / len(sides)
    for i, side in enumerate(sides):
        values = [
            next(float(np.median(s.values)) for s in record.chosen(name, "ns") if s.side == side) for name in functions
        ]
        bars = axes.bar(np.arange(len(functions)) + i * width, values, width, color=COLOURS[i], label=side)
        axes.bar_label(bars, [f"{value:.0f}" for value in values], padding=2)
    axes.set_xticks(np.arange(len(functions)) + 0.4 - width / 2, functions)
    axes.set_ylabel("ns a call")
    axes.set_title("One raw call")
    axes.legend(fontsize="small")


def _lines(record: Record, axes: Axes, what: str, unit: str) -> None:
    """Medians over x of each side, with the least and most."""
    found = record.chosen(what, unit)
    for side, colour, marker in zip(dict.fromkeys(series.side for series in found), COLOURS, MARKERS, strict=False):
        own = sorted((series for series in found if series.side == side), key=lambda series: series.x or 0)
        x = [series.x for series in own if series.x is not None]
        axes.plot(x, [float(np.median(series.values)) for series in own], marker=marker, color=colour, label=side)
        axes.fill_between(x, [min(s.values) for s in own], [max(s.values) for s in own], color=colour, alpha=0.2)
    axes.set_xscale("log", base=2)
    _plain(axes.xaxis)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _plain(axis: Any) -> None:
    """Numbers on the axis as people write them, not as powers."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


_PICTURES: dict[str, dict[str, Callable[[Record, Axes], None]]] = {
    "embed": {"throughput": throughput},
    "latency": {"distribution": latencies},
    "scale": {"length": by_length, "batch": by_call, "memory": memory},
    "profile": {"shares": shares, "roofline": roofline},
    "batch": {"speed": batches},
    "calls": {"calls": calls},
}
