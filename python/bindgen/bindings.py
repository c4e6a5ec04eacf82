"""What of the headers can be bound, and what is left out and why."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from .model import Headers


@dataclass(frozen=True)
class Symbols:
    """What the linker finds: in linked libraries, in run-time backends, in the module itself."""

    linked: Container[str]
    plugins: Container[str]
    compiled_in: Container[str]


def omitted(headers: Headers, symbols: Symbols) -> dict[str, str]:
    """Functions that are declared and cannot be bound, with the reason.

    A module that names one of these would not import.
    """
    reasons: dict[str, str] = {}
    for function in headers.functions.values():
        if function.inline or function.origin.header in symbols.compiled_in or function.name in symbols.linked:
            continue
        where = "only in a backend that is loaded at run time" if function.name in symbols.plugins else "not exported"
        reasons[function.name] = where
    return reasons
