"""LangChain's `Embeddings`: `RawllamaEmbeddings("minilm")`."""

from __future__ import annotations

from typing import Any, cast

from ..errors import MissingExtraError
from ._source import ModelLike, Source

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise MissingExtraError("langchain-core is not installed: pip install 'rawllama[langchain]'") from error


class RawllamaEmbeddings(Embeddings):
    """Embeddings for LangChain's vector stores and retrievers. Cancelling an async method ends its computation.

    Parameters
    ----------
    model
        An `Embedder`, which stays the caller's; or the model of one, which is made now and ends with `close()` or this.
    settings
        Keywords of `Embedder`.
    """

    def __init__(self, model: ModelLike, **settings: Any) -> None:
        self._source = Source(model, settings)
        self._source.open()  # a wrong model or setting is told here, not at the first text

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents. The errors are those of `Embedder.encode`."""
        return cast("list[list[float]]", self._source.documents(texts).tolist())

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return cast("list[float]", self._source.queries(text).tolist())

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` beside the event loop."""
        return cast("list[list[float]]", (await self._source.documents_async(texts)).tolist())

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` beside the event loop."""
        return cast("list[float]", (await self._source.queries_async(text)).tolist())

    def close(self) -> None:
        """Close the Embedder that was made here; the next use makes another."""
        self._source.close()
