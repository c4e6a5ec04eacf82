"""Texts a second, and the latency of one query: rawllama, llama.cpp's C example, a C loop, and other libraries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

import numpy as np

from rawllama import Model
from rawllama.hub import NAMES, resolve

from . import inputs, machine
from .processes import SIDES, SPECS, Process, Spec, start, start_all
from .record import Pair, Record
from .rounds import alternate, times_of

# For sides that choose a batch size.
TUNING_TEXTS = 150
_WARM_UP_CALLS = 5
_AGREEMENT_ROUNDS = 5
REFERENCE = "sentence-transformers"


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes
    ----------
    model
        A path, or a name of `hub`'s.
    input
        See `inputs.texts`.
    texts
        So many.
    rounds
        At most so many.
    calls
        Of one query, in a round.
    query
        The text of which the latency is measured.
    threads
        So many on each side.
    pythons
        Interpreters of the environments that have the other libraries.
    sides
        Names of those that are wanted; empty for all.
    memory
        Whether to measure memory too.
    """

    model: str = "minilm"
    input: str = inputs.CORPUS
    texts: int = 300
    rounds: int = 11
    calls: int = 50
    query: str = inputs.QUERY
    threads: int = field(default_factory=machine.cores)
    pythons: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    memory: bool = False

    def specs(self) -> list[Spec]:
        """The sides that are wanted, and those that they are compared with."""
        named = self.model in NAMES
        possible = [spec for spec in SPECS if named or not spec.only_named]
        if not self.sides:
            return possible
        chosen = set(self.sides)
        while more := {spec.against for spec in possible if spec.name in chosen and spec.against} - chosen:
            chosen |= more
        return [spec for spec in possible if spec.name in chosen]


def measure(settings: Settings) -> Record:
    """Texts a second of all sides, and how alike their rows are."""
    record, watch = _record("embed", settings), machine.Watch()
    texts = {
        "all": inputs.texts(settings.input, settings.texts),
        "tuning": inputs.texts(settings.input, min(settings.texts // 2 + 1, TUNING_TEXTS), seed=1),
        "one": [settings.query],
    }
    lengths = _lengths(settings.model, texts["all"])
    record.details["tokens"] = lengths
    with ExitStack() as stack:
        processes = _start(record, settings, stack)
        what = f"{settings.texts} texts"
        sizes = {}
        for name, process in processes.items():
            process.give(texts)
            sizes[name] = process.ask("tune", set="tuning")
            record.sides[name] += f", batches of {sizes[name]}" if sizes[name] else ""
            process.seconds("all")
        record.pairs = _alternate(processes, what, settings.rounds, lambda process: process.seconds("all")[0])
        for name, process in processes.items():
            if times := times_of(name, record.pairs):
                record.add(name, what, "texts/s", "higher", [settings.texts / seconds for seconds in times])
            record.add(name, "start", "s", "lower", [process.about["start_s"]])
        record.details["cosines"] = cosines(processes)
        if "llama-embedding" in processes:
            wanted = {"rounds": min(settings.rounds, _AGREEMENT_ROUNDS)}
            record.details["agreement"] = processes["llama-embedding"].ask(
                "call", method="agreement", set="all", options=wanted
            )
    if settings.memory:  # each of the new processes has the machine for itself
        _memory(record, settings, sizes, texts)
    record.notes += watch.notes()
    return record


def measure_latency(settings: Settings) -> Record:
    """Seconds of one query, of all sides that can be asked for one."""
    record, watch = _record("latency", settings), machine.Watch()
    record.details["tokens"] = _lengths(settings.model, [settings.query])
    with ExitStack() as stack:
        processes = _start(record, settings, stack, latency=True)
        calls: dict[str, list[float]] = {name: [] for name in processes}

        def turn(process: Process) -> float:
            times = process.seconds("one", settings.calls + _WARM_UP_CALLS)[_WARM_UP_CALLS:]
            calls[process.spec.name] += times
            return float(np.median(times))

        for process in processes.values():
            process.give({"one": [settings.query]})
            process.seconds("one", 2 * _WARM_UP_CALLS)
        record.pairs = _alternate(processes, "one query", settings.rounds, turn)
        for name, times in calls.items():
            if times:
                record.add(name, "one query", "ms", "lower", [seconds * 1e3 for seconds in times])
    record.notes += watch.notes()
    return record


def cosines(processes: Mapping[str, Process]) -> dict[str, dict[str, float]]:
    """Of each side's rows of all texts to sentence-transformers' in fp32, or to rawllama's where that is missing."""
    rows = {}
    for name, process in processes.items():
        found = process.rows("all")
        if found is not None:
            matrix = found.astype(np.float64)
            rows[name] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    reference = rows.get(REFERENCE, rows.get("rawllama"))
    if reference is None:
        return {}
    values = {name: (matrix * reference).sum(axis=1) for name, matrix in rows.items()}
    return {name: {"least": float(one.min()), "mean": float(one.mean())} for name, one in values.items()}


def _record(kind: str, settings: Settings) -> Record:
    options = {name: value for name, value in asdict(settings).items() if name != "pythons"}  # paths of the machine
    return Record(kind, machine.facts(), options)


def _start(record: Record, settings: Settings, stack: ExitStack, latency: bool = False) -> dict[str, Process]:
    """The processes of the sides that are there; with `latency`, of those whose latency can be measured."""
    specs = [spec for spec in settings.specs() if spec.latency or not latency]
    processes, notes = start_all(specs, settings.pythons, settings.model, settings.threads, stack)
    record.notes += notes
    if notes:
        words = f"bash {SIDES / 'setup.sh'} FOLDER makes an environment with all of them"
        print(f"sides are missing: {words}; then pass --pythons FOLDER/bin/python", file=sys.stderr)
    for name, process in processes.items():
        record.sides[name] = f"{process.about['about']}; Python {process.about['python']}"
    return processes


def _alternate(
    processes: Mapping[str, Process], what: str, rounds: int, turn: Callable[[Process], float]
) -> list[Pair]:
    """Rounds of the sides, each with the one that it is compared with."""
    pairs = [(side, processes[side.spec.against]) for side in processes.values() if side.spec.against in processes]
    return alternate(pairs, turn, lambda process: process.spec.name, what, rounds)


def _lengths(name: str, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, which every side must take whole."""
    with Model(resolve(name), vocab_only=True) as model:
        lengths = np.diff(model.vocab.tokenize_many(list(texts))[1])
        longest = int(model.metadata[f"{model.metadata['general.architecture']}.context_length"])
    if lengths.max() > longest:
        words = f"text {int(lengths.argmax())} has {int(lengths.max())} tokens, and the model takes {longest}"
        raise ValueError(f"--input: {words}; the sides would cut it differently, so leave it out")
    return [int(length) for length in lengths]


def _memory(record: Record, settings: Settings, sizes: Mapping[str, str], texts: Mapping[str, Sequence[str]]) -> None:
    """Peak memory of a new process of each side, after one text and after all."""
    for spec in settings.specs():
        if spec.name not in sizes:
            continue
        with start(spec, settings.pythons, settings.model, settings.threads) as process:
            process.give({"one": texts["one"], "all": texts["all"]})
            process.ask("batch_size", value=sizes[spec.name])
            for name, count in (("one", 1), ("all", len(texts["all"]))):
                process.ask("run", set=name)
                record.add(spec.name, f"peak memory after {count}", "MB", "lower", [process.ask("peak") / 1e6])
