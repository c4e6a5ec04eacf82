"""`.npy`: the vectors alone, as one matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama.errors import InvalidArgumentError

from . import Table
from .files import durable

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    from numpy.typing import NDArray


def require_possible(schema: pa.Schema, vectors: str, has_null: bool) -> None:
    """Refuse vectors that one array does not hold."""
    import pyarrow as pa

    kind = schema.field(vectors).type.value_type
    if pa.types.is_int8(kind):
        raise InvalidArgumentError("dtype: npy holds one array, and int8 has scales beside it; change either")
    if has_null and not pa.types.is_floating(kind):
        raise InvalidArgumentError("bad_rows: null is NaN in npy, which bits do not have; choose skip or error")


def write(table: Table, path: Path) -> None:
    """Write the matrix, shape (rows, width); null is a row of NaN."""
    import pyarrow as pa

    kind = table.schema.field(table.vectors).type
    dtype = pa.array([], kind.value_type).to_numpy().dtype
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
              "shape": (table.rows, kind.list_size)}  # fmt: skip
    with durable(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in table.batches():
            file.write(matrix(batch.column(table.vectors)).data)


def matrix(column: pa.FixedSizeListArray) -> NDArray[Any]:
    """Vectors as numpy has them, shape (rows, width); null is NaN, or 0 where there is none."""
    width = column.type.list_size
    values = column.values.to_numpy(zero_copy_only=False)[column.offset * width :][: len(column) * width]
    rows: NDArray[Any] = values.reshape(-1, width)
    if column.null_count:
        rows = rows.copy()
        rows[column.is_null().to_numpy(zero_copy_only=False)] = np.nan if rows.dtype.kind == "f" else 0
    return np.ascontiguousarray(rows)
