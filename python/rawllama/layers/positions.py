"""Positions that are added to the token's row: sines and cosines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._arguments import numbers, positive, width

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def sinusoidal_positions(positions: ArrayLike, d: int, base: float = 10000.0) -> NDArray[np.float64]:
    """Sines and cosines of wavelengths from 2 pi to 2 pi base (Vaswani 2017, section 3.5).

    PE(p, 2i) = sin(p / base ** (2i / d)), PE(p, 2i + 1) = cos(p / base ** (2i / d)). A shift of all positions by k
    turns each pair of columns by k / base ** (2i / d), wherever the positions are: a linear map, as the paper notes.

    Parameters
    ----------
    positions
        shape (n,).
    d
        Columns, even.

    Returns
    -------
    ndarray
        float64, shape (n, d).

    Raises
    ------
    InvalidArgumentError
        An odd `d`, or positions that are no list of numbers.
    """
    at, d = numbers(positions, "positions"), width(d)
    angles = at[:, None] * positive(base, "base") ** (-2 * np.arange(d // 2) / d)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(at.size, d)
