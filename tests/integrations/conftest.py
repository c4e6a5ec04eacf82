"""An Embedder, a few texts, and no way to the network."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

# Before the packages are imported: they read these once.
os.environ.update(
    ANONYMIZED_TELEMETRY="False",
    HAYSTACK_TELEMETRY_ENABLED="False",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    LANGSMITH_TRACING="false",
)

import numpy as np
from rawllama import Embedder

#: Documents and queries get other prefixes, so that a face that mixes them up gives other vectors.
PROMPTS = {"query": "query: ", "document": "passage: "}
DOCUMENTS = [
    "The cat sits outside in the sun.",
    "A man plays the guitar on the stage.",
    "The new film is a comedy about two brothers.",
    "Bread is baked in a hot oven.",
    "Rain is expected in the mountains tomorrow.",
]
#: The document of the same index is nearest.
QUERIES = ["a feline outdoors", "live music", "something funny to watch", "how loaves are made", "weather forecast"]
#: Enough to compute for a while.
LONG_TEXTS = [f"{DOCUMENTS[0] * 20} {i}" for i in range(32)]
Result = TypeVar("Result")


async def turns_during(work: Coroutine[Any, Any, Result]) -> tuple[Result, int]:
    """The result of `work`, and how often the loop turned meanwhile: once where `work` blocks it."""
    task = asyncio.create_task(work)
    turns = 0
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    return await task, turns


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse connections, and fail for each one that was tried, by a thread too."""
    tried: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise ConnectionRefusedError(f"no network in these tests: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    yield
    assert not tried


@pytest.fixture(scope="module")
def embedder(minilm: str) -> Iterator[Embedder]:
    """all-MiniLM-L6-v2 with `PROMPTS`."""
    with Embedder(minilm, prompts=PROMPTS) as made:
        yield made


@pytest.fixture(scope="module")
def documents(embedder: Embedder) -> Any:
    """What the Embedder gives for `DOCUMENTS`: float32, shape (5, 384)."""
    return embedder.encode_document(DOCUMENTS)


@pytest.fixture(scope="module")
def queries(embedder: Embedder, documents: Any) -> Any:
    """What the Embedder gives for `QUERIES`: float32, shape (5, 384)."""
    rows = embedder.encode_query(QUERIES)
    assert isinstance(rows, np.ndarray)
    assert np.array_equal((rows @ documents.T).argmax(axis=1), np.arange(len(DOCUMENTS)))
    assert np.abs(rows - embedder.encode_document(QUERIES)).max() > 0.01
    return rows
