"""Writes computed rows to parts: Arrow streams, each on the disk before it counts."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .state import Part, State
from .system import naming

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]


class PartWriter:
    """Writes blocks to one part after the other.

    Parameters
    ----------
    state
        Where they count when they are whole.
    schema
        Their columns.
    seconds
        After so long a part ends.

    Attributes
    ----------
    rows
        How many are in the part that is being written.
    """

    def __init__(self, state: State, schema: pa.Schema, seconds: float) -> None:
        self._state = state
        self._schema = schema
        self._seconds = seconds
        self._path: Path
        self._file: IO[bytes] | None = None
        self._stream: Any = None
        self._tokens = self._tokens_before = 0
        self._since = time.monotonic()
        self._begin()

    def add(self, batch: pa.RecordBatch, n_read: int, skipped: int, tokens: int) -> None:
        """Write a block.

        Parameters
        ----------
        batch
            Its rows.
        n_read
            The input rows that it was made of.
        skipped
            The bad ones among them.
        tokens
            Those of all blocks so far.
        """
        import pyarrow as pa

        if self._file is None:
            self._path = self._state.temporary("part")
            self._file = self._path.open("wb")
            self._stream = pa.ipc.new_stream(self._file, self._schema)
        with naming(self._path):
            self._stream.write_batch(batch)
        self.rows += batch.num_rows
        self._read += n_read
        self._skipped += skipped
        self._tokens = tokens
        if time.monotonic() - self._since >= self._seconds:
            self.close()

    def close(self) -> None:
        """End the part, if there is one: it counts from now on. Who is interrupted here leaves it."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with naming(self._path), file:
            self._stream.close()
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        first = self._state.done
        part = Part(
            file=f"{first:012d}.arrows",
            first=first,
            end=first + self._read,
            rows=self.rows,
            skipped=self._skipped,
            tokens=self._tokens - self._tokens_before,
            size=size,
        )
        self._state.add_part(self._path, part)
        self._begin()

    def abandon(self) -> None:
        """Leave the part that is being written."""
        if self._file is not None:
            with suppress(OSError):  # what is still in its buffer has no room
                self._file.close()
            self._path.unlink(missing_ok=True)
            self._begin()

    def _begin(self) -> None:
        self._file = self._stream = None
        self.rows = self._read = self._skipped = 0
        self._tokens_before = self._tokens
        self._since = time.monotonic()
