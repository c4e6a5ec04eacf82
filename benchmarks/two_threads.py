"""Two threads with two contexts on one model, against two processes.

    python benchmarks/two_threads.py

Each computes the same batches of MiniLM with one thread. Alternating rounds; medians of the time that both need.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from rawllama import Batch, Context, Model
from rawllama.hub import resolve

ROUNDS = 7
BATCHES = 12
TOKENS = 256


def make(model: Model) -> Callable[[], None]:
    """Some batches through a context of its own."""
    sizes = {"n_ctx": TOKENS, "n_batch": TOKENS, "n_ubatch": TOKENS, "n_threads": 1, "n_threads_batch": 1}
    context = Context(model, embeddings=True, **sizes)
    batch = Batch(TOKENS)
    batch.add_sequence(np.arange(1000, 1000 + TOKENS))

    def run() -> None:
        for _ in range(BATCHES):
            context.process(batch)
            context.get_embeddings_seq(0)

    run()
    return run


def threads(jobs: list[Callable[[], None]]) -> float:
    both = [threading.Thread(target=job) for job in jobs]
    start = time.perf_counter()
    for one in both:
        one.start()
    for one in both:
        one.join()
    return time.perf_counter() - start


def child(pipe: Any) -> None:
    with Model(resolve("minilm")) as model:
        job = make(model)
        pipe.send("ready")
        while pipe.recv():
            job()
            pipe.send("done")


def processes(pipes: list[Any]) -> float:
    start = time.perf_counter()
    for pipe in pipes:
        pipe.send(True)
    for pipe in pipes:
        pipe.recv()
    return time.perf_counter() - start


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    ends = [spawn.Pipe() for _ in range(2)]
    children = [spawn.Process(target=child, args=(far,)) for _, far in ends]
    for one in children:
        one.start()
    pipes = [near for near, _ in ends]
    for pipe in pipes:
        pipe.recv()
    times: dict[str, list[float]] = {"two threads": [], "two processes": []}
    with Model(resolve("minilm")) as model:
        jobs = [make(model), make(model)]
        for _ in range(ROUNDS):
            times["two threads"].append(threads(jobs))
            times["two processes"].append(processes(pipes))
    for pipe in pipes:
        pipe.send(False)
    for one in children:
        one.join()
    for name, each in times.items():
        seconds = median(each)
        print(f"{name:14} {seconds:.3f} s, {2 * BATCHES * TOKENS / seconds:.0f} tokens/s")
    ratio = median(a / b for a, b in zip(times["two processes"], times["two threads"], strict=True))
    print(f"threads reach {ratio:.2f} of the processes' rate")


if __name__ == "__main__":
    main()
