"""What a GGUF file says of itself, read before libllama loads it.

libllama believes some things that it reads, and ggml then ends the process from one of its own threads, where no guard
catches it. A damaged file is refused here instead. Reading all but the tensors' data takes some milliseconds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .errors import ModelLoadError
from .raw import ffi, lib

_FLOATS = (lib.GGML_TYPE_F32, lib.GGML_TYPE_F16, lib.GGML_TYPE_BF16)
# Quantized types of intermediate results; no weights have them.
_INTERMEDIATE = (lib.GGML_TYPE_Q8_1, lib.GGML_TYPE_Q8_K)
# Added or multiplied element by element, where ggml takes nothing but F32. Converters write nothing else.
_F32_ONLY = (".bias", "norm.weight", "token_types.weight", "conv1d.weight", "shortconv.conv.weight", ".ssm_a", ".ssm_d")
_ADAPTER = (".lora_a", ".lora_b")
# What all layers use that have none of their own. A file without any tensors is a vocabulary.
_USED = {
    "t5": ("enc.blk.0.attn_rel_b.weight", "dec.blk.0.attn_rel_b.weight"),
    "t5encoder": ("enc.blk.0.attn_rel_b.weight",),
}
# Ten times what any model has: libllama makes room for all of them, whether the file has them or not.
_MAX_TOKENS = 10_000_000
# DeepSeek's table of experts by token is made of integers, as it should be.
_TABLES = ("tid2eid.weight",)


Source = str | os.PathLike[str] | IO[bytes]


@dataclass(frozen=True)
class ModelFile:
    """What libllama does not tell.

    `positions` is the number of rows in the table of learned positions, 0 without one: a token beyond it would end the
    process. `scores` is what the last layer for classification gives, 0 without one: libllama's scores are then raw
    columns. Both are 0 for a file that is no GGUF.
    """

    positions: int = 0
    scores: int = 0


def read(source: Source) -> ModelFile:
    """Read a file's header; refuse what would end the process.

    Raises
    ------
    ModelLoadError
        The tensor or the key, and what is wrong with it.

    Calls: gguf_init_from_file, gguf_init_from_file_ptr, gguf_get_tensor_type, gguf_get_val_f32, gguf_get_val_u32,
    gguf_get_val_str, gguf_get_arr_data, gguf_get_arr_str, gguf_find_tensor, gguf_get_tensor_ne, gguf_get_tensor_size,
    llama_split_prefix, llama_split_path
    """
    files = [_read(source), *map(_read, other_splits(source))]
    return ModelFile(max(file.positions for file in files), max(file.scores for file in files))


def _read(source: Source) -> ModelFile:
    with opened(source) as file:
        if not file:
            return ModelFile()  # libllama says why, better than this could
        for fault in _faults(file):
            raise ModelLoadError(f"{_name(source)} is damaged: {fault}")
        return ModelFile(
            _rows(file, b"position_embd.weight"), _rows(file, b"cls.output.weight") or _rows(file, b"cls.weight")
        )


def _faults(file: Any) -> Iterator[str]:
    """What is wrong with it."""
    for index in range(lib.gguf_get_n_tensors(file)):
        name = string_of(lib.gguf_get_tensor_name(file, index))
        kind = lib.gguf_get_tensor_type(file, index)
        if not _fits(name, kind):
            yield f"the tensor {name} cannot be of the type {string_of(lib.ggml_type_name(kind))}"
    for key, value in numbers_of(file):
        if not is_possible(key, value):
            yield f"{key} cannot be {value}"
    if lib.gguf_find_key(file, b"split.count") < 0:  # else the rest is in another file
        yield from _missing(file)
    tokenizer = text_of(file, b"tokenizer.ggml.model")
    if tokenizer == "rwkv" and not _has_all_starts(_texts(file, b"tokenizer.ggml.tokens")):
        yield "tokenizer.ggml.tokens has a token whose first byte is no token"
    if tokenizer == "test" and not _texts(file, b"tokenizer.ggml.tokens"):
        yield "tokenizer.ggml.tokens is empty"  # it divides by their number
    yield from _wrong_sections(file)


def _missing(file: Any) -> Iterator[str]:
    """What libllama takes for optional, and then uses."""
    architecture = text_of(file, b"general.architecture")
    heads = f"{architecture}.attention.head_count"
    if architecture.endswith("bert") and lib.gguf_find_key(file, heads.encode()) < 0:
        yield f"{heads} is missing"  # it divides by it
    for tensor in _USED.get(architecture, ()):
        if lib.gguf_get_n_tensors(file) and lib.gguf_find_tensor(file, tensor.encode()) < 0:
            yield f"the tensor {tensor} is missing"


def _wrong_sections(file: Any) -> Iterator[str]:
    """M-RoPE divides the columns of a head among its kinds of positions; ggml checks that on its threads."""
    architecture = text_of(file, b"general.architecture")
    key = f"{architecture}.rope.dimension_sections"
    sections, numbers = _integers(file, key.encode()), dict(numbers_of(file))
    heads = numbers.get(f"{architecture}.attention.head_count")
    width = numbers.get(f"{architecture}.embedding_length", math.inf) / (heads or 1)
    width = numbers.get(f"{architecture}.attention.key_length", width)
    if any(sections) and (min(sections) < 0 or not 0 < sum(sections) <= width):
        yield f"{key} cannot be {sections}"


def other_splits(source: Source) -> Iterator[str]:
    """The files that libllama reads too where `source` is the first of a split model, under the usual names."""
    if not isinstance(source, (str, os.PathLike)):
        return
    first = os.fsencode(source)
    with opened(source) as file:
        key = lib.gguf_find_key(file, b"split.count") if file else -1
        count = lib.gguf_get_val_u16(file, key) if key >= 0 and _is_u16(file, key) else 0
    prefix = ffi.new("char[]", len(first) + 1)
    if count < 2 or lib.llama_split_prefix(prefix, len(prefix), first, 0, count) <= 0:
        return
    name = ffi.new("char[]", len(first) + 32)
    for index in range(1, count):
        lib.llama_split_path(name, len(name), prefix, index, count)
        split = os.fsdecode(ffi.string(name))
        if not Path(split).exists():
            return  # libllama says so
        yield split


def _is_u16(file: Any, key: int) -> bool:
    return bool(lib.gguf_get_kv_type(file, key) == lib.GGUF_TYPE_UINT16)


def _rows(file: Any, name: bytes) -> int:
    """Rows of a tensor, 0 if it is not there."""
    index = lib.gguf_find_tensor(file, name)
    if index < 0:
        return 0
    if hasattr(lib, "gguf_get_tensor_ne"):
        return int(lib.gguf_get_tensor_ne(file, index)[1])
    # An older llama.cpp tells the bytes; these tensors are as wide as the model.
    kind = lib.gguf_get_tensor_type(file, index)
    width = dict(numbers_of(file)).get(f"{text_of(file, b'general.architecture')}.embedding_length", 0)
    elements = lib.gguf_get_tensor_size(file, index) * lib.ggml_blck_size(kind) // max(lib.ggml_type_size(kind), 1)
    return int(elements // width) if width else 0


@contextmanager
def opened(source: Source) -> Iterator[Any]:
    """The file's `gguf_context *`, or NULL if it is no GGUF. An open file is read from its position."""
    params = ffi.new("struct gguf_init_params *", {"no_alloc": True})[0]
    if isinstance(source, (str, os.PathLike)):
        file = lib.gguf_init_from_file(os.fsencode(source), params)
    else:
        with c_file(source) as pointer:
            file = lib.gguf_init_from_file_ptr(pointer, params)
    try:
        yield file
    finally:
        lib.gguf_free(file)


@contextmanager
def c_file(file: IO[bytes]) -> Iterator[Any]:
    """A `FILE *` of its own at the position of an open file, which stays where it is."""
    start = file.tell()
    descriptor = file.fileno()
    position = os.lseek(descriptor, 0, os.SEEK_CUR)  # not `start`: `file` may have read ahead
    with open(os.dup(descriptor), "rb", buffering=0) as own:  # noqa: PTH123 (a descriptor has no path)
        own.seek(start)
        try:
            yield ffi.cast("FILE *", own)
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)  # both share the position


def _name(source: Source) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else str(getattr(source, "name", "the file"))


def _fits(tensor: str, kind: int) -> bool:
    """Whether libllama can compute with a tensor of this type."""
    if tensor.endswith(_F32_ONLY):
        return kind == lib.GGML_TYPE_F32
    if not tensor.endswith((".weight", *_ADAPTER)) or tensor.endswith(_TABLES):
        return True
    return is_weight_type(kind)


def is_weight_type(kind: int) -> bool:
    """Whether weights may have this ggml_type. Calls: ggml_is_quantized."""
    return kind in _FLOATS or (lib.ggml_is_quantized(kind) and kind not in _INTERMEDIATE)


def is_possible(key: str, value: float) -> bool:
    """Whether a number of the metadata can be what it says; libllama would compute with it on its threads."""
    if key.endswith("epsilon"):
        return 0 <= value < math.inf
    if key.endswith(".vocab_size"):
        return value <= _MAX_TOKENS
    return value != 0 or not key.endswith("bert.attention.head_count")  # it divides by it


def _has_all_starts(tokens: list[bytes]) -> bool:
    """Whether each first byte is a token by itself. RWKV's tokenizer goes on forever where no token fits.

    Tokens are written with escapes: each way to write a byte is one.
    """
    starts = {token[: 4 if token[:2] == b"\\x" else 1 + (token[:1] == b"\\")] for token in tokens}
    return starts <= set(tokens)


def text_of(file: Any, key: bytes) -> str:
    """A string of the metadata, empty if it is not there."""
    index = lib.gguf_find_key(file, key)
    is_text = index >= 0 and lib.gguf_get_kv_type(file, index) == lib.GGUF_TYPE_STRING
    return string_of(lib.gguf_get_val_str(file, index)) if is_text else ""


def _integers(file: Any, key: bytes) -> list[int]:
    """A list of 32-bit integers of the metadata, empty if it is not there."""
    index = lib.gguf_find_key(file, key)
    if index < 0 or lib.gguf_get_kv_type(file, index) != lib.GGUF_TYPE_ARRAY:
        return []
    if lib.gguf_get_arr_type(file, index) not in (lib.GGUF_TYPE_INT32, lib.GGUF_TYPE_UINT32):
        return []
    data = ffi.cast("int32_t *", lib.gguf_get_arr_data(file, index))
    return list(data[0 : lib.gguf_get_arr_n(file, index)])


def _texts(file: Any, key: bytes) -> list[bytes]:
    """A list of strings of the metadata, empty if it is not there."""
    index = lib.gguf_find_key(file, key)
    if index < 0 or lib.gguf_get_kv_type(file, index) != lib.GGUF_TYPE_ARRAY:
        return []
    if lib.gguf_get_arr_type(file, index) != lib.GGUF_TYPE_STRING:
        return []
    return [ffi.string(lib.gguf_get_arr_str(file, index, i)) for i in range(lib.gguf_get_arr_n(file, index))]


def numbers_of(file: Any) -> Iterator[tuple[str, float]]:
    """The numbers of the metadata that are float32 or uint32, by key."""
    for index in range(lib.gguf_get_n_kv(file)):
        kind = lib.gguf_get_kv_type(file, index)
        if kind == lib.GGUF_TYPE_FLOAT32:
            yield string_of(lib.gguf_get_key(file, index)), lib.gguf_get_val_f32(file, index)
        elif kind == lib.GGUF_TYPE_UINT32:
            yield string_of(lib.gguf_get_key(file, index)), lib.gguf_get_val_u32(file, index)


def string_of(text: Any) -> str:
    """A C string; bytes that are not UTF-8 are escaped."""
    return ffi.string(text).decode("utf-8", "backslashreplace")
