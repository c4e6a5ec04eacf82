"""Measures what one core of this machine does, with all of them at work."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rawllama.arrow import _require_pyarrow, embed_batches
from rawllama.bench import corpus, machine
from rawllama.bench.stats import Estimate, estimate
from rawllama.embedder import Embedder
from rawllama.errors import InvalidArgumentError
from rawllama.hub import resolve
from rawllama.jobs.sinks import Table, parquet
from rawllama.rows import DTYPES

from .rates import Length, Rates

#: Tokens of the documents that are measured, about.
LENGTHS = (16, 64, 256)
ROUNDS = 9
# Texts are of a length where they have at most so many times its tokens, and no fewer by that.
_SPREAD = 1.25
_CANDIDATES = 6000
# Tokens of a round, at least: a second or so of two cores.
_ROUND_TOKENS = 16_384
# Texts that are tokenised, read and written.
_ROWS = 2048
_VECTORS = 256


def measure(model: str, *, rounds: int = ROUNDS, lengths: tuple[int, ...] = LENGTHS) -> Rates:
    """Measure the rates of a model on this machine, which should do nothing else: about two minutes of two cores.

    Parameters
    ----------
    model
        Path or name, as for `Embedder`.
    rounds
        Of which the medians are taken, 3 at least.
    lengths
        Tokens of a document, 6 to 400, in rising order; what the model does not take is left out.

    Raises
    ------
    InvalidArgumentError
        There are too few rounds, or there is no text of such a length.
    MissingExtraError
        pyarrow is not installed.
    DownloadError
        The texts are not on this machine, and pip could not bring them.
    """
    _require_pyarrow()
    if rounds < 3:
        raise InvalidArgumentError(f"rounds: {rounds}; 3 at least make a median")
    cores, watch = machine.cores(), machine.Watch()
    opened = Embedder(model, n_threads=cores, overlong="truncate", progress=False)
    with opened as embedder, tempfile.TemporaryDirectory() as folder:
        texts = corpus.texts(_CANDIDATES)
        tokens = np.diff(embedder.model.vocab.tokenize_many(texts)[1])
        possible = [length for length in lengths if length * _SPREAD <= embedder.max_tokens] or [min(lengths)]
        chosen = [_of_length(texts, tokens, length) for length in possible]
        embedded = _embedding(embedder, chosen, rounds, cores)
        mixed = texts[:_ROWS]
        tokenized = _times(lambda: embedder.model.vocab.tokenize_many(mixed, n_threads=1), rounds)
        files = _Files(Path(folder), mixed, embedder)
        return Rates(
            model=resolve(model).stem,
            dims=embedder.dims,
            processor=machine.processor(),
            cores=cores,
            rawllama=version("rawllama"),
            date=time.strftime("%Y-%m-%d", time.gmtime()),
            lengths=tuple(embedded),
            tokenized_per_second=_rate(float(tokens[: len(mixed)].sum()), tokenized),
            read_per_second=files.reading(rounds),
            written_per_second=files.writing(rounds),
            text_share=files.text_share(),
            vector_bytes={dtype: files.vector_bytes(dtype) for dtype in DTYPES},
            notes=tuple(watch.notes()),
        )


def _of_length(texts: list[str], tokens: Any, length: int) -> tuple[list[str], float]:
    """Texts of about so many tokens, and how many they have in the mean."""
    near = np.flatnonzero((tokens >= length / _SPREAD) & (tokens <= length * _SPREAD))
    if not near.size:
        raise InvalidArgumentError(f"lengths: there is no text of about {length} tokens; pass some from 6 to 400")
    wanted = near[: max(1, -(-_ROUND_TOKENS // length))]
    return [texts[index] for index in wanted], float(tokens[wanted].mean())


def _embedding(embedder: Embedder, chosen: list[tuple[list[str], float]], rounds: int, cores: int) -> Iterator[Length]:
    """The lengths take turns, so that what slows the machine for a while slows all."""
    seconds: list[list[float]] = [[] for _ in chosen]
    for number in range(rounds + 1):
        for (texts, _), found in zip(chosen, seconds, strict=True):
            taken = _seconds(lambda texts=texts: embedder.encode(texts))  # type: ignore[misc]
            if number:  # the first round warms up
                found.append(taken)
    for (texts, mean), found in zip(chosen, seconds, strict=True):
        n_bytes = float(np.mean([len(text.encode()) for text in texts]))
        yield Length(mean, n_bytes, _rate(len(texts) / cores, found))


class _Files:
    """Parquet of some rows, texts and their vectors: how fast one thread reads and writes it, and its size."""

    def __init__(self, folder: Path, texts: list[str], embedder: Embedder) -> None:
        import pyarrow as pa  # type: ignore[import-untyped]

        self._path = folder / "rows.parquet"
        self._texts = texts
        self._embedder = embedder
        # What numbers the vectors have does not matter here, so that short texts do, again and again.
        self._short = sorted(texts, key=len)[:_VECTORS]
        vectors = self._embedded("float32").column("embedding")
        rows = pa.array(np.resize(np.arange(len(self._short)), len(texts)))
        self._table = pa.table({"text": texts, "embedding": vectors.take(rows).combine_chunks()})

    def writing(self, rounds: int) -> Estimate:
        """Bytes of vectors a second, with their texts."""
        size = self._table.num_rows * self._embedder.dims * 4.0
        return _rate(size, _times(lambda: self._write(self._table), rounds))

    def reading(self, rounds: int) -> Estimate:
        """Bytes of strings a second."""
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        self._write(self._table)
        read = _times(lambda: pq.read_table(self._path, columns=["text"], use_threads=False), rounds)
        return _rate(self._text_bytes(), read)

    def text_share(self) -> float:
        """Bytes of the texts in the file, against those of the strings."""
        self._write(self._table)
        return self._size("text") / self._text_bytes()

    def vector_bytes(self, dtype: str) -> float:
        """Bytes of a vector in the file, an int8 one's scale with it."""
        self._write(self._embedded(dtype))
        return self._size("embedding") / len(self._short)

    def _embedded(self, dtype: str) -> Any:
        import pyarrow as pa

        n_threads = self._embedder._settings.n_threads
        with Embedder(self._embedder.model, dtype=dtype, n_threads=n_threads, progress=False) as embedder:
            return pa.Table.from_batches(embed_batches(pa.table({"text": self._short}), model=embedder))

    def _write(self, table: Any) -> None:
        parquet.write(Table(table.schema, "embedding", table.num_rows, lambda: iter(table.to_batches())), self._path)

    def _text_bytes(self) -> float:
        return float(sum(len(text.encode()) for text in self._texts))

    def _size(self, column: str) -> float:
        """Bytes of the columns of the file whose names begin so."""
        import pyarrow.parquet as pq

        found = pq.read_metadata(self._path)
        groups = [found.row_group(number) for number in range(found.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        return float(sum(one.total_compressed_size for one in columns if one.path_in_schema.startswith(column)))


def _times(work: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each round, the first one left out."""
    return [_seconds(work) for _ in range(rounds + 1)][1:]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _rate(amount: float, seconds: list[float]) -> Estimate:
    """So much a second, in the median of the rounds."""
    return estimate([amount / one for one in seconds])
