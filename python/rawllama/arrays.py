"""numpy arrays to C, and C pointers to numpy, without a copy and with the lengths checked."""

from __future__ import annotations

import math
import operator
import sys
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .errors import InvalidArgumentError
from .raw import ffi

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._libllama import Array, CData

# The C numbers, by ffi.typeof()'s names, that are no integers; an integer's size and sign say what it is.
_DTYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "long double": np.dtype(np.longdouble),
    "_cffi_float_complex_t": np.dtype(np.complex64),
    "_cffi_double_complex_t": np.dtype(np.complex128),
    "_Bool": np.dtype(np.bool_),
    "char": np.dtype(np.int8),
}


def pointer(array: NDArray[Any], ctype: str, length: int = 0, *, writable: bool = True) -> Array[Any, Any]:
    """Give a numpy array's memory to C.

    Parameters
    ----------
    array
        C-contiguous, of the dtype that `ctype` points to.
    ctype
        The C pointer type, e.g. `"llama_token *"` or `"float *"`. A `ggml_fp16_t` is a `uint16_t`: see
        float16 as such with `array.view("uint16")`. A function that takes `void *` takes any of these.
    length
        How many items C will read or write: a shorter array is refused.
    writable
        Whether C writes to it: a read-only array is refused.

    Returns
    -------
    cdata
        A C array of `array.size` items, taken where a pointer is. It keeps `array` alive: keep it as long
        as C uses the memory.

    Raises
    ------
    InvalidArgumentError
        Wrong dtype, layout or length, or a read-only array.
    """
    item = _item_type(_parse(ctype), "ctype")
    dtype = _dtype(item, "ctype")
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise InvalidArgumentError(f'array: {ctype} takes dtype {dtype}, got {found}; use np.asarray(array, "{dtype}")')
    if not array.flags.c_contiguous:
        raise InvalidArgumentError("array: its rows are not contiguous in memory; use np.ascontiguousarray(array)")
    if writable and not array.flags.writeable:
        raise InvalidArgumentError("array: it is read-only; pass a copy, or writable=False if C only reads it")
    if not 0 <= length <= array.size:
        raise InvalidArgumentError(f"array: it has {array.size} items and C was told {length}")
    buffer: Any = array  # numpy's stubs say so from Python 3.12 on
    result: Array[Any, Any] = ffi.from_buffer(f"{item.cname}[]", buffer, require_writable=writable)
    return result


def view(source: CData, shape: int | tuple[int, ...]) -> NDArray[Any]:
    """See C memory as a numpy array.

    Parameters
    ----------
    source
        A C pointer or array of numbers, e.g. what `lib.llama_get_embeddings_seq` returns.
    shape
        The shape in items. C pointers do not know their length, so this must be right; a C array's length
        is checked.

    Returns
    -------
    ndarray
        A view: it is valid only as long as C keeps the memory. What `llama_get_embeddings*` and
        `llama_get_logits*` return ends at the next llama_decode: use `view(...).copy()` to keep it.

    Raises
    ------
    InvalidArgumentError
        NULL, a shape that is larger than the C array, or a type that is not a number.
    """
    if not isinstance(source, ffi.CData):
        raise InvalidArgumentError(f"source: it is {type(source).__name__}, not a C pointer or array")
    kind = ffi.typeof(source)
    item = _item_type(kind, "source")
    if not source:
        raise InvalidArgumentError("source: it is NULL; the C function that returned it says when that happens")
    dtype = _dtype(item, "source")
    sizes = _sizes(shape)
    count = math.prod(sizes)
    if count * dtype.itemsize > sys.maxsize:
        raise InvalidArgumentError(f"shape: {shape} is larger than any memory")
    if kind.kind == "array" and count > (length := len(cast("Array[Any, Any]", source))):
        raise InvalidArgumentError(f"shape: {shape} has {count} items and the C array {length}")
    memory: Any = ffi.buffer(source, count * dtype.itemsize)
    return np.ndarray(sizes, dtype, memory)


def _sizes(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    """The shape as Python's own integers, whose product does not wrap around as numpy's does."""
    try:
        sizes = tuple(map(operator.index, shape if isinstance(shape, (tuple, list)) else (shape,)))
    except TypeError:
        raise InvalidArgumentError(f"shape: {shape!r} is not an integer or a tuple of integers") from None
    if any(size < 0 for size in sizes):
        raise InvalidArgumentError(f"shape: {shape} has a negative length")
    return sizes


def _parse(ctype: str) -> Any:
    """The C type of that name."""
    try:
        return ffi.typeof(ctype)
    except (ffi.error, TypeError):
        raise InvalidArgumentError(f"ctype: {ctype!r} is not the name of a C type") from None


def _item_type(kind: Any, argument: str) -> Any:
    """The type of the items that a C pointer or array type holds."""
    if kind.kind not in ("pointer", "array"):
        raise InvalidArgumentError(f"{argument}: {kind.cname} is not a pointer or an array")
    return kind.item


def _dtype(item: Any, argument: str) -> np.dtype[Any]:
    """The numpy dtype of a C number."""
    if item.cname in _DTYPES:
        return _DTYPES[item.cname]
    if item.kind not in ("primitive", "enum"):
        raise InvalidArgumentError(f"{argument}: {item.cname} is not a number, so numpy has no dtype for it")
    signed = item.kind == "enum" or int(ffi.cast(item, -1)) < 0
    return np.dtype(f"{'i' if signed else 'u'}{ffi.sizeof(item)}")
