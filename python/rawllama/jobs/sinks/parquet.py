"""Parquet: texts packed, vectors as they are, as these do not pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import Table
from .files import durable

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

# Bytes of a row group in memory, about, which it takes three or four times while it is written.
_GROUP = 16 << 20


def write(table: Table, path: Path) -> None:
    """Write a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    others = [name for name in table.schema.names if name != table.vectors]
    numbers = f"{table.vectors}.list.element"
    packed = {numbers: "NONE", **dict.fromkeys(others, "ZSTD")}
    # Parquet has no numbers of 8 bits: as 32, or as 8 that point into a dictionary.
    is_small = table.schema.field(table.vectors).type.value_type.bit_width == 8
    options = {"compression": packed, "use_dictionary": [*others, numbers] if is_small else others}
    with durable(path) as file, pq.ParquetWriter(file, table.schema, **options) as writer:
        group: list[pa.RecordBatch] = []
        size = 0
        for batch in table.batches():
            group.append(batch)
            size += batch.nbytes
            if size >= _GROUP:
                writer.write_table(pa.Table.from_batches(group, table.schema))
                group, size = [], 0
        if group:
            writer.write_table(pa.Table.from_batches(group, table.schema))
