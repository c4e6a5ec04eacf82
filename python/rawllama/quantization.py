"""Quantising model files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._params import Name, Override, c_string, enum_name, enum_value, fill, kv_overrides_array
from .batch import require_int32
from .errors import InvalidArgumentError, LlamaError, failure
from .files import replacing
from .guard import guarded
from .modelfile import is_weight_type, read
from .raw import ffi, lib
from .threadpool import require_threads

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_MOST_THREADS = lib.GGML_MAX_N_THREADS
_ENUMS = ("LLAMA_FTYPE_", "GGML_TYPE_")


def quantize(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    ftype: Name,
    *,
    nthread: int | None = None,
    output_tensor_type: Name | None = None,
    token_embedding_type: Name | None = None,
    allow_requantize: bool | None = None,
    quantize_output_tensor: bool | None = None,
    only_copy: bool | None = None,
    pure: bool | None = None,
    imatrix: Mapping[str, ArrayLike] | None = None,
    kv_overrides: Mapping[str, Override] | None = None,
    tt_overrides: Mapping[str, Name] | None = None,
    prune_layers: Sequence[int] | None = None,
    max_buf_size: int | None = None,
) -> None:
    """Write a model with smaller weights. What was at `target` is replaced when the new file is complete.

    libllama reports each tensor in the log, at level INFO.

    Parameters
    ----------
    source, target
        Paths of GGUF files.
    ftype
        The type of most weights, e.g. `mostly_q8_0`, `mostly_q4_k_m`, `mostly_f16`.
    nthread
        Threads; by default one a core, but one alone for the types iq1, iq2 and iq3, which take no more.
    output_tensor_type, token_embedding_type, allow_requantize, quantize_output_tensor, only_copy, pure,
    max_buf_size
        As in `struct llama_model_quantize_params`; None is libllama's own default.
    imatrix
        Importance of each tensor's columns: name to float32 values.
    kv_overrides
        Metadata to replace or add: key to int (from 0 to 2**32 - 1), float, bool or str.
    tt_overrides
        Regular expression over tensors' names to a type.
    prune_layers
        Layers to leave out.

    Raises
    ------
    OSError
        A file cannot be read or written.
    ModelLoadError
        The source is damaged.
    InvalidArgumentError
        An unknown type, or importances that are no float32 rows.
    LlamaError
        libllama refused; the message has its words.

    Calls: llama_model_quantize_default_params, llama_model_quantize
    """
    with Path(source).open("rb"):  # a missing file is Python's own error, which names it
        pass
    read(source)
    params = ffi.new("llama_model_quantize_params *", lib.llama_model_quantize_default_params())
    alive: list[Any] = []
    fill(params, {
        "nthread": _threads(nthread, (ftype, output_tensor_type, token_embedding_type, *(tt_overrides or {}).values())),
        "ftype": enum_value("ftype", "LLAMA_FTYPE_", ftype),
        "output_tensor_type": output_tensor_type and _weight_type("output_tensor_type", output_tensor_type),
        "token_embedding_type": token_embedding_type and _weight_type("token_embedding_type", token_embedding_type),
        "allow_requantize": allow_requantize,
        "quantize_output_tensor": quantize_output_tensor,
        "only_copy": only_copy,
        "pure": pure,
        "imatrix": _imatrix(imatrix, alive),
        "kv_overrides": _kept(_metadata(kv_overrides), alive),
        "tt_overrides": _tensor_types(tt_overrides, alive),
        "prune_layers": _kept(_layers(prune_layers), alive),
        "max_buf_size": max_buf_size,
    })  # fmt: skip
    with replacing(target) as temporary:
        code = guarded.llama_model_quantize(os.fsencode(source), os.fsencode(temporary), params)
        if code != 0:
            raise failure(LlamaError, "llama_model_quantize", f"{os.fspath(source)} could not be quantised", code)


def _weight_type(argument: str, value: Name) -> int:
    number = enum_value(argument, "GGML_TYPE_", value)
    if not is_weight_type(number):
        raise InvalidArgumentError(f"{argument}: no weights are of the type {value!r}")
    return number


def _threads(nthread: int | None, types: Iterable[Name | None]) -> int | None:
    """Number of threads; one for types whose search for the best value can end in an assert.

    Weights beyond float32's squares make it do so. Only the calling thread's asserts are caught.
    """
    if not any(_is_searched(kind) for kind in types):
        return require_threads("nthread", min(os.cpu_count() or 1, _MOST_THREADS) if nthread is None else nthread)
    if nthread not in (None, 1):
        raise InvalidArgumentError(f"nthread: {nthread}; the types iq1, iq2 and iq3 are safe with one thread only")
    return 1


def _is_searched(kind: Name | None) -> bool:
    names = [kind] if isinstance(kind, str) else [enum_name(prefix, kind) for prefix in _ENUMS if kind is not None]
    return any(re.match(r"(mostly_)?iq[123]_", name.lower()) for name in names)


def _kept(value: Any, alive: list[Any]) -> Any:
    """`value`, which C points to and which must live as long as the call."""
    alive.append(value)
    return value


def _metadata(overrides: Mapping[str, Override] | None) -> Any:
    for key, value in (overrides or {}).items():
        if isinstance(value, int) and not 0 <= value < 2**32:
            raise InvalidArgumentError(f"kv_overrides: {key} = {value}; libllama writes integers from 0 to {2**32 - 1}")
    return kv_overrides_array(overrides)


def _layers(layers: Sequence[int] | None) -> Any:
    """An array that ends with -1."""
    if layers is None:
        return None
    array = require_int32("prune_layers", layers)
    if (array < 0).any():
        raise InvalidArgumentError(f"prune_layers: {array.tolist()} has negative numbers")
    return ffi.new("int32_t[]", [*array.tolist(), -1])


def _imatrix(rows: Mapping[str, ArrayLike] | None, alive: list[Any]) -> Any:
    """An array that ends with an empty entry."""
    if rows is None:
        return None
    entries = ffi.new("struct llama_model_imatrix_data[]", len(rows) + 1)
    for entry, (name, values) in zip(entries, rows.items(), strict=False):
        try:
            array = np.ascontiguousarray(values, np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"imatrix: {name!r}: {error}") from None
        if not array.size or not np.isfinite(array).all() or array.min() < 0:
            raise InvalidArgumentError(f"imatrix: {name!r} needs finite values, each 0 or more")
        entry.name = _kept(ffi.new("char[]", c_string(name, "imatrix")), alive)
        entry.data = _kept(ffi.from_buffer("float[]", array), alive)
        entry.size = array.size
    return _kept(entries, alive)


def _tensor_types(types: Mapping[str, Name] | None, alive: list[Any]) -> Any:
    """An array that ends with an empty entry."""
    if types is None:
        return None
    entries = ffi.new("struct llama_model_tensor_override[]", len(types) + 1)
    for entry, (pattern, kind) in zip(entries, types.items(), strict=False):
        entry.pattern = _kept(ffi.new("char[]", c_string(pattern, "tt_overrides")), alive)
        entry.type = _weight_type("tt_overrides", kind)
    return _kept(entries, alive)
