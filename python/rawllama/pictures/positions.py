"""Positions that are added to the tokens' rows: sinusoidal ones, or those that a model has learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rawllama.errors import InvalidArgumentError
from rawllama.layers import sinusoidal_positions
from rawllama.similarity import similarity

from .style import axes_or_new, heat_map, require_at_least

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray


def positions(
    rows: ArrayLike | None = None, *, n: int = 64, d: int = 64, base: float = 10000.0, axes: Axes | None = None
) -> Axes:
    """Draw the rows of positions as a heat map: a row a position, a column a column.

    Parameters
    ----------
    rows
        Shape (n, d): the rows that a model has learned, `EmbeddingTable(model, "position_embd.weight").rows(range(n))`.
        By default sinusoidal ones, `rawllama.layers.sinusoidal_positions`.
    n, d, base
        Positions, columns and base of the sinusoidal ones.
    axes
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        The axes.

    Raises
    ------
    InvalidArgumentError
        Rows that are no matrix, sizes below 1, or an odd number of columns.
    MissingExtraError
        matplotlib is not there.
    """
    matrix = _rows(rows, n, d, base)
    axes = axes_or_new(axes)
    # A few columns are far larger than the rest in most learned tables.
    largest = 1.0 if rows is None else float(np.percentile(np.abs(matrix), 99.5))
    heat_map(axes, matrix, "value", limits=(-largest, largest))
    axes.set_xlabel("column")
    axes.set_ylabel("position (tokens)")
    axes.set_title("Sinusoidal positions: ever longer waves" if rows is None else "Learned positions")
    return axes


def position_products(
    rows: ArrayLike | None = None, *, n: int = 64, d: int = 64, base: float = 10000.0, axes: Axes | None = None
) -> Axes:
    """Draw how alike positions are, by the cosines of their rows.

    Those are the dot products, divided by d / 2, for sinusoidal rows, which are all as long; learned ones may be of
    very different lengths. Parameters and the rest: see `positions`.
    """
    matrix = _rows(rows, n, d, base)
    axes = axes_or_new(axes)
    heat_map(axes, similarity(matrix), "cosine")
    axes.set_xlabel("position (tokens)")
    axes.set_ylabel("position (tokens)")
    axes.set_title("Near positions are alike")
    return axes


def _rows(rows: ArrayLike | None, n: int, d: int, base: float) -> NDArray[np.float64]:
    if rows is None:
        return sinusoidal_positions(np.arange(require_at_least("n", n, 1)), d, base)
    matrix = np.asarray(rows, np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise InvalidArgumentError(f"rows: shape {matrix.shape}; (n, d) is wanted")
    return matrix
