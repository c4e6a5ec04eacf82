"""Texts in columns: numpy, pyarrow, pandas, polars, read where they lie."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawllama import Embedder, InvalidArgumentError, ffi
from rawllama.texts import Texts, open_texts, read

# Views hold texts up to twelve bytes themselves.
TEXTS = ["hello", "", "Grüße, €uro 🦙", "hello", "twelve bytes", "", "thirteen byte", "nul \0 within", "hello "]

Make = Callable[[list[str]], Any]


def chunked(kind: pa.DataType) -> Make:
    """Chunks of two, with empty ones and slices of longer ones among them."""

    def make(texts: list[str]) -> pa.ChunkedArray:
        parts = [pa.array(["no", *texts[at : at + 2], "no"], kind)[1:-1] for at in range(0, len(texts), 2)]
        return pa.chunked_array([pa.array([], kind), *parts, pa.array([], kind)], kind)

    return make


def sliced(kind: pa.DataType) -> Make:
    return lambda texts: pa.array(["no", "never", *texts, "not"], kind)[2:-1]


def series(dtype: Any) -> Make:
    """A Series whose index counts backwards."""
    return lambda texts: pd.Series(texts, dtype=dtype, index=range(len(texts))[::-1])


COLUMNS: dict[str, Make] = {
    "list": list,
    "generator": iter,
    "dict": dict.fromkeys,
    "U": lambda texts: np.array(texts, "U40"),
    "strided": lambda texts: np.array([one for text in texts for one in (text, "no")], object)[::2],
    "object": lambda texts: np.array(texts, object),
    "utf8": lambda texts: pa.array(texts, pa.string()),
    "large": lambda texts: pa.array(texts, pa.large_string()),
    "view": lambda texts: pa.array(texts, pa.string_view()),
    "dictionary": lambda texts: pa.array(texts, pa.string()).dictionary_encode(),
    "dictionary of views": lambda texts: pa.DictionaryArray.from_arrays(
        pa.array(range(1, len(texts) + 1), pa.uint16()), pa.array(["no", "not", *texts], pa.string_view())[1:]
    ),
    "sliced dictionary": lambda texts: pa.array(["no", *texts], pa.large_string()).dictionary_encode()[1:],
    "sliced utf8": sliced(pa.string()),
    "sliced large": sliced(pa.large_string()),
    "sliced view": sliced(pa.string_view()),
    "chunks": chunked(pa.string()),
    "chunks of large": chunked(pa.large_string()),
    "chunks of views": chunked(pa.string_view()),
    "no validity": lambda texts: pa.array([*texts, None], pa.string())[:-1],
    "polars": pl.Series,
    "polars chunks": lambda texts: pl.concat([pl.Series(texts[:3]), pl.Series(texts[3:])], rechunk=False),
    "polars categories": lambda texts: pl.Series(texts, dtype=pl.Categorical),
    "pandas": series(None),
    "pandas object": series(object),
    "pandas string": series("string[python]"),
    "pandas pyarrow": series("string[pyarrow]"),
    "pandas ArrowDtype": series(pd.ArrowDtype(pa.string())),
    "pandas categories": series("category"),
    "pandas index": pd.Index,
    "pandas array": lambda texts: pd.array(texts, dtype="string[pyarrow]"),
}
if hasattr(np.dtypes, "StringDType"):  # from numpy 2 on
    COLUMNS["StringDType"] = lambda texts: np.array(texts, np.dtypes.StringDType())

every_column = pytest.mark.parametrize("make", COLUMNS.values(), ids=COLUMNS)
of_pyarrow = pytest.mark.parametrize("make", [make for name, make in COLUMNS.items() if isinstance(
    make(["a"]), (pa.Array, pa.ChunkedArray))])  # fmt: skip


def strings(texts: Texts, indices: Iterable[int]) -> list[str]:
    buffer, offsets = texts.utf8(np.fromiter(indices, np.int64))
    data = buffer if isinstance(buffer, bytes) else bytes(ffi.buffer(buffer, int(offsets[-1])))
    return [data[start:stop].decode() for start, stop in pairwise(offsets)]


def address(buffer: Any) -> int:
    return int(ffi.cast("intptr_t", buffer))


# ---- what is read


@every_column
def test_every_kind(make: Make) -> None:
    expected = list(dict.fromkeys(TEXTS)) if make is COLUMNS["dict"] else TEXTS
    texts = read(make(TEXTS))
    assert len(texts) == len(expected)
    assert strings(texts, range(len(expected))) == expected
    assert strings(texts, range(1, len(expected) - 2)) == expected[1:-2]
    assert strings(texts, [0, 2, 3, 4]) == [expected[index] for index in (0, 2, 3, 4)]
    assert strings(texts, [0, 3, 4]) == [expected[index] for index in (0, 3, 4)]
    assert strings(texts, []) == []
    in_python = isinstance(texts, type(read([])))
    assert texts.sizes().tolist() == [len(text) if in_python else len(text.encode()) for text in expected]
    assert texts.firsts().dtype == np.int64
    assert texts.firsts().tolist() == [expected.index(text) for text in expected]


@every_column
def test_no_texts(make: Make) -> None:
    texts = read(make([]))
    assert len(texts) == 0
    assert strings(texts, []) == []
    assert texts.firsts().shape == texts.sizes().shape == (0,)


def c_struct(capsule: object, name: str) -> Any:
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    address = get(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, name.encode())
    return ffi.cast(f"struct rawllama_{name} *", address)


class WithoutMemory:
    """Empty texts as a producer may give them: no buffer at all for their text."""

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        self.capsules = pa.array(["", "", ""]).__arrow_c_array__()
        c_struct(self.capsules[1], "arrow_array").buffers[2] = ffi.NULL
        return self.capsules


def test_only_empty_texts() -> None:
    texts = read(WithoutMemory())
    assert texts.utf8(np.arange(3))[0]
    assert strings(texts, range(3)) == ["", "", ""]
    assert texts.firsts().tolist() == [0, 0, 0]


def test_null_column_without_rows() -> None:
    assert len(read(pa.nulls(0))) == 0


@given(st.lists(st.text(max_size=20) | st.sampled_from(TEXTS), max_size=60), st.data())
def test_any_texts(given_texts: list[str], data: st.DataObject) -> None:
    """Any texts in any chunks: the same as a plain Python loop finds."""
    kind = data.draw(st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(given_texts)), max_size=4)))
    parts = [pa.array(given_texts[a:b], kind) for a, b in zip([0, *cuts], [*cuts, len(given_texts)], strict=True)]
    chosen = sorted(data.draw(st.sets(st.integers(0, max(len(given_texts) - 1, 0))))) if given_texts else []
    for texts in (read(pa.chunked_array(parts, kind)), read(given_texts)):
        assert strings(texts, chosen) == [given_texts[index] for index in chosen]
        assert texts.firsts().tolist() == [given_texts.index(text) for text in given_texts]


def test_many_texts_and_few_different_ones() -> None:
    numbers = np.random.default_rng(0).integers(0, 3000, 50_000)
    given_texts = [f"text number {number}" for number in numbers]
    expected = np.unique(numbers, return_index=True)[1][np.unique(numbers, return_inverse=True)[1]]
    assert np.array_equal(read(given_texts).firsts(), expected)
    assert np.array_equal(read(pa.array(given_texts)).firsts(), expected)


def test_equal_hashes_of_different_texts() -> None:
    class Same(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    assert read([Same("b"), Same("a"), Same("b"), Same("c"), Same("a")]).firsts().tolist() == [0, 1, 0, 3, 1]


@every_column
def test_embedded(make: Make, tiny: Callable[[str], Path]) -> None:
    """All kinds give the same rows, at once and block by block."""
    texts = [text for text in TEXTS if text.isascii()] * 3
    if make is COLUMNS["dict"]:
        texts = list(dict.fromkeys(texts))
    with Embedder(tiny("bert"), n_threads=1) as embedder:
        expected = np.concatenate([embedder.encode(texts[at : at + 4]) for at in range(0, len(texts), 4)])
        assert np.abs(embedder.encode(make(texts)) - expected).max() < 1e-5
        assert np.array_equal(np.concatenate(list(embedder.encode_iter(make(texts), block_size=4))), expected)


# ---- without a copy


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("cut", [slice(None), slice(2, 7), slice(4, None)])
def test_text_is_not_copied(kind: pa.DataType, cut: slice) -> None:
    whole = pa.array(TEXTS, kind)
    before = len("".join(TEXTS[: cut.start or 0]).encode())
    buffer, offsets = read(whole[cut]).utf8(np.arange(len(TEXTS[cut])))
    assert address(buffer) + offsets[0] == whole.buffers()[2].address + before
    assert offsets[-1] - offsets[0] == len("".join(TEXTS[cut]).encode())


def test_chunks_are_not_copied() -> None:
    column = pa.chunked_array([pa.array(["one", "two"]), pa.array(["three", "four", "five"])])
    buffer, offsets = read(column).utf8(np.array([3, 4]))
    assert address(buffer) + offsets[0] == column.chunk(1).buffers()[2].address + len("three")


@pytest.mark.parametrize("make", [series("string[pyarrow]"), series(pd.ArrowDtype(pa.large_string()))])
def test_pandas_is_not_copied(make: Make) -> None:
    column = make(TEXTS)
    chunk = column.array.__arrow_array__().chunk(0)
    buffer, offsets = read(column).utf8(np.arange(len(TEXTS)))
    assert address(buffer) + offsets[0] == chunk.buffers()[2].address


@of_pyarrow
def test_memory_is_kept_and_given_back(make: Make) -> None:
    many = [f"text {number % 500} that is longer than a view holds" for number in range(1000)]
    gc.collect()
    before = pa.total_allocated_bytes()
    texts = read(make(many))
    gc.collect()
    pa.array(["other things in memory that was free"] * 1000)
    assert strings(texts, range(1000)) == many
    del texts
    gc.collect()
    assert pa.total_allocated_bytes() == before


# ---- what is refused

MISSING = r"texts\[2\]: it is missing \({}\); fill it, or leave it out"


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (["a", "b", None], "None"),
        (["a", "b", float("nan")], "nan"),
        (["a", "b", pd.NA], "<NA>"),
        (np.array(["a", "b", None], object), "None"),
        (pa.array(["a", "b", None]), "null"),
        (pa.array(["x", "a", "b", None, "c"], pa.large_string())[1:], "null"),
        (pa.array(["a", "b", None], pa.string_view()), "null"),
        (pa.array(["a", "b", None]).dictionary_encode(), "null"),
        (pa.DictionaryArray.from_arrays(pa.array([0, 0, 1]), pa.array(["a", None])), "null"),
        (pa.chunked_array([["a"], ["b", None]]), "null"),
        (pa.array(["x"] * 11 + ["a", "b", None, "c"])[11:], "null"),
        (pl.Series(["a", "b", None]), "null"),
        (pd.Series(["a", "b", None], dtype=object), "None"),
        (pd.Series(["a", "b", None], dtype="string[python]", index=[5, 6, 7]), "<NA>"),
        (pd.Series(["a", "b", None], dtype="string[pyarrow]", index=[5, 6, 7]), "null"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_missing(column: Any, found: str) -> None:
    with pytest.raises(InvalidArgumentError, match=MISSING.format(found)):
        read(column)


def test_a_column_of_nulls() -> None:
    with pytest.raises(InvalidArgumentError, match=r"texts\[0\]: it is missing \(null\)"):
        read(pa.nulls(3))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (["a", 1], r"documents\[1\]: it is int, not str$"),
        (["a", b"b"], r"documents\[1\]: it is bytes, not str; decode it"),
        (["a", ["b"]], r"documents\[1\]: it is list, not str"),
        (["a", "b\ud800"], r"documents\[1\]: UTF-8 cannot hold the surrogate U\+D800 at 1; leave it out"),
        (np.array(["a", "\udfff"]), r"documents\[1\]: UTF-8 cannot hold the surrogate U\+DFFF at 0"),
        (["a"] * 9000 + [None], r"documents\[9000\]: it is missing"),
        ("one", "documents: it is one text; pass a list"),
        (b"one", "documents: it is one text"),
        (7, "documents: it is int, not a list or another iterable of str"),
        (np.array([["a"]]), r"documents: the shape \(1, 1\) is not \(n,\)"),
        (np.array("a"), r"documents: the shape \(\) is not"),
        (np.array([b"a"]), r"documents: the dtype \|S1 is not of strings; use np.char.decode"),
        (np.array([1.0]), r"documents: the dtype float64 is not of strings; use astype\(str\)"),
        (pa.array([1, 2]), "documents: the Arrow type 'l' is not of strings; cast it to strings"),
        (pa.array([b"a"]), "documents: the Arrow type 'z' is not of strings"),
        (pa.array([1, 1]).dictionary_encode(), "documents: the Arrow type 'l' is not of strings"),
        (pa.table({"a": ["b"]}), "it is a table; pass one column"),
        (pl.DataFrame({"a": ["b"]}), "it is a table; pass one column"),
        (pl.Series([1, 2]), "is not of strings"),
        (pd.Series([1, 2]), r"documents\[0\]: it is int, not str"),
    ],
)
def test_what_is_no_text(column: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        read(column, "documents")


@pytest.mark.parametrize(
    "column", [["a", None], np.array(["a", None]), pa.array(["a", None]), pa.chunked_array([["a"], [None]])]
)
def test_indices_of_a_block(column: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"texts\[1001\]: it is missing"):
        read(column, first=1000)


def test_surrogates_in_a_list_that_changes() -> None:
    given_texts = ["a", "b"]
    texts = read(given_texts)
    given_texts[1] = "\ud800"
    with pytest.raises(InvalidArgumentError, match=r"texts\[1\]"):
        texts.utf8(np.arange(2))


def spoiled(kind: pa.DataType, places: Any, bad: Any, data: bytes | None = None) -> pa.Array:
    """A column whose offsets or views are changed once pyarrow has looked at them."""
    array = np.array(places)
    buffers = [None, pa.py_buffer(array), *([pa.py_buffer(data)] if data else [])]
    column = pa.Array.from_buffers(kind, len(places) - 1 if data else 1, buffers)
    array[:] = bad
    return column


def indices(kind: pa.DataType, bad: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0, bad], kind), pa.array(["a", "b"]), safe=False)


@pytest.mark.parametrize(
    "column",
    [
        spoiled(pa.string(), np.int32([0, 1, 2]), [0, 3, 1], b"abc"),
        spoiled(pa.large_string(), np.int64([0, 1, 2]), [0, 3, 1], b"abc"),
        spoiled(pa.string(), np.int32([0, 1, 2]), [-4, -3, 1], b"abc"),
        spoiled(pa.large_string(), np.int64([0, 1, 2]), [-4, -3, 1], b"abc"),
        indices(pa.int8(), 5),
        indices(pa.int64(), -1),
        spoiled(pa.string_view(), np.int32([0, 0, 0, 0]), [13, 0, 0, 0]),
        spoiled(pa.string_view(), np.int32([0, 0, 0, 0]), [-1, 0, 0, 0]),
    ],
    ids=["offsets", "large offsets", "negative", "large negative", "index", "negative index", "buffer", "size"],
)
def test_damaged_columns(column: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"texts\[[01]\]: the Arrow column contradicts itself here"):
        read(column)


def test_a_text_over_2_gib() -> None:
    """The offsets say so; nobody reads the text, which is not there."""
    column = spoiled(pa.large_string(), np.int64([0, 1, 2]), [0, 1, 2**31 + 1], b"ab")
    with pytest.raises(InvalidArgumentError, match=r"texts\[1\]: libllama takes 2147483647 bytes at most"):
        read(column)


class Failing:
    """A stream of one good chunk and then an error, made by hand."""

    def __init__(self, fails_at: str) -> None:
        self.inner = pa.chunked_array([["a"]]).__arrow_c_stream__()
        stream = c_struct(self.inner, "arrow_array_stream")
        stream_type = ffi.typeof("struct rawllama_arrow_array_stream")
        kinds = {name: field.type for name, field in stream_type.fields}
        self.message = ffi.new("char[]", b"the disk is gone")
        self.fail = ffi.callback(kinds[fails_at], lambda *_: 5)
        self.say = ffi.callback(kinds["get_last_error"], lambda _: self.message)
        setattr(stream, fails_at, self.fail)
        stream.get_last_error = self.say

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.inner


@pytest.mark.parametrize("fails_at", ["get_schema", "get_next"])
def test_a_stream_that_fails(fails_at: str) -> None:
    with pytest.raises(InvalidArgumentError, match="texts: its Arrow stream failed: the disk is gone"):
        read(Failing(fails_at))


def test_what_is_no_column() -> None:
    for texts in (["a"], ("a",), iter(["a"]), "a", None):
        assert open_texts(texts) is None
