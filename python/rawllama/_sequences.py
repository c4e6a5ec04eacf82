"""Texts to the sequences of tokens that are computed: special tokens, prompts, and texts that are too long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._engine import Sequences
from .errors import InvalidArgumentError
from .raw import ffi, lib
from .vocab import _encode, _Texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .texts import Texts
    from .vocab import Vocab

#: What becomes of texts with more tokens than `max_tokens`.
OVERLONG = ("error", "truncate", "chunk")


@dataclass(frozen=True)
class Windows:
    """What overlong texts are computed as: overlapping windows, several a text.

    Attributes
    ----------
    sequences
        One a window.
    texts
        int64, shape (windows,): the text of each, which do not decrease.
    weights
        int64, shape (windows,): the tokens of the text that are in no window before.
    """

    sequences: Sequences
    texts: NDArray[np.int64]
    weights: NDArray[np.int64]

    def means(self, rows: Any, done: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The texts of which all windows are done, and the weighted means of their windows' rows.

        `rows` is float32, shape (windows, dims).
        """
        texts, starts = np.unique(self.texts, return_index=True)
        complete = np.logical_and.reduceat(done, starts)
        weights = self.weights[:, None].astype(np.float64)
        sums = np.add.reduceat(np.where(done[:, None], rows, 0) * weights, starts)
        means = sums / np.add.reduceat(weights, starts)
        return texts[complete], means[complete].astype(np.float32)


@dataclass(frozen=True)
class Prepared:
    """Texts as they are computed.

    Attributes
    ----------
    sequences
        One a text.
    whole
        int64: the texts that are computed as they are.
    windows
        What the others are computed as.
    truncated
        How many were cut.
    """

    sequences: Sequences
    whole: NDArray[np.int64]
    windows: Windows | None = None
    truncated: int = 0


class Sequencer:
    """Makes sequences of texts for one model.

    Parameters
    ----------
    vocab
        The model's vocabulary.
    max_tokens
        Tokens that a sequence may have.
    limit
        The same in words, for messages.
    overlap
        Tokens that a window shares with the one before.
    n_threads
        Threads that tokenise.

    Raises
    ------
    InvalidArgumentError
        `max_tokens` leaves no room for text, or `overlap` none for more of it.
    """

    def __init__(self, vocab: Vocab, *, max_tokens: int, limit: str, overlap: int, n_threads: int) -> None:
        self._vocab = vocab
        #: Tokens that a sequence may have.
        self.max_tokens = max_tokens
        self._limit = limit
        self._overlap = overlap
        self._n_threads = n_threads
        self._appended: int = lib.LLAMA_TOKEN_NULL
        added = self._tokens_of(b"", special=True)
        count = int(vocab.add_bos or vocab.type == "wpm") if added.size and added[0] == vocab.bos else 0
        #: Special tokens before a text and behind it: int32.
        self.opening, self.closing = added[:count], added[count:]
        wanted = vocab.eos if vocab.add_eos else vocab.sep if vocab.add_sep else None
        if wanted is not None and not self.closing.size:  # some kinds of tokenizers do not add it
            self._appended = wanted
            self.closing = np.array([wanted], np.int32)
        #: Tokens of a text that a sequence has room for.
        self.room = max_tokens - self.opening.size - self.closing.size
        if self.room < 1:
            raise InvalidArgumentError(f"max_tokens: {max_tokens} leaves no room beside the special tokens")
        if not 0 <= overlap < self.room:
            raise InvalidArgumentError(f"overlap: {overlap} is not between 0 and {self.room - 1}")

    def prepare(
        self,
        texts: Texts,
        indices: NDArray[np.int64],
        *,
        prefix: bytes = b"",
        overlong: str = "error",
        first: int = 0,
        n_threads: int | None = None,
    ) -> Prepared:
        """The sequences of the texts with these indices, which increase.

        Parameters
        ----------
        prefix
            What each text begins with, UTF-8.
        overlong
            One of `OVERLONG`.
        first
            What messages add to a text's index.
        n_threads
            Threads that tokenise, if not as many as usual.

        Raises
        ------
        InvalidArgumentError
            A text has no tokens, or some that the model does not know, or too many.
        NativeAssertError
            As `Vocab.tokenize`.
        KeyboardInterrupt
            Ctrl-C, on the main thread.
        """
        names = indices + first
        data, starts = texts.utf8(indices)
        utf8 = _Texts(data, starts, lambda text: f"texts[{names[text]}]")
        tokens, offsets = self._vocab._tokenize(
            utf8, prefix=prefix, closing=self._appended, n_threads=n_threads or self._n_threads
        )
        sequences = Sequences(tokens, offsets)
        lengths = sequences.lengths
        if lengths.size and lengths.min() == 0:
            _refuse_first(lengths == 0, names, "it has no tokens in this model")
        if tokens.size and tokens.min() < 0:
            unknown = np.zeros(lengths.size, bool)
            unknown[np.searchsorted(offsets, np.flatnonzero(tokens < 0), side="right") - 1] = True
            _refuse_first(unknown, names, "this model has no token for some of it")
        if not lengths.size or lengths.max() <= self.max_tokens:
            return Prepared(sequences, np.arange(lengths.size))
        too_long = lengths > self.max_tokens
        if overlong == "error":
            words = f"{lengths[too_long][0]} tokens, and {self._limit}"
            _refuse_first(too_long, names, f"{words}; shorten it, or pass overlong='truncate' or 'chunk'")
        if overlong == "truncate":
            return self._truncated(sequences, np.flatnonzero(too_long))
        windows = self._windows(sequences, np.flatnonzero(too_long), self._tokens_of(prefix, special=False))
        return Prepared(sequences, np.flatnonzero(~too_long), windows)

    def tokenizing(self, prefix: bytes) -> dict[str, Any]:
        """The `struct rawllama_tokenizing` for one text as `prepare` takes it. The caller keeps `prefix`."""
        return {
            "prefix": ffi.from_buffer("char[]", prefix),
            "n_prefix": len(prefix),
            "add_special": True,
            "closing": self._appended,
            "n_threads": 1,
        }

    def tokenize(self, text: str) -> NDArray[np.int32]:
        """Tokens of one text, with the special ones."""
        texts = _Texts.joined([_encode("text", text)], lambda _: "text")
        return self._vocab._tokenize(texts, closing=self._appended, n_threads=1)[0]

    def _tokens_of(self, text: bytes, *, special: bool) -> NDArray[np.int32]:
        texts = _Texts.joined([text], lambda _: "prompt")
        return self._vocab._tokenize(texts, add_special=special, n_threads=1)[0]

    def _truncated(self, sequences: Sequences, too_long: NDArray[np.int64]) -> Prepared:
        """These texts cut before their closing special tokens."""
        kept = np.ones(sequences.tokens.size, bool)
        for start, end in zip(sequences.offsets[too_long], sequences.offsets[too_long + 1], strict=True):
            kept[start + self.max_tokens - self.closing.size : end - self.closing.size] = False
        lengths = np.minimum(sequences.lengths, self.max_tokens)
        cut = Sequences(sequences.tokens[kept], np.concatenate(([0], np.cumsum(lengths))))
        return Prepared(cut, np.arange(len(cut)), truncated=too_long.size)

    def _windows(self, sequences: Sequences, too_long: NDArray[np.int64], prompt: NDArray[np.int32]) -> Windows:
        """These texts' windows: each with the special tokens and the prompt."""
        room = self.room - prompt.size
        if room <= self._overlap:
            words = f"{self._overlap} tokens beside a prompt of {prompt.size} leave no room in windows of {self.room}"
            raise InvalidArgumentError(f"overlap: {words}")
        parts: list[NDArray[np.int32]] = []
        weights: list[int] = []
        texts: list[int] = []
        for text in too_long.tolist():
            start, end = sequences.offsets[text : text + 2]
            body = sequences.tokens[start + self.opening.size : end - self.closing.size]
            for first, last, new in _cuts(body.size, self.room, room, self._overlap):
                before = [prompt] if first else []  # the first window begins with it
                parts.append(np.concatenate([self.opening, *before, body[first:last], self.closing]))
                weights.append(new)
                texts.append(text)
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return Windows(Sequences(np.concatenate(parts), offsets), np.array(texts), np.array(weights))


def _cuts(size: int, first_room: int, room: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """Windows over `size` tokens: where each begins and ends, and how many of its tokens are new. The last is full."""
    done = first_room
    yield 0, done, done - (first_room - room)  # without the prompt
    while done < size:
        end = min(done - overlap + room, size)
        yield end - room, end, end - done
        done = end


def _refuse_first(wrong: NDArray[np.bool_], names: NDArray[np.int64], words: str) -> None:
    if wrong.any():
        raise InvalidArgumentError(f"texts[{names[wrong.argmax()]}]: {words}")
