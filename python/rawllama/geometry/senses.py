"""The same word in different contexts: its vectors layer by layer, beside the one static vector of the table."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rawllama.batch import Batch
from rawllama.context import Context
from rawllama.errors import InvalidArgumentError
from rawllama.layers import EmbeddingTable
from rawllama.similarity import similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rawllama.model import Model
    from rawllama.vocab import Vocab


@dataclass(frozen=True)
class WordVectors:
    """A word as several sentences have it.

    Attributes
    ----------
    word
        The word.
    sentences
        The sentences.
    tokens
        The tokens that are the word in each sentence: int32, shape (pieces,).
    static
        float32, shape (sentences, d): the mean of these tokens' rows in the model's table, the same in any context.
    layers
        float32, shape (n_layer + 1, sentences, d): the mean of their hidden states before the first layer, and after
        each one.
    """

    word: str
    sentences: tuple[str, ...]
    tokens: tuple[NDArray[np.int32], ...]
    static: NDArray[np.float32]
    layers: NDArray[np.float32]


class Senses(NamedTuple):
    """Mean similarity of rows: of pairs with the same label, and of pairs with different ones."""

    within: float
    across: float


def word_vectors(model: Model, sentences: Sequence[str], word: str) -> WordVectors:
    """The vectors of a word in each of some sentences, in every layer.

    Parameters
    ----------
    model
        The model, open.
    sentences
        Each has the word; where it has it several times, the first counts.
    word
        A word, or several in a row; in any case of letters.

    Raises
    ------
    InvalidArgumentError
        No sentences, a sentence without the word, one that is too long for the model, or a model that has no hidden
        states of tokens.
    OSError
        The model's file cannot be read any more.

    Calls: llama_token_to_piece; and as `Context.hidden_states`
    """
    if isinstance(sentences, str) or not sentences:
        raise InvalidArgumentError("sentences: a list of at least one sentence is wanted")
    tokenized = [model.vocab.tokenize(sentence) for sentence in sentences]
    names = [f"sentences[{index}]: {sentence!r}" for index, sentence in enumerate(sentences)]
    spans = [_find(model.vocab, tokens, word, name) for tokens, name in zip(tokenized, names, strict=True)]
    found = tuple(tokens[span] for tokens, span in zip(tokenized, spans, strict=True))
    table = EmbeddingTable(model, "token_embd.weight")
    static = np.stack([table.rows(tokens).mean(axis=0) for tokens in found])
    longest = max(tokens.size for tokens in tokenized)
    sizes: dict[str, Any] = dict.fromkeys(("n_ctx", "n_batch", "n_ubatch"), longest)
    with Context(model, embeddings=True, pooling_type="none", n_seq_max=1, taps=True, **sizes) as context:
        states = [_states(context, tokens, span) for tokens, span in zip(tokenized, spans, strict=True)]
    return WordVectors(word, tuple(sentences), found, static, np.stack(states, axis=1))


def senses(rows: NDArray[np.float32], labels: Sequence[Hashable], metric: str = "cosine") -> Senses:
    """How alike rows are within a sense, and across senses.

    Parameters
    ----------
    rows
        Shape (n, d), e.g. `WordVectors.layers[-1]`.
    labels
        n of them: the sense of each row.
    metric
        As in `rawllama.similarity.similarity`.

    Returns
    -------
    Senses
        Means over all pairs; NaN where there is no such pair.

    Raises
    ------
    InvalidArgumentError
        As many labels as rows are needed; or as `similarity`.
    """
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    sense = np.array([numbers[label] for label in labels])
    if len(sense) != len(rows):
        raise InvalidArgumentError(f"labels: {len(sense)} for {len(rows)} rows")
    first, second = np.triu_indices(len(sense), 1)
    alike = similarity(rows, metric=metric)[first, second]
    same = sense[first] == sense[second]
    return Senses(_mean(alike[same]), _mean(alike[~same]))


def _states(context: Context, tokens: NDArray[np.int32], span: slice) -> NDArray[np.float32]:
    """The mean hidden state of some tokens: float32, shape (n_layer + 1, d)."""
    batch = Batch(tokens.size)
    batch.add_sequence(tokens)
    if context.memory is not None:
        context.memory.clear()
    states: NDArray[np.float32] = context.hidden_states(batch)[:, span].mean(axis=1)
    return states


def _find(vocab: Vocab, tokens: NDArray[np.int32], word: str, name: str) -> slice:
    """Where the word's tokens are in those of a sentence."""
    pieces = vocab.pieces(tokens, special=False)
    ends = np.cumsum([len(piece) for piece in pieces])
    text, wanted = _text(pieces), _as_tokenized(vocab, word)
    match = re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text, re.IGNORECASE) if wanted else None
    if match is None:
        raise InvalidArgumentError(f"{name} has no word {word!r}")
    start, end = (len(text[:at].encode("utf-8", "surrogateescape")) for at in match.span())
    first, last = np.searchsorted(ends, [start, end - 1], side="right")
    return slice(int(first), int(last) + 1)


def _as_tokenized(vocab: Vocab, word: str) -> str:
    """The word as tokens spell it: some vocabularies drop case and accents, and put spaces around punctuation."""
    return _text(vocab.pieces(vocab.tokenize(word, add_special=False), special=False)).strip()


def _text(pieces: list[bytes]) -> str:
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean()) if values.size else float("nan")
