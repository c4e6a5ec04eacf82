"""llama.cpp's C API for Python, complete and raw, and embeddings on top.

- `from rawllama import ffi, lib`: every function, struct and constant of llama.h, ggml*.h and gguf.h
- `rawllama.pointer`, `rawllama.view`: numpy arrays to C and back, without a copy
- `rawllama.Embedder`: texts in, one matrix out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import log
from .errors import (
    ContextCreateError,
    DecodeError,
    InvalidArgumentError,
    LlamaError,
    ModelLoadError,
    NativeAssertError,
)
from .raw import INCLUDE, LIBRARIES, ffi, lib

if TYPE_CHECKING:
    from .arrays import pointer, view
    from .embedder import Embedder

__all__ = [
    "INCLUDE",
    "LIBRARIES",
    "ContextCreateError",
    "DecodeError",
    "Embedder",
    "InvalidArgumentError",
    "LlamaError",
    "ModelLoadError",
    "NativeAssertError",
    "ffi",
    "lib",
    "pointer",
    "view",
]

log.start()

# numpy takes longer to import than all the rest: only what needs it loads it.
_LAZY = {"pointer": "arrays", "view": "arrays", "Embedder": "embedder"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rawllama")
    if name not in _LAZY:
        raise AttributeError(f"module 'rawllama' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value
