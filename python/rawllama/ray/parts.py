"""Parts of a job: rows of one input file, computed by one actor and written as one file."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama.arrow import BLOCK_ROWS
from rawllama.jobs.inputs import InputFile, listed
from rawllama.jobs.schemas import unified
from rawllama.jobs.sinks import Table, parquet
from rawllama.jobs.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

# Files that are looked into side by side: on remote storage each takes some tenths of a second.
_AT_ONCE = 16


@dataclass(frozen=True)
class Part:
    """Rows of an input file.

    Attributes
    ----------
    name
        Of the output file.
    source
        The input file.
    first, n_rows
        Which of its rows.
    """

    name: str
    source: Source
    first: int
    n_rows: int

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, in blocks that are the same each time."""
        left = self.n_rows
        for block in self.source.blocks(self.first, BLOCK_ROWS) if left else ():
            yield block.slice(0, left)
            left -= block.num_rows
            if left <= 0:
                return

    def place(self, index: int) -> str:
        """Where a row of the part is, for messages: its file, and its number there from 0 on."""
        return self.source.place(self.first + index)


def scan(files: Sequence[InputFile], column: str, lenient: bool) -> list[Source]:
    """A source for each file; all have the same columns.

    Raises
    ------
    InvalidArgumentError, OSError
        As `rawllama.jobs.sources.Source.scan`.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = list(threads.map(partial(_scan, column=column, lenient=lenient), files))
    schema = unified((source.files[0].name, source.schema) for source in found)
    return [Source(source.files, source.rows, schema, column, lenient) for source in found]


def _scan(file: InputFile, column: str, lenient: bool) -> Source:
    return Source.scan([file], column, lenient)


def cut(sources: Sequence[Source], part_rows: int) -> list[Part]:
    """Parts of at most `part_rows` rows, none across two files; one without rows where there are none at all."""
    ranges = [
        (source, first, min(part_rows, source.n_rows - first))
        for source in sources
        for first in range(0, source.n_rows, part_rows)
    ]
    ranges = ranges or [(sources[0], 0, 0)]
    return [Part(f"part-{number:06d}.parquet", *found) for number, found in enumerate(ranges)]


def write(store: Any, folder: str, name: str, table: Table, check: Callable[[], object]) -> None:
    """Write one file, which appears when it is whole, and `check` has raised nothing."""
    unfinished = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
    if getattr(store, "local_file", False):
        parquet.write(table, Path(unfinished))
    else:
        with tempfile.TemporaryDirectory(prefix="rawllama-") as beside:
            made = Path(beside, name)
            parquet.write(table, made)
            with made.open("rb") as here, store.open(unfinished, "wb") as there:
                shutil.copyfileobj(here, there, 1 << 20)
    check()
    store.mv(unfinished, f"{folder}/{name}")


def clear_unfinished(store: Any, folder: str) -> None:
    """Remove what actors left that died while they wrote."""
    for name in listed(store, folder, ".part-*.tmp"):
        with suppress(FileNotFoundError):
            store.rm_file(f"{folder}/{name}")
