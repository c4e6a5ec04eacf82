"""`Embedder.encode` against a C program that packs the same batches by hand and calls llama_decode.

    python benchmarks/embed_loop.py [texts] [threads]

The C side (tests/fidelity/embed_loop.c) is given tokens and plan; the Embedder tokenises and plans, too. Alternating
rounds, each side's second of two runs; medians, and the median of the rounds' ratios.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from rawllama import Embedder
from rawllama.hub import resolve

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.fidelity.embed_loop import command, write_batches
from tests.tools import compile_c

ROUNDS = 7
WORDS = ["the", "and", "time", "people", "water", "river", "small", "green", "house", "music", "letter", "winter"]


def mixed_texts(count: int) -> list[str]:
    """English words, 5 to 400 a text, most texts short; always the same."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(3.3, 1.0, count), 5, 400).astype(int)
    return [" ".join(generator.choice(WORDS, length)) for length in lengths]


def main(count: int = 300, n_threads: int = 2) -> None:
    texts, model = mixed_texts(count), str(resolve("minilm"))
    times: dict[str, list[float]] = {"C loop": [], "Embedder": []}
    with tempfile.TemporaryDirectory() as name, Embedder(model, n_threads=n_threads) as embedder:
        folder = Path(name)
        program = compile_c(Path(__file__).parent.parent / "tests" / "fidelity" / "embed_loop.c", folder)
        write_batches(embedder, texts, folder / "batches")
        call = command(program, model, folder / "batches", folder / "rows", n_threads=n_threads, rounds=2)
        for _ in range(ROUNDS):
            done = subprocess.run(call, check=True, capture_output=True, text=True)
            times["C loop"].append(float(done.stdout.split()[1]))
            embedder.encode(texts)
            start = time.perf_counter()
            embedder.encode(texts)
            times["Embedder"].append(time.perf_counter() - start)
    for side, each in times.items():
        print(f"{side:10} {median(each):.3f} s, {count / median(each):.1f} texts/s")
    ratio = median(c / ours for c, ours in zip(times["C loop"], times["Embedder"], strict=True))
    print(f"{count} texts, {n_threads} threads, flash attention as libllama decides: {ratio:.3f} of the C loop's speed")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
