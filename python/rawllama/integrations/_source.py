"""What the faces share: an Embedder of the caller's, or what makes one."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._options import DOCUMENT_PROMPTS
from ..embedder import Embedder
from ..errors import InvalidArgumentError
from ..model import Model
from ..rows import Int8Rows, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What a face takes as its model.
ModelLike = str | os.PathLike[str] | Model | Embedder


class Source:
    """An Embedder that is given, or one that is made at first use and closed together with this.

    Parameters
    ----------
    model
        An Embedder, which stays the caller's; or what `Embedder` takes as its model.
    settings
        Keywords of `Embedder`.

    Raises
    ------
    InvalidArgumentError
        Settings beside an Embedder, which has its own.
    TypeError
        A setting that `Embedder` does not know.
    """

    def __init__(self, model: ModelLike, settings: Mapping[str, Any]) -> None:
        if not isinstance(model, Embedder):
            inspect.signature(Embedder).bind(model, **settings)
        elif settings:
            raise InvalidArgumentError(
                f"{', '.join(settings)}: the Embedder that is given has its own; set it there, or pass a model"
            )
        self._model = model
        self._settings = dict(settings)
        self._mutex = threading.Lock()
        self._made: Embedder | None = None
        self._close_made: weakref.finalize[..., Source] | None = None

    def __reduce__(self) -> Any:
        return Source, (self._model, self._settings)

    def open(self) -> Embedder:
        """The Embedder, made if need be. Its exceptions are `Embedder`'s."""
        if isinstance(self._model, Embedder):
            return self._model
        with self._mutex:
            if self._made is None:
                self._made = Embedder(self._model, **self._settings)
                self._close_made = weakref.finalize(self, self._made.close)
            return self._made

    def close(self) -> None:
        """Close the Embedder that was made here; the next use makes another."""
        with self._mutex:
            if self._close_made is not None:
                self._close_made()
            self._made = self._close_made = None

    def recipe(self) -> dict[str, Any]:
        """What makes the Embedder again elsewhere: `model`, a string, and the settings.

        Raises
        ------
        InvalidArgumentError
            An Embedder or a Model was given, which live in this process only.
        """
        if isinstance(self._model, Embedder | Model):
            kind = type(self._model).__name__
            raise InvalidArgumentError(f"model: a {kind} cannot be saved; pass the model's name or path, and settings")
        return {"model": os.fspath(self._model), **self._settings}

    def queries(self, texts: str | Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, shape (n, dims), or (dims,) for one string."""
        embedder = self.open()
        return float32(embedder.encode_query(texts), embedder.dims)

    def documents(self, texts: str | Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, shape (n, dims), or (dims,) for one string."""
        embedder = self.open()
        return float32(embedder.encode_document(texts), embedder.dims)

    async def queries_async(self, texts: str | Sequence[str]) -> NDArray[np.float32]:
        """`queries` beside the event loop; cancelling ends the computation."""
        embedder = await asyncio.to_thread(self.open)
        prompt = "query" if "query" in embedder.prompts else ""
        return float32(await embedder.encode_async(texts, prompt=prompt), embedder.dims)

    async def documents_async(self, texts: str | Sequence[str]) -> NDArray[np.float32]:
        """`documents` beside the event loop; cancelling ends the computation."""
        embedder = await asyncio.to_thread(self.open)
        prompt = next((name for name in DOCUMENT_PROMPTS if name in embedder.prompts), "")
        return float32(await embedder.encode_async(texts, prompt=prompt), embedder.dims)


def vector_settings(embedder: Embedder) -> dict[str, Any]:
    """The keywords of `Embedder` that its vectors depend on, as it has them."""
    names = ("pooling", "normalize", "max_tokens", "dims", "dtype", "overlong", "overlap")
    return {**{name: getattr(embedder, name) for name in names}, "prompts": dict(embedder.prompts)}


def float32(rows: Rows, dims: int) -> NDArray[np.float32]:
    """Rows of any dtype of `Embedder` as float32, shape (..., dims): of packed bits, 1 is 1 and 0 is -1."""
    if isinstance(rows, Int8Rows):
        return rows.values * rows.scales[..., np.newaxis]
    if rows.dtype == np.uint8:
        return np.unpackbits(rows, axis=-1, count=dims) * np.float32(2) - np.float32(1)
    return rows.astype(np.float32, copy=False)
