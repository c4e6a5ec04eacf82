"""Writers of what a job has computed: one module a format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

# Formats, and the endings of their files; the first is that of files that we name.
_ENDINGS = {
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc"),
    "npy": (".npy",),
    "jsonl": (".jsonl", ".ndjson"),
    "csv": (".csv",),
    "lance": (".lance",),
    "sqlite": (".db", ".sqlite", ".sqlite3"),
}
#: Formats that a job writes.
KINDS = tuple(_ENDINGS)


@dataclass(frozen=True)
class Table:
    """What is written.

    Attributes
    ----------
    schema
        The columns.
    vectors
        The name of that of the vectors.
    rows
        How many there are.
    batches
        Gives them from the first on; each call anew.
    """

    schema: pa.Schema
    vectors: str
    rows: int
    batches: Callable[[], Iterator[pa.RecordBatch]]


def kind_of(name: str) -> str | None:
    """The format that a name's ending tells."""
    ending = Path(name).suffix.lower()
    return next((kind for kind, endings in _ENDINGS.items() if ending in endings), None)


def ending(kind: str) -> str:
    """The ending of files of this format."""
    return _ENDINGS[kind][0]


def is_folder(kind: str) -> bool:
    """Whether one output of this format is a folder."""
    return kind == "lance"


def require_extra(kind: str) -> None:
    """Raise MissingExtraError where the format needs packages that are not there."""
    check = getattr(import_module(f".{kind}", __name__), "require_extra", None)
    if check:
        check()


def require_possible(kind: str, schema: pa.Schema, vectors: str, has_null: bool) -> None:
    """Raise InvalidArgumentError where the format cannot hold such a table; `has_null`: vectors may be null."""
    check = getattr(import_module(f".{kind}", __name__), "require_possible", None)
    if check:
        check(schema, vectors, has_null)


def write(kind: str, table: Table, path: Path) -> None:
    """Write a file, or a folder where the format has that, which is on the disk when this returns."""
    cast("Callable[[Table, Path], None]", import_module(f".{kind}", __name__).write)(table, path)
