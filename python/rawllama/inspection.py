"""What a GGUF file holds, and what it will take: read without loading the weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ._params import text
from .context import Context
from .errors import InvalidArgumentError
from .footprint import Footprint
from .model import Model, PathLike
from .modelfile import opened
from .raw import ffi, lib

# How numbers of each type are read: the C type, and the end of the function's name.
_NUMBERS = {
    lib.GGUF_TYPE_UINT8: ("uint8_t", "u8"),
    lib.GGUF_TYPE_INT8: ("int8_t", "i8"),
    lib.GGUF_TYPE_UINT16: ("uint16_t", "u16"),
    lib.GGUF_TYPE_INT16: ("int16_t", "i16"),
    lib.GGUF_TYPE_UINT32: ("uint32_t", "u32"),
    lib.GGUF_TYPE_INT32: ("int32_t", "i32"),
    lib.GGUF_TYPE_FLOAT32: ("float", "f32"),
    lib.GGUF_TYPE_BOOL: ("bool", "bool"),
    lib.GGUF_TYPE_UINT64: ("uint64_t", "u64"),
    lib.GGUF_TYPE_INT64: ("int64_t", "i64"),
    lib.GGUF_TYPE_FLOAT64: ("double", "f64"),
}


def metadata(path: PathLike) -> dict[str, Any]:
    """All that a GGUF file says of itself: key to int, float, bool or str, or to a list of these.

    Parameters
    ----------
    path
        The file. Bytes of strings that are not UTF-8 become surrogates.

    Raises
    ------
    OSError
        The file cannot be read.
    InvalidArgumentError
        It is no GGUF file.

    Calls: gguf_get_n_kv, gguf_get_key, gguf_get_kv_type, gguf_get_arr_type, gguf_get_arr_n, gguf_get_arr_data,
    gguf_get_arr_str, gguf_get_val_str
    """
    with open(path, "rb"):  # noqa: PTH123 (a missing file or a folder is Python's own error, which names it)
        pass
    with opened(path) as file:
        if not file:
            raise InvalidArgumentError(f"path: {os.fspath(path)} is no GGUF file, or it is damaged")
        return {
            text(lib.gguf_get_key(file, index)) or "": _value(file, index) for index in range(lib.gguf_get_n_kv(file))
        }


def _value(file: Any, index: int) -> Any:
    kind = lib.gguf_get_kv_type(file, index)
    if kind == lib.GGUF_TYPE_ARRAY:
        return _values(file, index)
    if kind == lib.GGUF_TYPE_STRING:
        return text(lib.gguf_get_val_str(file, index))
    return getattr(lib, f"gguf_get_val_{_NUMBERS[kind][1]}")(file, index)


def _values(file: Any, index: int) -> list[Any]:
    kind, count = lib.gguf_get_arr_type(file, index), lib.gguf_get_arr_n(file, index)
    if kind == lib.GGUF_TYPE_STRING:
        return [text(lib.gguf_get_arr_str(file, index, i)) for i in range(count)]
    if kind not in _NUMBERS:
        return []  # lists of lists: GGUF has them, ggml does not read them
    return list(ffi.cast(f"{_NUMBERS[kind][0]} *", lib.gguf_get_arr_data(file, index))[0:count])


def estimate(path: PathLike, model_settings: Mapping[str, Any] | None = None, **settings: Any) -> tuple[Footprint, ...]:
    """What loading a file and making a context would take, by kind of memory; the weights are not read.

    Parameters
    ----------
    path
        The GGUF file.
    model_settings
        Keywords for `Model`, e.g. `{"n_gpu_layers": 12}`.
    settings
        Keywords for `Context`, e.g. `n_ctx=8192, type_k="q8_0"`.

    Raises
    ------
    OSError, ModelLoadError, InvalidArgumentError, ContextCreateError
        As `Model` and `Context`; and InvalidArgumentError where libllama is too old to tell.

    Calls: rawllama_footprints
    """
    with _Measured(path, **dict(model_settings or {})) as model, Context(model, **settings) as context:
        return context.footprints


class _Measured(Model):
    """All of a model but its weights: nothing can be computed with it, so it never leaves this module."""

    _more_params = MappingProxyType({"no_alloc": True, "load_mode": lib.LLAMA_LOAD_MODE_NONE})
