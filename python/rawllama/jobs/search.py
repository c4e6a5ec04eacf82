"""Search what a job has made: the query is compared with each vector, so that none is missed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama._options import between
from rawllama.arrow import SCALE, _require_pyarrow
from rawllama.embedder import Embedder
from rawllama.errors import InvalidArgumentError

from . import identity, origin, sinks
from .inputs import is_address
from .vectors import VectorTable

if TYPE_CHECKING:
    from rawllama.model import Model

# sqlite-vec's own limit.
MOST = 4096
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
    table = VectorTable(name)
    column = into or table.made.get("into", "embedding")
    with _opened(model, table.made, settings, name) as embedder:
        table.require_width(column, embedder.dims)
        vector = embedder.encode_query(query)
    return [Hit(likeness, row) for likeness, row in table.nearest(vector, column, top)]


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
