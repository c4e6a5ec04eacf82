"""Tables of vectors on the disk: Parquet, Arrow and Lance, read piece by piece and compared."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama.arrow import SCALE
from rawllama.errors import InvalidArgumentError
from rawllama.rows import Int8Rows, Rows
from rawllama.similarity import similarity

from . import origin, sinks
from .inputs import find, is_address, kind_of
from .sinks import npy

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    from numpy.typing import NDArray

# Vectors that are compared at a time, rows among which the found ones are looked up, and batches that are read ahead.
_ROWS, _FEW_ROWS, _AHEAD = 8192, 256, 2
_FORMATS = {"parquet": "parquet", "arrow": "ipc"}


class VectorTable:
    """A table with a column of vectors.

    Parameters
    ----------
    name
        Path or address of a `.parquet`, `.arrow` or `.lance`, or a folder of one of the first two.

    Attributes
    ----------
    made
        What `origin.of` says of it.

    Raises
    ------
    InvalidArgumentError
        It has another format, or is damaged; or its files were not made alike.
    OSError
        It is not there, or cannot be read.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        with _readable(name):
            self._dataset = _lance(name) if sinks.kind_of(name) == "lance" else _dataset(name)
        self.made = origin.of(self._dataset.schema)

    def require_width(self, column: str, dims: int) -> None:
        """Raise InvalidArgumentError if this is no column of vectors of so many numbers."""
        import pyarrow as pa

        schema = self._dataset.schema
        if column not in schema.names:
            words = f"has no column {column!r}; it has {', '.join(schema.names)}"
            raise InvalidArgumentError(f"into: {self._name} {words}")
        kind = schema.field(column).type
        if not pa.types.is_fixed_size_list(kind):
            words = f"is of {kind}, and no fixed-size lists of numbers"
            raise InvalidArgumentError(f"into: {column!r} of {self._name} {words}")
        is_bits = pa.types.is_uint8(kind.value_type)
        if kind.list_size != (-(-dims // 8) if is_bits else dims):
            width = f"{kind.list_size} {'bytes of bits' if is_bits else 'columns'}"
            raise InvalidArgumentError(f"model: its vectors have {dims} columns, those of {self._name} {width}")

    def nearest(self, vector: Rows, column: str, top: int) -> Iterator[tuple[float, dict[str, Any]]]:
        """The rows that are most alike a vector, with the cosines, the most alike first."""
        with _readable(self._name):
            scores, rows = _nearest(self._dataset, vector, column, top)
            yield from zip(scores.tolist(), _others(self._dataset, column, rows), strict=True)


def _lance(name: str) -> Any:
    sinks.require_extra("lance")
    import lance

    if is_address(name):
        return lance.dataset(name)
    path = Path(name).absolute()
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return lance.dataset(str(path))


def _dataset(name: str) -> Any:
    """Parquet or Arrow files, all with the same kind of vectors."""
    import pyarrow as pa
    import pyarrow.dataset as ds  # type: ignore[import-untyped]

    if kind_of(name) is None and not is_address(name) and Path(name).is_file():
        raise InvalidArgumentError(f"{name}: its name does not tell its format; .parquet, .arrow, .lance and .db do")
    files = find(name)
    kinds = {file.kind for file in files}
    if len(kinds) > 1 or not kinds <= _FORMATS.keys():
        words = f"it has {' and '.join(sorted(kinds))} files"
        raise InvalidArgumentError(f"{name}: {words}; one of parquet, arrow, lance and sqlite is searched")
    store = files[0].store
    places = [file.name if store is None else store._strip_protocol(file.name) for file in files]
    dataset = ds.dataset(places, format=_FORMATS[kinds.pop()], filesystem=store)
    schemas = [fragment.physical_schema for fragment in dataset.get_fragments()]
    for file, schema in zip(files, schemas, strict=True):
        if origin.of(schema) != origin.of(schemas[0]):
            words = "its vectors were made in another way than those before it; search it alone"
            raise InvalidArgumentError(f"{file.name}: {words}")
    return dataset.replace_schema(pa.unify_schemas(schemas, promote_options="permissive"))


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Arrow's errors, and those of Lance, as ours."""
    import pyarrow as pa

    try:
        yield
    except (InvalidArgumentError, OSError):
        raise
    except (pa.ArrowException, ValueError) as error:
        raise InvalidArgumentError(f"{name}: it cannot be read as its name says: {error}") from None


def _nearest(dataset: Any, vector: Rows, column: str, top: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosines, and the numbers of their rows, the largest first."""
    wanted = [name for name in (column, column + SCALE) if name in dataset.schema.names]
    best, rows = np.empty(0, np.float32), np.empty(0, np.int64)
    first = 0
    for batch in dataset.to_batches(columns=wanted, batch_size=_ROWS, **_ahead(dataset)):
        there = np.flatnonzero(batch.column(column).is_valid())
        scores = similarity(vector, _rows(batch.take(there), column))
        is_number = np.isfinite(scores)
        best = np.concatenate([best, scores[is_number]])
        rows = np.concatenate([rows, first + there[is_number]])
        order = np.argsort(-best, kind="stable")[:top]
        best, rows = best[order], rows[order]
        first += batch.num_rows
    return best, rows


def _others(dataset: Any, column: str, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The other columns of these rows."""
    names = [name for name in dataset.schema.names if name not in (column, column + SCALE)]
    if not names or not rows.size:
        return [{} for _ in rows]
    order = np.argsort(rows)
    if _is_arrow(dataset):
        scanner = dataset.scanner(columns=names, batch_size=_FEW_ROWS, **_ahead(dataset))
        found = scanner.take(rows[order]).to_pylist()
    else:
        found = dataset.take(rows[order].tolist(), columns=names).to_pylist()
    return [found[place] for place in np.argsort(order)]


def _ahead(dataset: Any) -> dict[str, int]:
    """Keywords that keep little in memory: Arrow reads ahead in several files at once, if it may."""
    return {"batch_readahead": _AHEAD, **({"fragment_readahead": 1} if _is_arrow(dataset) else {})}


def _is_arrow(dataset: Any) -> bool:
    return type(dataset).__module__.startswith("pyarrow")


def _rows(batch: pa.RecordBatch, column: str) -> Rows:
    values = npy.matrix(batch.column(column))
    if values.dtype != np.int8:
        return values
    return Int8Rows(values, batch.column(column + SCALE).to_numpy())
