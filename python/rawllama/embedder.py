"""Texts in, one matrix out: the C example's loop, over batches as full as the token budget allows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from . import log, modelfile
from .arrays import pointer, view
from .errors import (
    ContextCreateError,
    InvalidArgumentError,
    LlamaError,
    ModelLoadError,
    NativeAssertError,
    decode_failure,
)
from .guard import guarded
from .normalize import normalize_rows
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

POOLINGS = {
    "none": lib.LLAMA_POOLING_TYPE_NONE,
    "mean": lib.LLAMA_POOLING_TYPE_MEAN,
    "cls": lib.LLAMA_POOLING_TYPE_CLS,
    "last": lib.LLAMA_POOLING_TYPE_LAST,
    "rank": lib.LLAMA_POOLING_TYPE_RANK,
}
# Tokens a batch, unless one text has more. Attention is quadratic in them; 512 was the fastest of 256 to 2048.
TOKEN_BUDGET = 512
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

    Calls: llama_model_load_from_file, llama_init_from_model
    """

    def __init__(
        self, model: str | os.PathLike[str], *, pooling: str | None = None, n_threads: int | None = None
    ) -> None:
        self._model: Any = ffi.NULL
        self._context: Any = ffi.NULL
        if pooling is not None and pooling not in POOLINGS:
            raise InvalidArgumentError(f"pooling: {pooling!r} is none of {', '.join(POOLINGS)}")
        if n_threads is not None and not 1 <= n_threads <= MAX_THREADS:
            raise InvalidArgumentError(f"n_threads: {n_threads} is not between 1 and {MAX_THREADS}")
        self._requested = POOLINGS[pooling] if pooling else lib.LLAMA_POOLING_TYPE_UNSPECIFIED
        self._n_threads = n_threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._model = _load(model)
        try:
            self._vocab = lib.llama_model_get_vocab(self._model)
            #: Tokens that one text may have: the positions that the model was trained on.
            self.max_tokens: int = lib.llama_model_n_ctx_train(self._model)
            self._require_embeddings(os.fspath(model))
            self._reserve(TOKEN_BUDGET)
            kind = lib.llama_pooling_type(self._context)
            #: The pooling in use: the one asked for, or the file's.
            self.pooling = next(name for name, value in POOLINGS.items() if value == kind)
            if self.pooling == "rank" and modelfile.read(model).scores != lib.llama_model_n_cls_out(self._model):
                raise InvalidArgumentError(f"pooling: {os.fspath(model)} has no layer that gives scores for rank")
        except BaseException:
            self.close()
            raise
        # A llama.cpp of one's own may be older than llama_model_n_embd_out.
        n_embd_out = getattr(lib, "llama_model_n_embd_out", lib.llama_model_n_embd)
        columns = lib.llama_model_n_cls_out if self.pooling == "rank" else n_embd_out
        #: Columns of the result.
        self.n_embd: int = columns(self._model)

    def _require_embeddings(self, name: str) -> None:
        """Refuse a model that cannot turn texts into vectors."""
        if lib.llama_vocab_type(self._vocab) == lib.LLAMA_VOCAB_TYPE_NONE:
            raise InvalidArgumentError(f"model: {name} has no tokenizer, so it cannot take texts")
        if lib.llama_model_has_encoder(self._model) and lib.llama_model_has_decoder(self._model):
            raise InvalidArgumentError(f"model: {name} is an encoder-decoder, which gives no embeddings")
        if self.max_tokens < 2:
            raise ModelLoadError(f"{name} says that it takes {self.max_tokens} tokens; the file is damaged")

    def close(self) -> None:
        """Free the context and the model; a second time does nothing. Calls: llama_free, llama_model_free."""
        self._free_context()
        model, self._model = self._model, ffi.NULL
        if model:
            lib.llama_model_free(model)

    def _free_context(self) -> None:
        context, self._context = self._context, ffi.NULL
        if context:
            lib.llama_free(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def tokenize(self, text: str) -> NDArray[np.int32]:
        """Tokens of one text with the model's special tokens around it.

        Text that looks like a special token (`[SEP]`) is plain text. Shape (n,), int32. Calls: llama_tokenize
        """
        self._require_open()
        data = text.encode()
        size = len(data) + 16
        while True:
            tokens = np.empty(size, np.int32)
            target = pointer(tokens, "llama_token *")
            count = guarded.llama_tokenize(self._vocab, data, len(data), target, size, True, False)
            if count >= 0:
                return tokens[:count]
            size = -count

    def encode(
        self, texts: Sequence[str], *, normalize: str | float = "l2", truncate: bool = False
    ) -> NDArray[np.float32]:
        """Embed texts: one row each, in their order.

        Parameters
        ----------
        texts
            Any strings, empty ones too.
        normalize
            See `rawllama.normalize`.
        truncate
            Cut texts longer than `max_tokens`, keeping their last token (the closing special one).

        Returns
        -------
        ndarray
            float32, shape (len(texts), n_embd).

        Raises
        ------
        InvalidArgumentError
            A text is too long and `truncate` is off, or is no text; or the pooling is `none`.
        DecodeError
            The library failed.

        Calls: llama_decode, llama_get_embeddings_seq
        """
        if self.pooling == "none":
            raise InvalidArgumentError("pooling: none gives a row a token; use encode_tokens, or pooling='mean'")
        rows = np.empty((len(texts), self.n_embd), np.float32)
        for indices in self._batches(self._prepare(texts, truncate)):
            for sequence, index in enumerate(indices):
                rows[index] = view(lib.llama_get_embeddings_seq(self._context, sequence), self.n_embd)
        _require_finite(rows, np.arange(len(texts) + 1))
        return normalize_rows(rows, normalize)

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

        Parameters and errors are those of `encode`. Calls: llama_decode, llama_get_embeddings_ith
        """
        if self.pooling != "none":
            raise InvalidArgumentError(f"pooling: {self.pooling} gives a row a text; use encode, or pooling='none'")
        tokens = self._prepare(texts, truncate)
        offsets = np.concatenate(([0], np.cumsum([one.size for one in tokens], dtype=np.int64)))
        rows = np.empty((int(offsets[-1]), self.n_embd), np.float32)
        for indices in self._batches(tokens):
            position = 0
            for index in indices:
                for row in range(offsets[index], offsets[index + 1]):
                    rows[row] = view(lib.llama_get_embeddings_ith(self._context, position), self.n_embd)
                    position += 1
        _require_finite(rows, offsets)
        return normalize_rows(rows, normalize), offsets, tokens

    def _require_open(self) -> None:
        if not self._model:
            raise InvalidArgumentError("the Embedder is closed; make a new one")

    def _prepare(self, texts: Sequence[str], truncate: bool) -> list[NDArray[np.int32]]:
        """Tokens of each text, none longer than the model was trained for."""
        if isinstance(texts, str):
            raise InvalidArgumentError("texts: it is one string; pass a list, e.g. [text]")
        self._require_open()
        prepared = []
        for index, text in enumerate(texts):
            try:
                tokens = self.tokenize(text)
            except (AttributeError, TypeError, UnicodeEncodeError) as error:
                raise InvalidArgumentError(f"texts[{index}]: {text!r:.60} is not text that UTF-8 can hold") from error
            if tokens.size == 0:
                raise InvalidArgumentError(f"texts[{index}]: {text!r:.60} has no tokens in this model")
            if tokens.size > self.max_tokens and not truncate:
                raise InvalidArgumentError(
                    f"texts[{index}]: {tokens.size} tokens, and the model was trained on {self.max_tokens};"
                    " shorten it, or let it be cut (truncate=True, --truncate)"
                )
            if tokens.size > self.max_tokens:
                tokens = np.append(tokens[: self.max_tokens - 1], tokens[-1:])
            prepared.append(tokens)
        return prepared

    def _batches(self, tokens: Sequence[NDArray[np.int32]]) -> Iterator[list[int]]:
        """Run the texts, those of like length together; yield each batch's texts while its results stand."""
        order = sorted(range(len(tokens)), key=lambda index: tokens[index].size)
        self._reserve(max(TOKEN_BUDGET, *(one.size for one in tokens)) if tokens else TOKEN_BUDGET)
        batch: list[int] = []
        size = 0
        for index in order:
            if batch and (size + tokens[index].size > TOKEN_BUDGET or len(batch) == MAX_SEQUENCES):
                self._run([tokens[one] for one in batch])
                yield batch
                batch, size = [], 0
            batch.append(index)
            size += tokens[index].size
        if batch:
            self._run([tokens[one] for one in batch])
            yield batch

    def _reserve(self, n_tokens: int) -> None:
        """Have a context that takes so many tokens at once."""
        if self._context and lib.llama_n_ubatch(self._context) >= n_tokens:
            return
        self._free_context()
        # libllama plans its memory for MAX_SEQUENCES sequences of one length, and asserts where that leaves a rest.
        n_tokens += -n_tokens % MAX_SEQUENCES
        params = lib.llama_context_default_params()
        params.embeddings = True
        # Pooling sees one ubatch at a time, so no text may be split: all three are the same.
        params.n_ctx = params.n_batch = params.n_ubatch = n_tokens
        params.n_seq_max = MAX_SEQUENCES
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = self._n_threads
        params.pooling_type = self._requested
        self._context = guarded.llama_init_from_model(self._model, params)
        if not self._context:
            raise ContextCreateError(f"the context could not be made: {'; '.join(log.take_recent())}")

    def _run(self, texts: Sequence[NDArray[np.int32]]) -> None:
        """Decode one batch: text i is sequence i."""
        tokens = np.concatenate(texts)
        positions = np.concatenate([np.arange(one.size, dtype=np.int32) for one in texts])
        sequences = np.repeat(np.arange(len(texts), dtype=np.int32), [one.size for one in texts])
        counts = np.ones(tokens.size, np.int32)
        outputs = np.ones(tokens.size, np.int8)
        sequence_ids = pointer(sequences, "llama_seq_id *")
        owners = ffi.new("llama_seq_id *[]", [sequence_ids + i for i in range(tokens.size)])
        batch = ffi.new("struct llama_batch *", {
            "n_tokens": tokens.size,
            "token": pointer(tokens, "llama_token *"),
            "pos": pointer(positions, "llama_pos *"),
            "n_seq_id": pointer(counts, "int32_t *"),
            "seq_id": owners,
            "logits": pointer(outputs, "int8_t *"),
        })
        memory = lib.llama_get_memory(self._context)
        if memory:
            lib.llama_memory_clear(memory, True)
        is_encoder = lib.llama_model_has_encoder(self._model)
        name = "llama_encode" if is_encoder else "llama_decode"
        try:
            code = getattr(guarded, name)(self._context, batch[0])
        except NativeAssertError:
            self._free_context()  # its state is unknown; the next call makes a new one
            raise
        if code != 0:
            raise decode_failure(name, code)


def _load(path: str | os.PathLike[str]) -> Any:
    """Load a model, with the library's own words if it cannot."""
    name = os.fspath(path)
    with Path(name).open("rb") as file:  # a missing file or a folder is Python's own error, which names it
        if file.read(4) != b"GGUF":
            raise ModelLoadError(f"{name} is not a GGUF file; convert a Hugging Face folder with rawllama.convert")
    modelfile.read(path)
    log.take_recent()
    model = guarded.llama_model_load_from_file(os.fsencode(name), lib.llama_model_default_params())
    if not model:
        raise ModelLoadError(f"{name} could not be loaded: {'; '.join(log.take_recent())}")
    return model


def _require_finite(rows: NDArray[np.float32], offsets: NDArray[np.int64]) -> None:
    """Refuse results with NaN or infinity: the file is damaged, or the device computed wrongly."""
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        index = int(np.searchsorted(offsets, int(bad.argmax()), side="right")) - 1
        raise LlamaError(f"texts[{index}]: its embedding is not finite; the model file is damaged or the device failed")
