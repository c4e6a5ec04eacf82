"""The rows of a table that are most like a vector, and analogies among them; any size of table, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rawllama.errors import InvalidArgumentError
from rawllama.similarity import METRICS, similarity

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_BLOCK = 1 << 14  # rows read at a time: 100 MB of float32 at 1536 columns


class Table(Protocol):
    """Rows that are read when they are wanted, such as `rawllama.layers.EmbeddingTable`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def rows(self, ids: Any, /) -> NDArray[np.float32]:
        """Those rows: float32, shape (ids, columns)."""
        ...


def nearest(
    table: NDArray[Any] | Table,
    query: ArrayLike,
    n: int = 10,
    *,
    metric: str = "cosine",
    among: ArrayLike | None = None,
    exclude: ArrayLike = (),
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of a table that are most like a vector, the most alike first.

    Parameters
    ----------
    table
        Shape (rows, d): an array, or a `Table`, of which no more than a block is in memory at once.
    query
        Shape (d,).
    n
        How many; fewer where the table has fewer.
    metric
        As in `rawllama.similarity.similarity`.
    among
        Indices of the rows that are looked at; by default all.
    exclude
        Indices of rows that are not.

    Returns
    -------
    indices : ndarray
        int64, shape (n,).
    scores : ndarray
        float32, shape (n,): their similarity. Of equal ones, the lower index comes first.

    Raises
    ------
    InvalidArgumentError
        Indices outside the table, a query of another width, fewer than one row wanted, or an unknown metric.
    """
    if metric not in METRICS:
        raise InvalidArgumentError(f"metric: {metric!r} is none of {', '.join(METRICS)}")
    if n < 1:
        raise InvalidArgumentError(f"n: {n} rows; ask for at least 1")
    vector = np.asarray(query, np.float32)
    if vector.shape != (table.shape[1],):
        raise InvalidArgumentError(f"query: shape {vector.shape}; the table's rows have {table.shape[1]} columns")
    best, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    for ids in _blocks(_candidates(table.shape[0], among, exclude)):
        found = similarity(vector, _rows(table, ids), metric)
        best, scores = _most_alike(np.concatenate([best, ids]), np.concatenate([scores, found]), n)
    return best, scores


def analogy(
    table: NDArray[Any] | Table,
    a: int,
    b: int,
    c: int,
    n: int = 10,
    *,
    among: ArrayLike | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows nearest to ``a - b + c``: what is to `c` as `a` is to `b`. king - man + woman is near queen.

    The rows are scaled to length 1 first, and the three are left out of the answer (3CosAdd; Mikolov, Yih and Zweig
    2013, Levy and Goldberg 2014). That matters: mostly `a` itself is the nearest row of all.

    Parameters
    ----------
    table, n, among
        As in `nearest`.
    a, b, c
        Indices of rows.

    Returns
    -------
    indices, scores
        As `nearest` gives them, by cosine.

    Raises
    ------
    InvalidArgumentError
        As `nearest`.
    """
    three = _indices("a, b, c", [a, b, c], table.shape[0])
    rows = _rows(table, three).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / np.where(lengths == 0, 1, lengths)
    return nearest(table, units[0] - units[1] + units[2], n, among=among, exclude=three)


def _candidates(n_rows: int, among: ArrayLike | None, exclude: ArrayLike) -> NDArray[np.int64]:
    left_out = _indices("exclude", exclude, n_rows)
    looked_at = np.arange(n_rows) if among is None else np.unique(_indices("among", among, n_rows))
    return looked_at[~np.isin(looked_at, left_out)]


def _indices(argument: str, values: ArrayLike, n_rows: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidArgumentError(f"{argument}: integers of shape (n,) are wanted, not {array.dtype} {array.shape}")
    if array.size and not 0 <= array.min() <= array.max() < n_rows:
        raise InvalidArgumentError(f"{argument}: an index is not between 0 and {n_rows - 1}, the table's last row")
    return array.astype(np.int64)


def _blocks(ids: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, ids.size, _BLOCK):
        yield ids[start : start + _BLOCK]


def _rows(table: NDArray[Any] | Table, ids: NDArray[np.int64]) -> NDArray[Any]:
    return table[ids] if isinstance(table, np.ndarray) else table.rows(ids)


def _most_alike(
    ids: NDArray[np.int64], scores: NDArray[np.float32], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `n` with the highest scores, sorted."""
    order = np.lexsort((ids, -scores))[:n]
    return ids[order], scores[order]
