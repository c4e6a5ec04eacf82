"""What the formulas are given, checked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def integers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    """Integers of shape (n,)."""
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise InvalidArgumentError(f"{name}: {found.dtype}, shape {found.shape} is no list of integers")
    return found.astype(np.int64)


def numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Numbers of shape (n,): positions may lie between tokens."""
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iuf"):
        raise InvalidArgumentError(f"{name}: {found.dtype}, shape {found.shape} is no list of numbers")
    return found.astype(np.float64)


def floats(values: ArrayLike, name: str) -> NDArray[Any]:
    """Rows of floating-point numbers, of the dtype that they have; integers become float64."""
    found = np.asarray(values)
    if not found.ndim or found.dtype.kind not in "iuf":
        raise InvalidArgumentError(f"{name}: {found.dtype}, shape {found.shape} is no array of numbers")
    return found if found.dtype.kind == "f" else found.astype(np.float64)


def width(d: int, name: str = "d") -> int:
    """Columns that come in pairs."""
    if isinstance(d, (int, np.integer)) and d > 0 and d % 2 == 0:
        return int(d)
    raise InvalidArgumentError(f"{name}: {d!r} is no even number above 0; the columns are rotated in pairs")


def positive(value: float, name: str) -> float:
    """A finite number above 0."""
    if isinstance(value, (int, float, np.number)) and 0 < value < math.inf:
        return float(value)
    raise InvalidArgumentError(f"{name}: {value!r} is no number above 0")


def choice(value: str, among: tuple[str, ...], name: str) -> str:
    """One of a few words."""
    if value not in among:
        raise InvalidArgumentError(f"{name}: {value!r} is none of {', '.join(among)}")
    return value
