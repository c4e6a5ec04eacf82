"""Haystack's components: `RawllamaTextEmbedder("minilm")` for queries, `RawllamaDocumentEmbedder("minilm")`.

Loading a saved pipeline with them asks Haystack to allow `rawllama.*`, as for any module that is not Haystack's own:
`Pipeline.loads(text, allowed_modules=["rawllama.*"])`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from ._source import ModelLike, Source

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError as error:
    raise MissingExtraError("haystack-ai is not installed: pip install 'rawllama[haystack]'") from error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@component
class RawllamaTextEmbedder:
    """Embeds a query.

    Parameters
    ----------
    model
        An `Embedder`, which stays the caller's and cannot be saved with a pipeline; or the model of one, which
        `warm_up` or the first use makes, and which ends with `close()` or this.
    settings
        Keywords of `Embedder`.
    """

    def __init__(self, model: ModelLike, **settings: Any) -> None:
        self._source = Source(model, settings)

    def warm_up(self) -> None:
        """Make the Embedder."""
        self._source.open()

    def close(self) -> None:
        """Close the Embedder that was made here; the next use makes another."""
        self._source.close()

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Embed one text: `{"embedding": list of floats}`.

        Raises
        ------
        TypeError
            It is no string.
        """
        return {"embedding": self._source.queries(_string(text)).tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """`run` beside the event loop; cancelling ends the computation."""
        return {"embedding": (await self._source.queries_async(_string(text))).tolist()}

    def to_dict(self) -> dict[str, Any]:
        """What makes the component again.

        Raises
        ------
        InvalidArgumentError
            An Embedder or a Model was given.
        """
        return default_to_dict(self, **self._source.recipe())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RawllamaTextEmbedder:
        """Make the component again from what `to_dict` gave."""
        return default_from_dict(cls, data)


@component
class RawllamaDocumentEmbedder:
    """Embeds documents.

    Parameters
    ----------
    model
        An `Embedder`, which stays the caller's and cannot be saved with a pipeline; or the model of one, which
        `warm_up` or the first use makes, and which ends with `close()` or this.
    meta_fields_to_embed
        Fields of `Document.meta` to embed before the content.
    embedding_separator
        What stands between them.
    settings
        Keywords of `Embedder`.
    """

    def __init__(
        self,
        model: ModelLike,
        *,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
        **settings: Any,
    ) -> None:
        self._source = Source(model, settings)
        self._meta_fields = list(meta_fields_to_embed)
        self._separator = embedding_separator

    def warm_up(self) -> None:
        """Make the Embedder."""
        self._source.open()

    def close(self) -> None:
        """Close the Embedder that was made here; the next use makes another."""
        self._source.close()

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Embed documents: `{"documents": copies with `embedding` set}`.

        Raises
        ------
        TypeError
            They are no list of Documents.
        """
        return _with_rows(documents, self._source.documents(self._texts(documents)))

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """`run` beside the event loop; cancelling ends the computation."""
        return _with_rows(documents, await self._source.documents_async(self._texts(documents)))

    def _texts(self, documents: list[Document]) -> list[str]:
        """What is embedded of each document."""
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise TypeError(
                "documents: RawllamaDocumentEmbedder takes a list of Documents; RawllamaTextEmbedder takes a string"
            )
        return [self._separator.join([*self._meta(one), one.content or ""]) for one in documents]

    def _meta(self, document: Document) -> list[str]:
        """The fields before the content, those that the document has."""
        return [str(document.meta[field]) for field in self._meta_fields if document.meta.get(field) is not None]

    def to_dict(self) -> dict[str, Any]:
        """What makes the component again.

        Raises
        ------
        InvalidArgumentError
            An Embedder or a Model was given.
        """
        own = {"meta_fields_to_embed": self._meta_fields, "embedding_separator": self._separator}
        return default_to_dict(self, **own, **self._source.recipe())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RawllamaDocumentEmbedder:
        """Make the component again from what `to_dict` gave."""
        return default_from_dict(cls, data)


def _string(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError("text: RawllamaTextEmbedder takes a string; RawllamaDocumentEmbedder takes Documents")
    return text


def _with_rows(documents: list[Document], rows: NDArray[np.float32]) -> dict[str, Any]:
    """Copies of the documents with their rows, as a component gives them."""
    return {"documents": [replace(one, embedding=row.tolist()) for one, row in zip(documents, rows, strict=True)]}
