"""The words of MiniLM: neighbours and analogies, in its own table and as it embeds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from rawllama import Embedder, InvalidArgumentError, Model
from rawllama.geometry import Words, nearest

# a - b + c, and the answer.
ANALOGIES = [
    ("king", "man", "woman", "queen"),
    ("uncle", "man", "woman", "aunt"),
    ("actor", "man", "woman", "actress"),
    ("paris", "france", "germany", "berlin"),
    ("rome", "italy", "japan", "tokyo"),
    ("walking", "walk", "swim", "swimming"),
    ("better", "good", "bad", "worse"),
    ("his", "he", "she", "her"),
]
NEIGHBOURS = {
    "king": {"queen", "kings", "prince", "monarch"},
    "monday": {"tuesday", "sunday", "wednesday", "thursday"},
    "three": {"3", "four", "two", "five"},
    "water": {"waters", "wet"},
    "doctor": {"doctors", "physician"},
    "happy": {"happiness", "happier"},
    "germany": {"german", "germans", "berlin"},
}


@pytest.fixture(scope="module")
def model(minilm: str) -> Iterator[Model]:
    with Model(minilm) as opened:
        yield opened


@pytest.fixture(scope="module")
def tokens(model: Model) -> Words:
    return Words.of_tokens(model)


@pytest.fixture(scope="module")
def embedded(model: Model, tokens: Words) -> Words:
    """The 2,500 most frequent words, which a WordPiece vocabulary has first, and those of the analogies."""
    asked = {word for analogy in ANALOGIES for word in analogy}
    with Embedder(model) as embedder:
        return Words.of_texts(embedder, sorted(asked.union(tokens.names[1000:3500])))


@pytest.mark.parametrize("word", NEIGHBOURS)
def test_neighbours(word: str, model: Model) -> None:
    starts = Words.of_tokens(model, "starts")
    found = {one.word for one in starts.neighbours(word, 8)}
    assert found >= NEIGHBOURS[word]
    assert word not in found


@pytest.mark.parametrize(("a", "b", "c", "answer"), ANALOGIES)
def test_analogies_of_the_table(a: str, b: str, c: str, answer: str, tokens: Words) -> None:
    """It holds among the 22,501 whole words of the static table, each time with the first answer."""
    assert tokens.analogy(a, b, c, 1)[0].word == answer


@pytest.mark.parametrize(("a", "b", "c", "answer"), ANALOGIES)
def test_analogies_of_embeddings(a: str, b: str, c: str, answer: str, embedded: Words) -> None:
    assert answer in {one.word for one in embedded.analogy(a, b, c, 2)}


def test_without_leaving_words_out_king_is_nearest(tokens: Words) -> None:
    """What the docstring warns of."""
    king, man, woman = (tokens.row(word) / np.linalg.norm(tokens.row(word)) for word in ("king", "man", "woman"))
    assert [one.word for one in tokens.neighbours(king - man + woman, 2)] == ["king", "queen"]


def test_pieces(model: Model) -> None:
    words, starts, everything = (Words.of_tokens(model, pieces) for pieces in ("words", "starts", "all"))
    assert set(words.names) < set(starts.names) < set(everything.names)
    assert len(everything) == len(model.vocab)
    assert all(name.isalpha() for name in words.names)
    for name, known in (("king", words), ("1990", starts), ("##ing", everything), ("[CLS]", everything)):
        assert name in known
    assert "1990" not in words
    assert "##ing" not in starts
    assert {one.word for one in everything.neighbours("##ing", 5)} >= {"##ting", "##ed"}
    assert repr(words) == f"<Words, {len(words)} of 384 columns>"


@pytest.mark.parametrize("name", ["llama", "qwen3", "t5encoder"])
def test_other_vocabularies(name: str, tiny: Callable[[str], Path]) -> None:
    """Words that begin with a space in the vocabularies of sentence pieces, byte pairs and unigrams."""
    with Model(tiny(name)) as model:
        words = Words.of_tokens(model)
        assert "cat" in words
        rows = next(t for t in gguf.GGUFReader(tiny(name)).tensors if t.name == "token_embd.weight").data
        assert np.array_equal(words.row("cat"), rows[words.index("cat")])
        best = nearest(np.asarray(rows), words.row("cat"), 1)[0][0]
        assert best == words.index("cat")
        assert len(words.neighbours("cat", 3)) == min(3, len(words) - 1)


def test_unknown_pieces(model: Model) -> None:
    with pytest.raises(InvalidArgumentError, match="pieces: 'some' is none of words, starts, all"):
        Words.of_tokens(model, "some")
