"""What a tap costs: contexts that can be tapped and are not, and contexts with a tap, against one that never had one.

    python benchmarks/tap_cost.py [MODEL] [--rounds N]

The same batch in each, two threads, flash attention as libllama decides, in rounds that take turns: medians of ratios,
with their intervals.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from rawllama import Batch, Context, Model
from rawllama.bench.stats import estimate, ratio
from rawllama.hub import resolve

SIDES = (
    "no tap possible",
    "tap possible",
    "the same again",
    "one layer",
    "all layers",
    "queries of layer 0",
    "all tensors",
)
PATTERNS = {
    "one layer": ("layer_output-0",),
    "all layers": ("layer_output-*",),
    "queries of layer 0": ("Qcur-0",),
    "all tensors": ("*",),
}


def batch_of(model: Model, n_sequences: int, length: int) -> Batch:
    tokens = np.random.default_rng(0).integers(1000, 20000, (n_sequences, length), np.int32)
    batch = Batch(tokens.size)
    for seq_id, row in enumerate(tokens):
        batch.add_sequence(row % model.vocab.n_tokens, seq_id)
    return batch


def seconds(context: Context, batch: Batch, patterns: tuple[str, ...], times: int) -> float:
    """Of one batch, the tap's own making included."""
    start = time.perf_counter()
    for _ in range(times):
        if context.memory is not None:
            context.memory.clear()
        block: AbstractContextManager[object] = context.tap(*patterns) if patterns else nullcontext()
        with block:
            context.process(batch)
    return (time.perf_counter() - start) / times


def measure(model: Model, n_sequences: int, length: int, rounds: int, times: int) -> dict[str, list[float]]:
    def make(taps: bool) -> Context:
        return Context(
            model, embeddings=True, n_ctx=512, n_batch=512, n_ubatch=512, n_seq_max=n_sequences, kv_unified=True,
            n_threads=2, n_threads_batch=2, taps=taps,
        )  # fmt: skip

    batch = batch_of(model, n_sequences, length)
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    with make(False) as bare, make(False) as again, make(True) as tappable:
        contexts = dict.fromkeys(SIDES, tappable) | {"no tap possible": bare, "the same again": again}
        turns: list[tuple[str, Callable[[], float]]] = [
            (side, lambda side=side: seconds(contexts[side], batch, PATTERNS.get(side, ()), times)) for side in SIDES
        ]
        for number in range(rounds + 2):
            for side, turn in turns[number % len(turns) :] + turns[: number % len(turns)]:
                value = turn()
                if number >= 2:  # the first ones warm up
                    found[side].append(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="minilm")
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    with Model(resolve(options.model)) as model:
        print(model.description)
        for words, n_sequences, length, times in (
            ("16 texts of 32 tokens", 16, 32, 2),
            ("one of 18 tokens", 1, 18, 20),
        ):
            found = measure(model, n_sequences, length, options.rounds, times)
            print(f"\n{words}: {estimate(found[SIDES[0]]).middle * 1e3:.3f} ms without")
            for side in SIDES[1:]:
                one = ratio(found[side], found[SIDES[0]])
                print(f"    {side:20} {one.middle:.3f} ({one.low:.3f} to {one.high:.3f}) of its time")


if __name__ == "__main__":
    main()
