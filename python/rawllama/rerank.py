"""Reranking: documents scored for a query by a model that reads both at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from ._options import between, one_of
from .errors import InvalidArgumentError
from .raw import ffi, lib
from .texts import encode, read
from .vocab import TokenAttr, _cores, _Texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .embedder import Embedder
    from .texts import Texts
    from .vocab import Vocab

# libllama ends their graphs with a softmax over the scores.
_SOFTMAXED = ("qwen3", "qwen3vl")
# And these with a tanh.
_SQUASHED = ("jina-bert-v2",)
# What becomes of documents that are too long; a score of a part would be none.
_OVERLONG = ("error", "truncate")
_SPECIAL = TokenAttr.CONTROL | TokenAttr.USER_DEFINED | TokenAttr.UNKNOWN


class RerankOptions(TypedDict, total=False):
    """Keywords of `rerank`."""

    top_k: int | None
    sort: bool
    label: int | str
    template: str | None
    overlong: str | None


@dataclass(frozen=True)
class Ranking:
    """Documents and their scores; iterating gives pairs of index and score.

    Attributes
    ----------
    indices
        int64, shape (k,): the place of each in the documents that were given.
    scores
        float32, shape (k,): from 0 to 1, the column of `normalized` that the order comes from.
    normalized
        float32, shape (k, n_cls_out): the sigmoid of a model's only score; the softmax over several.
    raw
        float32, shape (k, n_cls_out): what libllama gives. These are logits, but for two architectures: of qwen3 (and
        qwen3vl) libllama itself takes the softmax, so that they are the same as `normalized`; of jina-bert-v2 the tanh.
    labels
        Names of the columns, None where the model has none.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float32]
    normalized: NDArray[np.float32]
    raw: NDArray[np.float32]
    labels: tuple[str | None, ...]

    def __len__(self) -> int:
        return self.indices.size

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return iter(zip(self.indices.tolist(), self.scores.tolist(), strict=True))


def rerank(
    embedder: Embedder,
    query: str,
    documents: Iterable[str],
    *,
    top_k: int | None = None,
    sort: bool = True,
    label: int | str = 0,
    template: str | None = None,
    overlong: str | None = None,
) -> Ranking:
    """Score documents for a query. Equal documents are computed once.

    Query and document become one sequence: as the model's template `rerank` says, if it has one; else as BERT and
    RoBERTa join two texts, `[CLS] query [SEP] document [SEP]` and `<s> query </s></s> document </s>`, with those of the
    separators that the model's file asks for. Text that looks like a special token is text.

    Parameters
    ----------
    embedder
        With pooling `rank`.
    query
        Any text.
    documents
        Texts of any kind that `encode` takes.
    top_k
        How many to keep, the best ones; by default all.
    sort
        The best first; off, in the order in which they were given.
    label
        Which of the model's scores is meant, by its index or label. The first one, as llama.cpp takes it, is `yes` of
        Qwen3's rerankers.
    template
        Instead of the model's: text with `{query}` and `{document}` and the names of special tokens.
    overlong
        `error`, or `truncate`: cut the document and nothing else, so that all fits into `max_tokens`. By default what
        the Embedder has.

    Raises
    ------
    InvalidArgumentError
        The model gives no scores; a text is none, or too long; a template without its places; an unknown label.
    LlamaError
        The computation failed, or a score is not finite.
    KeyboardInterrupt
        Ctrl-C, on the main thread.

    Notes
    -----
    libllama takes all tokens of a BERT for the first text's (token type 0). Cross-encoders that learned two types score
    a little differently in other libraries.

    Calls: llama_model_chat_template, llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
    """
    labels = embedder.model.cls_labels
    _require_scores(embedder)
    column = _column(label, labels)
    most = None if top_k is None else between("top_k", top_k, 1, 2**63 - 1)
    wanted = one_of("overlong", embedder.overlong if overlong is None else overlong, _OVERLONG)
    joint = _Joint.of(embedder, encode("query", query).decode(), template)
    texts = read(documents, "documents")
    firsts = texts.firsts()
    chosen = np.flatnonzero(firsts == np.arange(firsts.size))
    raw = np.empty((firsts.size, len(labels)), np.float32)
    if chosen.size:
        tokens, offsets, cut = joint.sequences(texts, chosen, wanted)
        embedder._pipeline.count_truncated(cut)
        raw[chosen] = embedder._encode_tokens(tokens, offsets, "none", lambda index: f"documents[{chosen[index]}]")
    raw = raw[firsts]
    normalized, keys = _normalized(raw, column, embedder.model.architecture)
    order = np.argsort(-keys, kind="stable")[:most]
    indices = (order if sort else np.sort(order)).astype(np.int64)
    return Ranking(indices, normalized[indices, column], normalized[indices], raw[indices], labels)


def _require_scores(embedder: Embedder) -> None:
    model = embedder.model
    if embedder.pooling != "rank":
        advice = (
            "open the Embedder with pooling='rank'"
            if model.has_scores
            else "the model has no layer that gives scores: take a reranker (a cross-encoder), or compare what encode "
            "gives with similarity"
        )
        raise InvalidArgumentError(f"pooling: {embedder.pooling} gives embeddings; {advice}")
    if model.n_cls_out == 1 and model.architecture in _SOFTMAXED:
        words = f"its only score is 1 for any text, as libllama takes the softmax of those of {model.architecture}"
        raise InvalidArgumentError(f"model: {words}; take a file with labels, e.g. yes and no")


def _column(label: int | str, labels: tuple[str | None, ...]) -> int:
    if isinstance(label, str):
        known = tuple(name for name in labels if name is not None)
        return labels.index(one_of("label", label, known or ("0",)))
    return between("label", label, 0, len(labels) - 1)


def _normalized(
    raw: NDArray[np.float32], column: int, architecture: str
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Scores from 0 to 1, and what orders the documents: it tells apart what rounding makes 1."""
    logits = raw.astype(np.float64)
    if architecture in _SOFTMAXED:
        return raw, logits[:, column]
    if architecture in _SQUASHED:
        with np.errstate(divide="ignore"):  # a tanh of 1 is that of infinity
            logits = np.arctanh(logits)
    if raw.shape[1] == 1:
        with np.errstate(over="ignore"):
            return (1 / (1 + np.exp(-logits))).astype(np.float32), logits[:, 0]
    powers = np.exp(logits - logits.max(axis=1, initial=-np.inf, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    return shares.astype(np.float32), shares[:, column]


@dataclass(frozen=True)
class _Joint:
    """Where a document goes: behind `head` and `before`, and before `after` and `tail`.

    `before` and `after` are text of the template that is tokenized with the document, as the whole would be.
    """

    vocab: Vocab
    max_tokens: int
    head: NDArray[np.int32]
    before: str
    after: str
    tail: NDArray[np.int32]

    @classmethod
    def of(cls, embedder: Embedder, query: str, template: str | None) -> _Joint:
        vocab = embedder.model.vocab
        template = embedder.model.chat_template("rerank") if template is None else template
        parts = _from_separators(embedder, query) if template is None else _from_template(vocab, template, query)
        joint = cls(vocab, embedder.max_tokens, *parts)
        if joint.room < 1:
            words = f"with what belongs to it, it has {embedder.max_tokens - joint.room} tokens, which leaves no room"
            raise InvalidArgumentError(f"query: {words} for a document; max_tokens is {embedder.max_tokens}")
        return joint

    @property
    def room(self) -> int:
        """Tokens that a document may have."""
        taken = self.head.size + _plain(self.vocab, self.before).size + _plain(self.vocab, self.after).size
        return int(self.max_tokens - taken - self.tail.size)

    def sequences(
        self, texts: Texts, chosen: NDArray[np.int64], overlong: str
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
        """Tokens of these documents with all that belongs to them, their offsets, and how many were cut."""
        tokens, offsets = self._tokenize(texts, chosen, self.after)
        bodies = np.split(tokens, offsets[1:-1])
        most = self.max_tokens - self.head.size - self.tail.size
        too_long = np.flatnonzero(np.diff(offsets) > most)
        if too_long.size and overlong == "error":
            index, size = chosen[too_long[0]], bodies[too_long[0]].size - most + self.max_tokens
            words = f"with the query it has {size} tokens, and it may have {self.max_tokens}"
            raise InvalidArgumentError(f"documents[{index}]: {words}; shorten it, or pass overlong='truncate'")
        if too_long.size:
            after = _plain(self.vocab, self.after)
            cut, ends = self._tokenize(texts, chosen[too_long], "")
            for index, body in zip(too_long.tolist(), np.split(cut, ends[1:-1]), strict=True):
                bodies[index] = np.concatenate([body[: most - after.size], after])
        lengths = [self.head.size + body.size + self.tail.size for body in bodies]
        parts = [part for body in bodies for part in (self.head, body, self.tail)]
        return np.concatenate(parts), np.cumsum([0, *lengths], dtype=np.int64), too_long.size

    def _tokenize(
        self, texts: Texts, chosen: NDArray[np.int64], after: str
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        data, starts = texts.utf8(chosen)
        utf8 = _Texts(data, starts, lambda text: f"documents[{chosen[text]}]")
        if after:
            whole = bytes(ffi.buffer(utf8.data, int(starts[-1])))
            pairs = zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
            utf8 = _Texts.joined([whole[start:end] + after.encode() for start, end in pairs], utf8._name)
        tokens, offsets = self.vocab._tokenize(
            utf8, add_special=False, prefix=self.before.encode(), n_threads=_cores()
        )
        if (unknown := np.flatnonzero(tokens == lib.LLAMA_TOKEN_NULL)).size:
            index = chosen[np.searchsorted(offsets, unknown[0], side="right") - 1]
            raise InvalidArgumentError(f"documents[{index}]: this model has no token for some of it")
        return tokens, offsets


_Parts = tuple["NDArray[np.int32]", str, str, "NDArray[np.int32]"]


def _from_separators(embedder: Embedder, query: str) -> _Parts:
    """As BERT joins two texts."""
    vocab = embedder.model.vocab
    opening, closing = embedder._specials
    if vocab.type == "wpm":
        between = closing
    else:
        ids = [vocab.eos if vocab.eos is not None else vocab.sep] if vocab.add_eos else []
        ids += [vocab.sep] if vocab.add_sep else []
        between = np.array([token for token in ids if token is not None], np.int32)
    if not between.size:
        words = "the model's file has neither a template `rerank` nor separators, so nobody knows how to join two texts"
        raise InvalidArgumentError(f"template: {words}; pass the one that the model was trained with")
    return np.concatenate([opening, _plain(vocab, query, "query"), between]), "", "", closing


def _from_template(vocab: Vocab, template: str, query: str) -> _Parts:
    if template.count("{document}") != 1 or "{query}" not in template:
        raise InvalidArgumentError(f"template: it needs {{query}}, and {{document}} once: {template!r:.200}")
    head: list[NDArray[np.int32]] = []
    tail: list[NDArray[np.int32]] = []
    before = after = None
    for piece in _split(vocab, template):
        side = head if before is None else tail
        if isinstance(piece, int):
            side.append(np.array([piece], np.int32))
        elif "{document}" in piece:
            before, after = (part.replace("{query}", query) for part in piece.split("{document}"))
        else:
            side.append(_plain(vocab, piece.replace("{query}", query), "query"))
    nothing = np.empty(0, np.int32)
    return np.concatenate([nothing, *head]), before or "", after or "", np.concatenate([nothing, *tail])


def _split(vocab: Vocab, template: str) -> Iterator[str | int]:
    """A template's special tokens and the text between them."""
    for token in vocab.tokenize(template, add_special=False, parse_special=True).tolist():
        attr = vocab.attr(token)
        name = vocab.text(token)
        if attr & _SPECIAL and name in template:
            text, _, template = template.partition(name)
            text = text.rstrip() if attr & TokenAttr.LSTRIP else text
            template = template.lstrip() if attr & TokenAttr.RSTRIP else template
            yield from (text,) * bool(text)
            yield token
    yield from (template,) * bool(template)


def _plain(vocab: Vocab, text: str, name: str = "template") -> NDArray[np.int32]:
    """Tokens of a text without any special ones."""
    tokens = vocab.tokenize(text, add_special=False)
    if (tokens < 0).any():
        raise InvalidArgumentError(f"{name}: this model has no token for some of it")
    return tokens
