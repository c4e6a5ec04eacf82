"""llama.cpp's C API for Python, complete and raw, with a small safe layer and embeddings on top.

- `from rawllama import ffi, lib`: every function, struct and constant of llama.h, ggml*.h and gguf.h
- `rawllama.pointer`, `rawllama.view`: numpy arrays to C and back, without a copy
- `rawllama.Model`, `Context`, `Batch`, `Sampler`, ...: owned handles, checked batches, typed errors, numpy in and out
- `rawllama.Embedder`: texts in, one matrix out
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    BorrowedError,
    ClosedError,
    ConcurrentUseError,
    ContextCreateError,
    ContextFullError,
    DecodeAborted,
    DecodeError,
    ForkedError,
    Interrupted,
    InvalidArgumentError,
    InvalidBatchError,
    LibraryLoadError,
    LlamaError,
    ModelLoadError,
    NativeAssertError,
    TruncationWarning,
)
from .paths import INCLUDE, LIBRARIES

if TYPE_CHECKING:
    from .adapter import LoraAdapter
    from .arrays import pointer, view
    from .batch import Batch
    from .context import Context
    from .embedder import Embedder
    from .memory import Memory
    from .model import Model
    from .quantization import quantize
    from .rows import Int8Rows, TokenRows
    from .sampler import Sampler
    from .state import State
    from .threadpool import ThreadPool
    from .vocab import Vocab

__all__ = [
    "INCLUDE",
    "LIBRARIES",
    "Batch",
    "BorrowedError",
    "ClosedError",
    "ConcurrentUseError",
    "Context",
    "ContextCreateError",
    "ContextFullError",
    "DecodeAborted",
    "DecodeError",
    "Embedder",
    "ForkedError",
    "Int8Rows",
    "Interrupted",
    "InvalidArgumentError",
    "InvalidBatchError",
    "LibraryLoadError",
    "LlamaError",
    "LoraAdapter",
    "Memory",
    "Model",
    "ModelLoadError",
    "NativeAssertError",
    "Sampler",
    "State",
    "ThreadPool",
    "TokenRows",
    "TruncationWarning",
    "Vocab",
    "ffi",
    "lib",
    "pointer",
    "quantize",
    "view",
]

try:
    from . import log
    from .raw import ffi, lib
except LibraryLoadError:  # `rawllama doctor` must run; all else meets the error again when it asks for the library
    pass
else:
    log.start()

# numpy takes longer to import than all the rest: only what needs it loads it.
_LAZY = {
    "Batch": "batch",
    "Context": "context",
    "Embedder": "embedder",
    "Int8Rows": "rows",
    "LoraAdapter": "adapter",
    "Memory": "memory",
    "Model": "model",
    "Sampler": "sampler",
    "State": "state",
    "ThreadPool": "threadpool",
    "TokenRows": "rows",
    "Vocab": "vocab",
    "ffi": "raw",
    "lib": "raw",
    "log": "log",
    "pointer": "arrays",
    "quantize": "quantization",
    "view": "arrays",
}


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
