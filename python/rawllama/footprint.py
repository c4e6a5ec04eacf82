"""What a model and a context take of each device's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._params import text
from .errors import InvalidArgumentError
from .raw import ffi, lib

if TYPE_CHECKING:
    from .context import Context

# Kinds of memory that one context may use; libllama itself has at most 16 devices.
_MOST = 64


@dataclass(frozen=True)
class Footprint:
    """One kind of memory; sizes in bytes.

    Attributes
    ----------
    memory
        Its name, e.g. `CPU` or `CUDA0`.
    is_host
        Whether it is the processor's.
    model
        The weights.
    context
        What the sequences remember: their keys and values, or states. 0 for encoders.
    compute
        Intermediate results.
    """

    memory: str
    is_host: bool
    model: int
    context: int
    compute: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.model + self.context + self.compute


def footprints(context: Context) -> tuple[Footprint, ...]:
    """What a context and its model take, by kind of memory; see `Context.footprints`."""
    found = ffi.new("struct rawllama_footprint[]", _MOST)
    with context._used as pointer:
        count = lib.rawllama_footprints(pointer, found, _MOST)
    if count < 0:
        raise InvalidArgumentError("context: this version of libllama does not tell what it takes")
    return tuple(
        Footprint(text(one.name) or "", bool(one.is_host), one.model, one.context, one.compute)
        for one in found[0 : min(count, _MOST)]
    )
