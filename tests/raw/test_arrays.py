"""numpy arrays to C and back: no copy, every number, and no length that is wrong."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rawllama
from numpy.typing import NDArray
from rawllama import InvalidArgumentError, ffi, lib, pointer, view

# Every C number, and what numpy calls it on the machines that rawllama runs on.
NUMBERS = {
    "float": "float32",
    "double": "float64",
    "long double": np.dtype(np.longdouble).name,
    "float _Complex": "complex64",
    "double _Complex": "complex128",
    "_Bool": "bool",
    "bool": "bool",
    "char": "int8",
    "signed char": "int8",
    "unsigned char": "uint8",
    "short": "int16",
    "unsigned short": "uint16",
    "int": "int32",
    "unsigned int": "uint32",
    "long": f"int{8 * ctypes.sizeof(ctypes.c_long)}",
    "unsigned long": f"uint{8 * ctypes.sizeof(ctypes.c_long)}",
    "long long": "int64",
    "unsigned long long": "uint64",
    **{f"{sign}int{bits}_t": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"{sign}int_least{bits}_t": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "intmax_t": "int64",
    "uintmax_t": "uint64",
    "intptr_t": "int64",
    "uintptr_t": "uint64",
    "ptrdiff_t": "int64",
    "size_t": "uint64",
    "ssize_t": "int64",
    "llama_token": "int32",
    "llama_pos": "int32",
    "llama_seq_id": "int32",
    "ggml_fp16_t": "uint16",
    "enum ggml_type": "int32",
}
VALUES = [0, 1, 100]


# ---- both ways, every number


@pytest.mark.parametrize(("ctype", "dtype"), NUMBERS.items())
def test_numbers_to_c(ctype: str, dtype: str) -> None:
    array = np.array(VALUES, dtype)
    given = pointer(array, f"{ctype} *", 3)
    assert ffi.typeof(given) is ffi.typeof(f"{ctype}[]")
    assert address(given) == array.ctypes.data  # no copy
    with_const = pointer(array, f"const {ctype} *", 3)
    assert [complex(as_number(one)) for one in with_const] == array.tolist()


@pytest.mark.parametrize(("ctype", "dtype"), NUMBERS.items())
def test_numbers_from_c(ctype: str, dtype: str) -> None:
    items = ffi.new(f"{ctype}[]", 3)
    seen = view(items, 3)
    assert seen.dtype == np.dtype(dtype)
    assert seen.itemsize == ffi.sizeof(ffi.typeof(items).item)
    assert seen.ctypes.data == address(items)  # no copy
    seen[:] = VALUES
    assert [complex(as_number(one)) for one in items] == seen.tolist()


def as_number(value: Any) -> Any:
    """What indexing gives, as a number: `char` is bytes in cffi, `long double` a C object."""
    if isinstance(value, bytes):
        return value[0]
    return float(value) if isinstance(value, ffi.CData) else value


def address(items: Any) -> int:
    return int(ffi.cast("uintptr_t", items))


def test_c_reads_the_array() -> None:
    source = np.array([1.5, -2.0, 0.25], np.float32)
    target = np.zeros(3, np.uint16)
    lib.ggml_fp32_to_fp16_row(pointer(source, "float *", 3, writable=False), pointer(target, "ggml_fp16_t *", 3), 3)
    assert target.view(np.float16).tolist() == source.tolist()


# ---- pointer


@pytest.mark.parametrize("dtype", sorted(set(NUMBERS.values())))
@pytest.mark.parametrize("ctype", ["float *", "llama_token *", "int8_t *", "uint64_t *", "_Bool *"])
def test_other_dtypes_are_refused(ctype: str, dtype: str) -> None:
    array = np.zeros(3, dtype)
    if NUMBERS[ctype.removesuffix(" *")] == dtype:
        pointer(array, ctype)
        return
    with pytest.raises(InvalidArgumentError, match=f"^array: .* got {dtype}; use np.asarray"):
        pointer(array, ctype)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i4", "i8", "u2"])
def test_swapped_bytes_are_refused(dtype: str) -> None:
    native = np.zeros(3, dtype)
    ctype = {
        "f4": "float *",
        "f8": "double *",
        "i2": "int16_t *",
        "i4": "int *",
        "i8": "int64_t *",
        "u2": "uint16_t *",
    }[dtype]
    pointer(native, ctype)
    with pytest.raises(InvalidArgumentError, match="takes dtype"):
        pointer(native.astype(native.dtype.newbyteorder("S")), ctype)


@pytest.mark.parametrize(
    "dtype", [object, "S4", "U4", "M8[s]", "m8[s]", [("a", "f4")], np.float16], ids=lambda dtype: str(np.dtype(dtype))
)
def test_what_is_no_c_number_is_refused(dtype: Any) -> None:
    array = np.zeros(3, dtype)
    for ctype in ("float *", "int64_t *", "int *", "uint16_t *", "char *"):
        with pytest.raises(InvalidArgumentError, match=r"^array: "):
            pointer(array, ctype)


@pytest.mark.parametrize("value", [[1.0], b"abcd", memoryview(b"abcd"), 1.0, None, np.float32(1)], ids=type)
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^array: .*{type(value).__name__}"):
        pointer(value, "float *")


@pytest.mark.parametrize("length", [4, 100, -1, -(2**63)])
def test_a_wrong_length_is_refused(length: int) -> None:
    array = np.zeros(3, np.float32)
    with pytest.raises(InvalidArgumentError, match=f"^array: it has 3 items and C was told {length}"):
        pointer(array, "float *", length)
    for fits in (0, 2, 3):
        assert len(pointer(array, "float *", fits)) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[:, ::2],
        lambda a: a.T,
        lambda a: a[:, 1:],
        lambda a: a[::-1],
        lambda a: np.broadcast_to(a[0], (3, 4)),
        lambda a: np.asfortranarray(a),
    ],
    ids=["stride", "transposed", "columns", "reversed", "broadcast", "fortran"],
)
def test_rows_that_are_not_contiguous_are_refused(change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    array = change(np.zeros((3, 4), np.float32))
    with pytest.raises(InvalidArgumentError, match=r"^array: .*np\.ascontiguousarray"):
        pointer(array, "float *", writable=False)
    pointer(np.ascontiguousarray(array), "float *", array.size)


def test_matrices_and_scalars_are_given_whole() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert list(pointer(matrix, "float *", 6)) == [0, 1, 2, 3, 4, 5]
    assert list(pointer(matrix[1:], "float *", 3)) == [3, 4, 5]
    assert list(pointer(np.array(7, np.int32), "int *", 1)) == [7]


def test_read_only_arrays_only_where_c_reads() -> None:
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    with pytest.raises(InvalidArgumentError, match=r"^array: it is read-only"):
        pointer(array, "float *")
    assert address(pointer(array, "const float *", 3, writable=False)) == array.ctypes.data


@pytest.mark.parametrize("shape", [0, (0, 4), (4, 0)])
def test_empty_arrays(shape: Any) -> None:
    assert len(pointer(np.zeros(shape, np.float32), "float *")) == 0
    with pytest.raises(InvalidArgumentError, match="C was told 1"):
        pointer(np.zeros(shape, np.float32), "float *", 1)
    assert view(ffi.new("float[4]"), shape).shape == np.zeros(shape).shape


@pytest.mark.parametrize(
    "ctype",
    ["struct llama_batch *", "struct ggml_tensor *", "ggml_bf16_t *", "void *", "char **", "float", "float[3][2]"],
)
def test_types_that_hold_no_numbers_are_refused(ctype: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^ctype: "):
        pointer(np.zeros(8, np.uint8), ctype)


@pytest.mark.parametrize("ctype", ["flaot *", "", "float *;", "int (*)(int)", None, 5])
def test_types_that_are_none_are_refused(ctype: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^ctype: "):
        pointer(np.zeros(8, np.float32), ctype)


# ---- view


def test_view_of_numbers_in_a_struct() -> None:
    tensor = ffi.new("struct ggml_tensor *", {"ne": [2, 3, 4, 5]})
    seen = view(tensor.ne, 4)
    assert seen.tolist() == [2, 3, 4, 5]
    seen[0] = 9
    assert tensor.ne[0] == 9
    with pytest.raises(InvalidArgumentError, match="the C array 4"):
        view(tensor.ne, 5)


def test_view_has_the_shape_asked_for() -> None:
    items = ffi.new("int[]", list(range(12)))
    assert view(items, (3, 4)).tolist() == np.arange(12).reshape(3, 4).tolist()
    assert view(items, 5).tolist() == [0, 1, 2, 3, 4]  # less than there is
    assert view(items, ()).tolist() == 0
    assert view(items, np.int64(12)).shape == (12,)
    assert view(items, (np.int32(2), np.uint8(6))).shape == (2, 6)  # type: ignore[arg-type]
    assert view(items + 10, 2).tolist() == [10, 11]


@pytest.mark.parametrize("shape", [13, (3, 5), (13, 1), (2**32, 2**32), 2**62, 2**80])
def test_more_than_the_array_has_is_refused(shape: Any) -> None:
    items = ffi.new("int[]", 12)
    with pytest.raises(InvalidArgumentError, match=r"^shape: "):
        view(items, shape)


@pytest.mark.parametrize("shape", [(2**32, 2**32), 2**62, (2**40, 2**40), (np.int64(2**32), np.int64(2**32))])
def test_more_than_any_memory_is_refused(shape: Any) -> None:
    """Its product would wrap around in numpy's integers, to 0 even."""
    with pytest.raises(InvalidArgumentError, match=r"^shape: .* is larger than any memory"):
        view(ffi.new("float *"), shape)


@pytest.mark.parametrize("shape", [-1, (-1,), (2, -1), (-2, -3)])
def test_negative_lengths_are_refused(shape: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^shape: .* negative"):
        view(ffi.new("float[12]"), shape)


@pytest.mark.parametrize("shape", [1.0, "3", None, (1.5, 2), ((1, 2), 3), b"3"])
def test_shapes_that_are_no_integers_are_refused(shape: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^shape: "):
        view(ffi.new("float[12]"), shape)


@pytest.mark.parametrize("null", ["float *", "void *", "struct llama_model *"])
def test_null_is_refused(null: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^source: it is NULL"):
        view(ffi.cast(null, 0), 0)
    with pytest.raises(InvalidArgumentError, match=r"^source: it is NULL"):
        view(ffi.NULL, 3)


@pytest.mark.parametrize(
    "ctype", ["struct llama_batch *", "void *", "char **", "ggml_bf16_t *", "float(*)[3]", "struct llama_model *"]
)
def test_pointers_to_what_is_no_number_are_refused(ctype: str) -> None:
    memory = ffi.new("char[64]")
    with pytest.raises(InvalidArgumentError, match=r"^source: .* is not a number"):
        view(ffi.cast(ctype, memory), 1)


@pytest.mark.parametrize(
    "source", [5, "float *", b"abc", None, np.zeros(3), ffi.cast("int", 3), ffi.typeof("float *")], ids=type
)
def test_what_is_no_pointer_is_refused(source: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^source: "):
        view(source, 1)


def test_functions_are_refused() -> None:
    for source in (lib.llama_time_us, ffi.addressof(lib, "llama_time_us")):
        with pytest.raises(InvalidArgumentError, match=r"^source: "):
            view(source, 1)


# ---- who keeps what alive


def test_the_c_array_keeps_the_numpy_array() -> None:
    array = np.arange(100_000, dtype=np.float64)
    alive = weakref.ref(array)
    given = pointer(array, "double *", 100_000)
    del array
    gc.collect()
    rubbish = [np.full(100_000, -1.0) for _ in range(8)]  # would take the memory if it were free
    assert alive() is not None
    assert given[99_999] == 99_999 and given[0] == 0
    del given, rubbish
    gc.collect()
    assert alive() is None


def test_an_array_in_use_cannot_be_resized() -> None:
    array = np.zeros(10, np.float32)
    array.resize(20)
    given = pointer(array, "float *", 20)
    with pytest.raises(ValueError, match="cannot resize"):
        array.resize(1_000_000)
    assert len(given) == 20


def test_the_view_keeps_memory_that_python_made() -> None:
    items = ffi.new("double[]", [float(i) for i in range(100_000)])
    seen = view(items, 100_000)
    del items
    gc.collect()
    rubbish = [ffi.new("double[]", 100_000) for _ in range(8)]
    assert seen[99_999] == 99_999 and seen[1] == 1
    del rubbish


def test_view_of_pooled_embeddings_is_the_memory_of_the_context(make_context: Any, make_batch: Any) -> None:
    context = make_context()
    assert lib.llama_decode(context, make_batch(4)) == 0
    row = lib.llama_get_embeddings_seq(context, 0)
    seen = view(row, 384)
    assert np.isfinite(seen).all() and seen.any()
    assert seen.tolist() == ffi.unpack(row, 384)
    seen[383] = 5
    assert lib.llama_get_embeddings_seq(context, 0)[383] == 5


def test_view_of_embeddings_changes_at_the_next_decode(make_context: Any, make_batch: Any) -> None:
    """With pooling none the memory stays where it is; pooled rows are freed even."""
    context = make_context(pooling_type=lib.LLAMA_POOLING_TYPE_NONE)
    assert lib.llama_decode(context, make_batch(4, token=2023)) == 0
    seen = view(lib.llama_get_embeddings(context), (4, 384))
    first = seen.copy()
    assert lib.llama_decode(context, make_batch(4, token=3000)) == 0
    second = view(lib.llama_get_embeddings(context), (4, 384))
    assert second.ctypes.data == seen.ctypes.data
    assert np.array_equal(seen, second) and not np.array_equal(seen, first)


def test_null_embeddings_are_refused(make_context: Any, make_batch: Any) -> None:
    context = make_context()
    assert lib.llama_decode(context, make_batch(4)) == 0
    with pytest.raises(InvalidArgumentError, match=r"^source: it is NULL"):
        view(lib.llama_get_embeddings_seq(context, 1), 384)


def test_they_are_found_at_the_top() -> None:
    assert rawllama.pointer is pointer and rawllama.view is view
