"""Files of columns: Parquet, and Arrow's files, streams and Feather."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from rawllama.errors import InvalidArgumentError

from .inputs import InputFile
from .rowfiles import no_column
from .schemas import plain

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

# Bytes that are read at a time, about, and rows.
_BYTES, _ROWS = 16 << 20, 4096
_ARROW_FILE, _FEATHER_1 = b"ARROW1", b"FEA1"


class _TableFile:
    """A file of columns.

    Parameters
    ----------
    file
        Where it is.
    column
        The column of texts.
    """

    def __init__(self, file: InputFile, column: str) -> None:
        self._file = file
        self._column = column


class ParquetFile(_TableFile):
    """A Parquet file, read row group by row group."""

    def scan(self) -> tuple[int, pa.Schema]:
        """What its metadata say: how many rows, and the columns."""
        with self._open() as parquet:
            return parquet.metadata.num_rows, _require(parquet.schema_arrow, self._column, self._file.name)

    def batches(self, first: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows from `first` on."""
        del schema  # its own
        with self._open() as parquet:
            groups: list[int] = []
            for number in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(number).num_rows
                if groups or first < rows:
                    groups.append(number)
                else:
                    first -= rows
            if groups:
                size = _rows_at_once(parquet.metadata)
                yield from _from(first, parquet.iter_batches(size, row_groups=groups, use_threads=False))

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        source = self._file.name if self._file.store is None else self._file.open_raw()
        try:
            # Not buffered before: memory holds what is read, not the row group.
            return pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
        except pa.ArrowInvalid as error:
            raise InvalidArgumentError(f"{self._file.name}: not a Parquet file: {error}") from None


class ArrowFile(_TableFile):
    """A file or a stream of Arrow's format, and Feather, which is the first of them."""

    def scan(self) -> tuple[int, pa.Schema]:
        """Go through it: how many rows, and the columns."""
        with closing(self._file.open_raw()) as stream:
            reader = self._open(stream)
            schema = _require(reader.schema, self._column, self._file.name)
            return sum(batch.num_rows for batch in self._read(reader)), schema

    def batches(self, first: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows from `first` on."""
        del schema  # its own
        with closing(self._file.open_raw()) as stream:
            yield from _from(first, self._read(self._open(stream)))

    def _open(self, stream: Any) -> Any:
        import pyarrow as pa

        magic = stream.read(len(_ARROW_FILE))
        stream.seek(0)
        try:
            if magic.startswith(_FEATHER_1):
                raise InvalidArgumentError(f"{self._file.name}: Feather of version 1; write it anew as version 2")
            return pa.ipc.open_file(stream) if magic == _ARROW_FILE else pa.ipc.open_stream(stream)
        except pa.ArrowInvalid as error:
            raise InvalidArgumentError(f"{self._file.name}: not an Arrow file or stream: {error}") from None

    def _read(self, reader: Any) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        try:
            if hasattr(reader, "num_record_batches"):
                for index in range(reader.num_record_batches):
                    yield reader.get_batch(index)
            else:
                yield from reader
        except (pa.ArrowInvalid, OSError) as error:
            raise InvalidArgumentError(f"{self._file.name}: it is damaged: {error}") from None


def _require(schema: pa.Schema, column: str, name: str) -> pa.Schema:
    """The schema, if it has the column of texts."""
    import pyarrow as pa

    schema = plain(schema, name)
    if column not in schema.names:
        raise no_column(column, schema.names, name)
    kind = schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise InvalidArgumentError(f"{name}: column {column!r} is of {kind}, not of strings; name one with --column")
    if pa.types.is_null(kind):
        return schema.set(schema.get_field_index(column), pa.field(column, pa.string()))
    return schema


def _from(first: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows from `first` on."""
    for batch in batches:
        if first < batch.num_rows:
            yield batch.slice(first)
        first = max(0, first - batch.num_rows)


def _rows_at_once(metadata: Any) -> int:
    """Rows of about 16 MB, so that long documents do not fill the memory."""
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return int(min(_ROWS, max(1, _BYTES * metadata.num_rows // max(size, 1))))
