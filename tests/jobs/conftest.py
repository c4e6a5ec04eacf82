"""Inputs for jobs, and what reads their outputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rawllama import Embedder

WORDS = ("the", "cat", "sat", "on", "a", "mat")


@pytest.fixture(scope="session")
def bert(tiny: Callable[[str], Path]) -> str:
    """A random model that computes thousands of texts a second."""
    return str(tiny("bert"))


@pytest.fixture(scope="module")
def embedder(minilm: str) -> Iterator[Embedder]:
    with Embedder(minilm, progress=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def small(bert: str) -> Iterator[Embedder]:
    with Embedder(bert, progress=False) as opened:
        yield opened


@pytest.fixture
def texts() -> list[str]:
    """Short texts, some of them equal."""
    numbers = random.Random(1)
    return [" ".join(numbers.choices(WORDS, k=numbers.randint(1, 9))) for _ in range(1000)]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
