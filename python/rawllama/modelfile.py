"""What a GGUF file says of itself, read before libllama loads it.

libllama believes some things that it reads, and ggml then ends the process from one of its own threads, where no guard
catches it. A damaged file is refused here instead. Reading all but the tensors' data takes some milliseconds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import ModelLoadError
from .raw import ffi, lib

_FLOATS = (lib.GGML_TYPE_F32, lib.GGML_TYPE_F16, lib.GGML_TYPE_BF16)
# Quantized types of intermediate results; no weights have them.
_INTERMEDIATE = (lib.GGML_TYPE_Q8_1, lib.GGML_TYPE_Q8_K)
# Added or multiplied element by element, where ggml takes nothing but F32. Converters write nothing else.
_F32_ONLY = (".bias", "norm.weight", "token_types.weight")
# DeepSeek's table of experts by token is made of integers, as it should be.
_TABLES = ("tid2eid.weight",)


def check(path: str | os.PathLike[str]) -> None:
    """Refuse what would end the process.

    Raises
    ------
    ModelLoadError
        The tensor or the key, and what is wrong with it.

    Calls: gguf_init_from_file, gguf_get_tensor_type, gguf_get_val_f32
    """
    with _opened(path) as file:
        if not file:
            return  # libllama says why, better than this could
        for index in range(lib.gguf_get_n_tensors(file)):
            name = _string(lib.gguf_get_tensor_name(file, index))
            kind = lib.gguf_get_tensor_type(file, index)
            if not _fits(name, kind):
                words = f"the tensor {name} cannot be of the type {_string(lib.ggml_type_name(kind))}"
                raise ModelLoadError(f"{os.fspath(path)} is damaged: {words}")
        for key, value in _floats(file):
            if key.endswith("epsilon") and not 0 <= value < math.inf:
                raise ModelLoadError(f"{os.fspath(path)} is damaged: {key} cannot be {value}")


def gives_scores(path: str | os.PathLike[str], count: int) -> bool:
    """Whether the last layer for classification gives `count` scores. Without one, libllama's are raw columns.

    Calls: gguf_find_tensor, gguf_get_tensor_ne
    """
    with _opened(path) as file:
        if not file or lib.gguf_find_key(file, b"split.count") >= 0:
            return True  # the layer may be in another of the model's files
        layers = [lib.gguf_find_tensor(file, name) for name in (b"cls.output.weight", b"cls.weight")]
        found = [layer for layer in layers if layer >= 0]
        return bool(found) and lib.gguf_get_tensor_ne(file, found[0])[1] == count


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The file's `gguf_context *`, or NULL if it is no GGUF."""
    file = lib.gguf_init_from_file(os.fsencode(path), ffi.new("struct gguf_init_params *", {"no_alloc": True})[0])
    try:
        yield file
    finally:
        lib.gguf_free(file)


def _fits(tensor: str, kind: int) -> bool:
    """Whether libllama can compute with a tensor of this type."""
    if tensor.endswith(_F32_ONLY):
        return kind == lib.GGML_TYPE_F32
    if not tensor.endswith(".weight") or tensor.endswith(_TABLES):
        return True
    return kind in _FLOATS or (lib.ggml_is_quantized(kind) and kind not in _INTERMEDIATE)


def _floats(file: Any) -> Iterator[tuple[str, float]]:
    for index in range(lib.gguf_get_n_kv(file)):
        if lib.gguf_get_kv_type(file, index) == lib.GGUF_TYPE_FLOAT32:
            yield _string(lib.gguf_get_key(file, index)), lib.gguf_get_val_f32(file, index)


def _string(text: Any) -> str:
    return ffi.string(text).decode("utf-8", "backslashreplace")
