"""Texts in, one matrix out: the C example's loop, over batches as full as the token budget allows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from ._params import enum_names
from .arrays import pointer
from .batch import Batch
from .context import Context
from .errors import ClosedError, InvalidArgumentError, LlamaError, ModelLoadError
from .model import Model
from .normalize import normalize_rows, parse
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Names of the poolings.
POOLINGS = tuple(name for number, name in sorted(enum_names("LLAMA_POOLING_TYPE_").items()) if number >= 0)
# Tokens a batch, unless one text has more. Attention is quadratic in them; 512 was the fastest of 256 to 2048.
TOKEN_BUDGET = 512
_NORMS = {"none": (lib.RAWLLAMA_NORM_NONE, 0.0), "max-abs": (lib.RAWLLAMA_NORM_MAX_ABS, 0.0)}
# ggml's own limit; tens of thousands would end the process.
MAX_THREADS = lib.GGML_MAX_N_THREADS
# Sequences a batch: 512 tokens of the shortest texts there are.
MAX_SEQUENCES = min(128, lib.llama_max_parallel_sequences())


class Embedder:
    """Embeds texts with one model.

    Parameters
    ----------
    model
        Path of a GGUF file.
    pooling
        `none`, `mean`, `cls`, `last` or `rank`; by default what the file says, which is in `self.pooling`.
    n_threads
        Threads that compute, 1 to 512; by default one a core.

    Attributes
    ----------
    model
        The `Model`.
    max_tokens
        Tokens that one text may have: the positions that the model was trained on.
    pooling
        The pooling in use.
    n_embd
        Columns of the result.

    Raises
    ------
    InvalidArgumentError
        An unknown pooling or one that the model does not do, or a model that cannot embed.
    OSError
        The file cannot be read.
    ModelLoadError
        The file is no model.
    ContextCreateError
        The model is damaged, or memory is short.
    """

    def __init__(
        self, model: str | os.PathLike[str], *, pooling: str | None = None, n_threads: int | None = None
    ) -> None:
        self._context: Context | None = None
        if pooling is not None and pooling not in POOLINGS:
            raise InvalidArgumentError(f"pooling: {pooling!r} is none of {', '.join(POOLINGS)}")
        if n_threads is not None and not 1 <= n_threads <= MAX_THREADS:
            raise InvalidArgumentError(f"n_threads: {n_threads} is not between 1 and {MAX_THREADS}")
        self._pooling = pooling
        self._n_threads = n_threads or min(os.cpu_count() or 1, MAX_THREADS)
        self.model = Model(model)
        try:
            self.max_tokens = self.model.n_ctx_train  # no more than a table of positions has: libllama compares them
            self._require_embeddings(os.fspath(model))
            self.pooling = self._reserve(TOKEN_BUDGET).pooling_type
            self.n_embd = self.model.n_cls_out if self.pooling == "rank" else self.model.n_embd_out
        except BaseException:
            self.close()
            raise

    def _require_embeddings(self, name: str) -> None:
        """Refuse a model that cannot turn texts into vectors."""
        if self.model.vocab.type == "none":
            raise InvalidArgumentError(f"model: {name} has no tokenizer, so it cannot take texts")
        if self.model.has_encoder and self.model.has_decoder:
            raise InvalidArgumentError(f"model: {name} is an encoder-decoder, which gives no embeddings")
        if self.max_tokens < 2:
            raise ModelLoadError(f"{name} says that it takes {self.max_tokens} tokens; the file is damaged")

    def close(self) -> None:
        """Free the context and the model; a second time does nothing. Calls: llama_free, llama_model_free."""
        self.model.close()  # its context with it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def tokenize(self, text: str) -> NDArray[np.int32]:
        """Tokens of one text with the model's special tokens around it.

        Text that looks like a special token (`[SEP]`) is plain text. Shape (n,), int32.
        """
        return self.model.vocab.tokenize(text)

    def encode(
        self, texts: str | Iterable[str], *, normalize: str | float = "l2", truncate: bool = False
    ) -> NDArray[np.float32]:
        """Embed texts: one row each, in their order. Equal ones are computed once.

        Parameters
        ----------
        texts
            Any strings, empty ones too; or one string.
        normalize
            See `rawllama.normalize`.
        truncate
            Cut texts longer than `max_tokens`, keeping their last token (the closing special one).

        Returns
        -------
        ndarray
            float32, shape (texts, n_embd), or (n_embd,) for one string.

        Raises
        ------
        InvalidArgumentError
            A text is too long and `truncate` is off, or is no text; or the pooling is `none`.
        DecodeError
            The library failed.
        KeyboardInterrupt
            Ctrl-C, on the main thread.

        Calls: llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
        """
        if self.pooling == "none":
            raise InvalidArgumentError("pooling: none gives a row a token; use encode_tokens, or pooling='mean'")
        kind = parse(normalize)
        if isinstance(texts, str):
            row: NDArray[np.float32] = self.encode([texts], normalize=normalize, truncate=truncate)[0]
            return row
        listed = list(texts)
        tokens, offsets = self._prepare(listed, truncate)
        rows = np.empty((len(listed), self.n_embd), np.float32)
        firsts = _first_places(listed)
        self._compute(tokens, offsets, np.unique(firsts), rows, kind)
        if (again := np.flatnonzero(firsts != np.arange(firsts.size))).size:
            rows[again] = rows[firsts[again]]
        return rows

    def _compute(
        self,
        tokens: NDArray[np.int32],
        offsets: NDArray[np.int64],
        texts: NDArray[np.int64],
        rows: NDArray[np.float32],
        normalize: str | float,
    ) -> None:
        """Fill the rows of these texts: csrc/embed.cpp, those of like length together."""
        if not texts.size:
            return
        lengths = np.diff(offsets)[texts]
        ranks, batches = plan(lengths)
        order = texts[ranks]
        norm, p = _NORMS[normalize] if isinstance(normalize, str) else (lib.RAWLLAMA_NORM_P, normalize)
        self._reserve(max(TOKEN_BUDGET, int(lengths.max())))._embed(ffi.new("struct rawllama_embed *", {
            "tokens": pointer(tokens, "llama_token *"),
            "offsets": pointer(offsets, "int64_t *"),
            "order": pointer(order, "int64_t *"),
            "batches": pointer(batches, "int64_t *"),
            "n_batches": batches.size - 1,
            "width": self.n_embd,
            "dims": self.n_embd,
            "norm": norm,
            "p": p,
            "rows": pointer(rows, "float *"),
        }))  # fmt: skip

    def encode_tokens(
        self, texts: Sequence[str], *, normalize: str | float = "none", truncate: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], list[NDArray[np.int32]]]:
        """Embed texts with pooling `none`: one row a token.

        Returns
        -------
        rows : ndarray
            float32, shape (tokens of all texts, n_embd).
        offsets : ndarray
            int64, shape (len(texts) + 1,): text i has the rows `offsets[i]` to `offsets[i + 1]`.
        tokens : list of ndarray
            int32, one array a text.

        Parameters and errors are those of `encode`. Calls: llama_get_embeddings_ith
        """
        if self.pooling != "none":
            raise InvalidArgumentError(f"pooling: {self.pooling} gives a row a text; use encode, or pooling='none'")
        if isinstance(texts, str):
            raise InvalidArgumentError("texts: it is one string; pass a list, e.g. [text]")
        flat, offsets = self._prepare(texts, truncate)
        tokens = [flat[start:end] for start, end in pairwise(offsets)]
        rows = np.empty((int(offsets[-1]), self.n_embd), np.float32)
        for texts_of_batch, context in self._batches(tokens):
            targets = np.concatenate([np.arange(offsets[text], offsets[text + 1]) for text in texts_of_batch])
            rows[targets] = context.get_embeddings_ith()
        _require_finite(rows, offsets)
        return normalize_rows(rows, normalize), offsets, tokens

    def _prepare(self, texts: Sequence[str], truncate: bool) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of all texts, and where each begins; none is longer than the model was trained for."""
        if self.model.closed:
            raise ClosedError("the Embedder is closed; make a new one")
        tokens, offsets = self.model.vocab.tokenize_many([_utf8(index, text) for index, text in enumerate(texts)])
        lengths = np.diff(offsets)
        _refuse_first(lengths == 0, "it has no tokens in this model")
        unknown = np.zeros(lengths.size, bool)
        unknown[np.searchsorted(offsets, np.flatnonzero(tokens < 0), side="right") - 1] = True
        _refuse_first(unknown, "this model has no token for some of it")
        too_long = lengths > self.max_tokens
        if not too_long.any():
            return tokens, offsets
        if not truncate:
            words = f"{lengths[too_long][0]} tokens, and the model was trained on {self.max_tokens}"
            _refuse_first(too_long, f"{words}; shorten it, or let it be cut (truncate=True, --truncate)")
        kept = np.ones(tokens.size, bool)
        for index in np.flatnonzero(too_long):
            kept[offsets[index] + self.max_tokens - 1 : offsets[index + 1] - 1] = False  # all but the closing token
        return tokens[kept], np.concatenate(([0], np.cumsum(np.minimum(lengths, self.max_tokens))))

    def _batches(self, tokens: Sequence[NDArray[np.int32]]) -> Iterator[tuple[NDArray[np.int64], Context]]:
        """Run the texts, those of like length together; yield each batch's texts while its results stand."""
        order, bounds = plan(np.array([one.size for one in tokens], np.int64))
        context = self._reserve(max(TOKEN_BUDGET, *(one.size for one in tokens)) if tokens else TOKEN_BUDGET)
        batch = Batch(context.n_ubatch)
        for start, end in pairwise(bounds):
            batch.clear()
            for seq_id, text in enumerate(order[start:end]):
                batch.add_sequence(tokens[text], seq_id)
            if context.memory is not None:
                context.memory.clear()
            context.process(batch)
            yield order[start:end], context

    def _reserve(self, n_tokens: int) -> Context:
        """A context that takes so many tokens at once."""
        if self._context is not None and self._context.usable and self._context.n_ubatch >= n_tokens:
            return self._context
        if self._context is not None:
            self._context.close()
        # libllama plans its memory for MAX_SEQUENCES sequences of one length, and asserts where that leaves a rest.
        n_tokens += -n_tokens % MAX_SEQUENCES
        self._context = Context(
            self.model,
            # Pooling sees one ubatch at a time, so no text may be split: all three are the same.
            n_ctx=n_tokens,
            n_batch=n_tokens,
            n_ubatch=n_tokens,
            n_seq_max=MAX_SEQUENCES,
            n_threads=self._n_threads,
            n_threads_batch=self._n_threads,
            pooling_type=self._pooling,
            embeddings=True,
            kv_unified=True,
        )
        return self._context


def _first_places(texts: Sequence[str]) -> NDArray[np.int64]:
    """For each text the index of the first that is equal."""
    places: dict[str, int] = {}
    return np.fromiter((places.setdefault(text, index) for index, text in enumerate(texts)), np.int64, len(texts))


def _refuse_first(wrong: NDArray[np.bool_], words: str) -> None:
    if wrong.any():
        raise InvalidArgumentError(f"texts[{int(wrong.argmax())}]: {words}")


def plan(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pack texts of these lengths, in tokens, into batches, those of like length together.

    Returns
    -------
    order : ndarray
        int64, shape (n,): the texts in the order in which they are computed.
    bounds : ndarray
        int64, shape (batches + 1,): batch i has the texts `order[bounds[i]:bounds[i + 1]]`.

    Calls: rawllama_plan
    """
    order = np.argsort(lengths, kind="stable").astype(np.int64, copy=False)
    bounds = np.empty(lengths.size + 1, np.int64)
    sorted_lengths = pointer(lengths[order], "int64_t *")
    count = lib.rawllama_plan(sorted_lengths, lengths.size, TOKEN_BUDGET, MAX_SEQUENCES, pointer(bounds, "int64_t *"))
    return order, bounds[: count + 1]


def _utf8(index: int, text: str) -> bytes:
    try:
        return text.encode()  # not `surrogateescape`: most vocabularies would leave out what is no UTF-8
    except (AttributeError, UnicodeEncodeError):
        raise InvalidArgumentError(f"texts[{index}]: {text!r:.60} is not text that UTF-8 can hold") from None


def _require_finite(rows: NDArray[np.float32], offsets: NDArray[np.int64]) -> None:
    """Refuse results with NaN or infinity: the file is damaged, or the device computed wrongly."""
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        index = int(np.searchsorted(offsets, int(bad.argmax()), side="right")) - 1
        raise LlamaError(f"texts[{index}]: its embedding is not finite; the model file is damaged or the device failed")
