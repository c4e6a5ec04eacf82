"""What the Pythonic layer adds to C: filling a batch, `Context.decode`, reading rows.

    python benchmarks/context_calls.py

A tiny random model, so that the computation does not hide the calls: medians of alternating rounds, in microseconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from rawllama import lib
from rawllama.batch import Batch
from rawllama.context import Context
from rawllama.model import Model

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.models import tiny

ROUNDS = 1001


def microseconds(function: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - start) / count * 1e6


def compare(sides: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, function in sides.items():
            times[name].append(microseconds(function, count))
    return {name: median(each) for name, each in times.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Model(tiny.write("bert", Path(folder) / "bert.gguf"))
        sizes = {"n_ctx": 512, "n_batch": 512, "n_ubatch": 512, "n_seq_max": 16, "n_threads": 1, "n_threads_batch": 1}
        context = Context(model, embeddings=True, kv_unified=True, **sizes)
        tokens = np.arange(512, dtype=np.int32) % 90 + 5
        offsets = np.arange(0, 513, 32)
        ids = np.arange(16, dtype=np.int32)
        batch, one = Batch(512), Batch(1)

        def fill() -> None:
            batch.clear()
            batch.add_sequences(tokens, offsets)

        fill()
        context.decode(batch)
        parts = compare({"fill 512 tokens": fill, "read 16 rows": lambda: context.get_embeddings_seq(ids)}, 20)
        for name, time_us in parts.items():
            print(f"{name:28} {time_us:8.2f} us")
        print(f"{'both':28} {sum(parts.values()):8.2f} us")

        one.add_sequence([7])
        pointer = context.c
        for name, which in (("1 token", one), ("512 tokens", batch)):
            struct = which.c.batch
            sides = compare(
                {
                    "lib.llama_decode": lambda struct=struct: lib.llama_decode(pointer, struct),
                    "Context.decode": lambda which=which: context.decode(which),
                },
                10 if which is one else 1,
            )
            bare, ours = sides.values()
            print(f"{name}: lib.llama_decode {bare:.2f} us, Context.decode {ours:.2f} us, added {ours - bare:+.2f} us")
        context.close()
        model.close()


if __name__ == "__main__":
    main()
