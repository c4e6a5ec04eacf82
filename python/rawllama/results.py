"""What a context computed: rows of embeddings and logits, copied or lent."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ._handle import Handle
from .batch import require_int32
from .errors import BorrowedError, InvalidArgumentError
from .guard import guarded
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .model import Model

# Models that compute logits or embeddings, never both.
_EITHER_OR = ("lfm2", "lfm2moe")


class Results(Handle):
    """The part of a `Context` that reads what it computed."""

    #: The model.
    model: Model
    #: Number of sequence ids.
    n_seq_max: int
    #: The pooling in force: `none`, `mean`, `cls`, `last` or `rank`.
    pooling_type: str
    _embeddings: bool
    _outcome: Any  # a `struct rawllama_outcome *`

    @property
    def n_tokens(self) -> int:
        """Tokens of the last batch; 0 if there was none, or it failed."""
        return int(self._outcome.n_tokens)

    @property
    def n_outputs(self) -> int:
        """Rows that the last batch gave: of all tokens with embeddings on, else of those that were flagged."""
        return int(self._outcome.n_outputs)

    def get_embeddings_seq(self, seq_ids: int | ArrayLike | None = None) -> NDArray[np.float32]:
        """Pooled embeddings of sequences of the last batch, or their scores with pooling `rank`.

        Parameters
        ----------
        seq_ids
            Sequence ids, shape (n,); or one; or None for all that were in the batch, in order.

        Returns
        -------
        ndarray
            float32, shape (n, width), or (width,) for one: `Model.n_embd_out`, or `Model.n_cls_out` with `rank`, wide.

        Raises
        ------
        InvalidArgumentError
            A sequence that was not in the batch, or a context without pooling or embeddings.

        Calls: llama_get_embeddings_seq
        """
        if self.pooling_type == "none":
            raise InvalidArgumentError("pooling_type: none gives no row a sequence; use get_embeddings_ith, or pool")
        if seq_ids is None:
            seq_ids = self._sequences()
        return self._rows(lib.rawllama_copy_embeddings_seq, seq_ids, self._width, "seq_ids")

    def _sequences(self) -> list[int]:
        with self._used as context:
            return [seq for seq in range(self.n_seq_max) if lib.llama_get_embeddings_seq(context, seq)]

    @functools.cached_property
    def _n_vocab(self) -> int:
        """Floats a row of logits."""
        return self.model.vocab.n_tokens

    @functools.cached_property
    def _width(self) -> int:
        """Floats a pooled row."""
        return self.model.n_cls_out if self.pooling_type == "rank" else self.model.n_embd_out

    def get_embeddings_ith(self, indices: int | ArrayLike | None = None) -> NDArray[np.float32]:
        """Embeddings of tokens of the last batch.

        Parameters
        ----------
        indices
            Indices of tokens in the batch, shape (n,), negative ones from the end of the outputs; or one; or None for
            all outputs in order.

        Returns
        -------
        ndarray
            float32, shape (n, n_embd_out), or (n_embd_out,) for one.

        Raises
        ------
        InvalidArgumentError
            A token without a row, or a context with pooling or without embeddings.

        Calls: llama_get_embeddings_ith
        """
        self._require_token_embeddings()
        return self._rows(lib.rawllama_copy_embeddings_ith, self._outputs(indices), self.model.n_embd_out, "indices")

    def get_logits_ith(self, indices: int | ArrayLike | None = None) -> NDArray[np.float32]:
        """Logits of tokens of the last batch: float32, shape (n, n_vocab), or (n_vocab,) for one.

        `indices` and errors are as those of `get_embeddings_ith`. Calls: llama_get_logits_ith
        """
        self._require_logits()
        return self._rows(lib.rawllama_copy_logits_ith, self._outputs(indices), self._n_vocab, "indices")

    def _outputs(self, indices: int | ArrayLike | None) -> int | ArrayLike:
        return np.arange(-self.n_outputs, 0, dtype=np.int32) if indices is None else indices

    def _require_token_embeddings(self) -> None:
        if self.pooling_type != "none":
            raise InvalidArgumentError(f"pooling_type: {self.pooling_type} keeps no row a token; use 'none'")
        if not self._embeddings and not (self.model.has_encoder and self.model.has_decoder):
            raise InvalidArgumentError("embeddings: they are off; make the Context with embeddings=True")

    def _require_logits(self) -> None:
        if not self.model.has_logits:
            raise InvalidArgumentError(f"this model ({self.model.architecture}) gives no logits")
        if self._embeddings and self.model.architecture in _EITHER_OR:
            raise InvalidArgumentError("embeddings: with them on, this model gives no logits; turn them off")

    def _rows(
        self, copy: Callable[..., int], indices: int | ArrayLike, width: int, argument: str
    ) -> NDArray[np.float32]:
        """Copy rows of results."""
        wanted = np.asarray(indices)
        if wanted.ndim > 1:
            raise InvalidArgumentError(f"{argument}: shape {wanted.shape}; it needs (n,)")
        wanted = require_int32(argument, wanted.reshape(-1)).reshape(wanted.shape)
        if not self._embeddings and copy is lib.rawllama_copy_embeddings_seq:
            raise InvalidArgumentError("embeddings: they are off; make the Context with embeddings=True")
        with self._used as context:
            if not self._outcome.n_tokens:
                raise InvalidArgumentError("there are no results: process a batch first, one that succeeds")
            rows = np.empty((wanted.size, width), np.float32)
            count = copy(
                context, ffi.from_buffer("int32_t[]", wanted), wanted.size, width, ffi.from_buffer("float[]", rows)
            )
        if count != wanted.size:
            raise InvalidArgumentError(f"{argument}: the last batch gave no row for {wanted.reshape(-1)[count]}")
        return rows if wanted.ndim else rows[0]

    @contextmanager
    def lend_embeddings(self) -> Iterator[memoryview[float]]:
        """Lend the rows of all outputs without a copy, until the `with` block ends; nothing else can be done meanwhile.

        Yields
        ------
        memoryview
            float32, shape (n_outputs, n_embd_out); `numpy.asarray` of it copies nothing.

        Raises
        ------
        BorrowedError
            At the end, if an array made from it is still alive; the context can be used when it is gone.
        InvalidArgumentError
            As `get_embeddings_ith`.

        Calls: llama_get_embeddings
        """
        self._require_token_embeddings()
        with self._lend(guarded.llama_get_embeddings, self.model.n_embd_out) as view:
            yield view

    @contextmanager
    def lend_logits(self) -> Iterator[memoryview[float]]:
        """Lend the logits of all outputs, as `lend_embeddings`: shape (n_outputs, n_vocab). Calls: llama_get_logits."""
        self._require_logits()
        with self._lend(guarded.llama_get_logits, self._n_vocab) as view:
            yield view

    @contextmanager
    def _lend(self, function: Callable[[Any], Any], width: int) -> Iterator[memoryview[float]]:
        with self._used as context:
            start = function(context)
            count = self.n_outputs
            if not start or not count:
                raise InvalidArgumentError("there are no results: process a batch first, one that succeeds")
            memory = ffi.buffer(start, count * width * 4)
            # The loan ends with the last view of the memory, which may outlive the block.
            weakref.finalize(memory, self._end_loan).atexit = False
            self._lent += 1
        view = memoryview(memory).cast("B").cast("f", (count, width))
        del memory
        try:
            yield view
        finally:
            with suppress(BufferError):
                view.release()
        if self._lent:
            raise BorrowedError("an array made from the lent memory is still in use; delete it, or copy it")

    def _end_loan(self) -> None:
        with self._mutex:
            self._lent -= 1
