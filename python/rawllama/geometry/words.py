"""Rows with names: the words of a model's own table, or texts that were embedded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rawllama.errors import InvalidArgumentError
from rawllama.layers import EmbeddingTable
from rawllama.vocab import TokenAttr

from .nearest import Table, analogy, nearest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from rawllama.embedder import Embedder
    from rawllama.model import Model

PIECES = ("words", "starts", "all")
_CONTINUES = "##"  # how BERT writes a piece that no space precedes


class Neighbour(NamedTuple):
    """A word, its row in the table, and how alike it is."""

    word: str
    row: int
    score: float


class Words:
    """A table of rows with names.

    Parameters
    ----------
    names
        A name for each row that has one. Of equal names the first counts.
    table
        Shape (rows, d): an array or a `Table`.
    indices
        The row of each name; by default 0, 1, 2, ...

    Attributes
    ----------
    names
        The names.
    indices
        int64, shape (names,): their rows.
    table
        The table.

    Raises
    ------
    InvalidArgumentError
        Names and rows do not match.
    """

    def __init__(self, names: Sequence[str], table: NDArray[Any] | Table, indices: ArrayLike | None = None) -> None:
        self.names = tuple(names)
        self.table = table
        self.indices = np.arange(len(names)) if indices is None else np.asarray(indices, np.int64)
        if self.indices.shape != (len(self.names),):
            raise InvalidArgumentError(f"indices: {self.indices.size} rows for {len(self.names)} names")
        if self.indices.size and not 0 <= self.indices.min() <= self.indices.max() < table.shape[0]:
            raise InvalidArgumentError(f"indices: names for rows that the table, with {table.shape[0]}, has not")
        numbers: list[int] = self.indices.tolist()
        self._name = dict(zip(numbers, self.names, strict=True))
        self._index = dict(zip(reversed(self.names), reversed(numbers), strict=True))

    @classmethod
    def of_tokens(cls, model: Model, pieces: str = "words") -> Words:
        """The static token embeddings of a model, read from its file block by block.

        Parameters
        ----------
        model
            The model, open.
        pieces
            Which of its tokens: `words`, those that begin a word and are letters only; `starts`, all that begin one,
            numbers and punctuation too; or `all`: what continues a word as well, named with `##` before it, bytes, and
            special tokens.

        Raises
        ------
        InvalidArgumentError
            An unknown choice.
        OSError
            The model's file cannot be read any more.

        Calls: llama_token_to_piece
        """
        if pieces not in PIECES:
            raise InvalidArgumentError(f"pieces: {pieces!r} is none of {', '.join(PIECES)}")
        vocab, table = model.vocab, EmbeddingTable(model, "token_embd.weight")
        texts = [piece.decode("utf-8", "backslashreplace") for piece in vocab.pieces(np.arange(len(vocab)))]
        chosen = [index for index, text in enumerate(texts) if _is_wanted(text, pieces)]
        return cls([_token_name(texts[i], vocab.attr(i)) for i in chosen], table, chosen)

    @classmethod
    def of_texts(cls, embedder: Embedder, texts: Sequence[str]) -> Words:
        """The embeddings of words, or of any texts. Raises and calls as `Embedder.encode`."""
        return cls(texts, np.atleast_2d(embedder.encode(list(texts), dtype="float32")))

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Words, {len(self.names)} of {self.table.shape[1]} columns>"

    def __contains__(self, word: str) -> bool:
        return word in self._index

    def index(self, word: str) -> int:
        """The row of a word. InvalidArgumentError: it has none."""
        if word not in self._index:
            raise InvalidArgumentError(f"word: {word!r} is not in the table; it may be in pieces, or in another case")
        return self._index[word]

    def row(self, word: str) -> NDArray[np.float32]:
        """The vector of a word: float32, shape (d,)."""
        index = self.index(word)
        rows = self.table[[index]] if isinstance(self.table, np.ndarray) else self.table.rows(np.array([index]))
        return np.asarray(rows[0], np.float32)

    def neighbours(self, word: str | ArrayLike, n: int = 10, *, metric: str = "cosine") -> list[Neighbour]:
        """The words most like a word, which is left out, or like a vector. Raises as `nearest`."""
        if isinstance(word, str):
            query, exclude = self.row(word), [self.index(word)]
        else:
            query, exclude = np.asarray(word, np.float32), []
        return self._named(*nearest(self.table, query, n, metric=metric, among=self.indices, exclude=exclude))

    def analogy(self, a: str, b: str, c: str, n: int = 10) -> list[Neighbour]:
        """The words nearest to ``a - b + c``, such as king - man + woman; the three are left out. See `analogy`."""
        rows = self.index(a), self.index(b), self.index(c)
        return self._named(*analogy(self.table, *rows, n=n, among=self.indices))

    def _named(self, indices: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Neighbour]:
        pairs = zip(indices.tolist(), scores.tolist(), strict=True)
        return [Neighbour(self._name[index], index, score) for index, score in pairs]


def _is_wanted(text: str, pieces: str) -> bool:
    if pieces == "all":
        return True
    begins = text.startswith(" ") and len(text) > 1
    return begins and (pieces == "starts" or text[1:].isalpha())


def _token_name(text: str, attr: TokenAttr) -> str:
    """The text of what begins a word, special tokens as they are, `##` before what continues a word."""
    if text.startswith(" ") and len(text) > 1:
        return text[1:]
    return text if attr & (TokenAttr.CONTROL | TokenAttr.UNKNOWN) else _CONTINUES + text
