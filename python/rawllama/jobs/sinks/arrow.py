"""Arrow's file format, which is Feather of version 2."""

from __future__ import annotations

from pathlib import Path

from . import Table
from .files import durable


def write(table: Table, path: Path) -> None:
    """Write an Arrow file, not packed: it can be mapped into memory."""
    import pyarrow as pa  # type: ignore[import-untyped]

    with durable(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        for batch in table.batches():
            writer.write_batch(batch)
