"""Texts as C takes them, UTF-8 and offsets: from lists, arrays, and Arrow columns without a copy of their text."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ._params import text as c_text
from .arrays import pointer
from .errors import InvalidArgumentError
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bytes that one text may have.
MAX_BYTES = 2**31 - 1
# Strings that are made at a time where an array holds no Python objects.
_WINDOW = 4096
# What points to the bytes of empty texts: their column may have no memory for them.
_NOTHING = ffi.new("char[1]")

# Arrow's names of types.
_LAYOUTS = {"u": lib.RAWLLAMA_UTF8, "U": lib.RAWLLAMA_LARGE_UTF8, "vu": lib.RAWLLAMA_UTF8_VIEW}
_INDEX_BYTES = {"c": 1, "C": 1, "s": 2, "S": 2, "i": 4, "I": 4, "l": 8, "L": 8}
_MISSING = "it is missing ({}); fill it, or leave it out"
_TOO_LONG = f"libllama takes {MAX_BYTES} bytes at most, so split it"
_FAULTS = {
    lib.RAWLLAMA_STRINGS_MISSING: _MISSING.format("null"),
    lib.RAWLLAMA_STRINGS_TOO_LONG: _TOO_LONG,
    lib.RAWLLAMA_STRINGS_BROKEN: "the Arrow column contradicts itself here",
}


class Texts(Protocol):
    """Texts that C can read."""

    def __len__(self) -> int: ...

    def firsts(self) -> NDArray[np.int64]:
        """For each text the index of the first that is equal: int64, shape (n,)."""

    def sizes(self) -> NDArray[np.int64]:
        """The length of each text: int64, shape (n,); bytes of UTF-8, or of Python's strings the characters."""

    def utf8(self, indices: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        """The UTF-8 of these texts, one after the other.

        Parameters
        ----------
        indices
            int64, increasing, shape (k,): no index twice.

        Returns
        -------
        buffer : bytes or cdata
            What C takes for a `char *`. It may be Arrow's memory, which lives as long as the texts do.
        offsets : ndarray
            int64, shape (k + 1,): where each begins in it, and where the last ends.
        """


def open_texts(texts: object, name: str = "texts", first: int = 0) -> Texts | None:
    """A column of texts, checked; None for what is none: other iterables.

    Parameters
    ----------
    texts
        A numpy array of strings or objects, or a column of strings of pyarrow, pandas, polars or whatever else has
        Arrow's C interface. The text stays where it is: change it no earlier than you are done.
    name
        The argument's name, for messages.
    first
        What messages take for the index of the first text.

    Raises
    ------
    InvalidArgumentError
        It is a table or has no strings; or one of the texts is none, or missing, or has surrogates, which UTF-8 cannot
        hold. The message has its index, which is its place, also where a pandas index counts otherwise.

    Calls: rawllama_strings_check
    """
    if type(texts).__module__.split(".")[0] == "pandas" and getattr(texts, "ndim", 0) == 1:
        texts = _pandas(texts)
    if isinstance(texts, np.ndarray):
        _require_strings(texts, name)
        return _Strings(texts, name, first)
    if hasattr(texts, "__arrow_c_array__") or hasattr(texts, "__arrow_c_stream__"):
        return _Column(list(_chunks(texts, name, first)))
    return None


def read(texts: Iterable[str], name: str = "texts", first: int = 0) -> Texts:
    """Texts of any kind: those of `open_texts`, lists, tuples and any other iterable of str, which is read to its end.

    Raises
    ------
    InvalidArgumentError
        As `open_texts`; or it is one text, or nothing that gives any.
    """
    if isinstance(texts, (str, bytes, bytearray, memoryview)):
        raise InvalidArgumentError(f"{name}: it is one text; pass a list, e.g. [text]")
    if (column := open_texts(texts, name, first)) is not None:
        return column
    if not isinstance(texts, Iterable):
        raise InvalidArgumentError(f"{name}: it is {type(texts).__name__}, not a list or another iterable of str")
    return _Strings(texts if isinstance(texts, (list, tuple)) else list(texts), name, first)


# Python's strings -----------------------------------------------------------------------------------------------------


class _Strings:
    """Texts that are Python objects, or become some for a while: they are encoded when C wants them."""

    def __init__(self, source: Sequence[str] | NDArray[Any], name: str, first: int) -> None:
        self._source = source
        self._name, self._first = name, first
        for start in range(0, len(source), _WINDOW):
            self._require_texts(start)

    def __len__(self) -> int:
        return len(self._source)

    def firsts(self) -> NDArray[np.int64]:
        hashes = np.fromiter(map(hash, self._all()), np.int64, len(self))
        order = np.argsort(hashes)
        same = np.zeros(order.size + 1, bool)  # as the one before
        same[1:-1] = hashes[order][1:] == hashes[order][:-1]
        places = np.arange(order.size)
        seen: dict[str, int] = {}
        for index in np.sort(order[same[:-1] | same[1:]]).tolist():
            places[index] = seen.setdefault(self._source[index], index)
        return places

    def utf8(self, indices: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        texts = [self._encode(index, self._source[index]) for index in indices.tolist()]
        return b"".join(texts), np.fromiter(accumulate(map(len, texts), initial=0), np.int64, len(texts) + 1)

    def sizes(self) -> NDArray[np.int64]:
        return np.fromiter(map(len, self._all()), np.int64, len(self))

    def _all(self) -> Iterator[str]:
        return (text for start in range(0, len(self), _WINDOW) for text in self._window(start))

    def _encode(self, index: int, text: Any) -> bytes:
        return encode(f"{self._name}[{self._first + index}]", text)

    def _window(self, start: int) -> Sequence[Any]:
        window = self._source[start : start + _WINDOW]
        return window.tolist() if isinstance(window, np.ndarray) else window

    def _require_texts(self, start: int) -> None:
        window = self._window(start)
        with suppress(TypeError):
            if all(map(str.isascii, window)):
                return
        for index, text in enumerate(window, start):
            self._encode(index, text)


def encode(name: str, text: Any) -> bytes:
    """The UTF-8 of a text, which `name` stands for in messages."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{name}: {_what(text)}")
    try:
        data = text.encode()  # not `surrogateescape`: most vocabularies would leave out what is no UTF-8
    except UnicodeEncodeError as error:
        surrogate = f"the surrogate U+{ord(text[error.start]):04X} at {error.start}"
        raise InvalidArgumentError(f"{name}: UTF-8 cannot hold {surrogate}; leave it out") from None
    if len(data) > MAX_BYTES:
        raise InvalidArgumentError(f"{name}: {_TOO_LONG}")
    return data


def _what(thing: Any) -> str:
    """Why it is no text."""
    kind = type(thing).__name__
    if thing is None or kind in ("NAType", "NaTType") or (isinstance(thing, float) and thing != thing):
        return _MISSING.format(thing)
    return f"it is {kind}, not str" + ("; decode it" if isinstance(thing, (bytes, bytearray, memoryview)) else "")


def _require_strings(array: NDArray[Any], name: str) -> None:
    if array.ndim != 1:
        raise InvalidArgumentError(f"{name}: the shape {array.shape} is not (n,)")
    if array.dtype.kind not in "UTO":
        advice = "use np.char.decode" if array.dtype.kind == "S" else "use astype(str)"
        raise InvalidArgumentError(f"{name}: the dtype {array.dtype} is not of strings; {advice}")


def _pandas(column: Any) -> Any:
    """A Series, an Index or an array of pandas as Arrow's column, where it is one, else as Python's strings."""
    array = getattr(column, "array", column)
    if getattr(array.dtype, "storage", None) == "pyarrow":
        return array.__arrow_array__()
    return column.to_numpy(dtype=object)


# Arrow ----------------------------------------------------------------------------------------------------------------


class _Chunk(NamedTuple):
    """Rows that lie together, and the object that keeps their memory."""

    strings: Any  # struct rawllama_strings *
    owner: object


class _Column:
    """Texts in Arrow's memory."""

    def __init__(self, chunks: Sequence[_Chunk]) -> None:
        self._chunks = chunks
        #: Where each chunk begins, and where the last ends.
        self._starts = np.array([*accumulate((chunk.strings.n for chunk in chunks), initial=0)], np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def firsts(self) -> NDArray[np.int64]:
        bits = max(1, (2 * len(self) - 1).bit_length())
        table = np.full(1 << bits, np.iinfo(np.uint64).max, np.uint64)
        places = np.empty(len(self), np.int64)
        lib.rawllama_strings_first_places(
            ffi.new("struct rawllama_strings[]", [chunk.strings[0] for chunk in self._chunks]),
            pointer(self._starts, "int64_t *"),
            len(self._chunks),
            int.from_bytes(os.urandom(8), "little"),  # so that nobody can choose texts that all have one slot
            pointer(table, "uint64_t *"),
            bits,
            pointer(places, "int64_t *"),
        )
        return places

    def sizes(self) -> NDArray[np.int64]:
        _, offsets = _located(self._parts(np.arange(len(self))))
        return np.diff(offsets)

    def utf8(self, indices: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        parts = self._parts(indices)
        first, offsets = _located(parts)
        if len(parts) < 2 and first:
            return first, offsets
        buffer = ffi.new("char[]", int(offsets[-1]) + 1)
        size = 0
        for strings, rows in parts:
            size += lib.rawllama_strings_copy(strings, *_rows(rows), buffer + size)
        return buffer, offsets

    def _parts(self, indices: NDArray[np.int64]) -> list[_Part]:
        bounds = np.searchsorted(indices, self._starts).tolist()
        return [
            (chunk.strings, indices[low:high] - start)
            for chunk, start, (low, high) in zip(self._chunks, self._starts, pairwise(bounds), strict=False)
            if low < high
        ]


# Some rows of a chunk.
_Part = tuple[Any, "NDArray[np.int64]"]


def _located(parts: Sequence[_Part]) -> tuple[Any, NDArray[np.int64]]:
    """The first text's bytes, if the texts of the last part follow each other, and all offsets as if all did."""
    first, done = _NOTHING, 0
    offsets = np.zeros(sum(rows.size for _, rows in parts) + 1, np.int64)
    for strings, rows in parts:
        there = offsets[done : done + rows.size + 1]
        before = int(there[0])
        first = lib.rawllama_strings_locate(strings, *_rows(rows), pointer(there, "int64_t *"))
        there += before
        done += rows.size
    return first, offsets


def _rows(rows: NDArray[np.int64]) -> tuple[Any, int]:
    return pointer(rows, "int64_t *"), rows.size


def _chunks(column: Any, name: str, first: int) -> Iterator[_Chunk]:
    """The column's chunks, checked; `first` is the index of the first row in messages."""
    for schema, array, owner in _arrays(column, name):
        strings = _strings(schema, array, name, first)
        fault = ffi.new("enum rawllama_strings_fault *")
        index = lib.rawllama_strings_check(strings, fault)
        if index < strings.n:
            raise InvalidArgumentError(f"{name}[{first + index}]: {_FAULTS[fault[0]]}")
        first += strings.n
        yield _Chunk(strings, owner)


def _arrays(column: Any, name: str) -> Iterator[tuple[Any, Any, object]]:
    """Arrow's schema, an array, and what keeps its memory."""
    if hasattr(column, "__arrow_c_array__"):
        capsules = column.__arrow_c_array__()
        yield _struct(capsules[0], "arrow_schema"), _struct(capsules[1], "arrow_array"), capsules
        return
    capsule = column.__arrow_c_stream__()
    stream = _struct(capsule, "arrow_array_stream")
    schema = ffi.gc(ffi.new("struct rawllama_arrow_schema *"), lib.rawllama_arrow_release_schema)
    _require_done(stream, stream.get_schema(stream, schema), name)
    while True:
        array = ffi.gc(ffi.new("struct rawllama_arrow_array *"), lib.rawllama_arrow_release_array)
        _require_done(stream, stream.get_next(stream, array), name)
        if not array.release:  # the end
            return
        yield schema, array, array


# Not the function that ctypes.pythonapi has: all that use that one share its types.
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _struct(capsule: object, name: str) -> Any:
    return ffi.cast(f"struct rawllama_{name} *", _capsule_pointer(capsule, name.encode()))


def _require_done(stream: Any, code: int, name: str) -> None:
    if code:
        words = c_text(stream.get_last_error(stream)) or os.strerror(code)
        raise InvalidArgumentError(f"{name}: its Arrow stream failed: {words}")


def _strings(schema: Any, array: Any, name: str, first: int) -> Any:
    """The rows of an Arrow array as a `struct rawllama_strings *`; `first` is the index of the first."""
    kind = c_text(schema.format) or ""
    values_kind = c_text(schema.dictionary.format) or "" if schema.dictionary else kind
    if values_kind not in _LAYOUTS and kind != "n":  # n: all rows are null
        advice = "it is a table; pass one column" if kind == "+s" else "cast it to strings"
        raise InvalidArgumentError(f"{name}: the Arrow type {values_kind!r} is not of strings; {advice}")
    if kind == "n" and array.length:
        raise InvalidArgumentError(f"{name}[{first}]: {_FAULTS[lib.RAWLLAMA_STRINGS_MISSING]}")
    strings = ffi.new("struct rawllama_strings *", {"first": array.offset, "n": array.length})
    if not array.length:
        return strings
    strings.present = _present(array)
    values = array
    if schema.dictionary:
        values = array.dictionary
        strings.indices, strings.index_size = array.buffers[1], _INDEX_BYTES[kind]
        strings.first_value, strings.n_values = values.offset, values.length
        strings.value_present = _present(values)
    strings.layout, strings.places = _LAYOUTS[values_kind], values.buffers[1]
    if values_kind == "vu":  # the last buffer holds the sizes of those before
        strings.buffers, strings.n_buffers = ffi.cast("char **", values.buffers + 2), values.n_buffers - 3
    else:
        strings.data = values.buffers[2] or _NOTHING
    return strings


def _present(array: Any) -> Any:
    return ffi.NULL if array.null_count == 0 else ffi.cast("uint8_t *", array.buffers[0])
