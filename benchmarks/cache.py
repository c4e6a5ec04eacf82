"""What a second run costs with a cache, where 1 % of the texts have changed; and what the cache costs the first run.

    python benchmarks/cache.py [ROWS]

Short texts, of about a dozen tokens, embedded with MiniLM by `rawllama.arrow.embed_batches`; seconds by the
clock, and of the processor, which other programs on the machine change little.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from rawllama import Embedder
from rawllama.arrow import embed_batches
from rawllama.bench.inputs import texts
from rawllama.cache import Cache

CHANGED = 0.01


class Run:
    """Embeds and measures."""

    def __init__(self, embedder: Embedder, rows: list[str], cache: Cache | None) -> None:
        batches = pa.table({"text": rows}).to_batches(max_chunksize=1024)
        clock, processor = time.perf_counter(), time.process_time()
        assert sum(batch.num_rows for batch in embed_batches(batches, model=embedder, cache=cache)) == len(rows)
        self.clock, self.processor = time.perf_counter() - clock, time.process_time() - processor

    def line(self, name: str, base: Run) -> str:
        """A row of the table, with the shares of `base`'s times."""
        parts = ((self.clock, base.clock), (self.processor, base.processor))
        return f"{name:22}" + "".join(f"{own:9.2f} {own / other:8.2%}" for own, other in parts)


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rows = texts("queries", n)
    changed = list(rows)
    for i in np.random.default_rng(0).choice(n, round(n * CHANGED), replace=False):
        changed[i] = f"new {changed[i]}"
    with tempfile.TemporaryDirectory() as folder, Embedder("minilm") as embedder, Cache(Path(folder, "c")) as cache:
        Run(embedder, rows[:500], None)  # warms up
        base = Run(embedder, rows, None)
        print(f"{n} rows{'clock':>23}{'processor':>20}")
        print(base.line("without a cache", base))
        print(Run(embedder, rows, cache).line("with an empty one", base))
        print(Run(embedder, changed, cache).line("1 % changed", base))
        print(Run(embedder, changed, cache).line("nothing changed", base))
        print(f"on disk: {cache.stats()}")


if __name__ == "__main__":
    main()
