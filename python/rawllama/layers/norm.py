"""The two norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._arguments import floats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def layer_norm(
    x: ArrayLike, weight: ArrayLike | None = None, bias: ArrayLike | None = None, eps: float = 1e-12
) -> NDArray[Any]:
    """Layer norm: (x - mean) / sqrt(variance + eps) * weight + bias, with each row's mean and variance (Ba 2016).

    The variance is divided by d, not by d - 1.

    Parameters
    ----------
    x
        Rows, shape (..., d).
    weight, bias
        shape (d,); None is 1 and 0.
    eps
        1e-12 in BERT (Devlin 2019), `attention.layer_norm_epsilon` in GGUF.

    Returns
    -------
    ndarray
        Shape and dtype of `x`; computed in float64.
    """
    rows = floats(x, "x")
    wide = rows.astype(np.float64)
    wide -= wide.mean(axis=-1, keepdims=True)
    wide /= np.sqrt(np.square(wide).mean(axis=-1, keepdims=True) + eps)
    return _affine(wide, weight, bias).astype(rows.dtype)


def rms_norm(x: ArrayLike, weight: ArrayLike | None = None, eps: float = 1e-6) -> NDArray[Any]:
    """RMS norm: x / sqrt(mean(x ** 2) + eps) * weight, with each row's own mean (Zhang 2019).

    Parameters
    ----------
    x
        Rows, shape (..., d).
    weight
        shape (d,); None is 1.
    eps
        `attention.layer_norm_rms_epsilon` in GGUF.

    Returns
    -------
    ndarray
        Shape and dtype of `x`; computed in float64.
    """
    rows = floats(x, "x")
    wide = rows.astype(np.float64)
    wide /= np.sqrt(np.square(wide).mean(axis=-1, keepdims=True) + eps)
    return _affine(wide, weight, None).astype(rows.dtype)


def _affine(rows: NDArray[np.float64], weight: ArrayLike | None, bias: ArrayLike | None) -> NDArray[np.float64]:
    if weight is not None:
        rows = rows * np.asarray(weight)
    return rows if bias is None else rows + np.asarray(bias)
