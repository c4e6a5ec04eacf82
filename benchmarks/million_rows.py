"""A job of many short rows, Parquet to Parquet: its memory, and its rate beside `Embedder.encode`'s.

    python benchmarks/million_rows.py --rows 1000000

prints every 30 s the most resident memory since the line before, of this process, the largest part of which is the
model and the contexts; the last line has the end, when the parts become the file. Then rows a second of the job and of
`encode` in memory, which take turns on a sample of the rows, and the ratio of them.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rawllama import Embedder
from rawllama.bench import stats
from rawllama.jobs import embed_files

TEXT = """
    the a of and in to is was for on with as by at from it an be this which or are not that have has had were his
    river house engine paper music winter garden school market doctor window letter island bridge forest museum
    quickly slowly never often always red blue green old new small large quiet bright open closed early late
"""

_LOOK_SECONDS = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=16_384, help="rows of each turn of the comparison")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--seconds", type=float, default=30, help="between two lines about memory")
    parser.add_argument("--folder", type=Path, help="for input and output; by default a temporary one")
    options = parser.parse_args()
    scratch_in = tempfile.TemporaryDirectory(dir=options.folder)
    with scratch_in as scratch, Embedder(options.model, progress=False) as embedder:
        folder = Path(scratch)
        print(f"making {options.rows:,} rows")
        write(folder / "in.parquet", options.rows)
        whole(folder, embedder, options.seconds)
        compare(folder, embedder, options.sample, options.rounds)


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Rows of 3 to 12 words and a number, which makes each its own."""
    chance = random.Random(seed)
    words = TEXT.split()
    schema = pa.schema({"id": pa.int64(), "text": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 100_000):
            ids = range(start, min(start + 100_000, rows))
            texts = [" ".join(chance.choices(words, k=chance.randint(3, 12))) + f" {i}" for i in ids]
            writer.write_table(pa.table({"id": ids, "text": texts}, schema))


def whole(folder: Path, embedder: Embedder, seconds: float) -> None:
    """The job over all rows, with what memory it takes."""
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(done, seconds))
    watcher.start()
    try:
        report = embed_files(folder / "in.parquet", folder / "out.parquet", model=embedder, progress=False)
    finally:
        done.set()
        watcher.join()
    found = pq.ParquetFile(folder / "out.parquet").metadata
    assert found.num_rows == report.rows
    print(f"{report}: {report.rows / report.seconds:,.0f} rows/s, {report.tokens / report.seconds:,.0f} tokens/s")


def watch(done: threading.Event, seconds: float) -> None:
    """Print the memory until the end: each line has the most that there was since the one before."""
    started = time.monotonic()
    printed, most = started, memory()
    print(_line(0, most), flush=True)
    while not done.wait(_LOOK_SECONDS):
        most = max(most, memory())
        if (now := time.monotonic()) - printed >= seconds:
            print(_line(now - started, most), flush=True)
            printed, most = now, memory()
    print(_line(time.monotonic() - started, most), flush=True)


def _line(seconds: float, found: tuple[int, int]) -> str:
    resident, anonymous = (size / 1e6 for size in found)
    return f"{seconds:6.0f} s  {resident:7.1f} MB resident, {anonymous:7.1f} MB of it not of files"


def memory() -> tuple[int, int]:
    """Bytes of resident memory, and those of it that are no file's pages."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return tuple(int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))  # type: ignore[return-value]


def compare(folder: Path, embedder: Embedder, sample: int, rounds: int) -> None:
    """Rows a second of the job and of `encode`, in turns; each round has rows of its own."""
    ratios = []
    rates: dict[str, list[float]] = {"job": [], "encode": []}
    for number, texts in zip(range(rounds), samples(folder / "in.parquet", sample), strict=False):
        pq.write_table(pa.table({"text": texts}), folder / "sample.parquet")
        for side in ("job", "encode") if number % 2 else ("encode", "job"):
            started = time.monotonic()
            if side == "job":
                embed_files(folder / "sample.parquet", folder / "sample-out.parquet", model=embedder, progress=False)
            else:
                embedder.encode(texts, progress=False)
            rates[side].append(len(texts) / (time.monotonic() - started))
        ratios.append(rates["job"][-1] / rates["encode"][-1])
        job, encode = (rates[side][-1] for side in ("job", "encode"))
        print(f"round {number}: job {job:,.0f} rows/s, encode {encode:,.0f} rows/s, {job / encode:.3f}", flush=True)
    found = stats.estimate(ratios)
    job, encode = (float(np.median(rates[side])) for side in ("job", "encode"))
    print(f"medians: job {job:,.0f} rows/s, encode {encode:,.0f} rows/s")
    print(f"the job's rate over encode's: {found.middle:.3f} ({found.low:.3f} to {found.high:.3f})")


def samples(path: Path, size: int) -> Iterator[list[str]]:
    """Lists of texts from the file, over and over."""
    while True:
        for batch in pq.ParquetFile(path).iter_batches(size, columns=["text"]):
            if batch.num_rows == size or batch.num_rows == pq.ParquetFile(path).metadata.num_rows:
                yield batch.column(0).to_pylist()


if __name__ == "__main__":
    main()
