"""Norms of embedding rows, as llama.cpp's examples define them (`--embd-normalize`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The largest magnitude becomes 32760, so that rounded values fit int16.
_INT16_RANGE = 32760.0
# Rows at a time: the sums are float64, which for the whole matrix would be twice its size.
_BLOCK = 4096
NAMES = {"l1": 1.0, "l2": 2.0}


def normalize_rows(rows: NDArray[np.float32], normalize: str | float) -> NDArray[np.float32]:
    """Scale each row of a matrix; rows of zeros stay.

    Parameters
    ----------
    rows
        float32, shape (n, d).
    normalize
        `none`; `max-abs` (the largest magnitude becomes 32760); `l1`; `l2`; or a number p > 0 for the p-norm.

    Returns
    -------
    ndarray
        float32, shape (n, d); the sums are made in float64.

    Raises
    ------
    InvalidArgumentError
        Any other value.
    """
    kind = parse(normalize)
    if kind == "none":
        return rows
    result = np.empty_like(rows)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start:start + _BLOCK].astype(np.float64)
        norms = _norms(np.abs(block), kind)
        result[start:start + _BLOCK] = block / np.where(norms > 0, norms, 1)[:, None]
    return result


def _norms(magnitudes: NDArray[np.float64], kind: str | float) -> NDArray[np.float64]:
    largest: NDArray[np.float64] = magnitudes.max(axis=1, initial=0)
    if isinstance(kind, str):
        return largest / _INT16_RANGE
    # Relative to the largest, or a high power of small numbers would vanish and one of large numbers overflow.
    relative = magnitudes / np.where(largest > 0, largest, 1)[:, None]
    with np.errstate(over="ignore"):  # a tiny p: the norm is infinite, and the row becomes zero as it should
        largest *= (relative**kind).sum(axis=1) ** (1 / kind)
    return largest


def parse(normalize: str | float) -> str | float:
    """Turn `l1`, `l2` and numbers in words into p; check the rest."""
    if normalize in ("none", "max-abs"):
        return normalize
    try:
        p = NAMES[normalize] if isinstance(normalize, str) and normalize in NAMES else float(normalize)
    except (TypeError, ValueError):
        p = math.nan
    if not 0 < p < math.inf:
        raise InvalidArgumentError(f"normalize: {normalize!r} is none of none, max-abs, l1, l2, or a number p > 0")
    return p
