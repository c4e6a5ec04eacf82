"""The tensors and numbers of a GGUF file, found without loading the model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from . import modelfile
from .arrays import pointer
from .errors import InvalidArgumentError, ModelLoadError, failure
from .model import Model
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

Source = Union[str, "os.PathLike[str]", Model, "Tensors"]
"""Path of a GGUF file, or of the first where a model is split; a Model that was loaded from one; or its `Tensors`."""


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies, and how."""

    name: str
    kind: int
    """Its `enum ggml_type`."""
    shape: tuple[int, ...]
    """As numpy has it: ggml's dimensions the other way round; two at least, but for vectors."""
    path: Path
    offset: int
    """Its first byte in the file."""

    @property
    def width(self) -> int:
        """Numbers a row."""
        return self.shape[-1]

    @property
    def n_rows(self) -> int:
        """Rows of all dimensions but the last."""
        return math.prod(self.shape[:-1])

    @property
    def type(self) -> str:
        """Name of its type, e.g. `q4_K`. Calls: ggml_type_name."""
        return str(ffi.string(lib.ggml_type_name(self.kind)), "ascii")

    @property
    def row_bytes(self) -> int:
        """Bytes a row. Calls: ggml_row_size."""
        return int(lib.ggml_row_size(self.kind, self.width))

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows."""
        return self.n_rows * self.row_bytes

    def rows(self, ids: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Rows as float32, shape (n, width); all without `ids`, which must be in range.

        Calls: ggml_get_type_traits (its to_float)
        """
        if not self.n_bytes or (ids is not None and not ids.size):
            return np.empty((0 if ids is not None else self.n_rows, self.width), np.float32)
        stored = np.memmap(self.path, np.uint8, "r", self.offset, (self.n_rows, self.row_bytes))
        return _dequantized(np.array(stored if ids is None else stored[ids]), self)


class Tensors:
    """What a GGUF file has, by name; all files of a split model.

    Parameters
    ----------
    source
        Path of the file, of the first where the model is split under the usual names; or a Model loaded from paths.

    Raises
    ------
    OSError
        The file cannot be read.
    ModelLoadError
        It is no GGUF, or it ends too early.
    InvalidArgumentError
        A model that was loaded from an open file has no path.

    Calls: gguf_init_from_file, gguf_get_n_tensors, gguf_get_tensor_name, gguf_get_tensor_offset, gguf_get_data_offset,
    gguf_get_tensor_type, ggml_get_tensor, ggml_n_dims, gguf_free, ggml_free
    """

    def __init__(self, source: Source) -> None:
        self.paths = _paths(source)
        self._tensors: dict[str, Tensor] = {}
        self._numbers: dict[str, float] = {}
        #: The GGUF's `general.architecture`, e.g. `bert`.
        self.architecture = ""
        for path in self.paths:
            self._read(path)

    @classmethod
    def of(cls, source: Source) -> Tensors:
        """`source` itself if it is one."""
        return source if isinstance(source, Tensors) else cls(source)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def values(self) -> tuple[Tensor, ...]:
        """All tensors, in the file's order."""
        return tuple(self._tensors.values())

    def __getitem__(self, name: str) -> Tensor:
        if name in self._tensors:
            return self._tensors[name]
        raise InvalidArgumentError(f"name: {self.paths[0]} has no tensor {name!r}{self._instead(name)}")

    def number(self, key: str, default: float) -> float:
        """A number of the metadata by its key, which begins with the architecture: `attention.head_count`."""
        return self._numbers.get(f"{self.architecture}.{key}", default)

    def vector(self, name: str) -> NDArray[np.float32] | None:
        """The numbers of a small tensor in one row, such as a norm's weight; None if it is not there."""
        return self[name].rows().ravel() if name in self else None

    def _instead(self, name: str) -> str:
        near = get_close_matches(name, self._tensors, n=1, cutoff=0)
        return f"; the closest is {near[0]}" if near else "; it has none at all"

    def _read(self, path: Path) -> None:
        size = path.stat().st_size
        with _opened(path) as (file, shapes):
            self._numbers |= modelfile.numbers_of(file)
            self.architecture = self.architecture or modelfile.text_of(file, b"general.architecture")
            for index in range(lib.gguf_get_n_tensors(file)):
                tensor = _tensor(file, shapes, index, path)
                if tensor.offset + tensor.n_bytes > size:
                    raise ModelLoadError(f"{path} is damaged: it ends before the tensor {tensor.name} does")
                self._tensors[tensor.name] = tensor


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The file's `gguf_context *`, and a `ggml_context *` that knows the tensors' shapes."""
    shapes = ffi.new("struct ggml_context **")
    params = ffi.new("struct gguf_init_params *", {"no_alloc": True, "ctx": shapes})
    file = lib.gguf_init_from_file(os.fsencode(path), params[0])
    if not file:
        with path.open("rb"):  # a missing file or a folder is Python's own error, which names it
            words = f"{path} is no GGUF file, or it is damaged"
            raise failure(ModelLoadError, "gguf_init_from_file", words)
    try:
        yield file, shapes[0]
    finally:
        lib.ggml_free(shapes[0])
        lib.gguf_free(file)


def _tensor(file: Any, shapes: Any, index: int, path: Path) -> Tensor:
    name = lib.gguf_get_tensor_name(file, index)
    shape = lib.ggml_get_tensor(shapes, name)
    offset = lib.gguf_get_data_offset(file) + lib.gguf_get_tensor_offset(file, index)
    kind = lib.gguf_get_tensor_type(file, index)
    n_dims = max(1, lib.ggml_n_dims(shape))
    return Tensor(modelfile.string_of(name), kind, tuple(shape.ne[n_dims - 1 - i] for i in range(n_dims)), path, offset)


def _paths(source: Source) -> tuple[Path, ...]:
    if isinstance(source, Tensors):
        return source.paths
    given = source.paths if isinstance(source, Model) else (source,)
    if not given:
        raise InvalidArgumentError("source: the model was loaded from an open file; give the file's path")
    if not all(isinstance(path, (str, os.PathLike)) for path in given):
        raise InvalidArgumentError(f"source: {type(source).__name__} is no path of a GGUF file and no Model")
    for path in given:
        Path(path).stat()  # a missing file is Python's own error, which names it
    others = modelfile.other_splits(given[0]) if len(given) == 1 else ()
    return tuple(map(Path, (*given, *others)))


def _dequantized(stored: NDArray[np.uint8], tensor: Tensor) -> NDArray[np.float32]:
    """Rows as float32: what ggml itself makes of their bytes."""
    if tensor.kind == lib.GGML_TYPE_F32:
        return stored.view(np.float32)
    to_float = lib.ggml_get_type_traits(tensor.kind).to_float
    if not to_float:
        raise InvalidArgumentError(f"name: the tensor {tensor.name} is {tensor.type}, which is no type of weights")
    rows = np.empty((len(stored), tensor.width), np.float32)
    to_float(pointer(stored, "uint8_t *", writable=False), pointer(rows, "float *"), math.prod(rows.shape))
    return rows
