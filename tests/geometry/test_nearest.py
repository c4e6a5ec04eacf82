"""Nearest rows and analogies in small tables, against plain sorting; and in blocks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import InvalidArgumentError
from rawllama.geometry import Words, analogy, nearest
from rawllama.similarity import METRICS, similarity

module = import_module("rawllama.geometry.nearest")  # as an attribute of the package it is the function


class Counted:
    """A `Table` that notes how many rows are asked for at once."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._rows = rows
        self.shape = (len(rows), rows.shape[1])
        self.asked: list[int] = []

    def rows(self, ids: Any, /) -> NDArray[np.float32]:
        self.asked.append(len(ids))
        return self._rows[ids]


def table(n: int = 50, width: int = 8, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
def test_against_sorting(metric: str) -> None:
    rows, query = table(), table(1, seed=1)[0]
    scores = similarity(query, rows, metric)
    indices, found = nearest(rows, query, 7, metric=metric)
    assert indices.tolist() == np.argsort(-scores)[:7].tolist()
    np.testing.assert_allclose(found, np.sort(scores)[::-1][:7], rtol=1e-6)
    assert indices.dtype == np.int64
    assert found.dtype == np.float32


def test_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a table of which a block is read at a time."""
    rows, query = table(), table(1, seed=1)[0]
    whole = nearest(rows, query, 12)
    monkeypatch.setattr(module, "_BLOCK", 7)
    blocks = Counted(rows)
    for found, expected in zip(nearest(blocks, query, 12), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert blocks.asked == [7] * 7 + [1]


def test_chosen_rows() -> None:
    rows, query = table(), table(1, seed=1)[0]
    order = nearest(rows, query, 50)[0].tolist()
    assert nearest(rows, query, 50, exclude=order[:2])[0].tolist() == order[2:]
    even = [index for index in order if index % 2 == 0]
    assert nearest(rows, query, 5, among=range(0, 50, 2))[0].tolist() == even[:5]
    assert nearest(rows, query, 5, among=[3], exclude=[3])[0].size == 0


def test_of_equal_rows_the_first_comes_first() -> None:
    rows = np.repeat(table(2), 4, axis=0)[[0, 4, 1, 5, 2, 6]]
    assert nearest(rows, rows[1], 3)[0].tolist() == [1, 3, 5]


def test_analogy() -> None:
    """Two directions: royal, and female. The lengths of rows do not count."""
    words = ["man", "woman", "king", "queen", "stone"]
    rows = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1], [-1, 0.1, 0]], np.float32)
    rows *= np.array([[1], [9], [0.1], [3], [1]], np.float32)
    indices, scores = analogy(rows, 2, 0, 1, 5)
    assert words[indices[0]] == "queen"
    assert sorted(indices.tolist()) == [3, 4]  # without the three
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert scores[0] == pytest.approx(similarity(unit[2] - unit[0] + unit[1], unit[3]), abs=1e-6)


def test_words() -> None:
    words = Words(["man", "woman", "king", "queen"], np.array([[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]], np.float32))
    assert words.analogy("king", "man", "woman", 1)[0][:2] == ("queen", 3)
    assert words.neighbours("man")[0].word in ("woman", "king")
    assert words.neighbours([1, 0, 0], 1)[0].word == "man"  # a vector leaves no word out
    assert "king" in words
    assert len(words) == 4
    assert words.row("king").tolist() == [1, 1, 0]


def test_words_of_some_rows() -> None:
    """Rows without a name are nobody's neighbours, and of two rows with one name the first is the word's."""
    words = Words(["a", "b", "b"], table(10), [4, 7, 2])
    assert words.index("b") == 7
    assert {one.row for one in words.neighbours("a", 10)} == {2, 7}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda rows: nearest(rows, rows[0], metric="manhattan"), "metric: 'manhattan' is none of cosine, dot, euclid"),
        (lambda rows: nearest(rows, rows[0], 0), "n: 0 rows; ask for at least 1"),
        (lambda rows: nearest(rows, rows[0, :3]), r"query: shape \(3,\); the table's rows have 8 columns"),
        (lambda rows: nearest(rows, rows), r"query: shape \(50, 8\)"),
        (lambda rows: nearest(rows, rows[0], among=[50]), "among: an index is not between 0 and 49"),
        (lambda rows: nearest(rows, rows[0], exclude=[-1]), "exclude: an index is not between 0 and 49"),
        (lambda rows: nearest(rows, rows[0], among=[0.5]), "among: integers of shape"),
        (lambda rows: analogy(rows, 0, 1, 50), "a, b, c: an index is not between 0 and 49"),
        (lambda rows: Words(["a"], rows, [50]), "indices: names for rows that the table, with 50, has not"),
        (lambda rows: Words(["a"], rows, [1, 2]), "indices: 2 rows for 1 names"),
        (lambda rows: Words(["a"], rows).row("b"), "word: 'b' is not in the table"),
        (lambda rows: Words(["a"], rows).analogy("a", "a", "c"), "word: 'c' is not in the table"),
    ],
)
def test_refused(call: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        call(table())
