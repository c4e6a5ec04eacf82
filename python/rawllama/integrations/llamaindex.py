"""LlamaIndex's `BaseEmbedding`: `RawllamaEmbedding("minilm")`."""

from __future__ import annotations

import os
from typing import Any, cast

from ..embedder import Embedder
from ..errors import MissingExtraError
from ..model import Model
from ._source import ModelLike, Source, vector_settings

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
except ImportError as error:
    raise MissingExtraError("llama-index-core is not installed: pip install 'rawllama[llama-index]'") from error

# The largest that LlamaIndex allows: the Embedder packs the texts of one call, and packs many better than few.
BATCH_SIZE = 2048


class RawllamaEmbedding(BaseEmbedding):
    """Embeddings for LlamaIndex's indexes and ingestion pipelines. Cancelling an async method ends its computation.

    Parameters
    ----------
    model_name
        An `Embedder`, which stays the caller's; or the model of one, which is made now and ends with `close()` or this.
    settings
        Keywords of `Embedder`, which may also stand beside LlamaIndex's own (`embed_batch_size`, `num_workers`, ...).
    """

    settings: dict[str, Any] = Field(default_factory=dict, description="Keywords of rawllama.Embedder.")
    _source: Source = PrivateAttr()

    def __init__(self, model_name: ModelLike, **fields: Any) -> None:
        given = {name: fields.pop(name) for name in list(fields) if name not in BaseEmbedding.model_fields}
        settings = {**given.pop("settings", {}), **given}
        source = Source(model_name, settings)
        embedder = source.open()
        if isinstance(model_name, Embedder):  # so that LlamaIndex's caches tell one from another
            settings = vector_settings(embedder)
        if isinstance(model_name, Embedder | Model):
            model_name = next(iter(embedder.model.paths), embedder.model.description)
        super().__init__(
            **{"embed_batch_size": BATCH_SIZE, **fields, "model_name": os.fspath(model_name), "settings": settings}
        )
        self._source = source

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's records."""
        return "RawllamaEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return cast("list[float]", self._source.queries(query).tolist())

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return cast("list[float]", (await self._source.queries_async(query)).tolist())

    def _get_text_embedding(self, text: str) -> list[float]:
        return cast("list[float]", self._source.documents(text).tolist())

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return cast("list[float]", (await self._source.documents_async(text)).tolist())

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return cast("list[list[float]]", self._source.documents(texts).tolist())

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return cast("list[list[float]]", (await self._source.documents_async(texts)).tolist())

    def close(self) -> None:
        """Close the Embedder that was made here; the next use makes another."""
        self._source.close()
