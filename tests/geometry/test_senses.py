"""One word in several contexts: where its tokens are found, and how its senses part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rawllama import Batch, Context, InvalidArgumentError, Model
from rawllama.geometry import Senses, senses, word_vectors
from rawllama.layers import EmbeddingTable
from rawllama.similarity import similarity

SENTENCES = {
    "bank": {
        "river": (
            "He sat on the bank of the river and fished.",
            "The river burst its banks, and the bank was muddy.",
            "We walked along the grassy bank of the stream.",
        ),
        "money": (
            "She put her money in the bank.",
            "The bank raised its interest rates on loans.",
            "He works at a bank as an investment adviser.",
        ),
    },
    "capital": {
        "city": (
            "Paris is the capital of France.",
            "The capital has two million inhabitants and a parliament.",
            "They moved to the capital, far from the other cities.",
        ),
        "money": (
            "The company needs more capital to invest.",
            "Investors put capital into the new business.",
            "He lent them the capital at five percent interest.",
        ),
    },
}


@pytest.fixture(scope="module")
def model(minilm: str) -> Iterator[Model]:
    with Model(minilm) as opened:
        yield opened


@pytest.mark.parametrize("word", SENTENCES)
def test_senses_part(word: str, model: Model) -> None:
    """In the table a word has one vector; from the first layer on, equal senses are nearer than different ones.

    Before the first layer, positions alone tell the vectors apart, and no sense does.
    """
    sentences = [sentence for some in SENTENCES[word].values() for sentence in some]
    labels = [sense for sense, some in SENTENCES[word].items() for _ in some]
    found = word_vectors(model, sentences, word)
    assert senses(found.static, labels) == pytest.approx((1, 1), abs=1e-5)
    gaps = [within - across for within, across in (senses(rows, labels) for rows in found.layers)]
    assert abs(gaps[0]) < 0.02
    assert min(gaps[1:]) > 0.03
    assert gaps[-1] > 0.07
    alike = senses(found.layers[-1], labels)
    assert alike.within > alike.across


@pytest.mark.parametrize("word", SENTENCES)
def test_each_sentence_is_nearer_to_its_sense(word: str, model: Model) -> None:
    """Not in the mean over all alone: each of the six is more like the two others of its sense than like the three."""
    sentences = [sentence for some in SENTENCES[word].values() for sentence in some]
    alike = similarity(word_vectors(model, sentences, word).layers[-1])
    for number in range(6):
        own = [i for i in range(6) if i // 3 == number // 3 and i != number]
        others = [i for i in range(6) if i // 3 != number // 3]
        assert alike[number, own].mean() > alike[number, others].mean()


def test_are_the_hidden_states(model: Model) -> None:
    """The mean of the states of the word's pieces; beside it, the rows of the table."""
    sentence = "She snowboarded down a hill"
    tokens = model.vocab.tokenize(sentence)
    found = word_vectors(model, [sentence], "snowboarded")
    pieces = model.vocab.pieces(found.tokens[0])
    assert b"".join(pieces) == b" snowboarded"
    assert len(pieces) > 1
    at = slice(2, 2 + len(pieces))
    assert tokens[at].tolist() == found.tokens[0].tolist()
    batch = Batch(tokens.size)
    batch.add_sequence(tokens)
    with Context(model, embeddings=True, pooling_type="none", taps=True) as context:
        states = context.hidden_states(batch)
    assert found.layers.shape == (7, 1, 384)
    np.testing.assert_allclose(found.layers[:, 0], states[:, at].mean(axis=1), rtol=1e-5, atol=1e-6)
    rows = EmbeddingTable(model, "token_embd.weight").rows(tokens[at])
    np.testing.assert_allclose(found.static[0], rows.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("sentence", "word", "text"),
    [
        ("Banks, a bank!", "Bank", " bank"),  # no part of a word; any case
        ("a café in Paris", "café", " cafe"),  # accents go as in the vocabulary
        ("the well-known bank", "well-known", " well - known"),
        ("snowboarding is fun", "snowboarding", " snowboarding"),
        ("in New York now", "new york", " new york"),
    ],
)
def test_finding(sentence: str, word: str, text: str, model: Model) -> None:
    found = word_vectors(model, [sentence], word)
    assert b"".join(model.vocab.pieces(found.tokens[0])).decode() == text


@pytest.mark.parametrize("name", ["llama", "qwen3", "modern-bert", "mamba"])
def test_other_models(name: str, tiny: Callable[[str], Path]) -> None:
    """Decoders, whose memory is empty before each sentence; vocabularies with spaces and bytes in their tokens."""
    with Model(tiny(name)) as model:
        twice = word_vectors(model, ["the cat sat", "é the cat sat", "the cat sat"], "cat")
        assert all(b"".join(model.vocab.pieces(one)).strip() == b"cat" for one in twice.tokens)
        assert np.array_equal(twice.layers[:, 0], twice.layers[:, 2])
        assert not np.allclose(twice.layers[-1, 0], twice.layers[-1, 1])


def test_any_case(tiny: Callable[[str], Path]) -> None:
    """Where the vocabulary tells capital letters from small ones."""
    with Model(tiny("llama")) as model:
        found = word_vectors(model, ["the Cat sat", "the cat sat"], "cat")
        assert [b"".join(model.vocab.pieces(one)).strip() for one in found.tokens] == [b"Cat", b"cat"]


def test_means_of_pairs() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    assert senses(rows, ["a", "a", "b", "b"]) == Senses(within=0.5, across=0.5)
    only = senses(rows, ["a"] * 4)
    assert only.within == pytest.approx(0.5)
    assert np.isnan(only.across)


def test_refused(model: Model) -> None:
    with pytest.raises(InvalidArgumentError, match=r"sentences\[1\]: 'two' has no word 'one'"):
        word_vectors(model, ["one", "two"], "one")
    with pytest.raises(InvalidArgumentError, match="has no word ''"):
        word_vectors(model, ["one"], "")
    with pytest.raises(InvalidArgumentError, match="sentences: a list of at least one sentence is wanted"):
        word_vectors(model, "one", "one")
    with pytest.raises(InvalidArgumentError, match="sentences: a list"):
        word_vectors(model, [], "one")
    with pytest.raises(InvalidArgumentError, match="positions"):
        word_vectors(model, ["one " * 600], "one")
    with pytest.raises(InvalidArgumentError, match="labels: 1 for 2 rows"):
        senses(np.ones((2, 3), np.float32), ["a"])
