"""Arrow record batches in, the same with a column of vectors out: what files, caches and clusters are built on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ._numbering import renumber
from ._options import between, one_of
from ._progress import Wanted, require_progress
from .embedder import Embedder
from .errors import InvalidArgumentError, LlamaError, MissingExtraError
from .raw import ffi
from .rows import Int8Rows, Rows, take
from .texts import read

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

    from .cache import Cache
    from .cache.rows import Found
    from .model import Model

BAD_ROWS = ("error", "null")
#: Rows that are computed together; record batches that are smaller are put together, larger ones stay whole.
BLOCK_ROWS = 4096
# Where a cache is used: texts that are enough to compute together, and rows that wait for some meanwhile, at most.
_FEW, _HELD = 1024, 8 * BLOCK_ROWS
#: The end of the name of the column with the scales of int8 vectors.
SCALE = "_scale"
_LISTS = {"float32": "float32", "float16": "float16", "int8": "int8", "ubinary": "uint8"}


def embed_batches(
    batches: Iterable[pa.RecordBatch],
    *,
    model: str | os.PathLike[str] | Model | Embedder,
    column: str = "text",
    into: str = "embedding",
    prompt: str | None = None,
    bad_rows: str = "error",
    block_rows: int = BLOCK_ROWS,
    progress: Wanted = None,
    cache: Cache | None = None,
    **settings: Any,
) -> Iterator[pa.RecordBatch]:
    """Add a column of vectors to record batches, in memory that does not grow: one block is computed, one is read.

    Parameters
    ----------
    batches
        Record batches of one schema, a table, a dataset, or a reader.
    model
        As for `Embedder`; or an Embedder, which stays open.
    column
        The column of texts: strings of any of Arrow's layouts, dictionaries of them too.
    into
        Name of the new column: fixed-size lists of `dims` numbers of `dtype`, for packed bits of uint8. `int8` has a
        second one, of the same name with `_scale`: float32.
    prompt
        As for `Embedder.encode`.
    bad_rows
        A text that is null, or too long where `overlong` is `error`, or without tokens in this model: an `error`, or a
        vector that is `null`.
    block_rows
        Neighbouring batches are put together up to so many rows, to find texts of like length among them; larger ones
        stay whole, so that with 1 each batch is computed alone.
    progress
        As for `Embedder.encode`; it sees each block's end.
    cache
        Has rows that were computed before, perhaps beside other texts; only the others are computed, and added to it.
    settings
        Keywords of `Embedder`, such as `dtype`, `dims`, `normalize`, `overlong`; none beside an Embedder.

    Yields
    ------
    RecordBatch
        The batches that came in, in their order, with the same rows. What is computed together has the same bits each
        time.

    Raises
    ------
    InvalidArgumentError
        No such column, or not of strings; or `into` is there already; or a bad row, with its number.
    MissingExtraError
        pyarrow is not installed.
    LlamaError, OSError
        As `Embedder` and its `encode`.

    Calls: llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
    """
    one_of("bad_rows", bad_rows, BAD_ROWS)
    for name, value in (("column", column), ("into", into)):
        if not isinstance(value, str) or not value:
            raise InvalidArgumentError(f"{name}: {value!r} is no column's name")
    if cache is not None and not hasattr(cache, "rows_of"):
        raise InvalidArgumentError(f"cache: {cache!r} is no rawllama.cache.Cache; pass Cache(folder)")
    if column == into:
        raise InvalidArgumentError(f"into: {into!r} is the column of texts; give the vectors another name")
    _require_pyarrow()
    rows = between("block_rows", block_rows, 1, 1 << 30)
    task = _Task(column, into, prompt, bad_rows == "null", rows, require_progress(progress), cache)
    return _embed(batches, model, task, settings)


@dataclass(frozen=True)
class _Task:
    column: str
    into: str
    prompt: str | None
    null_where_bad: bool
    block_rows: int
    progress: Wanted
    cache: Cache | None


@dataclass(frozen=True)
class _Block:
    """Record batches that are computed together.

    `first` is the number of its first row. `computed` are the indices of rows that have a good text; None if all have.
    `found` is what the cache has for these, if there is one, and `texts` are those that the Embedder is given.
    """

    batches: list[pa.RecordBatch]
    first: int
    n_rows: int
    computed: Any
    found: Found | None
    texts: Any

    @property
    def given(self) -> Any:
        """Numbers of the rows whose texts the Embedder is given: int64."""
        indices = np.arange(self.n_rows) if self.computed is None else self.computed
        return self.first + (indices if self.found is None else indices[self.found.missing])


def _embed(
    batches: Iterable[pa.RecordBatch], model: Any, task: _Task, settings: dict[str, Any]
) -> Iterator[pa.RecordBatch]:
    waiting: deque[list[_Block]] = deque()
    n_done = 0  # texts that the Embedder was given, and whose rows are handed out
    with _opened(model, settings) as embedder:

        def columns() -> Iterator[Any]:
            for blocks in _together(_blocks(batches, embedder, task)):
                waiting.append(blocks)
                yield _joined(blocks)

        try:
            for rows in embedder._encode_blocks(columns(), prompt=task.prompt, progress=task.progress):
                start = 0
                for block in waiting.popleft():
                    own = take(rows, slice(start, start := start + len(block.texts)))
                    n_done += len(block.texts)
                    every = own if block.found is None else block.found.complete(own)
                    yield from _with_vectors(block, every, embedder, task.into)
        except LlamaError as error:
            renumber(error, lambda index: _row(chain(*waiting), index - n_done))
            raise


def _blocks(batches: Iterable[pa.RecordBatch], embedder: Embedder, task: _Task) -> Iterator[_Block]:
    cached = None if task.cache is None else task.cache.rows_of(embedder, prompt=task.prompt)
    first = 0
    added = {field.name for field in vector_fields(embedder, task.into)}
    for group in _grouped(_batches(batches), task.block_rows):
        for batch in group:
            _require_columns(batch, task, added)
        texts = _texts(group, task, first)
        computed = _good(texts, embedder, task)
        good = texts if computed is None else _taken(texts, computed)
        found = None if cached is None else cached.find(read(good))
        given = good if found is None else _taken(good, found.missing)
        yield _Block(group, first, len(texts), computed, found, given)
        first += len(texts)


def _taken(texts: Any, indices: Any) -> Any:
    import pyarrow as pa

    return (texts.cast("large_string") if pa.types.is_string_view(texts.type) else texts).take(indices)


def _together(blocks: Iterator[_Block]) -> Iterator[list[_Block]]:
    """Each block alone; but neighbours of which the cache has left little, as a few texts do not occupy all threads."""
    group: list[_Block] = []
    n_rows = n_given = 0
    try:
        for block in blocks:
            group.append(block)
            n_rows += block.n_rows
            n_given += len(block.texts)
            if block.found is None or n_given >= _FEW or n_rows >= _HELD:
                yield group
                group, n_rows, n_given = [], 0, 0
    except Exception:  # of the texts: what was read before them is right
        if group:
            yield group
        raise
    if group:
        yield group


def _joined(blocks: list[_Block]) -> Any:
    """The texts of blocks as one chunked array."""
    import pyarrow as pa

    texts = blocks[0].texts
    return pa.chunked_array([chunk for block in blocks for chunk in block.texts.chunks], texts.type)


@contextmanager
def _opened(model: Any, settings: dict[str, Any]) -> Iterator[Embedder]:
    if not isinstance(model, Embedder):
        with Embedder(model, **settings) as embedder:
            yield embedder
        return
    if settings:
        raise InvalidArgumentError(f"{', '.join(settings)}: the Embedder that is given has its own; set it there")
    yield model


def _batches(source: Any) -> Iterator[pa.RecordBatch]:
    """Record batches of whatever has some."""
    import pyarrow as pa

    if hasattr(source, "to_batches"):  # a table, a dataset
        source = source.to_batches()
    if not isinstance(source, (pa.RecordBatch, Iterable)):
        raise InvalidArgumentError(f"batches: {type(source).__name__} has no record batches; pass a table, or some")
    for batch in [source] if isinstance(source, pa.RecordBatch) else source:
        if isinstance(batch, pa.Table):
            yield from batch.to_batches()
        elif isinstance(batch, pa.RecordBatch):
            yield batch
        else:
            raise InvalidArgumentError(f"batches: one is a {type(batch).__name__}, not a pyarrow.RecordBatch")


def _grouped(batches: Iterator[pa.RecordBatch], block_rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Neighbours, until they have enough rows to find texts of like length among them."""
    group: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if group and rows + batch.num_rows > block_rows:
            yield group
            group, rows = [], 0
        group.append(batch)
        rows += batch.num_rows
    if group:
        yield group


def _require_columns(batch: pa.RecordBatch, task: _Task, added: set[str]) -> None:
    names = batch.schema.names
    if names.count(task.column) != 1:
        words = f"there is no {task.column!r}" if task.column not in names else f"there are several {task.column!r}"
        raise InvalidArgumentError(f"column: {words}; the columns are {', '.join(names)}")
    if taken := added & set(names):
        raise InvalidArgumentError(f"into: there is a column {taken.pop()!r} already; give another name")


def _texts(group: list[pa.RecordBatch], task: _Task, first: int) -> Any:
    """The column of texts of all batches of a group, as one chunked array of strings."""
    import pyarrow as pa

    chunks = [batch.column(task.column) for batch in group]
    kinds = {_kind(chunk, task) for chunk in chunks}
    if len(kinds) > 1 or any(pa.types.is_dictionary(chunk.type) for chunk in chunks):
        chunks = [chunk.cast(pa.large_string()) for chunk in chunks]
    texts = pa.chunked_array(chunks)
    if pa.types.is_null(texts.type):
        texts = texts.cast(pa.string())
    if texts.null_count and not task.null_where_bad:
        row = first + int(np.flatnonzero(texts.is_null())[0])
        raise InvalidArgumentError(f"column: {task.column!r} is null in row {row}; fill it, or pass bad_rows='null'")
    return texts


def _kind(chunk: Any, task: _Task) -> Any:
    """The type of strings that an array has."""
    import pyarrow as pa

    kind = chunk.type.value_type if pa.types.is_dictionary(chunk.type) else chunk.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not is_text and not pa.types.is_null(kind):
        raise InvalidArgumentError(f"column: {task.column!r} is of {kind}, not of strings")
    return kind


def _good(texts: Any, embedder: Embedder, task: _Task) -> Any:
    """Indices of the rows that can be computed, int64; None if all can, or are to be tried."""
    if not task.null_where_bad:
        return None
    there = np.flatnonzero(texts.is_valid())
    counts = _token_counts(_taken(texts, there), embedder, task)
    most = embedder.max_tokens if embedder.overlong == "error" else 1 << 31
    good = there[(counts > 0) & (counts <= most)]
    return None if len(good) == len(texts) else good


def _token_counts(texts: Any, embedder: Embedder, task: _Task) -> Any:
    """Tokens of each text, with those before and behind it: int64. It takes a thousandth of the computation."""
    prefix = embedder._profile.options(task.prompt).prefix
    source = read(texts)
    buffer, offsets = source.utf8(np.arange(len(source)))
    utf8 = buffer if isinstance(buffer, bytes) else bytes(ffi.buffer(buffer, int(offsets[-1])))
    whole = [prefix + utf8[start:end] for start, end in pairwise(offsets.tolist())]
    bounds = embedder.model.vocab.tokenize_many(whole, add_special=False, n_threads=1)[1]
    return np.diff(bounds) + sum(map(len, embedder._specials))


def _row(waiting: Iterable[_Block], index: int) -> int | None:
    """Number of the row that has this one of the texts that the waiting blocks gave."""
    for block in waiting:
        if index < len(block.texts):
            return int(block.given[index])
        index -= len(block.texts)
    return None


def _with_vectors(block: _Block, rows: Rows, embedder: Embedder, into: str) -> Iterator[pa.RecordBatch]:
    """The batches of a block with their vectors."""
    columns = dict(_columns(block, rows, into))
    start = 0
    for batch in block.batches:
        for name, values in columns.items():
            batch = batch.append_column(name, values.slice(start, batch.num_rows))
        yield batch
        start += batch.num_rows


def _columns(block: _Block, rows: Rows, into: str) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    values = rows.values if isinstance(rows, Int8Rows) else rows
    mask = None
    if block.computed is not None:
        mask = np.ones(block.n_rows, bool)
        mask[block.computed] = False
    flat = pa.array(_placed(values, block).reshape(-1))
    width = values.shape[1]
    missing = None if mask is None else pa.array(mask)
    yield into, pa.FixedSizeListArray.from_arrays(flat, width, mask=missing)
    if isinstance(rows, Int8Rows):
        yield into + SCALE, pa.array(_placed(rows.scales, block), mask=mask)


def _placed(values: Any, block: _Block) -> Any:
    """Each computed row in its place, 0 in the others."""
    if block.computed is None:
        return values
    placed = np.zeros((block.n_rows, *values.shape[1:]), values.dtype)
    placed[block.computed] = values
    return placed


def vector_fields(embedder: Embedder, into: str = "embedding") -> list[Any]:
    """The fields that `embed_batches` adds, as `pyarrow.field`s: for engines that ask for a schema beforehand."""
    import pyarrow as pa

    width = -(-embedder.dims // 8) if embedder.dtype == "ubinary" else embedder.dims
    kind = pa.type_for_alias(_LISTS[embedder.dtype])
    fields = [pa.field(into, pa.list_(kind, width))]
    return [*fields, pa.field(into + SCALE, pa.float32())] if embedder.dtype == "int8" else fields


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow is not installed: pip install 'rawllama[arrow]'") from None
