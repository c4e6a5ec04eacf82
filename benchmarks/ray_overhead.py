"""What Ray adds to the plain Embedder, and throughput by the number of actors.

    python benchmarks/ray_overhead.py [--rounds 7] [--batches 8] [--batch-rows 1024]

The sides take turns, in rounds; all embed the same short texts with MiniLM. A rate is that of the rows behind each
worker's first batch, so that no process's start is in it; how long a job takes to its first batch is told apart.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from rawllama import Embedder
from rawllama.bench import corpus, machine
from rawllama.bench.stats import estimate, ratio
from rawllama.ray import embed, embed_files

Arrivals = list[tuple[float, int]]
_WORDS = 24


@dataclass(frozen=True)
class Job:
    texts: list[str]
    batch_rows: int
    source: Path

    def blocks(self) -> list[pa.Table]:
        table = pa.table({"text": self.texts})
        return [table[first : first + self.batch_rows] for first in range(0, len(self.texts), self.batch_rows)]


def plain(job: Job, n_threads: int) -> Arrivals:
    with Embedder("minilm", n_threads=n_threads, progress=False) as embedder:
        return [(time.perf_counter(), len(rows)) for rows in embedder.encode_iter(job.texts, block_size=job.batch_rows)]


def dataset(job: Job, actors: int, cpus: int) -> Arrivals:
    made = embed(
        ray.data.from_arrow(job.blocks()),
        model="minilm",
        actors=actors,
        cpus_per_actor=cpus,
        batch_rows=job.batch_rows,
    )
    batches = made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    return [(time.perf_counter(), batch.num_rows) for batch in batches]


def files(job: Job, actors: int, cpus: int) -> Arrivals:
    with tempfile.TemporaryDirectory() as folder:
        embed_files(job.source, folder, model="minilm", actors=actors, cpus_per_actor=cpus, part_rows=job.batch_rows)
        offset = time.perf_counter() - time.time()  # of the clock that files have
        parts = Path(folder).glob("part-*.parquet")
        return sorted((path.stat().st_mtime + offset, pq.read_metadata(path).num_rows) for path in parts)


def measured(side: Callable[[], Arrivals], workers: int) -> tuple[float, float]:
    """Rows a second behind each worker's first batch, and seconds to the first."""
    start = time.perf_counter()
    arrivals = side()
    first, rest = arrivals[workers - 1][0], arrivals[workers:]
    return sum(rows for _, rows in rest) / (rest[-1][0] - first), arrivals[0][0] - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch-rows", type=int, default=1024)
    options = parser.parse_args()
    cores = machine.cores()
    if options.batches % cores or options.batches < 2 * cores:
        parser.error(f"--batches: all actors end together with a multiple of {cores}, {2 * cores} at least")
    watch = machine.Watch()
    ray.init(num_cpus=cores, object_store_memory=400_000_000, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    count = options.batches * options.batch_rows
    texts = [" ".join(text.split()[:_WORDS]) for text in corpus.texts(count)]
    with tempfile.TemporaryDirectory() as folder:
        job = Job(texts, options.batch_rows, Path(folder, "texts.parquet"))
        pq.write_table(pa.table({"text": texts}), job.source)
        run(job, cores, options.rounds)
    for note in watch.notes():
        print(note)
    ray.shutdown()


def run(job: Job, cores: int, rounds: int) -> None:
    sides: dict[str, tuple[Callable[[], Arrivals], int]] = {
        "Embedder, 1 thread": (partial(plain, job, 1), 1),
        "dataset, 1 actor of 1 CPU": (partial(dataset, job, 1, 1), 1),
        "files, 1 actor of 1 CPU": (partial(files, job, 1, 1), 1),
        f"Embedder, {cores} threads": (partial(plain, job, cores), 1),
        f"dataset, 1 actor of {cores} CPUs": (partial(dataset, job, 1, cores), 1),
        f"dataset, {cores} actors of 1 CPU": (partial(dataset, job, cores, 1), cores),
        f"files, {cores} actors of 1 CPU": (partial(files, job, cores, 1), cores),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    starts: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
        for name in order:
            rate, start = measured(*sides[name])
            rates[name].append(rate)
            starts[name].append(start)
    print(f"{len(job.texts)} texts in batches of {job.batch_rows}, {rounds} rounds, {machine.processor()}")
    base = ""
    for name in sides:
        base = name if name.startswith("Embedder") else base
        found, against = estimate(rates[name]), ratio(rates[name], rates[base])
        words = "" if name == base else f", {against.middle:.3f} ({against.low:.3f} to {against.high:.3f}) of {base}"
        print(
            f"{name:28} {found.middle:7.1f} texts/s{words}; the first batch after {estimate(starts[name]).middle:.1f} s"
        )
    one, all_of = rates["dataset, 1 actor of 1 CPU"], rates[f"dataset, {cores} actors of 1 CPU"]
    scaled = ratio(all_of, one)
    print(f"{cores} actors: {scaled.middle:.2f} ({scaled.low:.2f} to {scaled.high:.2f}) times one actor's rate")


if __name__ == "__main__":
    main()
