"""The rows of all inputs, one after the other, in blocks that are the same whenever they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rawllama.errors import InvalidArgumentError

from .inputs import InputFile
from .rowfiles import CsvFile, JsonLinesFile, LinesFile
from .schemas import fitted, unified
from .system import naming
from .tables import ArrowFile, ParquetFile

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    from numpy.typing import NDArray

# Bytes of strings that a block may have: long documents come in smaller blocks, so that a kill costs less.
_BLOCK_BYTES = 1 << 20
_OF_ONE_TYPE = "where it is a value that its column's type does not hold, let the column have one type in all inputs"


class Reader(Protocol):
    """Reads one file."""

    def scan(self) -> tuple[int, pa.Schema]:
        """How many rows it has, and the columns, that of the texts among them."""

    def batches(self, first: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows from `first` on."""


def open_reader(file: InputFile, column: str, lenient: bool) -> Reader:
    """What reads files of this kind; `lenient`: a row that cannot be read is one of nulls."""
    if file.kind == "parquet":
        return ParquetFile(file, column)
    if file.kind == "arrow":
        return ArrowFile(file, column)
    if file.kind in ("csv", "tsv"):
        return CsvFile(file, column, lenient, "," if file.kind == "csv" else "\t")
    return (JsonLinesFile if file.kind == "jsonl" else LinesFile)(file, column, lenient)


@dataclass(frozen=True)
class Source:
    """Input files, read once: their rows and columns.

    Attributes
    ----------
    files
        The files, in the order in which they are read.
    rows
        How many rows each has.
    schema
        The columns of all.
    column
        That of the texts.
    lenient
        Whether bad rows are nulls.
    """

    files: Sequence[InputFile]
    rows: Sequence[int]
    schema: pa.Schema
    column: str
    lenient: bool

    @classmethod
    def scan(cls, files: Sequence[InputFile], column: str, lenient: bool) -> Source:
        """Look into the files, or read them where nothing else tells how many rows they have.

        Raises
        ------
        InvalidArgumentError
            One has no such column, or a row that cannot be read, or columns that do not fit those of the others.
        OSError
            One cannot be read.
        """
        rows = []
        schemas = []
        for file in files:
            count, schema = open_reader(file, column, lenient).scan()
            file.require_same()
            rows.append(count)
            schemas.append((file.name, schema))
        return cls(files, rows, unified(schemas), column, lenient)

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return sum(self.rows)

    def blocks(self, first: int, size: int) -> Iterator[pa.RecordBatch]:
        """The rows from `first` on, in batches of `size`, fewer where they have many bytes.

        Where a batch ends depends on the rows from the start of the one before, and on nothing else: from the end of
        any batch on, the same ones come.
        """
        import pyarrow as pa

        waiting: list[pa.RecordBatch] = []
        room = _Room(size)
        for batch in self._batches(first):
            sizes = _string_bytes(batch)
            start = 0
            while start < batch.num_rows:
                end, is_full = room.take(sizes, start)
                waiting.append(batch.slice(start, end - start))
                start = end
                if is_full:
                    yield pa.concat_batches(waiting)
                    waiting, room = [], _Room(size)
        if waiting:
            yield pa.concat_batches(waiting)

    def place(self, row: int) -> str:
        """Where a row is, for messages: its file, and its number there from 0 on."""
        for file, rows in zip(self.files, self.rows, strict=True):
            if row < rows:
                return f"{file.name}, row {row}"
            row -= rows
        return f"row {row}"

    def _batches(self, first: int) -> Iterator[pa.RecordBatch]:
        """The files' batches, of one schema."""
        done = 0
        for file, rows in zip(self.files, self.rows, strict=True):
            skipped = min(max(first - done, 0), rows)
            if skipped < rows:
                yield from self._of_file(file, skipped, rows, done)
            done += rows

    def _of_file(self, file: InputFile, first: int, rows: int, done: int) -> Iterator[pa.RecordBatch]:
        file.require_same()
        for batch in self._read(file, first):
            fitting = self._fitted(batch, file)
            if not self.lenient and (good := self._good(fitting)) < fitting.num_rows:
                yield fitting.slice(0, good)
                words = f"column {self.column!r} is null; fill it, or choose bad_rows: null or skip"
                raise InvalidArgumentError(f"{self.place(done + first + good)}: {words}")
            first += batch.num_rows
            yield fitting
        file.require_same()
        if first != rows:
            raise InvalidArgumentError(f"{file.name}: {first} rows were read, where {rows} had been counted")

    def _read(self, file: InputFile, first: int) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        try:
            with naming(file.name):
                yield from open_reader(file, self.column, self.lenient).batches(first, self.schema)
        except pa.ArrowInvalid as error:
            raise InvalidArgumentError(f"{file.name}: {error}; {_OF_ONE_TYPE}") from None

    def _fitted(self, batch: pa.RecordBatch, file: InputFile) -> pa.RecordBatch:
        import pyarrow as pa

        try:
            return fitted(batch, self.schema)
        except pa.ArrowInvalid as error:
            raise InvalidArgumentError(f"{file.name}: {error}; {_OF_ONE_TYPE}") from None

    def _good(self, batch: pa.RecordBatch) -> int:
        """How many rows are before the first that has no text."""
        texts = batch.column(self.column)
        return int(np.flatnonzero(texts.is_null())[0]) if texts.null_count else batch.num_rows


class _Room:
    """What a block still has room for."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._bytes = _BLOCK_BYTES

    def take(self, sizes: NDArray[np.int64], start: int) -> tuple[int, bool]:
        """Take rows of these sizes, from `start` on: the end of those that are taken, and whether it is full then."""
        end = min(sizes.size, start + self._rows)
        sums = np.cumsum(sizes[start:end])
        fitting = int(np.searchsorted(sums, self._bytes)) + 1  # with the one that fills it
        end = min(end, start + fitting)
        self._rows -= end - start
        self._bytes -= int(sums[end - start - 1])
        return end, self._rows == 0 or self._bytes <= 0


def _string_bytes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Bytes of each row's strings: int64, shape (n,)."""
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if any(test(column.type) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
                                               pa.types.is_large_binary)):  # fmt: skip
            lengths: Any = pc.fill_null(pc.binary_length(column), 0)
            sizes += lengths.to_numpy(zero_copy_only=False)
    return sizes
