"""LlamaIndex: vectors, an index with its retriever, an ingestion pipeline, saving, async."""

from __future__ import annotations

import asyncio
import pickle

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from rawllama import Embedder, InvalidArgumentError, Model
from rawllama.integrations.llamaindex import RawllamaEmbedding

from .conftest import DOCUMENTS, LONG_TEXTS, PROMPTS, QUERIES, turns_during


@pytest.fixture
def face(embedder: Embedder) -> RawllamaEmbedding:
    return RawllamaEmbedding(embedder)


def nodes() -> list[TextNode]:
    return [TextNode(text=text, id_=str(i)) for i, text in enumerate(DOCUMENTS)]


def test_vectors_are_the_embedders(face: RawllamaEmbedding, documents: np.ndarray, queries: np.ndarray) -> None:
    rows = face.get_text_embedding_batch(DOCUMENTS)
    assert type(rows[0][0]) is float
    assert np.array_equal(np.array(rows, np.float32), documents)
    assert np.allclose(face.get_text_embedding(DOCUMENTS[1]), documents[1], atol=1e-5)
    assert np.allclose([face.get_query_embedding(text) for text in QUERIES], queries, atol=1e-5)


def test_async_does_not_block_the_loop(face: RawllamaEmbedding, documents: np.ndarray, queries: np.ndarray) -> None:
    rows, turns = asyncio.run(turns_during(face.aget_text_embedding_batch(LONG_TEXTS)))
    assert len(rows) == len(LONG_TEXTS)
    assert turns > 3
    assert np.allclose(asyncio.run(face.aget_query_embedding(QUERIES[0])), queries[0], atol=1e-5)
    assert np.allclose(asyncio.run(face.aget_text_embedding(DOCUMENTS[0])), documents[0], atol=1e-5)


def test_index_and_retriever(face: RawllamaEmbedding, documents: np.ndarray, queries: np.ndarray) -> None:
    retriever = VectorStoreIndex(nodes(), embed_model=face).as_retriever(similarity_top_k=1)
    for i, query in enumerate(QUERIES):
        (found,) = retriever.retrieve(query)
        assert found.node.node_id == str(i)
        assert found.score == pytest.approx(float(queries[i] @ documents[i]), abs=1e-5)


def test_ingestion_pipeline(face: RawllamaEmbedding, documents: np.ndarray) -> None:
    done = IngestionPipeline(transformations=[face]).run(nodes=nodes())
    assert np.array_equal(np.array([node.embedding for node in done], np.float32), documents)


def test_saved_and_restored(minilm: str, documents: np.ndarray) -> None:
    face = RawllamaEmbedding(minilm, prompts=PROMPTS, embed_batch_size=3)
    saved = face.to_dict()
    assert saved["model_name"] == minilm
    assert saved["settings"] == {"prompts": PROMPTS}
    for again in (RawllamaEmbedding.from_dict(saved), pickle.loads(pickle.dumps(face))):
        assert again.to_dict() == saved
        assert again.embed_batch_size == 3
        assert np.allclose(again.get_text_embedding_batch(DOCUMENTS), documents, atol=1e-5)
        again.close()
    face.close()


def test_the_records_tell_embedders_apart(embedder: Embedder, minilm: str, documents: np.ndarray) -> None:
    with Embedder(embedder.model, dims=64) as other:
        records = [RawllamaEmbedding(one).to_dict() for one in (embedder, other)]
    assert {record["model_name"] for record in records} == {minilm}
    assert [record["settings"]["dims"] for record in records] == [384, 64]
    assert records[0]["settings"]["prompts"] == PROMPTS
    again = RawllamaEmbedding.from_dict(records[0])
    assert np.array_equal(np.array(again.get_text_embedding_batch(DOCUMENTS), np.float32), documents)
    again.close()


def test_settings_go_to_the_embedder(embedder: Embedder, minilm: str) -> None:
    face = RawllamaEmbedding(minilm, dims=64)
    assert len(face.get_text_embedding("text")) == 64
    face.close()
    with Model(minilm) as model, pytest.raises(TypeError, match="dim"):
        RawllamaEmbedding(model, dim=64)
    with pytest.raises(InvalidArgumentError, match="dims: the Embedder that is given has its own"):
        RawllamaEmbedding(embedder, dims=64)


def test_many_texts_reach_the_embedder_together(face: RawllamaEmbedding) -> None:
    assert face.embed_batch_size == 2048
