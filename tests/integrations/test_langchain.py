"""LangChain: vectors, its vector store and retriever, async."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from rawllama import Embedder
from rawllama.integrations.langchain import RawllamaEmbeddings

from .conftest import DOCUMENTS, LONG_TEXTS, PROMPTS, QUERIES, turns_during


@pytest.fixture
def face(embedder: Embedder) -> RawllamaEmbeddings:
    return RawllamaEmbeddings(embedder)


def test_vectors_are_the_embedders(face: RawllamaEmbeddings, documents: np.ndarray, queries: np.ndarray) -> None:
    assert isinstance(face, Embeddings)
    rows = face.embed_documents(DOCUMENTS)
    assert type(rows[0][0]) is float
    assert np.array_equal(np.array(rows, np.float32), documents)
    assert np.allclose([face.embed_query(text) for text in QUERIES], queries, atol=1e-5)
    assert face.embed_documents([]) == []


def test_a_model_and_settings_make_the_same(minilm: str, documents: np.ndarray) -> None:
    face = RawllamaEmbeddings(minilm, prompts=PROMPTS)
    assert np.array_equal(np.array(face.embed_documents(DOCUMENTS), np.float32), documents)
    face.close()


def test_a_wrong_model_is_told_at_once() -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.gguf"):
        RawllamaEmbeddings("missing.gguf")


def test_async_does_not_block_the_loop(face: RawllamaEmbeddings, queries: np.ndarray) -> None:
    rows, turns = asyncio.run(turns_during(face.aembed_documents(LONG_TEXTS)))
    assert len(rows) == len(LONG_TEXTS)
    assert turns > 3
    assert np.allclose(asyncio.run(face.aembed_query(QUERIES[0])), queries[0], atol=1e-5)


def test_vector_store_and_retriever(face: RawllamaEmbeddings, documents: np.ndarray, queries: np.ndarray) -> None:
    store = InMemoryVectorStore.from_documents([Document(text) for text in DOCUMENTS], face)
    for i, query in enumerate(QUERIES):
        ((found, score),) = store.similarity_search_with_score(query, k=1)
        assert found.page_content == DOCUMENTS[i]
        assert score == pytest.approx(float(queries[i] @ documents[i]), abs=1e-5)
    (found,) = store.as_retriever(search_kwargs={"k": 1}).invoke(QUERIES[3])
    assert found.page_content == DOCUMENTS[3]
    (found,) = asyncio.run(store.asimilarity_search(QUERIES[4], k=1))
    assert found.page_content == DOCUMENTS[4]
