"""Saving and restoring what a context remembers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .batch import require_int32
from .errors import InvalidArgumentError, LlamaError, failure
from .files import replacing
from .guard import guarded
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .context import Context

# A state holds the results' place too, which only the context that made it knows.
_REFUSED = "the state was refused: it is of another model or other parameters, damaged, or too large for this context"
# How the state of one sequence begins in memory: `io_magic` of llama-context.cpp, and the sequence id.
_SEQUENCE_MAGIC = 0xAF143CD8


class State:
    """The memory of a context as bytes or files, of all sequences or of one. It is `Context.state`.

    A state fits a context of the same model and parameters. Results (embeddings, logits) are not part of it.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def save(self, seq_id: int | None = None, *, partial: bool = False) -> bytearray:
        """The state of all sequences, or of one.

        Parameters
        ----------
        seq_id
            A sequence; None for all.
        partial
            Of one sequence, only what cutting back the cache cannot give again: sliding windows, recurrent states.

        Raises
        ------
        InvalidArgumentError
            An unknown sequence, or `partial` for all.
        LlamaError
            libllama failed.

        Calls: llama_state_get_size, llama_state_get_data, llama_state_seq_get_size_ext, llama_state_seq_get_data_ext
        """
        rest = self._sequence(seq_id, partial)
        size, copy = (
            ("llama_state_get_size", "llama_state_get_data")
            if seq_id is None
            else ("llama_state_seq_get_size_ext", "llama_state_seq_get_data_ext")
        )
        with self._context._used as context:
            data = bytearray(getattr(guarded, size)(context, *rest))
            written = getattr(guarded, copy)(context, ffi.from_buffer("uint8_t[]", data), len(data), *rest)
        if written != len(data):
            raise failure(LlamaError, copy, f"the state was not saved: {written} of {len(data)} bytes", written)
        return data

    def load(self, data: bytes | bytearray | memoryview, seq_id: int | None = None, *, partial: bool = False) -> None:
        """Restore what `save` gave, into all sequences or into one, which need not be the one that was saved.

        Raises
        ------
        InvalidArgumentError
            The state does not fit this context, or is damaged. What the target remembered is then lost.

        Calls: llama_state_set_data, llama_state_seq_set_data_ext
        """
        if not self._restore(data, seq_id, partial):
            function = "llama_state_set_data" if seq_id is None else "llama_state_seq_set_data_ext"
            raise failure(InvalidArgumentError, function, f"data: {_REFUSED}", 0)

    def _restore(self, data: Any, seq_id: int | None, partial: bool = False) -> bool:
        source = ffi.from_buffer("uint8_t[]", data)
        rest = self._sequence(seq_id, partial)
        function = "llama_state_set_data" if seq_id is None else "llama_state_seq_set_data_ext"
        with self._context._used as context:
            self._context._forget()
            read = 0
            if seq_id is not None or _starts_well(ffi.buffer(source)[:4], len(source)):
                read = getattr(guarded, function)(context, source, len(source), *rest)
        return bool(read) and read == len(source)

    def save_file(self, path: str | os.PathLike[str], tokens: Sequence[int] = (), seq_id: int | None = None) -> None:
        """Write the state to a file, with the tokens that led to it. What was at `path` is replaced at the end.

        Raises
        ------
        OSError
            The file cannot be written.
        LlamaError
            libllama failed.

        Calls: llama_state_save_file, llama_state_seq_save_file
        """
        rest = self._sequence(seq_id)[:1]
        function = "llama_state_save_file" if seq_id is None else "llama_state_seq_save_file"
        array = require_int32("tokens", tokens)
        with self._context._used as context, replacing(path) as temporary:
            c_tokens = ffi.from_buffer("llama_token[]", array)
            if not getattr(guarded, function)(context, os.fsencode(temporary), *rest, c_tokens, array.size):
                raise failure(LlamaError, function, f"{os.fspath(path)} could not be written")

    def load_file(self, path: str | os.PathLike[str], seq_id: int | None = None) -> NDArray[np.int32]:
        """Restore a file's state, as `load`; return the tokens that are with it, int32, shape (n,).

        Raises
        ------
        OSError
            The file cannot be read.
        InvalidArgumentError
            The state does not fit this context, or is damaged. What the target remembered is then lost.

        Calls: llama_state_set_data, llama_state_seq_set_data_ext, in place of llama_state_load_file and
        llama_state_seq_load_file, which read on behind the end of a file that was cut off
        """
        self._sequence(seq_id)
        data = np.fromfile(path, np.uint8)
        magic, version, count = data[:12].view(np.uint32).tolist() if data.size >= 12 else (0, 0, 0)
        expected = (
            (lib.LLAMA_SESSION_MAGIC, lib.LLAMA_SESSION_VERSION)
            if seq_id is None
            else (lib.LLAMA_STATE_SEQ_MAGIC, lib.LLAMA_STATE_SEQ_VERSION)
        )
        end = 12 + 4 * count
        name = os.fspath(path)
        if (magic, version) != expected or end > data.size:
            raise InvalidArgumentError(f"{name}: {_REFUSED}")
        states = [data[end:]]
        if seq_id is not None:  # in files, the state of one sequence is without this
            start = np.array([_SEQUENCE_MAGIC, seq_id], np.uint32).view(np.uint8)
            states.insert(0, np.concatenate([start, data[end:]]))  # an older libllama has it nowhere
        if not any(self._restore(state, seq_id) for state in states):
            raise failure(InvalidArgumentError, "llama_state_set_data", f"{name}: {_REFUSED}", 0)
        return data[12:end].view(np.int32).copy()

    def _sequence(self, seq_id: int | None, partial: bool = False) -> tuple[Any, ...]:
        """C's further arguments for one sequence; none for all."""
        if seq_id is None:
            if partial:
                raise InvalidArgumentError("partial: it is for one sequence; give its seq_id")
            return ()
        flags = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY if partial else lib.LLAMA_STATE_SEQ_FLAGS_NONE
        return self._context.require_sequence("seq_id", seq_id), flags


def _starts_well(start: bytes, size: int) -> bool:
    """Whether the string at a state's start is within it: libllama makes room for any length, up to 4 GB."""
    return len(start) == 4 and int.from_bytes(start, sys.byteorder) <= size
