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
    if kind == "max-abs":
        norms = np.abs(rows).max(axis=1, initial=0).astype(np.float64) / _INT16_RANGE
    else:
        norms = (np.abs(rows, dtype=np.float64) ** kind).sum(axis=1) ** (1 / kind)
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return rows * scale.astype(np.float32)[:, None]


def parse(normalize: str | float) -> str | float:
    """Turn `l1`, `l2` and numbers in words into p; check the rest."""
    if normalize in ("none", "max-abs"):
        return normalize
    try:
        p = NAMES[normalize] if normalize in NAMES else float(normalize)  # type: ignore[index]
    except (TypeError, ValueError):
        p = math.nan
    if not 0 < p < math.inf:
        raise InvalidArgumentError(f"normalize: {normalize!r} is none of none, max-abs, l1, l2, or a number p > 0")
    return p
