"""C types as `ffi.typeof(x).cname` spells them, so that the built module can be compared with the headers.

Not compared: the length of an array, which only the compiler knows, and the names cffi makes for types without one.
"""

from __future__ import annotations

import re

from .ctype import Array, Callback, CType, EnumType, Pointer, Scalar, StructType, Void, is_variadic, signature
from .model import Function, Headers


def function_spelling(function: Function, headers: Headers) -> str:
    """The type of a function, as a pointer to it."""
    kind = Callback(*signature(function.type, headers))
    return spelling(kind, headers, ["..."] if is_variadic(function.type) else [])


def spelling(kind: CType, headers: Headers, more: list[str] | None = None) -> str:
    """The type's name; `more` is what stands behind a function's typed arguments."""
    return _pattern(kind, headers, more or []).replace("&", "")


def normal(cname: str) -> str:
    """The spelling of cffi without what is not compared."""
    cname = re.sub(r"\[[0-9]*\]", "[]", cname)
    return re.sub(r"\b(?:struct |union |enum )?\$\w+", "?", cname)


def _pattern(kind: CType, headers: Headers, more: list[str]) -> str:
    """The type's name with `&` where a variable's name would stand."""
    match kind:
        case Void():
            return "void&"
        case Scalar(name):
            return f"{name}&"
        case EnumType(name):
            tagged = any(one.tagged for one in headers.enums if one.name == name)
            return f"enum {name}&" if tagged else f"{_untagged(name, headers)}&"
        case StructType(name):
            struct = headers.structs[name]
            return f"{struct.kind} {name}&" if struct.tagged else f"{_untagged(name, headers)}&"
        case Pointer(target):
            star = "(*&)" if isinstance(target, Array) else " *&"
            return _pattern(target, headers, []).replace("&", star)
        case Array(item):
            return _pattern(item, headers, []).replace("&", "&[]")
        case Callback(arguments, result):
            spelled = ", ".join([*(spelling(one, headers) for one in arguments), *more])
            return _pattern(result, headers, []).replace("&", f"(*&)({spelled})")


def _untagged(name: str, headers: Headers) -> str:
    return name if name in headers.typedefs else "?"
