"""Batches: numpy arrays that C's `llama_batch` points to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import InvalidArgumentError, InvalidBatchError
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_OUTPUTS = {
    "none": lib.RAWLLAMA_OUTPUTS_NONE,
    "last": lib.RAWLLAMA_OUTPUTS_LAST,
    "all": lib.RAWLLAMA_OUTPUTS_ALL,
}


class Batch:
    """Tokens, or vectors in their place, with positions, sequence ids and output flags.

    The arrays are the C struct's own memory: fill them with numpy and set `n_tokens`, or let `add_sequence` and
    `add_sequences` do it. A batch belongs to no context and may be filled again and again without allocating; a
    context checks it and copies it when it is processed.

    Parameters
    ----------
    capacity
        Tokens that there is room for.
    n_embd
        Width of the rows of vectors (`Model.n_embd_inp`), or 0 for token ids.
    n_seq_max
        Sequence ids that one token may have.
    n_pos
        Positions of each row of vectors (`Model.n_pos`): 4 with M-RoPE. Token ids have one.

    Attributes
    ----------
    token : ndarray
        int32, shape (capacity,); without `n_embd`.
    embd : ndarray
        float32, shape (capacity, n_embd); with `n_embd`.
    n_seq_id : ndarray
        int32, shape (capacity,): how many of a token's sequence ids count.
    seq_id : ndarray
        int32, shape (capacity, n_seq_max).
    logits : ndarray
        int8, shape (capacity,): whether the token's row is wanted.
    c
        The `struct rawllama_batch *`; its `batch` is the `struct llama_batch` for calls of `lib`.

    Raises
    ------
    InvalidArgumentError
        A size that is not positive, or more than memory holds.
    """

    def __init__(self, capacity: int, *, n_embd: int = 0, n_seq_max: int = 1, n_pos: int = 1) -> None:
        self.capacity = _size("capacity", capacity, 1)
        self.n_seq_max = _size("n_seq_max", n_seq_max, 1)
        self.n_embd = _size("n_embd", n_embd, 0)
        self.n_pos = _size("n_pos", n_pos, 1)
        try:
            self._allocate()
        except (MemoryError, ValueError, OverflowError) as error:
            raise InvalidArgumentError(f"capacity: no memory for {capacity} tokens ({error})") from None

    def _allocate(self) -> None:
        tokens = 0 if self.n_embd else self.capacity
        self.token: NDArray[np.int32] = np.zeros(tokens, np.int32)
        self.embd: NDArray[np.float32] = np.zeros((self.capacity - tokens, self.n_embd), np.float32)
        self.seq_id: NDArray[np.int32] = np.zeros((self.capacity, self.n_seq_max), np.int32)
        self.n_seq_id: NDArray[np.int32] = np.ones(self.capacity, np.int32)
        self.logits: NDArray[np.int8] = np.zeros(self.capacity, np.int8)
        self._pos: NDArray[np.int32] = np.zeros(self.capacity * (self.n_pos if self.n_embd else 1), np.int32)
        # The addresses of seq_id's rows, which C wants too; one more, NULL, ends them.
        self._rows = np.zeros(self.capacity + 1, np.uintp)
        step = np.uintp(self.seq_id.strides[0])
        self._rows[:-1] = np.uintp(self.seq_id.ctypes.data) + step * np.arange(self.capacity, dtype=np.uintp)
        self.c: Any = ffi.new("struct rawllama_batch *", {
            "batch": {
                "n_tokens": 0,
                "token": ffi.NULL if self.n_embd else ffi.from_buffer("llama_token[]", self.token),
                "embd": ffi.from_buffer("float[]", self.embd) if self.n_embd else ffi.NULL,
                "pos": ffi.from_buffer("llama_pos[]", self._pos),
                "n_seq_id": ffi.from_buffer("int32_t[]", self.n_seq_id),
                "seq_id": ffi.cast("llama_seq_id **", ffi.from_buffer(self._rows)),
                "logits": ffi.from_buffer("int8_t[]", self.logits),
            },
            "capacity": self.capacity,
            "n_embd": self.n_embd,
            "n_seq_max": self.n_seq_max,
            "n_pos": self.n_pos,
        })  # fmt: skip

    def __len__(self) -> int:
        return self.n_tokens

    def __repr__(self) -> str:
        return f"<Batch of {self.n_tokens} tokens, room for {self.capacity}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Batch lives in one process; send its arrays, and fill a Batch with them there")

    @property
    def n_tokens(self) -> int:
        """How much of the arrays is in use."""
        return int(self.c.batch.n_tokens)

    @n_tokens.setter
    def n_tokens(self, count: int) -> None:
        if not 0 <= count <= self.capacity:
            raise InvalidBatchError(f"n_tokens: {count} is not between 0 and the batch's capacity, {self.capacity}")
        self.c.batch.n_tokens = count

    @property
    def pos(self) -> NDArray[np.int32]:
        """Positions: int32, shape (capacity,), or (n_pos, n_tokens) for rows of vectors with several a row.

        With several, C wants them close together, so set `n_tokens` first: the array's shape depends on it.
        """
        if self.n_embd and self.n_pos > 1:
            return self._pos[: self.n_pos * self.n_tokens].reshape(self.n_pos, self.n_tokens)
        return self._pos

    def clear(self) -> None:
        """Forget the contents; the arrays stay."""
        self.c.batch.n_tokens = 0

    def add_sequence(
        self, tokens: ArrayLike, seq_id: int | Sequence[int] = 0, *, pos: int | None = None, logits: str = "all"
    ) -> None:
        """Append one sequence of tokens.

        Parameters
        ----------
        tokens
            Token ids, shape (n,).
        seq_id
            Its id, or the ids of all sequences that it is part of.
        pos
            Position of its first token; 0 by default.
        logits
            Whose rows are wanted: `all` tokens', the `last` one's, or `none`.

        Raises
        ------
        InvalidBatchError
            No room, or a batch of vectors.
        """
        ids = require_int32("seq_id", [seq_id] if np.ndim(seq_id) == 0 else seq_id)
        if not 0 < ids.size <= self.n_seq_max:
            raise InvalidBatchError(f"seq_id: {ids.size} ids; this Batch has room for 1 to {self.n_seq_max} a token")
        flat = require_int32("tokens", tokens)
        start = self.n_tokens
        self.add_sequences(flat, np.array([0, flat.size]), ids[:1], None if pos is None else [pos], logits=logits)
        self.n_seq_id[start : self.n_tokens] = ids.size
        self.seq_id[start : self.n_tokens, : ids.size] = ids

    def add_sequences(
        self,
        tokens: ArrayLike,
        offsets: ArrayLike,
        seq_ids: ArrayLike | None = None,
        pos: ArrayLike | None = None,
        *,
        logits: str = "all",
    ) -> None:
        """Append several sequences of tokens, as `Vocab.tokenize_many` gives them.

        Parameters
        ----------
        tokens
            Token ids of all sequences, int32, shape (n,).
        offsets
            int64, shape (sequences + 1,): sequence i is `tokens[offsets[i]:offsets[i + 1]]`.
        seq_ids
            int32, shape (sequences,); 0, 1, 2, ... by default.
        pos
            Positions of the first tokens, int32, shape (sequences,); 0 by default.
        logits
            Whose rows are wanted: `all` tokens', the `last` one's of each sequence, or `none`.

        Raises
        ------
        InvalidBatchError
            No room, offsets that decrease or lie outside `tokens`, or a batch of vectors.
        """
        if self.n_embd:
            raise InvalidBatchError("tokens: this Batch takes vectors; make one without n_embd")
        if logits not in _OUTPUTS:
            raise InvalidArgumentError(f"logits: {logits!r} is none of {', '.join(_OUTPUTS)}")
        flat = require_int32("tokens", tokens)
        bounds = _integers("offsets", offsets, np.int64)
        count = bounds.size - 1
        if count < 0:
            raise InvalidBatchError("offsets: it is empty; it needs (sequences + 1,)")
        code = lib.rawllama_batch_add(
            self.c,
            ffi.from_buffer("llama_token[]", flat),
            flat.size,
            ffi.from_buffer("int64_t[]", bounds),
            count,
            ffi.NULL if seq_ids is None else _one_each("seq_ids", seq_ids, count, "llama_seq_id[]"),
            ffi.NULL if pos is None else _one_each("pos", pos, count, "llama_pos[]"),
            _OUTPUTS[logits],
        )
        if code != 0:
            raise self._refusal(code, flat.size)

    def _refusal(self, code: int, n_tokens: int) -> InvalidBatchError:
        if code == lib.RAWLLAMA_ADD_NO_ROOM:
            return InvalidBatchError(
                f"tokens: no room; {self.n_tokens} of {self.capacity} are in use. Process and clear() first, or make"
                " the Batch larger"
            )
        return InvalidBatchError(f"offsets: they must not decrease, and lie between 0 and {n_tokens}, the tokens given")


def _size(argument: str, value: int, least: int) -> int:
    if not isinstance(value, int) or not least <= value < 2**31:
        raise InvalidArgumentError(f"{argument}: {value!r} is not an integer from {least} to {2**31 - 1}")
    return value


def require_int32(argument: str, values: ArrayLike) -> NDArray[np.int32]:
    """Contiguous int32, without changing any value."""
    return _integers(argument, values, np.int32)


_Integer = TypeVar("_Integer", np.int32, np.int64)


def _integers(argument: str, values: ArrayLike, dtype: type[_Integer]) -> NDArray[_Integer]:
    if isinstance(values, np.ndarray) and values.dtype == dtype and values.ndim == 1 and values.flags.c_contiguous:
        return values
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidArgumentError(f"{argument}: {error}") from None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidArgumentError(f"{argument}: integers of shape (n,) are wanted, not {array.dtype} {array.shape}")
    if array.size and not (array.min() >= np.iinfo(dtype).min and array.max() <= np.iinfo(dtype).max):
        raise InvalidArgumentError(f"{argument}: a value does not fit {np.iinfo(dtype).bits} bits")
    return np.ascontiguousarray(array, dtype)


def _one_each(argument: str, values: ArrayLike, count: int, ctype: str) -> Any:
    array = require_int32(argument, values)
    if array.size != count:
        raise InvalidBatchError(f"{argument}: {array.size} values for {count} sequences")
    return ffi.from_buffer(ctype, array)
