"""JSON lines: an object a row, numbers with as many digits as they need."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Table
from .files import durable

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]


def write(table: Table, path: Path) -> None:
    """Write a line a row."""
    with durable(path) as file:
        for batch in table.batches():
            others = batch.drop_columns([table.vectors]).to_pylist()
            for row, vector in zip(others, vectors(batch.column(table.vectors)), strict=True):
                head = json.dumps(plain(row), ensure_ascii=False)[1:-1]
                file.write(f'{{{head}, "{_name(table.vectors)}": {vector}}}\n'.encode())


def vectors(column: pa.FixedSizeListArray) -> Iterator[str]:
    """Each vector as a JSON array; `null` for null."""
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    width = column.type.list_size
    bounds = pa.array(range(0, len(column) * width + 1, width), pa.int32())
    lists = pa.ListArray.from_arrays(bounds, numbers(column))
    for text, is_there in zip(pc.binary_join(lists, ", "), column.is_valid(), strict=True):
        yield f"[{text.as_py()}]" if is_there.as_py() else "null"


def numbers(column: pa.FixedSizeListArray) -> pa.StringArray:
    """The numbers of all vectors, with the fewest digits that tell them from their neighbours."""
    import pyarrow as pa
    import pyarrow.compute as pc

    width = column.type.list_size
    values = column.values.slice(column.offset * width, len(column) * width)
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    words = values.cast(pa.string())
    return pc.if_else(pc.equal(words, "-0"), "-0.0", words)  # JSON's -0 is the integer 0


def plain(value: Any) -> Any:
    """A value as JSON has it: what is none of JSON's becomes a string, and what is no number null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _name(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]
