"""How time and memory grow with the number of texts, their length, the texts of a call, and threads."""

from __future__ import annotations

import random
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

from . import inputs, machine
from .processes import OURS, Process, Spec, start
from .record import Record

GGML = Spec("rawllama, ggml's kernels", "ours", "ggml", here=True)
LENGTH, CALL, THREADS, TEXTS = "one text of n tokens", "n texts of 32 tokens in a call", "n threads", "n texts"
_SPECIAL = 2
_SHORT = 32
# Texts of the runs with 1, 2, ... threads.
_FOR_THREADS = 60


@dataclass(frozen=True)
class Settings:
    """What grows, and how far.

    Attributes
    ----------
    model
        A path, or a name of `hub`'s.
    lengths
        Tokens of one text.
    calls
        Texts of one call, each of 32 tokens.
    texts
        Mixed texts in a process of their own, whose peak memory is measured.
    threads
        So many; also 1, 2, 4 and so on up to it.
    rounds
        So many.
    """

    model: str = "minilm"
    lengths: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    calls: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    texts: tuple[int, ...] = (1, 10, 100, 1000)
    threads: int = field(default_factory=machine.cores)
    rounds: int = 7


def measure(settings: Settings) -> Record:
    """All four."""
    record, watch = Record("scale", machine.facts(), asdict(settings)), machine.Watch()
    with ExitStack() as stack:
        for spec in (OURS, GGML):
            process = stack.enter_context(start(spec, (), settings.model, settings.threads))
            record.sides[spec.name] = process.about["about"]
            _by_texts_at_once(record, process, settings)
    _by_threads(record, settings)
    _by_count(record, settings)
    record.notes += watch.notes()
    return record


def _by_texts_at_once(record: Record, process: Process, settings: Settings) -> None:
    generator = random.Random(0)
    sets = {f"length {n}": [inputs.words(n - _SPECIAL, generator)] for n in settings.lengths}
    sets |= {f"call {n}": [inputs.words(_SHORT - _SPECIAL, generator) for _ in range(n)] for n in settings.calls}
    times = _rounds(process, sets, settings.rounds)
    for n in settings.lengths:
        record.add(process.spec.name, LENGTH, "ms", "lower", [t * 1e3 for t in times[f"length {n}"]], n)
    for n in settings.calls:
        record.add(process.spec.name, CALL, "texts/s", "higher", [n / t for t in times[f"call {n}"]], n)


def _rounds(process: Process, sets: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each set in each round; a short one is computed several times, and the median counts."""
    process.give(sets)
    first = {name: process.seconds(name, 2)[1] for name in sets}
    times: dict[str, list[float]] = {name: [] for name in sets}
    for number in range(rounds):
        for name in sets:
            count = max(1, min(9, int(0.2 / first[name])) | 1)
            times[name].append(sorted(process.seconds(name, count))[count // 2])
        print(f"{process.spec.name}: round {number + 1} of {rounds}", file=sys.stderr)
    return times


def _by_threads(record: Record, settings: Settings) -> None:
    counts = sorted({2**i for i in range(settings.threads.bit_length())} | {settings.threads})
    texts = {"all": inputs.texts(inputs.MIXED, _FOR_THREADS)}
    with ExitStack() as stack:
        processes = [stack.enter_context(start(OURS, (), settings.model, count)) for count in counts]
        for process in processes:
            process.give(texts)
            process.seconds("all")
        times: list[list[float]] = [[] for _ in counts]
        for _ in range(settings.rounds):
            for process, found in zip(processes, times, strict=True):
                found += process.seconds("all")
    for count, found in zip(counts, times, strict=True):
        record.add(OURS.name, THREADS, "texts/s", "higher", [_FOR_THREADS / t for t in found], count)


def _by_count(record: Record, settings: Settings) -> None:
    for count in settings.texts:
        with start(OURS, (), settings.model, settings.threads) as process:
            process.give({"all": inputs.texts(inputs.MIXED, count)})
            seconds = process.seconds("all")[0]
            record.add(OURS.name, TEXTS, "s", "lower", [seconds], count)
            record.add(OURS.name, TEXTS, "MB", "lower", [process.ask("peak") / 1e6], count)
        print(f"{count} texts", file=sys.stderr)
