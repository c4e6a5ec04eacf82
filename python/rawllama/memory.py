"""The memory of a context: what its sequences remember."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import InvalidArgumentError
from .guard import guarded

if TYPE_CHECKING:
    from .context import Context

# Positions are 32 bits in C; half of that leaves room for every sum.
_FAR = 2**30


class Memory:
    """KV cache or recurrent state. Positions are those of the tokens; ranges [p0, p1) are open-ended with None.

    A context has one as `Context.memory`; encoders have none. Calls: llama_get_memory
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def __repr__(self) -> str:
        return f"<Memory of {self._context!r}>"

    @property
    def can_shift(self) -> bool:
        """Whether `shift` and `divide` work with this model. Calls: llama_memory_can_shift."""
        return bool(self._call("can_shift"))

    def clear(self, data: bool = True) -> None:
        """Forget everything; without `data` the buffers keep their old bytes. Calls: llama_memory_clear."""
        self._call("clear", data)

    def remove(self, seq_id: int | None = None, p0: int | None = None, p1: int | None = None) -> bool:
        """Forget a range of a sequence, or of all with None.

        Returns False, and changes nothing, where a part of a sequence cannot be removed (recurrent states); a whole
        sequence always can. Calls: llama_memory_seq_rm, llama_memory_clear
        """
        if (seq_id, p0, p1) == (None, None, None):  # recurrent states refuse this to seq_rm
            self.clear(data=False)
            return True
        return bool(self._call("seq_rm", -1 if seq_id is None else self._seq("seq_id", seq_id), *_range(p0, p1)))

    def copy(self, source: int, target: int, p0: int | None = None, p1: int | None = None) -> None:
        """Let the sequence `target` remember what `source` does, in a range.

        Raises
        ------
        InvalidArgumentError
            An unknown sequence; or a part of one, where each sequence has a cache of its own (`kv_unified` off).

        Calls: llama_memory_seq_cp
        """
        if not self._context.kv_unified and (p0, p1) != (None, None):
            raise InvalidArgumentError("p0, p1: without kv_unified only whole sequences can be copied; leave them out")
        self._call("seq_cp", self._seq("source", source), self._seq("target", target), *_range(p0, p1))

    def keep(self, seq_id: int) -> None:
        """Forget all other sequences. Calls: llama_memory_seq_keep."""
        self._call("seq_keep", self._seq("seq_id", seq_id))
        if not self._context.kv_unified:  # then it looks at that sequence's own cache alone
            for other in range(self._context.n_seq_max):
                if other != seq_id:
                    self.remove(other)

    def shift(self, seq_id: int, delta: int, p0: int | None = None, p1: int | None = None) -> None:
        """Add `delta` to the positions of a range; what falls below 0 is forgotten.

        Raises
        ------
        InvalidArgumentError
            The model cannot do that, or `delta` leads too far.

        Calls: llama_memory_seq_add
        """
        self._require_shift()
        if not -_FAR < delta < _FAR or ((positions := self.positions(seq_id)) and positions[1] + delta >= _FAR):
            raise InvalidArgumentError(f"delta: {delta} leads to positions beyond {_FAR}")
        self._call("seq_add", self._seq("seq_id", seq_id), *_range(p0, p1), delta)

    def divide(self, seq_id: int, divisor: int, p0: int | None = None, p1: int | None = None) -> None:
        """Divide the positions of a range by an integer of 1 or more, rounding down. Calls: llama_memory_seq_div."""
        self._require_shift()
        if not 1 <= divisor < _FAR:
            raise InvalidArgumentError(f"divisor: {divisor} is not from 1 to {_FAR}")
        self._call("seq_div", self._seq("seq_id", seq_id), *_range(p0, p1), divisor)

    def positions(self, seq_id: int) -> tuple[int, int] | None:
        """First and last position that the sequence remembers, None if it is empty.

        Calls: llama_memory_seq_pos_min, llama_memory_seq_pos_max
        """
        last = self._call("seq_pos_max", self._seq("seq_id", seq_id))
        return None if last < 0 else (self._call("seq_pos_min", seq_id), last)

    def _require_shift(self) -> None:
        if not self.can_shift:
            raise InvalidArgumentError("this model's memory cannot shift positions (see can_shift); remove() instead")

    def _seq(self, argument: str, seq_id: int) -> int:
        return self._context.require_sequence(argument, seq_id)

    def _call(self, name: str, *arguments: Any) -> Any:
        with self._context._used as context:
            return getattr(guarded, f"llama_memory_{name}")(guarded.llama_get_memory(context), *arguments)


def _range(p0: int | None, p1: int | None) -> tuple[int, int]:
    for argument, value in (("p0", p0), ("p1", p1)):
        if value is not None and not 0 <= value < 2**31:
            raise InvalidArgumentError(f"{argument}: {value} is not a position; None leaves the range open")
    return (-1 if p0 is None else p0, -1 if p1 is None else p1)
