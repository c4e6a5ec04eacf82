"""What the tests of the cache share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rawllama import Embedder
from rawllama.cache import Cache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a cache may be made."""
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> Iterator[Cache]:
    """An empty cache."""
    with Cache(folder) as cache:
        yield cache


@pytest.fixture(scope="module")
def embedder(minilm: str) -> Iterator[Embedder]:
    """MiniLM with two prompts."""
    with Embedder(minilm, prompts={"query": "query: ", "title": "title: "}) as embedder:
        yield embedder


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many texts Embedders have computed since it was asked last: those that become tokens."""
    from rawllama._pipeline import Pipeline

    count = 0
    prepare = Pipeline.prepare

    def counted(self: Pipeline, texts: object, indices: object, *rest: object, **named: object) -> object:
        nonlocal count
        count += len(indices)  # type: ignore[arg-type]
        return prepare(self, texts, indices, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "prepare", counted)

    def taken() -> int:
        nonlocal count
        value, count = count, 0
        return value

    return taken
