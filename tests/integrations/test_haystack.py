"""Haystack: vectors, pipelines that write and query, saved and restored, async."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from rawllama import Embedder, InvalidArgumentError
from rawllama._handle import live
from rawllama.integrations.haystack import RawllamaDocumentEmbedder, RawllamaTextEmbedder

from .conftest import DOCUMENTS, LONG_TEXTS, PROMPTS, QUERIES, turns_during


def vectors(found: list[Document]) -> np.ndarray:
    return np.array([document.embedding for document in found], np.float32)


def test_vectors_are_the_embedders(embedder: Embedder, documents: np.ndarray, queries: np.ndarray) -> None:
    given = [Document(content=text) for text in DOCUMENTS]
    done = RawllamaDocumentEmbedder(embedder).run(given)["documents"]
    assert np.array_equal(vectors(done), documents)
    assert [document.id for document in done] == [document.id for document in given]
    assert given[0].embedding is None
    embedding = RawllamaTextEmbedder(embedder).run(QUERIES[1])["embedding"]
    assert type(embedding[0]) is float
    assert np.allclose(embedding, queries[1], atol=1e-5)
    assert RawllamaDocumentEmbedder(embedder).run([]) == {"documents": []}


def test_meta_fields_stand_before_the_content(embedder: Embedder) -> None:
    face = RawllamaDocumentEmbedder(
        embedder, meta_fields_to_embed=["title", "year", "absent"], embedding_separator=" | "
    )
    given = [Document(content="Text.", meta={"title": "A title", "year": 1999}), Document(meta={"title": None})]
    done = face.run(given)["documents"]
    assert np.array_equal(vectors(done), embedder.encode_document(["A title | 1999 | Text.", ""]))


def test_the_wrong_input_is_refused(embedder: Embedder) -> None:
    with pytest.raises(TypeError, match="text: RawllamaTextEmbedder takes a string"):
        RawllamaTextEmbedder(embedder).run([Document(content="text")])  # type: ignore[arg-type]
    for wrong in ("text", ["text"]):
        with pytest.raises(TypeError, match="documents: RawllamaDocumentEmbedder takes a list of Documents"):
            RawllamaDocumentEmbedder(embedder).run(wrong)  # type: ignore[arg-type]


def pipelines(model: str) -> tuple[Pipeline, Pipeline]:
    """One that writes documents to a store, one that queries it."""
    store = InMemoryDocumentStore(embedding_similarity_function="cosine", index="rawllama-test")
    writing, querying = Pipeline(), Pipeline()
    writing.add_component("embedder", RawllamaDocumentEmbedder(model, prompts=PROMPTS, embedding_separator="; "))
    writing.add_component("writer", DocumentWriter(store))
    writing.connect("embedder.documents", "writer.documents")
    querying.add_component("embedder", RawllamaTextEmbedder(model, prompts=PROMPTS))
    querying.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    querying.connect("embedder.embedding", "retriever.query_embedding")
    return writing, querying


def test_pipelines_restored_from_text(
    minilm: str, documents: np.ndarray, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "rawllama.*")
    before = live["Model"]
    saved = [pipeline.dumps() for pipeline in pipelines(minilm)]
    assert "embedding_separator: '; '" in saved[0]
    writing, querying = (Pipeline.loads(text) for text in saved)
    assert [writing.dumps(), querying.dumps()] == saved
    assert live["Model"] == before
    writing.run({"embedder": {"documents": [Document(content=text) for text in DOCUMENTS]}})
    for i, query in enumerate(QUERIES):
        (found,) = querying.run({"embedder": {"text": query}})["retriever"]["documents"]
        assert found.content == DOCUMENTS[i]
        assert found.score == pytest.approx(float(queries[i] @ documents[i]), abs=1e-5)
    assert live["Model"] == before + 2
    for pipeline in (writing, querying):
        pipeline.get_component("embedder").close()
    assert live["Model"] == before


def test_warm_up_loads_the_model(minilm: str) -> None:
    before = live["Model"]
    for face in (RawllamaTextEmbedder(minilm), RawllamaDocumentEmbedder(minilm)):
        assert live["Model"] == before
        face.warm_up()
        face.warm_up()
        assert live["Model"] == before + 1
        face.close()


def test_an_embedder_is_not_saved(embedder: Embedder) -> None:
    for face in (RawllamaTextEmbedder(embedder), RawllamaDocumentEmbedder(embedder)):
        with pytest.raises(InvalidArgumentError, match="model: a Embedder cannot be saved"):
            face.to_dict()


def test_async_does_not_block_the_loop(embedder: Embedder, queries: np.ndarray) -> None:
    texts = [Document(content=text) for text in LONG_TEXTS]
    done, turns = asyncio.run(turns_during(RawllamaDocumentEmbedder(embedder).run_async(texts)))
    assert vectors(done["documents"]).shape == (len(LONG_TEXTS), 384)
    assert turns > 3
    query = asyncio.run(RawllamaTextEmbedder(embedder).run_async(QUERIES[0]))
    assert np.allclose(query["embedding"], queries[0], atol=1e-5)
