"""Files that are read row by row: lines, JSON lines, CSV."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from rawllama.errors import InvalidArgumentError

from .inputs import InputFile
from .schemas import JsonTypes, json_column

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

# Rows, and about how many bytes of text, that are turned into arrays at a time.
_ROWS, _BYTES = 4096, 16 << 20
# What packed files that are cut or overwritten raise.
_DAMAGES = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
_BOM = b"\xef\xbb\xbf"

#: A row: its values by column. A bad one has none.
Row = dict[str, Any]


class RowFile(ABC):
    """A file that is read row by row.

    Parameters
    ----------
    file
        Where it is.
    column
        The column of texts.
    lenient
        Whether a row that cannot be read is one of nulls; otherwise it is an error.
    """

    def __init__(self, file: InputFile, column: str, lenient: bool) -> None:
        self._file = file
        self._column = column
        self._lenient = lenient

    def scan(self) -> tuple[int, pa.Schema]:
        """Read all of it: how many rows it has, and the columns."""
        rows = 0
        types = JsonTypes()
        with self._opened() as stream:
            for chunk in _chunks(self._rows(stream)):
                types.add(chunk)
                rows += len(chunk)
        return rows, self._schema(types, rows)

    def batches(self, first: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows from `first` on, with those of the schema's columns that the file has."""
        import pyarrow as pa

        with self._opened() as stream:
            for chunk in _chunks(islice(self._rows(stream), first, None)):
                columns = [json_column([row.get(field.name) for row in chunk], field.type) for field in schema]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

    @abstractmethod
    def _rows(self, stream: IO[bytes]) -> Iterator[Row]:
        """All rows."""

    def _schema(self, types: JsonTypes, rows: int) -> pa.Schema:
        """The columns, that of the texts among them."""
        import pyarrow as pa

        schema = types.schema()
        if self._column in schema.names:
            return schema.set(schema.get_field_index(self._column), pa.field(self._column, pa.string()))
        if rows and schema.names:
            raise no_column(self._column, schema.names, self._file.name)
        return schema.append(pa.field(self._column, pa.string()))

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with self._file.open() as stream:
                yield stream
        except (*_DAMAGES, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InvalidArgumentError(f"{self._file.name}: it is damaged: {error}") from None

    def _bad(self, number: int, words: str) -> Row:
        if self._lenient:
            return {}
        raise InvalidArgumentError(f"{self._file.name}, line {number}: {words}; or choose bad_rows: null or skip")


class LinesFile(RowFile):
    """Each line is a text, ended by LF or CRLF."""

    def _rows(self, stream: IO[bytes]) -> Iterator[Row]:
        for number, line in _lines(stream):
            try:
                yield {self._column: line.decode()}
            except UnicodeDecodeError:
                yield self._bad(number, "not UTF-8; convert it, e.g. with iconv -t UTF-8")


class JsonLinesFile(RowFile):
    """Each line is a JSON object, or a string."""

    def _rows(self, stream: IO[bytes]) -> Iterator[Row]:
        for number, line in _lines(stream):
            row = self._row(number, line)
            yield row

    def _row(self, number: int, line: bytes) -> Row:
        try:
            value = json.loads(line)
            if b"\\ud" in line or b"\\uD" in line:  # half a surrogate pair, which UTF-8 has no bytes for
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            return self._bad(number, f"not JSON ({error})")
        if isinstance(value, str):
            return {self._column: value}
        if not isinstance(value, dict):
            return self._bad(number, f"a string, or an object with a string under {self._column!r}, is wanted")
        if not isinstance(value.get(self._column), str):
            if not self._lenient:
                have = f"no string under {self._column!r}" if value.get(self._column) is None else "no string"
                return self._bad(number, f"{have}; name the right column with --column, of {', '.join(value)}")
            value.pop(self._column, None)
        return value


class CsvFile(RowFile):
    """Comma-separated values with a header; all of them are passed on as the strings that they are."""

    def __init__(self, file: InputFile, column: str, lenient: bool, delimiter: str = ",") -> None:
        super().__init__(file, column, lenient)
        self._delimiter = delimiter
        self._header: list[str] = []

    def _rows(self, stream: IO[bytes]) -> Iterator[Row]:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # of the process; the default is 128 kB
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, delimiter=self._delimiter, strict=True)
        self._header = self._read_header(reader)
        while True:
            try:
                values = next(reader, None)
            except csv.Error as error:
                yield self._bad(reader.line_num, f"not CSV ({error})")
                continue
            if values is None:
                return
            if values:  # an empty line is none
                yield self._row(reader.line_num, values)

    def _read_header(self, reader: Any) -> list[str]:
        header: list[str] = next(reader, [])
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise InvalidArgumentError(f"{self._file.name}: two columns have the name {twice!r}; rename one")
        if header and self._column not in header:
            raise no_column(self._column, header, self._file.name)
        return header

    def _row(self, number: int, values: list[str]) -> Row:
        if len(values) != len(self._header):
            return self._bad(number, f"{len(values)} values for {len(self._header)} columns")
        if not all(map(_is_clean, values)):
            return self._bad(number, "not UTF-8; convert it, e.g. with iconv -t UTF-8")
        return dict(zip(self._header, values, strict=True))

    def _schema(self, types: JsonTypes, rows: int) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([pa.field(name, pa.string()) for name in self._header or [self._column]])


def no_column(column: str, columns: Sequence[str], name: str) -> InvalidArgumentError:
    """The error for a file without the column of texts."""
    have = f"the columns are {', '.join(columns)}" if columns else "it has none"
    return InvalidArgumentError(f"{name}: there is no column {column!r}; {have}; name one with --column")


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines without their ends, with their numbers."""
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix(_BOM)
            if not line:
                continue
        yield number, line.removesuffix(b"\n").removesuffix(b"\r")


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(chunk) == _ROWS or size > _BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _is_clean(value: str) -> bool:
    """Whether nothing in it stands for a byte that was no UTF-8."""
    return value.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in value)
