"""Lance: a folder with versions, which its own index searches."""

from __future__ import annotations

from pathlib import Path

from rawllama.errors import MissingExtraError

from . import Table
from .files import sync


def require_extra() -> None:
    """Raise MissingExtraError where Lance is not there."""
    try:
        import lance  # noqa: F401
    except ImportError:
        raise MissingExtraError("pylance is not installed: pip install 'rawllama[lance]'") from None


def write(table: Table, path: Path) -> None:
    """Write a data set of one version."""
    import lance
    import pyarrow as pa  # type: ignore[import-untyped]

    reader = pa.RecordBatchReader.from_batches(table.schema, table.batches())
    lance.write_dataset(reader, str(path), schema=table.schema, mode="create")
    for file in path.rglob("*"):
        if file.is_file():
            sync(file)
