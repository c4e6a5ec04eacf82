"""Cosine, dot, euclid and late interaction, against plain loops in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import InvalidArgumentError, similarity
from rawllama.rows import Int8Rows, TokenRows
from rawllama.similarity import METRICS, maxsim

Matrix = NDArray[Any]


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def cosine(a: list[float], b: list[float]) -> float:
    lengths = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
    return dot(a, b) / lengths if lengths else 0.0


def euclid(a: list[float], b: list[float]) -> float:
    return -math.dist(a, b)


BY_HAND: dict[str, Callable[[list[float], list[float]], float]] = {"dot": dot, "cosine": cosine, "euclid": euclid}


def by_hand(metric: str, a: Matrix, b: Matrix) -> Matrix:
    return np.array([[BY_HAND[metric](x, y) for y in b.tolist()] for x in a.tolist()])


def random(n: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([n, width, seed]).standard_normal((n, width)).astype(np.float32)


def int8(rows: NDArray[np.float32]) -> Int8Rows:
    scales = np.abs(rows).max(axis=1) / 127
    return Int8Rows(np.round(rows / scales[:, None]).astype(np.int8), scales.astype(np.float32))


def widened(rows: Any, width: int) -> Matrix:
    """What the rows stand for, in float64."""
    if isinstance(rows, Int8Rows):
        return rows.values * rows.scales[:, None].astype(np.float64)
    if rows.dtype == np.uint8:
        bits = [[byte >> (7 - bit) & 1 for byte in row for bit in range(8)][:width] for row in rows.tolist()]
        return np.array([[1.0 if bit else -1.0 for bit in row] for row in bits])
    return rows.astype(np.float64)


KINDS: dict[str, Callable[[NDArray[np.float32]], Any]] = {
    "float32": lambda rows: rows,
    "float16": lambda rows: rows.astype(np.float16),
    "int8": int8,
    "ubinary": lambda rows: np.packbits(rows > 0, axis=1),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_against_loops(first: str, second: str, metric: str) -> None:
    a, b = KINDS[first](random(7, 24)), KINDS[second](random(5, 24, seed=1))
    found = similarity.similarity(a, b, metric)
    assert found.shape == (7, 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(metric, widened(a, 24), widened(b, 24)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_bits_that_fill_no_byte(metric: str) -> None:
    """20 numbers and 3 bytes: against numbers the last four bits are left out."""
    numbers, bits = random(4, 20), np.packbits(random(3, 20, seed=1) > 0, axis=1)
    found = similarity.similarity(numbers, bits, metric)
    np.testing.assert_allclose(found, by_hand(metric, numbers, widened(bits, 20)), rtol=1e-5, atol=1e-5)
    assert np.allclose(similarity.similarity(bits, numbers, metric), found.T, atol=1e-5)


def test_bits_are_hamming_distances() -> None:
    bits = np.random.default_rng(0).integers(0, 256, (6, 16), np.uint8)
    differ = np.array([[sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True)) for b in bits.tolist()]
                       for a in bits.tolist()])  # fmt: skip
    assert np.array_equal(similarity.similarity(bits, metric="dot"), 128 - 2 * differ)
    assert np.allclose(similarity.similarity(bits, metric="euclid"), -2 * np.sqrt(differ))


@pytest.mark.parametrize("metric", METRICS)
def test_blocks(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in blocks of any size."""
    a, b = int8(random(23, 16)), random(17, 16)
    whole = similarity.similarity(a, b, metric)
    for block, rows in ((16 * 5, 100), (1 << 22, 4), (1, 1)):
        monkeypatch.setattr(similarity, "_BLOCK", block)
        monkeypatch.setattr(similarity, "_BLOCK_ROWS", rows)
        np.testing.assert_allclose(similarity.similarity(a, b, metric), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_single_rows(kind: str) -> None:
    rows = KINDS[kind](random(3, 16))
    one = Int8Rows(rows.values[1], rows.scales[1]) if isinstance(rows, Int8Rows) else rows[1]
    whole = similarity.similarity(rows)
    assert np.allclose(similarity.similarity(one, rows), whole[1], atol=1e-6)
    assert np.allclose(similarity.similarity(rows, one), whole[:, 1], atol=1e-6)
    assert np.ndim(similarity.similarity(one, one)) == 0
    assert similarity.similarity(one, one) == pytest.approx(1, abs=1e-6)


def test_equal_and_empty_rows() -> None:
    rows = 1000 + random(4, 32)
    assert np.abs(np.diag(similarity.similarity(rows, metric="euclid"))).max() < 1e-4
    assert (similarity.similarity(np.zeros((2, 8), np.float32), random(3, 8)) == 0).all()
    assert similarity.similarity(random(0, 8), random(3, 8)).shape == (0, 3)


def test_memory_is_bounded() -> None:
    """A query against 200,000 packed documents: as float32 they would take 300 MB."""
    import tracemalloc

    documents = np.zeros((200_000, 48), np.uint8)
    query = random(1, 384)[0]
    tracemalloc.start()
    similarity.similarity(query, documents)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


@pytest.mark.parametrize(
    ("a", "b", "metric", "words"),
    [
        (random(2, 8), random(2, 9), "dot", "b: rows of 9 numbers, and a: rows of 8 numbers; embed both with the same"),
        (random(2, 25), np.zeros((1, 3), np.uint8), "dot", "b: rows of 24 bits, and a: rows of 25 numbers"),
        (random(2, 16), np.zeros((1, 3), np.uint8), "dot", "b: rows of 24 bits, and a: rows of 16 numbers"),
        (np.zeros((1, 2), np.uint8), np.zeros((1, 3), np.uint8), "dot", "b: rows of 24 bits, and a: rows of 16 bits"),
        (random(2, 8), np.zeros((2, 8), np.int64), "dot", r"b: int64, shape \(2, 8\) is no row and no matrix"),
        (np.zeros((2, 2, 2), np.float32), random(2, 2), "dot", r"a: float32, shape \(2, 2, 2\) is no row"),
        (np.float32(1), random(2, 2), "dot", r"a: float32, shape \(\) is no row"),
        (random(2, 8), random(2, 8), "manhattan", "metric: 'manhattan' is none of cosine, dot, euclid"),
    ],
)
def test_refused(a: Any, b: Any, metric: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        similarity.similarity(a, b, metric)


# ---- late interaction


def texts_of(lengths: list[int], width: int, seed: int = 0) -> TokenRows:
    offsets = np.cumsum([0, *lengths])
    return TokenRows(random(int(offsets[-1]), width, seed), offsets, np.arange(offsets[-1], dtype=np.int32))


def maxsim_by_hand(queries: TokenRows, documents: TokenRows, width: int) -> Matrix:
    def of(texts: TokenRows) -> list[list[list[float]]]:
        rows = widened(texts.rows, width).tolist()
        return [rows[a:b] for a, b in zip(texts.offsets[:-1].tolist(), texts.offsets[1:].tolist(), strict=True)]

    return np.array([
        [sum(max((dot(token, other) for other in document), default=-math.inf) for token in query)
         for document in of(documents)]
        for query in of(queries)
    ])  # fmt: skip


@pytest.mark.parametrize("lengths", [[3], [4, 1, 7], [0, 3, 0, 0, 2, 0], [1] * 9, [0]])
def test_maxsim(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents = texts_of([2, 5, 1], 8), texts_of(lengths, 8, seed=1)
    expected = maxsim_by_hand(queries, documents, 8)
    for rows in (1 << 11, 1, 4):
        monkeypatch.setattr(similarity, "_BLOCK_ROWS", rows)
        found = maxsim(queries, documents)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(maxsim(queries.rows[2:7], documents.rows, documents.offsets), expected[1], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_maxsim_of_other_kinds(kind: str) -> None:
    queries, documents = texts_of([3, 2], 16), texts_of([4, 6, 1], 16, seed=1)
    documents = documents._replace(rows=KINDS[kind](documents.rows))
    expected = maxsim_by_hand(queries, documents, 16)
    np.testing.assert_allclose(maxsim(queries, documents), expected, rtol=1e-4, atol=1e-4)


def test_maxsim_of_a_part() -> None:
    """Offsets need not begin at 0 or end with the last row."""
    queries, documents = texts_of([3], 8), texts_of([4, 2, 5, 3], 8, seed=1)
    part = maxsim(queries.rows, documents.rows, documents.offsets[1:4])
    np.testing.assert_allclose(part, maxsim_by_hand(queries, documents, 8)[0, 1:3], rtol=1e-5)


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        (None, r"document_offsets: they are no integers of shape \(n \+ 1,\); or pass TokenRows"),
        ([0.0, 3.0], "document_offsets: they are no integers"),
        ([[0, 3]], "document_offsets: they are no integers"),
        ([0, 4, 2], "document_offsets: they decrease, or lie outside the 6 rows"),
        ([0, 7], "document_offsets: they decrease, or lie outside"),
        ([-1, 6], "document_offsets: they decrease, or lie outside"),
    ],
)
def test_maxsim_refused(offsets: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        maxsim(random(2, 8), random(6, 8), offsets)
    with pytest.raises(InvalidArgumentError, match="document_rows: rows of 4 numbers, and query_rows: rows of 8"):
        maxsim(random(2, 8), random(6, 4), [0, 6])
