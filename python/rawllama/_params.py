"""Python values to C's and back: parameter structs under C's names, enums by name, strings without loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Real
from typing import Any, overload

from .errors import InvalidArgumentError
from .modelfile import is_possible
from .raw import ffi, lib

Name = str | int
Override = int | float | bool | str
_LARGEST_FLOAT = (2 - 2**-23) * 2.0**127
_OVERRIDE_BYTES = 127  # struct llama_model_kv_override: char key[128], char val_str[128]


@overload
def enum_value(argument: str, prefix: str, value: Name) -> int: ...
@overload
def enum_value(argument: str, prefix: str, value: Name | None) -> int | None: ...
def enum_value(argument: str, prefix: str, value: Name | None) -> int | None:
    """The number of an enum's constant, from the number or from the constant's name without its prefix, in any case.

    `enum_value("pooling_type", "LLAMA_POOLING_TYPE_", "mean")` is `LLAMA_POOLING_TYPE_MEAN`; None stays None.
    """
    if value is None:
        return None
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


@cache
def enum_names(prefix: str) -> Mapping[int, str]:
    """All constants of an enum: number to name."""
    names = (name for name in dir(lib) if name.startswith(prefix) and not name.endswith(("MAX_VALUE", "_COUNT")))
    return {int(getattr(lib, name)): name.removeprefix(prefix).lower() for name in names}


def fill(params: Any, values: Mapping[str, Any]) -> None:
    """Set those fields of a struct that were given; None leaves libllama's default.

    Raises
    ------
    InvalidArgumentError
        A value that the field's C type cannot hold; the message names the argument.
    """
    struct = ffi.typeof(params)
    fields = dict((struct.item if struct.kind == "pointer" else struct).fields)
    for name, value in values.items():
        if value is None:
            continue
        if name not in fields:
            raise InvalidArgumentError(f"{name}: this version of libllama has no such parameter")
        kind = fields[name].type.cname
        if kind == "float":
            value = require_float(name, value)
        try:
            setattr(params, name, value)
        except (OverflowError, TypeError) as error:
            raise InvalidArgumentError(f"{name}: {value!r} does not fit C's {kind} ({error})") from None


def require_float(argument: str, value: Any) -> float:
    """A finite number that C's float can hold; InvalidArgumentError names `argument` if not."""
    number = float(value) if isinstance(value, Real) else math.nan
    if not abs(number) <= _LARGEST_FLOAT:
        raise InvalidArgumentError(f"{argument}: {value!r} is not a finite number that fits 32 bits")
    return number


def kv_overrides_array(overrides: Mapping[str, Override] | None) -> Any:
    """An array of `llama_model_kv_override` that ends with an empty key; None for None."""
    if overrides is None:
        return None
    array = ffi.new("struct llama_model_kv_override[]", len(overrides) + 1)
    for row, (key, value) in zip(array, overrides.items(), strict=False):
        if isinstance(value, (int, float)) and not is_possible(key, value):
            raise InvalidArgumentError(f"kv_overrides: {key} cannot be {value}")
        row.key = _short(f"kv_overrides: the key {key!r}", key)
        if isinstance(value, bool):
            row.tag, row.val_bool = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL, value
        elif isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise InvalidArgumentError(f"kv_overrides: {key} = {value} does not fit 64 bits")
            row.tag, row.val_i64 = lib.LLAMA_KV_OVERRIDE_TYPE_INT, value
        elif isinstance(value, float):
            row.tag, row.val_f64 = lib.LLAMA_KV_OVERRIDE_TYPE_FLOAT, value
        elif isinstance(value, str):
            row.tag, row.val_str = lib.LLAMA_KV_OVERRIDE_TYPE_STR, _short(f"kv_overrides: the value of {key!r}", value)
        else:
            raise InvalidArgumentError(f"kv_overrides: {key} is a {type(value).__name__}, not int, float, bool or str")
    return array


def _short(what: str, value: str) -> bytes:
    data = c_string(value, what)
    if not 0 < len(data) <= _OVERRIDE_BYTES:
        raise InvalidArgumentError(f"{what} has {len(data)} bytes; C has room for 1 to {_OVERRIDE_BYTES}")
    return data


def text(pointer: Any) -> str | None:
    """A C string, or None for NULL. Bytes that are not UTF-8 survive as surrogates."""
    return ffi.string(pointer).decode("utf-8", "surrogateescape") if pointer else None


def sized_text(write: Callable[[Any, int], int]) -> str:
    """What a C function writes into a buffer of a given size, like snprintf; empty where it returns -1."""
    size = 256
    while True:
        buffer = ffi.new("char[]", size)
        length = write(buffer, size)
        if length < size:
            return bytes(ffi.buffer(buffer, max(length, 0))).decode("utf-8", "surrogateescape")
        size = length + 1


def c_string(value: str, argument: str = "text") -> bytes:
    """A string for C: the reverse of `text`.

    Raises
    ------
    InvalidArgumentError
        It contains NUL, where C would stop reading, or surrogates that stand for no byte.
    """
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{argument}: {value!r} is no text that UTF-8 can hold ({error.reason})") from None
    if b"\0" in data:
        raise InvalidArgumentError(f"{argument}: {value!r} contains NUL, where C ends a string")
    return data
