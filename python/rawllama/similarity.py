"""How alike embeddings are: cosine, dot product, distance; and late interaction between rows of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InvalidArgumentError
from .rows import Int8Rows, Rows, TokenRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

METRICS = ("cosine", "dot", "euclid")
# Numbers that are widened, or computed, at a time: 16 MB of float32.
_BLOCK = 1 << 22
_BLOCK_ROWS = 1 << 11  # of each side: their products are a block


def similarity(a: Rows, b: Rows | None = None, metric: str = "cosine") -> Any:
    """How alike each row of `a` is to each of `b`: the more, the larger the number.

    Parameters
    ----------
    a, b
        What `encode` gives: float32 or float16, shape (n, d) and (m, d); `Int8Rows`; or packed bits, uint8, shape
        (n, ceil(d / 8)), which stand for 1 and -1. The two may differ in that. A single row has no n. Without `b`, the
        rows of `a` are compared with each other.
    metric
        `cosine` (0 for rows of zeros), `dot`, or `euclid`: the distance, negative.

    Returns
    -------
    ndarray
        float32, shape (n, m); without the dimension of a single row, so that two give a number.

    Raises
    ------
    InvalidArgumentError
        Rows of different widths, what is no rows, or an unknown metric.

    Notes
    -----
    Beside the result it takes less than 200 MB. Where both are bits, those that fill up the last byte count as equal,
    which changes no order.
    """
    if metric not in METRICS:
        raise InvalidArgumentError(f"metric: {metric!r} is none of {', '.join(METRICS)}")
    left = _Rows(a, "a")
    right = left if b is None else _Rows(b, "b")
    width = _common_width(left, right)
    result = np.empty((left.n, right.n), np.float32)
    step = _rows_at_once(width)
    for i in range(0, left.n, step):
        rows = _prepared(left.block(i, i + step, width), metric)
        for j in range(0, right.n, step):
            others = _prepared(right.block(j, j + step, width), metric)
            result[i : i + step, j : j + step] = _compare(rows, others, metric)
    return result[(0 if left.is_single else slice(None)), (0 if right.is_single else slice(None))]


def maxsim(
    query_rows: TokenRows | Rows, document_rows: TokenRows | Rows, document_offsets: ArrayLike | None = None
) -> NDArray[np.float32]:
    """Late interaction, as ColBERT scores documents: for each token of the query the largest dot product, summed.

    Parameters
    ----------
    query_rows
        One row a token of one query, shape (t, d); or `TokenRows` of several queries. Normalised rows make it cosines.
    document_rows
        `TokenRows` of the documents; or their rows, with
    document_offsets
        integers, shape (n + 1,): document i has the rows `document_offsets[i]` to `document_offsets[i + 1]`.

    Returns
    -------
    ndarray
        float32, shape (n,); (queries, n) for `TokenRows` of queries. -inf for a document without tokens.

    Raises
    ------
    InvalidArgumentError
        Rows of different widths, offsets that do not fit the rows, or none.

    Notes
    -----
    Beside the result it takes less than 200 MB.
    """
    queries, query_offsets = _tokens(query_rows, None, "query")
    documents, document_offsets = _tokens(document_rows, document_offsets, "document")
    width = _common_width(queries, documents)
    scores = np.empty((query_offsets.size - 1, document_offsets.size - 1), np.float32)
    for first, last in _groups(query_offsets, width):
        starts = query_offsets[first : last + 1]
        tokens = queries.block(starts[0], starts[-1], width)
        for begin, end in _groups(document_offsets, width):
            bounds = document_offsets[begin : end + 1]
            products = documents.block(bounds[0], bounds[-1], width) @ tokens.T
            largest = _reduced(np.maximum, products, bounds, -np.inf)
            scores[first:last, begin:end] = _reduced(np.add, largest.T, starts, 0)
    return scores if isinstance(query_rows, TokenRows) else scores[0]


class _Rows:
    """Rows of any dtype, which become float32 a block at a time."""

    def __init__(self, rows: Rows, name: str) -> None:
        self._scales: NDArray[np.float32] | None = None
        values = rows
        if isinstance(rows, Int8Rows):
            values, self._scales = rows.values, np.atleast_1d(rows.scales)
        self._name = name
        self._values = np.atleast_2d(values)
        kind = self._values.dtype
        if np.ndim(values) not in (1, 2) or not (self._scales is not None or kind == np.uint8 or kind.kind == "f"):
            found = f"{kind}, shape {np.shape(values)}"
            raise InvalidArgumentError(f"{name}: {found} is no row and no matrix that encode gives")
        self.is_bits = self._scales is None and kind == np.uint8
        self.is_single = np.ndim(values) == 1
        self.n = len(self._values)
        #: Numbers a row; packed bits may have up to 7 fewer.
        self.width: int = self._values.shape[1] * (8 if self.is_bits else 1)

    def __str__(self) -> str:
        return f"{self._name}: rows of {self.width} {'bits' if self.is_bits else 'numbers'}"

    def block(self, start: int, stop: int, width: int) -> NDArray[np.float32]:
        """The vectors from `start` to before `stop`: float32, shape (k, width)."""
        rows = self._values[start:stop]
        if self.is_bits:
            return np.where(np.unpackbits(rows, axis=1, count=width), np.float32(1), np.float32(-1))
        block: NDArray[np.float32] = rows.astype(np.float32, copy=False)
        return block if self._scales is None else block * self._scales[start:stop, None]


def _common_width(left: _Rows, right: _Rows) -> int:
    """Numbers a row of both: the last byte of bits may be filled up."""
    width: int = min(left.width, right.width)
    for one in (left, right):
        if one.width != (width + -width % 8 if one.is_bits else width):
            raise InvalidArgumentError(f"{right}, and {left}; embed both with the same model and dims")
    return width


def _rows_at_once(width: int) -> int:
    return max(1, min(_BLOCK_ROWS, _BLOCK // max(width, 1)))


def _prepared(rows: NDArray[np.float32], metric: str) -> NDArray[Any]:
    if metric == "euclid":
        return rows.astype(np.float64)  # small distances are differences of large numbers
    if metric == "dot":
        return rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    norms[norms == 0] = 1
    scaled: NDArray[np.float32] = rows / norms
    return scaled


def _compare(rows: NDArray[Any], others: NDArray[Any], metric: str) -> NDArray[Any]:
    result: NDArray[Any] = rows @ others.T
    if metric == "euclid":
        squares = np.square(rows).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
        result = -np.sqrt(np.maximum(squares - 2 * result, 0))
    return result


def _tokens(rows: TokenRows | Rows, offsets: ArrayLike | None, name: str) -> tuple[_Rows, NDArray[np.int64]]:
    """Rows of tokens, and where each text begins; a query's rows without offsets are one text."""
    if isinstance(rows, TokenRows):
        offsets = rows.offsets
    found = _Rows(rows.rows if isinstance(rows, TokenRows) else rows, f"{name}_rows")
    if offsets is None and name == "query":
        offsets = (0, found.n)
    bounds = np.asarray(offsets)
    if bounds.ndim != 1 or not bounds.size or bounds.dtype.kind not in "iu":
        raise InvalidArgumentError(f"{name}_offsets: they are no integers of shape (n + 1,); or pass TokenRows")
    bounds = bounds.astype(np.int64)
    if bounds[0] < 0 or bounds[-1] > found.n or (np.diff(bounds) < 0).any():
        raise InvalidArgumentError(f"{name}_offsets: they decrease, or lie outside the {found.n} rows")
    return found, bounds


def _groups(offsets: NDArray[np.int64], width: int) -> Iterator[tuple[int, int]]:
    """Texts whose rows are computed together: from the first of each group to before the last."""
    first, n = 0, offsets.size - 1
    while first < n:
        fitting = int(np.searchsorted(offsets, offsets[first] + _rows_at_once(width), side="right")) - 1
        last = min(max(fitting, first + 1), n)
        yield first, last
        first = last


def _reduced(ufunc: np.ufunc, values: NDArray[Any], offsets: NDArray[np.int64], empty: float) -> NDArray[np.float64]:
    """`ufunc` over each text's rows of `values`, which begin at offsets[0]; `empty` for a text without any."""
    result = np.full((offsets.size - 1, values.shape[1]), empty, np.float64)
    filled = np.flatnonzero(np.diff(offsets))
    if filled.size:  # reduceat knows no empty segments
        result[filled] = ufunc.reduceat(values, offsets[filled] - offsets[0], axis=0)
    return result
