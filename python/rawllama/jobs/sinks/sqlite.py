"""A SQLite database: the rows in one table, their vectors in one of sqlite-vec's, which searches them."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama.errors import InvalidArgumentError, MissingExtraError
from rawllama.jobs import origin
from rawllama.rows import Int8Rows

from . import Table
from .files import sync
from .jsonl import plain
from .npy import matrix

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

#: The table of the rows, and that of the vectors; what belongs together has one `rowid`. And what they were made with.
ROWS, VECTORS, ORIGIN = "items", "vectors", "rawllama"
# What sqlite-vec calls the types of vectors, and the function that reads their bytes.
_TYPES = {"float": ("float", "vec_f32"), "halffloat": ("float", "vec_f32"), "int8": ("int8", "vec_int8"),
          "uint8": ("bit", "vec_bit")}  # fmt: skip
_ARROW_NAMES = {"float32": "float", "int8": "int8", "uint8": "uint8"}
_AT_ONCE = 1000


def require_extra() -> None:
    """Raise MissingExtraError where SQLite with extensions, or sqlite-vec, is not there."""
    try:
        import apsw
        import sqlite_vec  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        raise MissingExtraError("apsw or sqlite-vec is not installed: pip install 'rawllama[sqlite]'") from None
    del apsw


def require_possible(schema: pa.Schema, vectors: str, has_null: bool) -> None:
    """Refuse columns whose names SQLite takes for one, and what sqlite-vec does not read."""
    del has_null  # a row without a vector is one that no search finds
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", vectors):
        raise InvalidArgumentError(f"into: sqlite-vec takes letters, digits and _ for a column's name, not {vectors!r}")
    seen: dict[str, str] = {"rowid": "the number of the row"}
    for name in schema.names:
        if name != vectors and seen.setdefault(name.lower(), name) != name:
            other = seen[name.lower()]
            raise InvalidArgumentError(f"column {name!r}: SQLite takes it for {other!r}; rename one, or choose parquet")
    with closing(_connect(":memory:")) as connection:
        _create(connection, schema, vectors)


def write(table: Table, path: Path) -> None:
    """Write the database."""
    path.unlink(missing_ok=True)
    with _translated(), closing(_connect(str(path))) as connection:
        connection.execute("PRAGMA journal_mode = OFF")  # the file is nobody's before it is whole
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        _create(connection, table.schema, table.vectors)
        connection.execute(f"INSERT INTO {ORIGIN} VALUES (?)", [json.dumps(origin.of(table.schema))])
        _fill(connection, table)
        connection.execute("COMMIT")
    sync(path)


def _create(connection: Any, schema: pa.Schema, vectors: str) -> None:
    """Make the tables, with no rows in them."""
    import apsw

    columns = ", ".join(f"{_quoted(field.name)} {_type(field.type)}" for field in schema if field.name != vectors)
    try:
        connection.execute(f"CREATE TABLE {ROWS} ({columns})")
        connection.execute(_vector_table(schema.field(vectors)))
        connection.execute(f"CREATE TABLE {ORIGIN} (made_with TEXT)")
    except apsw.SQLError as error:
        words = "rename that column (the vectors' is named with --into), or choose parquet"
        raise InvalidArgumentError(f"SQLite does not take the columns: {error}; {words}") from None


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as Python's."""
    import apsw

    try:
        yield
    except apsw.FullError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
    except apsw.IOError as error:
        raise OSError(errno.EIO, str(error)) from None
    except apsw.Error as error:
        raise InvalidArgumentError(f"SQLite does not take the rows: {error}") from None


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A database that `write` has made, to be read.

    Raises
    ------
    InvalidArgumentError
        It is another database, or none.
    """
    require_extra()
    import apsw

    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        with closing(_connect(str(path), read_only=True)) as connection:
            yield connection
    except (apsw.BusyError, apsw.LockedError):
        raise BlockingIOError(errno.EAGAIN, "another process has locked the database", str(path)) from None
    except apsw.Error as error:
        raise InvalidArgumentError(f"{path}: it has no vectors of rawllama's, or is damaged: {error}") from None


def origin_of(connection: Any) -> str:
    """What `rawllama.jobs.origin` has said of the vectors, as JSON."""
    found: str = connection.execute(f"SELECT made_with FROM {ORIGIN}").fetchone()[0]
    return found


def nearest(connection: Any, query: Any, vectors: str, dims: int, top: int) -> Iterator[tuple[float, dict[str, Any]]]:
    """The rows whose vectors are most alike this one, with the cosines, the most alike first.

    Parameters
    ----------
    connection
        From `opened`.
    query
        A row as `Embedder.encode` gives it, of the type of the vectors; float32 and float16 are one.
    vectors
        The name of their column.
    dims
        What they have of numbers; of bits.
    top
        So many rows.
    """
    values = query.values if isinstance(query, Int8Rows) else query
    if values.dtype == "float16":
        values = values.astype("float32")
    name, read = _TYPES[_ARROW_NAMES[str(values.dtype)]]
    found = connection.execute(
        f"SELECT v.distance, {ROWS}.* FROM (SELECT rowid, distance FROM {VECTORS} "
        f"WHERE {_quoted(vectors)} MATCH {read}(?) AND k = ?) v "
        f"JOIN {ROWS} ON {ROWS}.rowid = v.rowid ORDER BY v.distance",
        (values.tobytes(), top),
    )
    for distance, *row in found:
        names = [column[0] for column in found.description][1:]
        similarity = 1 - (2 * distance / dims if name == "bit" else distance)
        yield similarity, dict(zip(names, row, strict=True))


def _connect(path: str, *, read_only: bool = False) -> Any:
    import apsw
    import sqlite_vec

    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(path, flags=flags)
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.enable_load_extension(False)
    return connection


def _vector_table(field: pa.Field) -> str:
    kind = field.type
    name, _ = _TYPES[str(kind.value_type)]
    if name == "bit":
        return f"CREATE VIRTUAL TABLE {VECTORS} USING vec0({field.name} bit[{kind.list_size * 8}])"
    column = f"{field.name} {name}[{kind.list_size}] distance_metric=cosine"
    return f"CREATE VIRTUAL TABLE {VECTORS} USING vec0({column})"


def _fill(connection: Any, table: Table) -> None:
    others = [field for field in table.schema if field.name != table.vectors]
    kind = str(table.schema.field(table.vectors).type.value_type)
    marks = ", ".join("?" * (len(others) + 1))
    names = ", ".join(["rowid", *(_quoted(field.name) for field in others)])
    rows = f"INSERT INTO {ROWS} ({names}) VALUES ({marks})"
    vectors = f"INSERT INTO {VECTORS} (rowid, {_quoted(table.vectors)}) VALUES (?, {_TYPES[kind][1]}(?))"
    first = 1
    for batch in table.batches():
        for start in range(0, batch.num_rows, _AT_ONCE):
            part = batch.slice(start, _AT_ONCE)
            values = [[_value(one) for one in part.column(field.name).to_pylist()] for field in others]
            connection.executemany(rows, zip(range(first, first + part.num_rows), *values, strict=True))
            connection.executemany(vectors, _vectors(part.column(table.vectors), first))
            first += part.num_rows


def _vectors(column: pa.FixedSizeListArray, first: int) -> Iterator[tuple[int, bytes]]:
    rows = matrix(column)
    rows = rows.astype("float32") if rows.dtype == "float16" else rows
    for index, is_there in enumerate(column.is_valid().to_pylist()):
        if is_there:
            yield first + index, rows[index].tobytes()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_uint64(kind):
        return ""  # half of them are beyond SQLite's integers, and are kept as texts
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "INTEGER"
    if pa.types.is_floating(kind):
        return "REAL"
    return "BLOB" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else "TEXT"


def _value(value: Any) -> Any:
    """A value as SQLite has it: lists and objects are JSON."""
    if value is None or isinstance(value, (str, bytes, float)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)
    found = plain(value)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
