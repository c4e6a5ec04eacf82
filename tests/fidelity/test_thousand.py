"""A thousand English texts of 5 to 477 tokens against sentence-transformers in fp32, and against themselves.

The texts are rawllama.bench.corpus's; tests/data/minilm/make_thousand.py made the vectors.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Embedder
from rawllama.bench import corpus
from rawllama.hub import resolve

from ..tools import ROOT

DATA = ROOT / "tests" / "data" / "minilm"
SEED = 1000
# Largest difference of a unit vector's component between one batch and another.
COMPANY = 1e-5

Matrix = NDArray[np.float32]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    made = corpus.texts(1000, SEED)
    recorded = json.loads((DATA / "thousand.json").read_text(encoding="utf-8"))
    assert hashlib.sha256("\n".join(made).encode()).hexdigest() == recorded["texts_sha256"]
    return made


@pytest.fixture(scope="module")
def reference() -> Any:
    """The stored arrays: rows are `integers * scales`."""
    return np.load(DATA / "thousand.npz")


@pytest.fixture(scope="module")
def embedder(minilm: str) -> Iterator[Embedder]:
    with Embedder(minilm, n_threads=2) as made:
        yield made


@pytest.fixture(scope="module")
def rows(embedder: Embedder, texts: list[str]) -> Matrix:
    """All texts, embedded at once."""
    return embedder.encode(texts)


def test_the_tokens_are_hugging_faces(embedder: Embedder, texts: list[str], reference: Any) -> None:
    ours = [zlib.crc32(embedder.tokenize(text).astype(np.int32).tobytes()) for text in texts]
    assert [index for index, theirs in enumerate(reference["token_checksums"]) if ours[index] != theirs] == []


@pytest.mark.parametrize(
    ("outtype", "least", "mean"), [("f32", 0.99999, 0.999995), ("f16", 0.99998, 0.99999), ("q8_0", 0.998, 0.9995)]
)
def test_cosines(outtype: Any, least: float, mean: float, rows: Matrix, texts: list[str], reference: Any) -> None:
    if outtype == "f32":
        ours = rows.astype(np.float64)
    else:
        with Embedder(resolve("minilm", outtype=outtype), n_threads=2) as embedder:
            ours = embedder.encode(texts).astype(np.float64)
    theirs = reference["integers"] * reference["scales"][:, None].astype(np.float64)
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() >= least, texts[int(cosines.argmin())]
    assert cosines.mean() >= mean


def test_the_same_whatever_the_company(embedder: Embedder, rows: Matrix, texts: list[str]) -> None:
    shuffled = np.random.default_rng(3).permutation(len(texts))[:600]
    others = embedder.encode([texts[index] for index in shuffled])
    assert np.abs(others - rows[shuffled]).max() <= COMPANY


def test_the_same_alone(embedder: Embedder, rows: Matrix, texts: list[str]) -> None:
    alone = np.concatenate([embedder.encode([text]) for text in texts[::5]])
    assert np.abs(alone - rows[::5]).max() <= COMPANY


def test_another_run_gives_the_same_bytes(minilm: str, rows: Matrix, texts: list[str]) -> None:
    with Embedder(minilm, n_threads=2) as again:
        assert again.encode(texts).tobytes() == rows.tobytes()
