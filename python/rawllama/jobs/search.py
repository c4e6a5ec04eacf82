"""Search what a job has made: the query is compared with each vector, so that none is missed."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
from .inputs import find
from .sinks import npy

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

    from rawllama.model import Model

# sqlite-vec's own limit.
MOST = 4096
# Rows that are compared at a time, and batches of them that are read ahead.
_ROWS, _AHEAD = 8192, 2
_FORMATS = {"parquet": "parquet", "arrow": "ipc"}


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
        What `embed_files` has made: `.parquet`, `.arrow`, `.lance`, `.db`, a folder of Parquet or Arrow files, or an
        fsspec address of one of these but the last two.
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
    dataset = _dataset(name)
    made = origin.of(dataset.schema)
    column = into or made.get("into", "embedding")
    width = _width(dataset.schema, column, name)
    with _opened(model, made, settings, name) as embedder:
        _require_same_width(embedder, width, name)
        vector = embedder.encode_query(query)
    return _nearest(dataset.to_batches(batch_size=_ROWS, **_ahead(dataset)), vector, column, top)


def _search_sqlite(
    path: Path, query: str, model: Any, top: int, into: str | None, settings: dict[str, Any]
) -> list[Hit]:
    from .sinks import sqlite

    with sqlite.opened(path) as connection:
        made = origin.read(sqlite.origin_of(connection))
        dtype = made.get("dtype", "float32")
        with _opened(model, made, {"dtype": "float32" if dtype == "float16" else dtype, **settings}, str(path)) as one:
            vector = one.encode_query(query)
        column = into or made.get("into", "embedding")
        found = sqlite.nearest(connection, vector, column, top)
        return [Hit(likeness, _without(row, column + SCALE)) for likeness, row in found]


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column != name}


def _dataset(name: str) -> Any:
    """Something with a schema that gives record batches."""
    import pyarrow.dataset as ds  # type: ignore[import-untyped]

    if sinks.kind_of(name) == "lance":
        sinks.require_extra("lance")
        import lance

        return lance.dataset(name)
    files = find(name)
    kind = _FORMATS.get(files[0].kind)
    if kind is None or any(file.kind != files[0].kind for file in files):
        raise InvalidArgumentError(f"{name}: {files[0].kind} is not searched; parquet, arrow, lance and sqlite are")
    store = files[0].store
    places = [file.name if store is None else store._strip_protocol(file.name) for file in files]
    return ds.dataset(places, format=kind, filesystem=store)


def _ahead(dataset: Any) -> dict[str, int]:
    """Keywords that keep little in memory: Arrow reads ahead in several files at once, if it may."""
    is_arrow = type(dataset).__module__.startswith("pyarrow")
    return {"batch_readahead": _AHEAD, **({"fragment_readahead": 1} if is_arrow else {})}


def _width(schema: pa.Schema, column: str, name: str) -> int:
    """Numbers of a vector, 8 for a byte of packed bits."""
    import pyarrow as pa

    if column not in schema.names:
        raise InvalidArgumentError(f"into: {name} has no column {column!r}; it has {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not pa.types.is_fixed_size_list(kind):
        raise InvalidArgumentError(f"into: {column!r} of {name} is of {kind}, and no fixed-size lists of numbers")
    return int(kind.list_size * (8 if pa.types.is_uint8(kind.value_type) else 1))


@contextmanager
def _opened(model: Any, made: dict[str, Any], settings: dict[str, Any], name: str) -> Iterator[Embedder]:
    """What makes the vector of the query, as the others were made."""
    if isinstance(model, Embedder):
        if settings.keys() - {"dtype"}:
            raise InvalidArgumentError(f"{', '.join(settings)}: the Embedder that is given has its own; set it there")
        _require_same_model(model, made, name)
        yield model
        return
    options = {key: made[key] for key in ("pooling", "normalize", "dims") if key in made} | settings
    with Embedder(model, progress=False, **options) as embedder:
        _require_same_model(embedder, made, name)
        yield embedder


def _require_same_model(embedder: Embedder, made: dict[str, Any], name: str) -> None:
    if made and identity.sha256(embedder.model.paths) != made["sha256"]:
        raise InvalidArgumentError(f"model: {name} was made with {made['model']}, and this is another; pass that one")


def _require_same_width(embedder: Embedder, width: int, name: str) -> None:
    if width - embedder.dims not in range(8):  # packed bits fill up their last byte
        raise InvalidArgumentError(f"model: its vectors have {embedder.dims} columns, those of {name} {width}")


def _nearest(batches: Iterator[pa.RecordBatch], vector: Rows, column: str, top: int) -> list[Hit]:
    best: list[Hit] = []
    for batch in batches:
        there = batch.filter(batch.column(column).is_valid())
        scores = similarity(vector, _rows(there, column))
        chosen = np.argsort(-scores, kind="stable")[:top]
        if len(best) == top:
            chosen = chosen[scores[chosen] > best[-1].similarity]
        others = [name for name in batch.schema.names if name not in (column, column + SCALE)]
        found = there.select(others).take(chosen).to_pylist() if others else ({} for _ in chosen)
        best += map(Hit, scores[chosen].tolist(), found)
        best = sorted(best, key=lambda hit: -hit.similarity)[:top]
    return best


def _rows(batch: pa.RecordBatch, column: str) -> Rows:
    values = npy.matrix(batch.column(column))
    if values.dtype != np.int8:
        return values
    return Int8Rows(values, batch.column(column + SCALE).to_numpy())
