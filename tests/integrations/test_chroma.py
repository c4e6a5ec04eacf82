"""Chroma: vectors, collections in memory and on disk, what is saved of the function."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import chromadb
import numpy as np
import pytest
from chromadb.utils.embedding_functions import known_embedding_functions
from rawllama import Embedder, InvalidArgumentError
from rawllama.integrations.chroma import RawllamaEmbeddingFunction

from .conftest import DOCUMENTS, PROMPTS, QUERIES

IDS = [str(i) for i in range(len(DOCUMENTS))]


@pytest.fixture
def face(embedder: Embedder) -> RawllamaEmbeddingFunction:
    return RawllamaEmbeddingFunction(embedder)


def test_vectors_are_the_embedders(face: RawllamaEmbeddingFunction, documents: np.ndarray, queries: np.ndarray) -> None:
    assert np.array_equal(face(DOCUMENTS), documents)
    assert np.array_equal(face.embed_query(QUERIES), queries)


def test_collection(minilm: str, documents: np.ndarray, queries: np.ndarray) -> None:
    client = chromadb.EphemeralClient()
    face = RawllamaEmbeddingFunction(minilm, prompts=PROMPTS)
    collection = client.create_collection("in-memory", embedding_function=face)
    collection.add(ids=IDS, documents=DOCUMENTS)
    stored = collection.get(ids=IDS, include=["embeddings"])["embeddings"]
    assert np.allclose(stored, documents, atol=1e-6)
    found = collection.query(query_texts=QUERIES, n_results=1)
    assert found["ids"] == [[one] for one in IDS]
    # The distance is cosine's, and of the query's own vector.
    assert np.allclose(np.ravel(found["distances"]), 1 - (queries * documents).sum(axis=1), atol=1e-5)
    client.delete_collection("in-memory")
    face.close()


REOPEN = """
import json, sys
import chromadb
import rawllama.integrations.chroma
collection = chromadb.PersistentClient(sys.argv[1]).get_collection("on-disk")
found = collection.query(query_texts=json.loads(sys.argv[2]), n_results=1)
print(json.dumps([found["ids"], found["distances"]]))
"""


def test_another_process_restores_the_function(
    minilm: str, documents: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    face = RawllamaEmbeddingFunction(minilm, prompts=PROMPTS, n_threads=2)
    collection = chromadb.PersistentClient(tmp_path).create_collection("on-disk", embedding_function=face)
    collection.add(ids=IDS, documents=DOCUMENTS)
    face.close()
    done = subprocess.run(
        [sys.executable, "-c", REOPEN, str(tmp_path), json.dumps(QUERIES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ids, distances = json.loads(done.stdout)
    assert ids == [[one] for one in IDS]
    assert np.allclose(np.ravel(distances), 1 - (queries * documents).sum(axis=1), atol=1e-5)


def test_an_embedder_is_not_saved_and_chroma_says_so(face: RawllamaEmbeddingFunction, tmp_path: Path) -> None:
    client = chromadb.PersistentClient(tmp_path)
    with pytest.warns(DeprecationWarning, match="model: a Embedder cannot be saved"):
        collection = client.create_collection("given", embedding_function=face)
    collection.add(ids=IDS, documents=DOCUMENTS)
    again = client.get_collection("given", embedding_function=face)
    assert again.query(query_texts=QUERIES[2], n_results=1)["ids"] == [["2"]]


def test_looking_at_a_collection_loads_no_model() -> None:
    client = chromadb.EphemeralClient()
    client.create_collection("looked-at", embedding_function=RawllamaEmbeddingFunction("missing.gguf"))
    collection = client.get_collection("looked-at")
    assert collection.count() == 0
    with pytest.raises(FileNotFoundError, match=r"missing\.gguf"):
        collection.add(ids=IDS, documents=DOCUMENTS)
    client.delete_collection("looked-at")


def test_config(minilm: str, documents: np.ndarray) -> None:
    face = RawllamaEmbeddingFunction(minilm, prompts=PROMPTS, dims=384)
    config = json.loads(json.dumps(face.get_config()))
    assert config == {"model": minilm, "prompts": PROMPTS, "dims": 384}
    again = known_embedding_functions[face.name()].build_from_config(config)
    assert isinstance(again, RawllamaEmbeddingFunction)
    assert again.get_config() == config
    assert np.array_equal(again(DOCUMENTS), documents)
    again.close()


@pytest.mark.parametrize("config", [{}, {"model": 5}, {"dims": 64}])
def test_a_config_without_a_model_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match="config: model must be the name or path of a model"):
        RawllamaEmbeddingFunction.build_from_config(config)


def test_a_config_with_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="dim"):
        RawllamaEmbeddingFunction.validate_config({"model": "minilm", "dim": 64})
