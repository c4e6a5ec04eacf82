"""Embeddings against the stored vectors of sentence-transformers, and against each other.

Two things keep libllama's vectors from the reference's last digits. Its BERT graph has the tanh approximation of
GELU where the model was trained with the exact one. And flash attention rounds keys and values to float16.

With ggml's kernels, a third: GELU is looked up by float16. What differs by a last bit there, because a batch was packed
otherwise, may round to the next float16, 1e-3 further on, so that unit vectors from different batches differ by up to
1.4e-4 in a component. rawllama's own kernels sum each row in one order, whatever is beside it: 6e-8.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Embedder
from rawllama.hub import resolve

DATA = Path(__file__).parent.parent / "data" / "minilm"
MAX_TOKENS = 512
# Of a unit vector's components, between one packing and another; pooling sums in the order of the batch. Seen: 9e-8.
PACKING = 1e-6

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """The stored texts, vectors and token ids."""

    names: list[str]
    texts: list[str]
    vectors: Matrix
    tokens: list[NDArray[np.int32]]
    differences: dict[str, dict[str, Any]]

    @property
    def agreeing(self) -> NDArray[np.bool_]:
        """The texts that libllama and Hugging Face cut into the same tokens."""
        return np.array([name not in self.differences for name in self.names])


@pytest.fixture(scope="module")
def reference() -> Reference:
    entries = json.loads((DATA / "texts.json").read_text(encoding="utf-8"))
    differences = json.loads((DATA / "token_differences.json").read_text(encoding="utf-8"))
    stored = np.load(DATA / "reference.npz")
    assert stored["ids"].tolist() == [entry["id"] for entry in entries]
    return Reference(
        names=[entry["id"] for entry in entries],
        texts=[entry["text"] for entry in entries],
        vectors=stored["normalized"],
        tokens=np.split(stored["token_ids"], stored["token_offsets"][1:-1]),
        differences={entry["id"]: entry for entry in differences},
    )


@pytest.fixture(scope="module")
def embedder(minilm: str) -> Iterator[Embedder]:
    with Embedder(minilm, n_threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def rows(embedder: Embedder, reference: Reference) -> Matrix:
    """All texts, embedded at once."""
    return embedder.encode(reference.texts, overlong="truncate")


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Of the rows of two matrices, shape (n,); 1 where both are zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.where(norms > 0, (a * b).sum(axis=-1) / np.where(norms > 0, norms, 1), (a == b).all(axis=-1))


def cut(tokens: NDArray[np.int32]) -> NDArray[np.int32]:
    """As the reference cuts: the first 511 and the closing [SEP]."""
    return tokens if tokens.size <= MAX_TOKENS else np.append(tokens[: MAX_TOKENS - 1], tokens[-1])


# ---- tokens


def test_the_tokens_that_differ_are_the_listed_ones(embedder: Embedder, reference: Reference) -> None:
    found = {
        name
        for name, text, theirs in zip(reference.names, reference.texts, reference.tokens, strict=True)
        if not np.array_equal(cut(embedder.tokenize(text)), theirs)
    }
    assert found == {name for name, entry in reference.differences.items() if entry["within_512"]}


def test_the_differing_tokens_are_as_listed(embedder: Embedder, reference: Reference) -> None:
    texts = dict(zip(reference.names, reference.texts, strict=True))
    for name, entry in reference.differences.items():
        ours = embedder.tokenize(texts[name])
        start, listed = entry["start"], entry["libllama"]
        assert ours.size == entry["tokens"][1], name
        assert ours[start:start + len(listed)].tolist() == listed, name


# ---- vectors


def test_f32(rows: Matrix, reference: Reference) -> None:
    assert np.count_nonzero(reference.agreeing) == 178
    same = cosines(rows, reference.vectors)[reference.agreeing]
    assert same.min() >= 0.99999, reference.names[int(np.flatnonzero(reference.agreeing)[same.argmin()])]
    assert np.abs(np.linalg.norm(rows.astype(np.float64), axis=1) - 1).max() < 1e-6


def test_f32_with_ggmls_kernels(minilm: str, reference: Reference) -> None:
    with Embedder(minilm, n_threads=1, kernels="ggml") as embedder:
        rows = embedder.encode(reference.texts, overlong="truncate")
    assert cosines(rows, reference.vectors)[reference.agreeing].min() >= 0.99999


@pytest.mark.parametrize(("outtype", "least", "mean"), [("f16", 0.99998, 0.99999), ("q8_0", 0.998, 0.9993)])
def test_smaller_weights(outtype: Any, least: float, mean: float, reference: Reference) -> None:
    with Embedder(resolve("minilm", outtype=outtype), n_threads=1) as embedder:
        rows = embedder.encode(reference.texts, overlong="truncate")
    same = cosines(rows, reference.vectors)[reference.agreeing]
    assert same.min() >= least
    assert same.mean() >= mean


def test_a_row_a_token(minilm: str, reference: Reference) -> None:
    stored = np.load(DATA / "tokens.npz")
    texts = dict(zip(reference.names, reference.texts, strict=True))
    with Embedder(minilm, pooling="none", n_threads=1) as embedder:
        rows, offsets, tokens = embedder.encode_tokens([texts[name] for name in stored["ids"]])
    assert offsets.tolist() == stored["offsets"].tolist()
    assert tokens.tolist() == stored["token_ids"].tolist()
    assert cosines(rows, stored["vectors"]).min() >= 0.99999
    # Not only the direction: token vectors are not normalised.
    lengths = np.linalg.norm(rows, axis=1) / np.linalg.norm(stored["vectors"], axis=1)
    assert np.abs(lengths - 1).max() < 5e-3


# ---- the same whatever the company


def test_one_by_one_equals_all_at_once(embedder: Embedder, rows: Matrix, reference: Reference) -> None:
    alone = np.concatenate([embedder.encode([text], overlong="truncate") for text in reference.texts])
    assert cosines(alone, rows).min() >= 0.999999
    assert np.abs(alone - rows).max() <= PACKING


def test_the_order_is_the_callers(embedder: Embedder, rows: Matrix, reference: Reference) -> None:
    order = np.random.default_rng(7).permutation(len(reference.texts))
    shuffled = embedder.encode([reference.texts[i] for i in order], overlong="truncate")
    assert cosines(shuffled, rows[order]).min() >= 0.999999


def test_duplicates_are_equal(embedder: Embedder, reference: Reference) -> None:
    chosen = [reference.names.index(name) for name in ("english_sentence_01", "english_paragraph_03", "empty_01")]
    rows = embedder.encode([reference.texts[i] for i in chosen] * 20)
    repeated = rows.reshape(20, len(chosen), -1)
    assert cosines(repeated, np.broadcast_to(repeated[0], repeated.shape)).min() >= 0.999999
    assert np.abs(repeated - repeated[0]).max() <= PACKING


def test_twice_is_the_same_bytes(embedder: Embedder, rows: Matrix, reference: Reference) -> None:
    assert embedder.encode(reference.texts, overlong="truncate").tobytes() == rows.tobytes()


# ---- poolings


@pytest.fixture(scope="module")
def token_rows(minilm: str, reference: Reference) -> tuple[list[Matrix], list[str]]:
    """One matrix a text, shape (tokens, 384), of the shorter texts."""
    texts = [text for text, tokens in zip(reference.texts, reference.tokens, strict=True) if tokens.size <= 64]
    with Embedder(minilm, pooling="none", n_threads=1) as embedder:
        rows, offsets, _ = embedder.encode_tokens(texts)
    return np.split(rows, offsets[1:-1]), texts


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ("mean", lambda matrix: matrix.mean(axis=0, dtype=np.float64)),
        ("cls", lambda matrix: matrix[0]),
        ("last", lambda matrix: matrix[-1]),
    ],
)
def test_pooling(minilm: str, token_rows: tuple[list[Matrix], list[str]], pooling: str, pool: Any) -> None:
    matrices, texts = token_rows
    with Embedder(minilm, pooling=pooling, n_threads=1) as embedder:
        rows = embedder.encode(texts, normalize="none")
        assert embedder.pooling == pooling
    # The same texts make the same batches, so the token vectors behind both are the same bits.
    assert np.abs(rows - np.stack([pool(matrix) for matrix in matrices])).max() <= 1e-5
