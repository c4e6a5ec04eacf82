"""numpy arrays to C, and C pointers to numpy, without a copy and with the lengths checked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InvalidArgumentError
from .raw import ffi

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._libllama import Array, CData

# C's own names for what ffi.typeof() reports; intN_t and uintN_t are numpy's names already.
_DTYPES = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
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
        The C pointer type, e.g. `"llama_token *"` or `"float *"`.
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
    item = _item_type(ffi.typeof(ctype), "ctype")
    dtype = _dtype(item)
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = getattr(array, "dtype", type(array).__name__)
        raise InvalidArgumentError(f"array: {ctype} takes dtype {dtype}, got {found}; use np.asarray(array, np.{dtype})")
    if not array.flags.c_contiguous:
        raise InvalidArgumentError("array: its rows are not contiguous in memory; use np.ascontiguousarray(array)")
    if writable and not array.flags.writeable:
        raise InvalidArgumentError("array: it is read-only; pass a copy, or writable=False if C only reads it")
    if array.size < length:
        raise InvalidArgumentError(f"array: it has {array.size} items and C was told {length}")
    result: Array[Any, Any] = ffi.from_buffer(f"{item.cname}[]", array, require_writable=writable)
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
    kind = ffi.typeof(source)
    dtype = _dtype(_item_type(kind, "source"))
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    count = math.prod(shape)
    if any(n < 0 for n in shape):
        raise InvalidArgumentError(f"shape: {shape} has a negative length")
    if not source:
        raise InvalidArgumentError("source: it is NULL; the C function that returned it says when that happens")
    if kind.kind == "array" and count > len(source):  # type: ignore[arg-type]
        raise InvalidArgumentError(f"shape: {shape} has {count} items and the C array {len(source)}")  # type: ignore[arg-type]
    return np.frombuffer(ffi.buffer(source, count * dtype.itemsize), dtype).reshape(shape)


def _item_type(kind: Any, argument: str) -> Any:
    """The type of the items that a C pointer or array type holds."""
    if kind.kind not in ("pointer", "array"):
        raise InvalidArgumentError(f"{argument}: {kind.cname} is not a pointer or an array")
    return kind.item


def _dtype(item: Any) -> np.dtype[Any]:
    """The numpy dtype of a C number."""
    if item.kind == "enum":
        return np.dtype(np.int32)
    if item.kind != "primitive":
        raise InvalidArgumentError(f"{item.cname} is not a number, so numpy has no dtype for it")
    name = item.cname
    if name in _DTYPES:
        return _DTYPES[name]
    if name.endswith("_t") and "int" in name and "ptr" not in name:
        return np.dtype(name.removesuffix("_t"))
    signed = "u" if int(ffi.cast(item, -1)) > 0 else "i"
    return np.dtype(f"{signed}{ffi.sizeof(item)}")
