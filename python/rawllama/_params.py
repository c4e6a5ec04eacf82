"""Keyword arguments to the fields of C's parameter structs, under C's names and with libllama's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import InvalidArgumentError
from .raw import ffi, lib

Name = str | int


def enum_value(argument: str, prefix: str, value: Name) -> int:
    """The number of an enum's constant, from the number or from the constant's name without its prefix, in any case.

    `enum_value("pooling_type", "LLAMA_POOLING_TYPE_", "mean")` is `LLAMA_POOLING_TYPE_MEAN`.
    """
    known = enum_names(prefix)
    if isinstance(value, str):
        name = value.lower().replace("-", "_")
        if name in known.values():
            return next(number for number, one in known.items() if one == name)
    elif value in known:
        return int(value)
    raise InvalidArgumentError(f"{argument}: {value!r} is none of {', '.join(known.values())}")


def enum_name(prefix: str, number: int) -> str:
    """The constant's name without its prefix, in lower case."""
    return enum_names(prefix).get(number, str(number))


def enum_names(prefix: str) -> dict[int, str]:
    """All constants of an enum: number to name."""
    names = (name for name in dir(lib) if name.startswith(prefix) and not name.endswith("MAX_VALUE"))
    return {int(getattr(lib, name)): name.removeprefix(prefix).lower() for name in names}


def fill(params: Any, values: Mapping[str, Any]) -> None:
    """Set those fields of a struct that were given; None leaves libllama's default.

    Raises
    ------
    InvalidArgumentError
        A value that the field's C type cannot hold; the message names the argument.
    """
    for name, value in values.items():
        if value is None:
            continue
        try:
            setattr(params, name, value)
        except (OverflowError, TypeError) as error:
            kind = dict(ffi.typeof(params).fields)[name].type.cname
            raise InvalidArgumentError(f"{name}: {value!r} does not fit C's {kind} ({error})") from None


def text(pointer: Any) -> str | None:
    """A C string, or None for NULL. Bytes that are not UTF-8 survive as surrogates."""
    return ffi.string(pointer).decode("utf-8", "surrogateescape") if pointer else None


def c_string(value: str) -> bytes:
    """A string for C: the reverse of `text`.

    Raises
    ------
    InvalidArgumentError
        It contains NUL, where C would stop reading.
    """
    data = value.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise InvalidArgumentError(f"{value!r} contains NUL, where C ends a string")
    return data
