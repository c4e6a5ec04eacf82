"""The planning page, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rawllama.bench.stats import Estimate

from .arithmetic import (
    HOUR,
    Assumptions,
    Limits,
    cores_beside_gpu,
    limits,
    of_gpu,
    of_node,
    text_bytes,
    traffic,
)
from .rates import Length, Rates

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def page(rates: Rates, assumed: Assumptions) -> str:
    """The page: what was measured, what is assumed, and what follows."""
    parts = ["# What a corpus costs to embed", *_measured(rates), *_assumed(assumed)]
    parts += _clusters("CPU nodes", rates, assumed, assumed.nodes, [of_node(one, assumed) for one in rates.lengths])
    if assumed.gpu_tokens_per_second is not None:
        given = [of_gpu(one, assumed) for one in rates.lengths]
        parts += _clusters(f"{assumed.gpu_name}s, by the rate that is given", rates, assumed, assumed.gpus, given)
        parts += _beside_gpu(rates, assumed)
    return "\n\n".join([*parts, *_storage(rates, assumed), *_where_limits_are(rates, assumed)])


def _measured(rates: Rates) -> Iterator[str]:
    yield "## Measured"
    yield (
        f"{rates.model}, {rates.dims} columns, rawllama {rates.rawllama}, {rates.date}; one core of {rates.processor}, "
        f"while all {rates.cores} compute. Medians, and the intervals that they lie in with 95 %."
    )
    if rates.notes:
        yield f"Take care: {'; '.join(rates.notes)}."
    rows = [
        (f"embedding documents of {one.tokens:.0f} tokens ({one.text_bytes:.0f} bytes)",
         f"{_interval(one.documents_per_second)} documents/s, {_number(one.tokens_per_second)} tokens/s")
        for one in rates.lengths
    ]  # fmt: skip
    rows += [
        ("tokenising", f"{_interval(rates.tokenized_per_second)} tokens/s"),
        ("reading text from Parquet", f"{_interval(rates.read_per_second, _size)}/s"),
        ("writing float32 vectors to Parquet, with their texts", f"{_interval(rates.written_per_second, _size)}/s"),
        ("text in Parquet", f"{rates.text_share:.2f} of the bytes of these texts: docstrings, parts of which recur"),
    ]
    rows += [(f"a vector of {dtype} in Parquet", f"{size:.0f} bytes") for dtype, size in rates.vector_bytes.items()]
    yield _table(("one core", "rate"), rows)


def _assumed(assumed: Assumptions) -> Iterator[str]:
    yield "## Assumed, not measured"
    lines = [
        f"A node has {assumed.cores_per_node} cores, each as fast as the one above. `--cores`",
        f"A node's network carries {assumed.node_gbit:g} Gbit/s, shared storage {assumed.storage_gbit:g} Gbit/s in "
        "all. `--network`, `--storage`",
        f"Vectors are written as {assumed.dtype}, with the text beside them. `--dtype`",
    ]
    if assumed.gpu_tokens_per_second is not None:
        lines.append(
            f"A {assumed.gpu_name} embeds {_number(assumed.gpu_tokens_per_second)} tokens/s at every length: this is "
            "the number that the command was given, nothing that was measured here. `--gpu`"
        )
    yield "\n".join(f"- {line}" for line in lines)


def _clusters(
    title: str, rates: Rates, assumed: Assumptions, workers: Sequence[int], per_worker: Sequence[float]
) -> Iterator[str]:
    yield f"## On {title}"
    yield "Time until the end, and what the network or the storage makes longer than computing alone would."
    rows = []
    for documents in assumed.documents:
        for length, rate in zip(rates.lengths, per_worker, strict=True):
            cells = [_time(documents, limits(rates, length, assumed, count, rate)) for count in workers]
            hours = documents / rate / HOUR
            rows.append((_count(documents), f"{length.tokens:.0f}", _number(hours), *cells))
    what = "node" if "node" in title else assumed.gpu_name
    yield _table(("documents", "tokens each", f"{what}-hours of computing", *map(_workers, workers)), rows)


def _time(documents: float, found: Limits) -> str:
    words = _duration(documents / found.documents_per_second)
    return words if found.name == "computing" else f"{words} ({found.name})"


def _beside_gpu(rates: Rates, assumed: Assumptions) -> Iterator[str]:
    yield f"### Cores that one {assumed.gpu_name} keeps busy"
    yield "Where its machine has fewer, they are the limit, and not it."
    needed = [cores_beside_gpu(rates, length, assumed) for length in rates.lengths]
    rows = [
        (f"{length.tokens:.0f}", *(f"{cores:.2f}" for cores in one.values()), f"{sum(one.values()):.1f}")
        for length, one in zip(rates.lengths, needed, strict=True)
    ]
    yield _table(("tokens each", *needed[0], "all"), rows)


def _storage(rates: Rates, assumed: Assumptions) -> Iterator[str]:
    yield "## Storage"
    yield "Parquet: the text once, as it is read and as it is written again; and the vectors, by their dtype."
    rows = [
        (_count(documents), f"{length.tokens:.0f}", _size(documents * text_bytes(rates, length)),
         *(_size(documents * size) for size in rates.vector_bytes.values()))
        for documents in assumed.documents for length in rates.lengths
    ]  # fmt: skip
    yield _table(("documents", "tokens each", "text", *rates.vector_bytes), rows)


def _where_limits_are(rates: Rates, assumed: Assumptions) -> Iterator[str]:
    yield "## Where the limits are"
    yield (
        "Workers beyond these numbers wait for the shared storage: what it carries, over what one worker reads and "
        "writes. The bytes a document are its text twice and its vector."
    )
    rows = [row for length in rates.lengths for row in _limits_of(rates, assumed, length)]
    yield _table(("tokens each", "bytes a document", "worker", "its traffic", "workers that the storage feeds"), rows)
    yield _words(rates)


def _limits_of(rates: Rates, assumed: Assumptions, length: Length) -> Iterator[tuple[str, ...]]:
    workers = {"node": of_node(length, assumed)}
    if assumed.gpu_tokens_per_second is not None:
        workers[assumed.gpu_name] = of_gpu(length, assumed)
    for name, documents in workers.items():
        size = traffic(rates, length, assumed.dtype)
        gbit = 8 * documents * size / 1e9
        yield (f"{length.tokens:.0f}", f"{size:.0f}", name, f"{gbit:.3g} Gbit/s", f"{assumed.storage_gbit / gbit:,.0f}")


def _words(rates: Rates) -> str:
    short = rates.lengths[0]
    times = rates.tokenized_per_second.middle / short.tokens_per_second
    return (
        f"On CPUs, tokenising takes 1 part in {times:.0f} of the time of documents of {short.tokens:.0f} tokens, and "
        "less of longer ones: computing is the limit until the storage is."
    )


# ---- numbers in words


def _interval(found: Estimate, written: object = None) -> str:
    number = _size if written is _size else _number
    return f"{number(found.middle)} ({number(found.low)} to {number(found.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _count(value: float) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:,g} {word}"
    return f"{value:,g}"


def _size(value: float) -> str:
    for unit in _UNITS[:-1]:
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} {_UNITS[-1]}"


def _duration(seconds: float) -> str:
    for size, word in ((365.25 * 24 * HOUR, "years"), (48 * HOUR, "days"), (2 * HOUR, "h"), (120.0, "min")):
        if seconds >= size:
            unit = 24 * HOUR if word == "days" else HOUR if word == "h" else 60.0 if word == "min" else size
            return f"{seconds / unit:,.3g} {word}"
    return f"{seconds:.3g} s"


def _workers(count: int) -> str:
    return f"{count:,} of them" if count > 1 else "one"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] + ["--:"] * (len(titles) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
