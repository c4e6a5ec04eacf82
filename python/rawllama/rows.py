"""What embeddings come as: rows of float32, float16, int8 with scales, or packed bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .arrays import pointer
from .errors import LlamaError
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Names of the types that rows come as.
DTYPES = ("float32", "float16", "int8", "ubinary")
_C_DTYPES = {
    "float32": lib.RAWLLAMA_DTYPE_F32,
    "float16": lib.RAWLLAMA_DTYPE_F16,
    "int8": lib.RAWLLAMA_DTYPE_I8,
    "ubinary": lib.RAWLLAMA_DTYPE_BITS,
}
_NORMS = {"none": (lib.RAWLLAMA_NORM_NONE, 0.0), "max-abs": (lib.RAWLLAMA_NORM_MAX_ABS, 0.0)}
# What is wrong with a row that C could not write.
_FAULTS = {
    lib.RAWLLAMA_NOT_FINITE: "its embedding is not finite; the model file is damaged or the device failed",
    lib.RAWLLAMA_TOO_LARGE: "its embedding is too large for float16; normalise it, or pass dtype='float32'",
}


class Int8Rows(NamedTuple):
    """Rows of int8 numbers with a scale each: `values * scales[:, None]` are the vectors."""

    #: int8, shape (n, dims); (dims,) for one text.
    values: NDArray[np.int8]
    #: float32, shape (n,); () for one text.
    scales: NDArray[np.float32]


#: float32 or float16, shape (n, dims); uint8, shape (n, ceil(dims / 8)); or `Int8Rows`.
Rows = np.ndarray[Any, np.dtype[Any]] | Int8Rows


class TokenRows(NamedTuple):
    """A row for each token of several texts."""

    #: As `encode` returns them, one a token.
    rows: Any
    #: int64, shape (n + 1,): text i has the rows and tokens `offsets[i]` to `offsets[i + 1]`.
    offsets: NDArray[np.int64]
    #: int32, shape (tokens of all texts,).
    tokens: NDArray[np.int32]


def arrays(rows: Rows) -> tuple[NDArray[Any], ...]:
    """The array, or the two of `Int8Rows`; each has a row for a row."""
    return tuple(rows) if isinstance(rows, Int8Rows) else (rows,)


def buffers(rows: Rows) -> tuple[Any, Any]:
    """Their memory, as `values` and `scales` of a `struct rawllama_rows`."""
    values, *scales = arrays(rows)
    scales_or_null = pointer(scales[0], "float *") if scales else ffi.NULL
    return ffi.from_buffer(values, require_writable=True), scales_or_null


def take(rows: Rows, index: Any) -> Any:
    """`rows[index]`, of both arrays where there are two."""
    return Int8Rows(rows.values[index], rows.scales[index, ...]) if isinstance(rows, Int8Rows) else rows[index]


@dataclass(frozen=True)
class RowFormat:
    """How computed rows of `width` floats become those that the caller gets: cut, normalised, cast."""

    width: int
    dims: int
    dtype: str
    #: `none`, `max-abs`, or p.
    normalize: str | float

    @property
    def raw(self) -> RowFormat:
        """The same columns as float32, not normalised."""
        return RowFormat(self.width, self.dims, "float32", "none")

    def empty(self, count: int) -> Rows:
        """So many rows of 0; the system makes large ones when they are written."""
        if self.dtype == "ubinary":
            return np.zeros((count, (self.dims + 7) // 8), np.uint8)
        values = np.zeros((count, self.dims), self.dtype)
        return Int8Rows(values, np.zeros(count, np.float32)) if self.dtype == "int8" else values

    def c(self, rows: Rows) -> dict[str, Any]:
        """The `struct rawllama_rows` that writes to these."""
        norm, p = _NORMS[self.normalize] if isinstance(self.normalize, str) else (lib.RAWLLAMA_NORM_P, self.normalize)
        values, scales = buffers(rows)
        return {
            "width": self.width,
            "dims": self.dims,
            "norm": norm,
            "p": p,
            "dtype": _C_DTYPES[self.dtype],
            "values": values,
            "scales": scales,
        }

    def write(self, source: NDArray[np.float32], indices: NDArray[np.int64], rows: Rows) -> None:
        """Write rows of `dims` floats, as `raw` gives them, to these places. Calls: rawllama_write_rows."""
        target = ffi.new("struct rawllama_rows *", {**self.c(rows), "width": self.dims})
        failed = ffi.new("int64_t *")
        places = pointer(indices, "int64_t *")
        code = lib.rawllama_write_rows(target, pointer(source, "float *"), places, indices.size, failed)
        if code != 0:
            raise RowError(code, int(indices[failed[0]]))


class RowError(Exception):
    """C could not write a row; `index` is that of its sequence or place."""

    def __init__(self, code: int, index: int) -> None:
        super().__init__(code, index)
        self.code = code
        self.index = index

    def named(self, name: str) -> LlamaError:
        """The exception for the caller, who calls this text so."""
        return LlamaError(f"{name}: {_FAULTS[self.code]}")
