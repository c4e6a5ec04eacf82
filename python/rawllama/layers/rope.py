"""Rotary position embedding: pairs of columns are turned by an angle that grows with the position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama.errors import InvalidArgumentError

from ._arguments import choice, floats, numbers, positive, width
from .scaling import NTK, Linear, Scaling, YaRN

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

PAIRINGS = ("adjacent", "half")


def rope_frequencies(
    d: int, base: float = 10000.0, scaling: Scaling | None = None, factors: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Angle of each pair of columns at position 1: w_i = base ** (-2 i / d) (Su 2021, section 3.2.2).

    Parameters
    ----------
    d
        Columns that are turned, even: all of a head, or its first (`n_rot` in libllama).
    base
        theta: the larger, the slower the last pairs turn.
    scaling
        `Linear`, `NTK` or `YaRN`, for more positions than in training.
    factors
        What each frequency is divided by, shape (d / 2,): the tensor `rope_freqs.weight` of Llama 3.

    Returns
    -------
    ndarray
        float64, shape (d / 2,), in radians a position.

    Raises
    ------
    InvalidArgumentError
        An odd `d`, a base that is not above 0, factors of another shape.
    """
    d, base = width(d), positive(base, "base")
    if isinstance(scaling, NTK):
        if d < 4:
            raise InvalidArgumentError("scaling: NTK needs two pairs of columns or more; use Linear")
        base *= scaling.factor ** (d / (d - 2))
    frequencies: NDArray[np.float64] = base ** (-2 * np.arange(d // 2) / d)
    if factors is not None:
        frequencies = frequencies / _factors(factors, d)
    if isinstance(scaling, Linear):
        return frequencies / scaling.factor
    if isinstance(scaling, YaRN):
        kept = scaling.ramp(d, base) * scaling.ext_factor
        return frequencies / scaling.factor * (1 - kept) + frequencies * kept
    return frequencies


def rope(
    x: ArrayLike, positions: ArrayLike, frequencies: ArrayLike, pairing: str = "adjacent", *, magnitude: float = 1.0
) -> NDArray[Any]:
    """Turn each token's pairs of columns by its position times the pair's frequency (Su 2021, equation 34).

    (x_a, x_b) -> (x_a cos - x_b sin, x_a sin + x_b cos). The product of a turned query and a turned key depends on the
    distance of their positions only.

    Parameters
    ----------
    x
        Queries or keys, shape (n_tokens, ..., d), as (n_tokens, n_head, d).
    positions
        shape (n_tokens,).
    frequencies
        What `rope_frequencies` gives, shape (n / 2,): the first n of the d columns are turned, the others stay.
    pairing
        `adjacent`: columns 2i and 2i + 1, as Su writes it and Llama's GGUFs are (`norm` in `Model.rope_type`); or
        `half`: columns i and i + n / 2, as in GPT-NeoX, Qwen and Nomic (`neox`). One is the other with the columns in
        another order.
    magnitude
        What the turned columns are multiplied by: `YaRN.magnitude`.

    Returns
    -------
    ndarray
        Shape and dtype of `x`; computed in float64.

    Raises
    ------
    InvalidArgumentError
        Shapes that do not fit each other, or an unknown pairing.
    """
    rows, at, speeds = floats(x, "x"), numbers(positions, "positions"), numbers(frequencies, "frequencies")
    choice(pairing, PAIRINGS, "pairing")
    if rows.ndim < 2 or len(rows) != at.size:
        raise InvalidArgumentError(f"x: shape {rows.shape} does not begin with the {at.size} tokens of `positions`")
    if 2 * speeds.size > rows.shape[-1]:
        raise InvalidArgumentError(f"frequencies: {speeds.size} pairs are more than the {rows.shape[-1]} columns have")
    angles = (at[:, None] * speeds).reshape(at.size, *[1] * (rows.ndim - 2), speeds.size)
    cos, sin = np.cos(angles) * magnitude, np.sin(angles) * magnitude
    first, second = _pairs(speeds.size, pairing)
    a, b = rows[..., first], rows[..., second]
    turned = rows.copy()
    turned[..., first], turned[..., second] = a * cos - b * sin, a * sin + b * cos
    return turned


def _pairs(n: int, pairing: str) -> tuple[slice, slice]:
    """The first and the second columns of n pairs."""
    if pairing == "adjacent":
        return slice(0, 2 * n, 2), slice(1, 2 * n, 2)
    return slice(0, n), slice(n, 2 * n)


def _factors(factors: ArrayLike, d: int) -> NDArray[np.float64]:
    found = numbers(factors, "factors")
    if found.size != d // 2:
        raise InvalidArgumentError(f"factors: {found.size} of them for {d // 2} pairs of columns")
    return found
