"""CSV: the columns of the input, and then a column a number: e0, e1 and so on."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama.errors import InvalidArgumentError

from . import Table
from .files import durable
from .jsonl import numbers, plain

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]


def require_possible(schema: pa.Schema, vectors: str, has_null: bool) -> None:
    """Refuse columns that have the names of our own."""
    del has_null  # an empty field
    width = schema.field(vectors).type.list_size
    if taken := {f"e{i}" for i in range(width)} & set(schema.names):
        raise InvalidArgumentError(f"column {taken.pop()!r}: CSV has the vectors' numbers under this name; rename it")


def write(table: Table, path: Path) -> None:
    """Write a header and a line a row; objects and lists are JSON."""
    others = [name for name in table.schema.names if name != table.vectors]
    width = table.schema.field(table.vectors).type.list_size
    with durable(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow([*others, *(f"e{i}" for i in range(width))])
        for batch in table.batches():
            column = batch.column(table.vectors)
            rows = batch.select(others).to_pylist()
            words = numbers(column).to_pylist()
            for index, (row, is_there) in enumerate(zip(rows, column.is_valid().to_pylist(), strict=True)):
                vector = words[index * width : (index + 1) * width] if is_there else [""] * width
                writer.writerow([*map(_field, row.values()), *vector])
        text.detach()


def _field(value: Any) -> str:
    found = plain(value)
    if found is None:
        return ""
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
