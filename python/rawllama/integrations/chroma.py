"""An embedding function of Chroma: `RawllamaEmbeddingFunction("minilm")`."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidArgumentError, MissingExtraError
from ._source import ModelLike, Source

try:
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError as error:
    raise MissingExtraError("chromadb is not installed: pip install 'rawllama[chroma]'") from error


@register_embedding_function
class RawllamaEmbeddingFunction(EmbeddingFunction[Documents]):
    """An embedding function that Chroma saves with a collection, and restores where this module was imported.

    Parameters
    ----------
    model
        An `Embedder`, which stays the caller's and which Chroma cannot save; or the model of one, which is made at the
        first use and ends with `close()` or this.
    settings
        Keywords of `Embedder`. Chroma saves them as JSON.
    """

    def __init__(self, model: ModelLike, **settings: Any) -> None:
        # Chroma builds another of these for each look at a collection, often without a text to embed.
        self._source = Source(model, settings)

    def __call__(self, input: Documents) -> Embeddings:
        """Vectors of documents."""
        return list(self._source.documents(input))

    def embed_query(self, input: Documents) -> Embeddings:
        """Vectors of queries."""
        return list(self._source.queries(input))

    @staticmethod
    def name() -> str:
        """The name under which Chroma saves it."""
        return "rawllama"

    def default_space(self) -> Space:
        """Cosine, which does not ask for normalised vectors."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """What Chroma saves: the model and the settings.

        Raises
        ------
        InvalidArgumentError
            An Embedder or a Model was given. Chroma makes a warning of it and asks for the function at each opening.
        """
        return self._source.recipe()

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> RawllamaEmbeddingFunction:
        """Make the function again from what `get_config` gave."""
        RawllamaEmbeddingFunction.validate_config(config)
        return RawllamaEmbeddingFunction(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Check what `get_config` gave.

        Raises
        ------
        InvalidArgumentError
            It does not name a model.
        TypeError
            It has a setting that `Embedder` does not know.
        """
        if not isinstance(config.get("model"), str):
            raise InvalidArgumentError("config: model must be the name or path of a model")
        RawllamaEmbeddingFunction(**config)

    def close(self) -> None:
        """Close the Embedder that was made here; the next use makes another."""
        self._source.close()
