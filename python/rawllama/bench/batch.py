"""Prompt processing and generation, beside llama.cpp's `llama-bench` and `llama-batched-bench`, line by line.

Both sides compute the same steps on the same libllama, with random tokens: in rounds, in turn. The C programs load the
model anew in each round, and warm up; only what they time themselves counts, as on our side.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawllama import Batch, Context, Model
from rawllama.hub import resolve

from . import decoder, machine, programs
from .record import Pair, Record

DECODER = "smollm2"
OURS, BENCH, BATCHED = "rawllama", "llama-bench", "llama-batched-bench"
N_BATCH, N_UBATCH = 2048, 512
_WARM_UP_TOKENS = 16


@dataclass(frozen=True)
class Settings:
    """What is computed.

    Attributes
    ----------
    model
        A path, or `smollm2`.
    prompts, generations, depths
        As llama-bench's -p, -n and -d: tokens; each prompt and each generation is a test at each depth.
    batched
        As llama-batched-bench's -npp, -ntg and -npl: tokens of a prompt, tokens generated, sequences in parallel.
    threads
        So many on each side.
    rounds
        So many.
    """

    model: str = DECODER
    prompts: tuple[int, ...] = (512,)
    generations: tuple[int, ...] = (64,)
    depths: tuple[int, ...] = (0, 512)
    batched: tuple[tuple[int, int, int], ...] = ((128, 32, 1), (128, 32, 2), (128, 32, 4), (128, 32, 8))
    threads: int = field(default_factory=machine.cores)
    rounds: int = 5


@dataclass(frozen=True)
class Line:
    """A line of llama-bench: a prompt or a generation, behind so many tokens."""

    n_prompt: int
    n_gen: int
    n_depth: int

    @property
    def name(self) -> str:
        """As llama-bench prints it."""
        name = f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"
        return f"{name} @ d{self.n_depth}" if self.n_depth else name

    @property
    def tokens(self) -> int:
        """That are timed."""
        return self.n_prompt + self.n_gen


def measure(settings: Settings) -> Record:
    """Tokens a second of both sides, for each line of both programs."""
    record, watch = Record("batch", machine.facts(), asdict(settings)), machine.Watch()
    path = str(decoder.path() if settings.model == DECODER else resolve(settings.model))
    tests = [Line(p, g, depth) for depth in settings.depths
             for p, g in (*((p, 0) for p in settings.prompts), *((0, g) for g in settings.generations))]  # fmt: skip
    record.sides = dict.fromkeys((OURS, BENCH, BATCHED), f"flash attention auto, threads {settings.threads}")
    with Model(path) as model:
        ours = _Ours(model, settings.threads)
        _add(record, BENCH, settings.rounds, {test.name: test.tokens for test in tests},
             lambda: {test.name: ours.test(test) for test in tests},
             lambda: _llama_bench(path, tests, settings.threads))  # fmt: skip
        lines = {
            f"{phase} {_batched_name(*one)}": tokens for one in settings.batched for phase, tokens in _phases(*one)
        }
        _add(record, BATCHED, settings.rounds, lines, lambda: ours.batched(settings.batched),
             lambda: _batched_bench(path, settings.batched, settings.threads))  # fmt: skip
    record.notes += watch.notes()
    return record


def _batched_name(pp: int, tg: int, pl: int) -> str:
    return f"PP {pp}, TG {tg}, B {pl}"


def _phases(pp: int, tg: int, pl: int) -> tuple[tuple[str, int], tuple[str, int]]:
    """The two columns of a line, and the tokens of each."""
    return ("S_PP", pp * pl), ("S_TG", tg * pl)


def _add(
    record: Record,
    other: str,
    rounds: int,
    tokens: dict[str, int],
    ours: Callable[[], dict[str, float]],
    theirs: Callable[[], dict[str, float]],
) -> None:
    """Rounds of both, which take turns to begin."""
    pairs = {name: Pair(OURS, other, name, [], []) for name in tokens}
    for number in range(rounds):
        turns = [(ours, True), (theirs, False)]
        for run, own in turns if number % 2 else turns[::-1]:
            for name, seconds in run().items():
                (pairs[name].own if own else pairs[name].other).append(seconds)
        print(f"{other}: round {number + 1} of {rounds}", file=sys.stderr)
    for name, pair in pairs.items():
        for side, times in ((OURS, pair.own), (other, pair.other)):
            record.add(side, name, "tokens/s", "higher", [tokens[name] / seconds for seconds in times])
    record.pairs += pairs.values()


# ---- rawllama


class _Ours:
    """The same steps through Context and Batch."""

    def __init__(self, model: Model, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._random = np.random.default_rng(0)

    def test(self, test: Line) -> float:
        """Seconds of a line of llama-bench."""
        with self._context(test.tokens + test.n_depth) as context:
            self._warm_up(context, test)
            assert context.memory is not None
            context.memory.clear(data=False)
            self._prompt(context, test.n_depth)
            start = time.perf_counter()
            if test.n_prompt:
                self._prompt(context, test.n_prompt, test.n_depth)
            else:
                self._generate(context, test.n_gen, test.n_depth)
            return time.perf_counter() - start

    def batched(self, lines: Sequence[tuple[int, int, int]]) -> dict[str, float]:
        """Seconds of the two phases of each line of llama-batched-bench."""
        largest = max(pl * (pp + tg) for pp, tg, pl in lines)
        found: dict[str, float] = {}
        with self._context(largest, n_seq_max=max(pl for _, _, pl in lines), kv_unified=True) as context:
            self._prompt(context, _WARM_UP_TOKENS)
            for pp, tg, pl in lines:
                assert context.memory is not None
                context.memory.clear(data=False)
                times = self._prompts(context, pp, pl), self._steps(context, pp, tg, pl)
                found |= {f"{phase} {_batched_name(pp, tg, pl)}": seconds
                          for (phase, _), seconds in zip(_phases(pp, tg, pl), times, strict=True)}  # fmt: skip
        return found

    def _context(self, n_ctx: int, **settings: Any) -> Context:
        return Context(self._model, n_ctx=n_ctx, n_batch=N_BATCH, n_ubatch=N_UBATCH, n_threads=self._threads,
                       n_threads_batch=self._threads, **settings)  # fmt: skip

    def _tokens(self, count: int) -> NDArray[np.int32]:
        return self._random.integers(0, self._model.vocab.n_tokens, count, np.int32)

    def _warm_up(self, context: Context, test: Line) -> None:
        if test.n_prompt:
            self._prompt(context, test.n_prompt)
        else:
            self._generate(context, 1, 0)

    def _prompt(self, context: Context, count: int, start: int = 0) -> None:
        """A prompt of random tokens, of which the last of each batch is an output."""
        batch = Batch(N_BATCH)
        for first in range(0, count, N_BATCH):
            batch.clear()
            batch.add_sequence(self._tokens(min(N_BATCH, count - first)), pos=start + first, logits="last")
            context.decode(batch)
        context.synchronize()

    def _generate(self, context: Context, count: int, start: int) -> None:
        self._steps(context, start, count, 1)

    def _prompts(self, context: Context, pp: int, pl: int) -> float:
        """Seconds of `pl` prompts; all together at most N_BATCH tokens at a time."""
        batches = [Batch(N_BATCH)]
        for seq_id in range(pl):
            if batches[-1].n_tokens + pp > N_BATCH:
                batches.append(Batch(N_BATCH))
            batches[-1].add_sequence(self._tokens(pp), seq_id, logits="last")
        start = time.perf_counter()
        for batch in batches:
            context.decode(batch)
        context.synchronize()
        return time.perf_counter() - start

    def _steps(self, context: Context, start: int, count: int, parallel: int) -> float:
        """Seconds of `count` steps of so many sequences, in a batch that is filled in place."""
        batch = Batch(parallel)
        tokens = self._tokens(count * parallel).reshape(count, parallel)
        batch.add_sequences(tokens[0], np.arange(parallel + 1))
        begun = time.perf_counter()
        for step in range(count):
            batch.token[:] = tokens[step]
            batch.pos[:] = start + step
            context.decode(batch)
            context.synchronize()
        return time.perf_counter() - begun


# ---- the C programs


def _run(name: str, *options: object) -> str:
    command = [str(programs.example(name)), *map(str, options)]
    done = subprocess.run(command, env=programs.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise programs.BuildError(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _llama_bench(path: str, tests: Sequence[Line], threads: int) -> dict[str, float]:
    """Seconds of each test, once, in one process."""
    found = {}
    for depth in dict.fromkeys(test.n_depth for test in tests):
        chosen = [test for test in tests if test.n_depth == depth]
        prompts = ",".join(str(test.n_prompt) for test in chosen if test.n_prompt) or "0"
        generations = ",".join(str(test.n_gen) for test in chosen if test.n_gen) or "0"
        out = _run(BENCH, "-m", path, "-p", prompts, "-n", generations, "-d", depth, "-t", threads, "-r", 1,
                   "-b", N_BATCH, "-ub", N_UBATCH, "-o", "json")  # fmt: skip
        for one in json.loads(out):
            found[Line(one["n_prompt"], one["n_gen"], one["n_depth"]).name] = one["samples_ns"][0] / 1e9
    return found


def _batched_bench(path: str, lines: Sequence[tuple[int, int, int]], threads: int) -> dict[str, float]:
    """Seconds of the two phases of each line, once."""
    found: dict[str, float] = {}
    largest = max(pl * (pp + tg) for pp, tg, pl in lines)
    for pp, tg in dict.fromkeys((pp, tg) for pp, tg, _ in lines):
        parallel = ",".join(str(pl) for *rest, pl in lines if tuple(rest) == (pp, tg))
        out = _run(BATCHED, "-m", path, "-npp", pp, "-ntg", tg, "-npl", parallel, "-t", threads, "-c", largest,
                   "-b", N_BATCH, "-ub", N_UBATCH, "--kv-unified", "--output-format", "jsonl")  # fmt: skip
        for text in out.splitlines():
            if text.startswith("{"):
                one = json.loads(text)
                name = _batched_name(one["pp"], one["tg"], one["pl"])
                found |= {f"S_PP {name}": one["t_pp"], f"S_TG {name}": one["t_tg"]}
    return found
