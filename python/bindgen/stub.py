"""Records to a typed stub, with the header's comments as docstrings."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Container, Iterable
from importlib.resources import files

from .annotate import Annotator, python_value, scalar_tag
from .ctype import Array, Callback, CType, EnumType, Pointer, Scalar, is_variadic, parameters, resolve, signature
from .model import Function, Headers, Struct, Typedef

_HEAD = '''\
"""Generated from the headers by bindgen: the C API as `ffi` and `lib`. Do not edit."""

from collections.abc import Callable, Iterator
from typing import IO, Any, Final, Generic, Literal, ParamSpec, Self, TypeAlias, TypeVar, overload

from typing_extensions import Buffer as SupportsBuffer

_Tag = TypeVar("_Tag")
_Item = TypeVar("_Item")
_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")
'''

_FFI_COMMON = '''\
    def sizeof(self, cdecl: str | _CData | _CType, /) -> int: ...
    def alignof(self, cdecl: str | _CType, /) -> int: ...
    def offsetof(self, cdecl: str | _CType, field: str | int, /, *fields: str | int) -> int: ...
    def typeof(self, cdecl: str | _CData, /) -> _CType: ...
    def getctype(self, cdecl: str | _CType, extra: str = "", /) -> str: ...
    def cast(self, cdecl: str | _CType, value: Any, /) -> Any: ...
    def string(self, cdata: Pointer[c_char, bytes], maxlen: int = -1) -> bytes: ...
    def unpack(self, cdata: Pointer[Any, _Item], length: int) -> list[_Item] | bytes | str: ...
    def buffer(self, cdata: _CData, size: int = -1, /) -> Buffer: ...
    def memmove(self, dest: _CData | SupportsBuffer, src: _CData | SupportsBuffer, n: int) -> None: ...
    def gc(self, cdata: _T, destructor: Callable[[_T], object] | None, size: int = 0) -> _T: ...
    def release(self, cdata: _CData, /) -> None: ...
    def new_handle(self, x: object, /) -> VoidPointer: ...
    def from_handle(self, x: _CData, /) -> Any: ...
    def list_types(self) -> tuple[list[str], list[str], list[str]]: ...
    def init_once(self, func: Callable[[], _T], tag: str) -> _T: ...
    def new_allocator(
        self,
        alloc: Callable[[int], _CData | None] | None = None,
        free: Callable[[_CData], object] | None = None,
        should_clear_after_alloc: bool = True,
    ) -> Callable[..., Any]: ...
'''


def write_stub(headers: Headers, bound: Container[str]) -> str:
    """The `.pyi` of the module that `write_cdef` describes for the same arguments."""
    return _Stub(headers, bound).text()


class _Stub:
    def __init__(self, headers: Headers, bound: Container[str]) -> None:
        self._headers = headers
        self._functions = [one for one in headers.functions.values() if one.name in bound]
        self._annotate = Annotator({one.name for one in self._functions})
        self._callbacks: dict[str, Callback] = {}
        self._aliases: dict[str, str] = {}
        for name, typedef in headers.typedefs.items():
            self._typedef(name, typedef)

    def text(self) -> str:
        """The whole file."""
        structs = [one for struct in self._headers.structs.values() for one in self._struct(struct)]
        parts = [
            _HEAD,
            files(__package__).joinpath("stub_prelude.pyi").read_text(encoding="utf-8"),
            "\n".join(f"class {scalar_tag(name)}:\n    ...\n" for name in self._scalar_names()),
            "class c_enum:\n    ...\n",
            "\n".join(self._enums()),
            "\n".join(f"{name}: TypeAlias = {value}" for name, value in self._aliases.items()),
            *structs,
            self._ffi(),
            self._lib(),
            "ffi: FFI\nlib: Lib\n",
        ]
        return "\n".join(parts)

    def _typedef(self, name: str, typedef: Typedef) -> None:
        """Typedefs of scalars and callbacks get a name of their own."""
        kind = resolve(typedef.type, self._headers, name)
        if isinstance(kind, Scalar):
            self._aliases[name] = python_value(kind.name)
        elif isinstance(kind, Callback):
            self._callbacks[name] = kind
            self._aliases[name] = self._annotate.function_pointer(kind)

    def _scalar_names(self) -> list[str]:
        names = set(_SCALARS)
        for typedef in self._headers.typedefs.values():
            names |= _scalars_in(resolve(typedef.type, self._headers))
        for function in self._functions:
            arguments, result = signature(function.type, self._headers)
            names = names.union(*map(_scalars_in, (*arguments, result)))
        for struct in self._headers.structs.values():
            names = names.union(*(_scalars_in(resolve(one.type, self._headers)) for one in struct.members or ()))
        return sorted(names)

    def _enums(self) -> Iterable[str]:
        known = {one.name: one for one in self._headers.enums if one.name}
        names = dict.fromkeys([*known, *(kind.name for kind in self._all_types() if isinstance(kind, EnumType))])
        return [f"enum_{name}: TypeAlias = int" for name in names]

    def _all_types(self) -> Iterable[CType]:
        for function in self._functions:
            arguments, result = signature(function.type, self._headers)
            yield from (*arguments, result)

    def _struct(self, struct: Struct) -> Iterable[str]:
        """The struct's fields, then the struct by value, then a pointer to it: both have the fields."""
        name = f"struct_{struct.name}"
        doc = _docstring(struct.doc or f"`{_c_name(struct)}` of {struct.origin.header}", 4)
        if struct.members is None:
            yield f"class {name}(CData):\n{doc}"
            yield f"class {name}_p(Pointer[{name}, {name}]):\n{doc}"
            return
        fields = []
        for member in struct.members:
            kind = resolve(member.type, self._headers)
            if keyword.iskeyword(member.name):
                fields.append(f"    # `{member.name}` is a Python keyword: use getattr() and setattr()")
                continue
            fields.append(f"    {member.name}: {self._annotate.result(kind)}")
            if member.doc:
                fields.append(_docstring(member.doc, 4))
        yield f"class _{name}(CData):\n{doc}\n" + "\n".join(fields) + "\n"
        yield f"class {name}(_{name}):\n{doc}"
        yield f"class {name}_p(_{name}, Pointer[{name}, {name}]):\n{doc}"

    def _ffi(self) -> str:
        """cffi's FFI with the types of these headers known by name."""
        rows = ["class FFI:", '    """cffi\'s FFI object for these headers."""', "", "    NULL: Final[Null]",
                "    CData: type[_CData]", "    CType: type[_CType]", "    error: type[Exception]", "    errno: int", ""]
        rows += self._new()
        rows += self._from_buffer()
        rows += self._callback()
        rows += self._addressof()
        return "\n".join(rows) + "\n" + _FFI_COMMON

    def _spellings(self) -> Iterable[tuple[str, str, str, str]]:
        """C name, pointer annotation and array annotation of every type that `ffi.new` can make."""
        for struct in self._headers.structs.values():
            if struct.members is not None:
                name = f"struct_{struct.name}"
                for spelling in _spelled(struct, self._headers):
                    yield spelling, f"{name}_p", f"Array[{name}, {name}]", name
        scalars = {name: name for name in _SCALARS}
        for name, typedef in self._headers.typedefs.items():
            kind = resolve(typedef.type, self._headers, name)
            if isinstance(kind, Scalar):
                scalars[name] = kind.name
        for spelling, name in scalars.items():
            tag, value = scalar_tag(name), python_value(name)
            yield spelling, f"Pointer[{tag}, {value}]", f"Array[{tag}, {value}]", value

    def _new(self) -> Iterable[str]:
        for spelling, pointer, array, _ in self._spellings():
            yield "    @overload"
            yield f'    def new(self, cdecl: Literal["{spelling} *", "{spelling}*"], init: Any = None, /) -> {pointer}: ...'
            yield "    @overload"
            yield f'    def new(self, cdecl: Literal["{spelling}[]"], init: Any = None, /) -> {array}: ...'
        yield "    @overload"
        yield "    def new(self, cdecl: str | _CType, init: Any = None, /) -> Any: ..."

    def _from_buffer(self) -> Iterable[str]:
        for spelling, pointer, array, _ in self._spellings():
            yield "    @overload"
            yield (f'    def from_buffer(self, cdecl: Literal["{spelling}[]"], python_buffer: SupportsBuffer, '
                   f"require_writable: bool = False) -> {array}: ...")
            yield "    @overload"
            yield (f'    def from_buffer(self, cdecl: Literal["{spelling} *", "{spelling}*"], '
                   f"python_buffer: SupportsBuffer, require_writable: bool = False) -> {pointer}: ...")
        yield "    @overload"
        yield ("    def from_buffer(self, cdecl: str | _CType, python_buffer: SupportsBuffer, "
               "require_writable: bool = False) -> Any: ...")
        yield "    @overload"
        yield ("    def from_buffer(self, python_buffer: SupportsBuffer, *, require_writable: bool = False) "
               "-> Array[c_char, bytes]: ...")

    def _callback(self) -> Iterable[str]:
        for name, callback in self._callbacks.items():
            function = self._annotate.python_callable(callback)
            alias = self._annotate.result(callback)
            options = "error: Any = None, onerror: Callable[..., Any] | None = None"
            yield "    @overload"
            yield f'    def callback(self, cdecl: Literal["{name}"], python_callable: {function}, {options}) -> {alias}: ...'
            yield "    @overload"
            yield (f'    def callback(self, cdecl: Literal["{name}"], python_callable: None = None, {options}) '
                   f"-> Callable[[{function}], {alias}]: ...")
        yield "    @overload"
        yield "    def callback(self, cdecl: str | _CType, python_callable: Callable[..., Any] | None = None, " \
              "error: Any = None, onerror: Callable[..., Any] | None = None) -> Any: ..."

    def _addressof(self) -> Iterable[str]:
        for struct in self._headers.structs.values():
            if struct.members is not None:
                yield "    @overload"
                yield f"    def addressof(self, cdata: struct_{struct.name}, /) -> struct_{struct.name}_p: ..."
        yield "    @overload"
        yield "    def addressof(self, cdata: _CData | Lib, /, *fields: str | int) -> Any: ..."

    def _lib(self) -> str:
        rows = ["class Lib:", '    """All functions and constants of the headers, under C\'s names."""', ""]
        for constant in self._headers.constants.values():
            python = {"int": "int", "float": "float", "str": "Pointer[c_char, bytes]"}[constant.kind]
            rows += self._constant(constant.name, python, constant.doc)
        for enum in self._headers.enums:
            python = f"enum_{enum.name}" if enum.name else "int"
            for one in enum.constants:
                rows += self._constant(one.name, python, one.doc)
        for function in self._functions:
            rows += self._function(function)
        return "\n".join(rows) + "\n"

    def _constant(self, name: str, python: str, doc: str) -> list[str]:
        rows = [f"    {name}: Final[{python}]"]
        return [*rows, _docstring(doc, 4)] if doc else rows

    def _function(self, function: Function) -> list[str]:
        types, result = signature(function.type, self._headers)
        names = [_python_name(one.name, index) for index, one in enumerate(parameters(function.type))]
        arguments = [f"{name}: {self._annotate.argument(kind)}" for name, kind in zip(names, types, strict=True)]
        if arguments:
            arguments.append("/")
        if is_variadic(function.type):
            arguments.append("*args: CData")
        doc = function.doc
        if function.deprecated is not None:
            doc = f"{doc}\n\nDeprecated: {function.deprecated}".strip()
        head = f"    def {function.name}({', '.join(['self', *arguments])}) -> {self._annotate.result(result)}:"
        origin = f"{function.origin.header}:{function.origin.line}"
        return [head, _docstring(f"{doc}\n\n{origin}".strip(), 8)]


_SCALARS = ("char", "int", "unsigned int", "float", "double", "size_t", "_Bool", "FILE",
            *(f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)))


def _scalars_in(kind: CType) -> set[str]:
    """Names of the C scalars inside a type."""
    match kind:
        case Scalar(name):
            return {name}
        case Pointer(inner) | Array(inner):
            return _scalars_in(inner)
        case Callback(arguments, result):
            return set[str]().union(*map(_scalars_in, (*arguments, result)))
    return set()


def _c_name(struct: Struct) -> str:
    return f"{struct.kind} {struct.name}" if struct.tagged else struct.name


def _spelled(struct: Struct, headers: Headers) -> list[str]:
    """The names under which C knows a struct."""
    names = [f"{struct.kind} {struct.name}"] if struct.tagged else []
    return [*names, struct.name] if struct.name in headers.typedefs else names


def _python_name(name: str | None, index: int) -> str:
    if not name:
        return f"arg{index}"
    return f"{name}_" if keyword.iskeyword(name) else name


def _docstring(text: str, indent: int) -> str:
    """A raw docstring, so that a backslash in a C comment stays one."""
    safe = text.replace('"""', "'''")
    ending = '\n"""' if "\n" in safe or safe.endswith(('"', "\\")) else '"""'
    return textwrap.indent(f'r"""{safe}{ending}', " " * indent, lambda line: bool(line.strip()))
