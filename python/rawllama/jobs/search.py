"""Search what a job has made: the query is compared with each vector, so that none is missed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama._options import between
from rawllama.arrow import SCALE, _require_pyarrow
from rawllama.embedder import Embedder
from rawllama.errors import InvalidArgumentError
from rawllama.rows import Int8Rows, Rows
from rawllama.similarity import similarity

from . import identity, origin, sinks
from .inputs import find, is_address, kind_of
from .sinks import npy

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    from numpy.typing import NDArray

    from rawllama.model import Model

# sqlite-vec's own limit.
MOST = 4096
# Vectors that are compared at a time, rows among which the found ones are looked up, and batches that are read ahead.
_ROWS, _FEW_ROWS, _AHEAD = 8192, 256, 2
_FORMATS = {"parquet": "parquet", "arrow": "ipc"}
# Types of numbers that sqlite-vec does not tell apart.
_ALIKE = {"float16": "float32"}


@dataclass(frozen=True)
class Hit:
    """A row that a search has found.

    Attributes
    ----------
    similarity
        Cosine of query and row, from -1 to 1; in SQLite with packed bits, that of the bits.
    row
        Its columns, without the vector.
    """

    similarity: float
    row: dict[str, Any]


def search(
    source: str | os.PathLike[str],
    query: str,
    *,
    model: str | os.PathLike[str] | Model | Embedder = "minilm",
    top: int = 10,
    into: str | None = None,
    **settings: Any,
) -> list[Hit]:
    """The rows of a job's output that are most alike a query.

    Each vector is read and compared; memory does not grow with their number. In a SQLite database sqlite-vec does it.

    Parameters
    ----------
    source
        What `embed_files` has made: `.parquet`, `.arrow`, `.lance`, `.db`, a folder of Parquet or Arrow files; of the
        first two, and of folders, also an fsspec address.
    query
        A text; it gets the model's prompt for queries, where it has one.
    model
        As for `Embedder`: the one that the vectors were made with; or an Embedder, which stays open.
    top
        So many rows at most, up to 4096.
    into
        The column of vectors; None: what the source says, else `embedding`.
    settings
        Keywords of `Embedder`. `pooling`, `normalize` and `dims` are as the source says, where they are not given.

    Returns
    -------
    list of Hit
        The most alike first. Rows without a vector are not found.

    Raises
    ------
    InvalidArgumentError
        The source has no such column, or a format that cannot be searched, or was made with another model.
    OSError
        It is not there, or cannot be read.
    MissingExtraError
        A package for the format or the address is not installed.
    LlamaError
        As `Embedder.encode`.

    Calls: llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
    """
    _require_pyarrow()
    top = between("top", top, 1, MOST)
    name = os.fspath(source)
    if sinks.kind_of(name) == "sqlite":
        return _search_sqlite(Path(name), query, model, top, into, settings)
    with _readable(name):
        dataset = _lance(name) if sinks.kind_of(name) == "lance" else _dataset(name)
    made = origin.of(dataset.schema)
    column = into or made.get("into", "embedding")
    width = _width(dataset.schema, column, name)
    with _opened(model, made, settings, name) as embedder:
        if width - embedder.dims not in (range(8) if _is_bits(dataset.schema, column) else (0,)):
            raise InvalidArgumentError(f"model: its vectors have {embedder.dims} columns, those of {name} {width}")
        vector = embedder.encode_query(query)
    with _readable(name):
        scores, rows = _nearest(dataset, vector, column, top)
        return list(map(Hit, scores.tolist(), _others(dataset, column, rows)))


def _search_sqlite(
    path: Path, query: str, model: Any, top: int, into: str | None, settings: dict[str, Any]
) -> list[Hit]:
    from .sinks import sqlite

    if is_address(str(path)):
        raise InvalidArgumentError(f"{path}: SQLite reads local files only; copy the database to one")
    with sqlite.opened(path) as connection:
        made = origin.read(sqlite.origin_of(connection))
        column = into or made["into"]
        if column != made["into"]:
            raise InvalidArgumentError(f"into: {path} has no vectors {column!r}; it has {made['into']!r}")
        with _opened(model, made, {"dtype": made["dtype"], **settings}, str(path)) as embedder:
            _require_same(embedder, made, ("dims", "dtype"), str(path))
            vector = embedder.encode_query(query)
        found = sqlite.nearest(connection, vector, column, made["dims"], top)
        return [Hit(likeness, _without(row, column + SCALE)) for likeness, row in found]


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column != name}


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


def _width(schema: pa.Schema, column: str, name: str) -> int:
    """Numbers of a vector, 8 for a byte of packed bits."""
    import pyarrow as pa

    if column not in schema.names:
        raise InvalidArgumentError(f"into: {name} has no column {column!r}; it has {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not pa.types.is_fixed_size_list(kind):
        raise InvalidArgumentError(f"into: {column!r} of {name} is of {kind}, and no fixed-size lists of numbers")
    return int(kind.list_size * (8 if _is_bits(schema, column) else 1))


def _is_bits(schema: pa.Schema, column: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_uint8(schema.field(column).type.value_type))


@contextmanager
def _opened(model: Any, made: dict[str, Any], settings: dict[str, Any], name: str) -> Iterator[Embedder]:
    """What makes the vector of the query, as the others were made."""
    if isinstance(model, Embedder):
        if given := settings.keys() - {"dtype"}:
            raise InvalidArgumentError(f"{', '.join(given)}: the Embedder that is given has its own; set it there")
        _require_same_model(model, made, name)
        _require_same(model, made, ("pooling", "dims"), name)
        yield model
        return
    options = {key: made[key] for key in ("pooling", "normalize", "dims") if key in made} | settings
    with Embedder(model, progress=False, **options) as embedder:
        _require_same_model(embedder, made, name)
        yield embedder


def _require_same_model(embedder: Embedder, made: dict[str, Any], name: str) -> None:
    if made and identity.sha256(embedder.model.paths) != made["sha256"]:
        raise InvalidArgumentError(f"model: {name} was made with {made['model']}, and this is another; pass that one")


def _require_same(embedder: Embedder, made: dict[str, Any], names: Iterable[str], source: str) -> None:
    """Refuse an Embedder whose vectors do not compare with those that are there."""
    for name in names if made else ():
        own, wanted = (_ALIKE.get(value, value) for value in (getattr(embedder, name), made[name]))
        if own != wanted:
            words = f"its {name} is {own}, and that of {source} {wanted}"
            raise InvalidArgumentError(f"model: {words}; pass the model's name alone, or such an Embedder")


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
