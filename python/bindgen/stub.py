"""Records to a typed stub, with the header's comments as docstrings."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Container, Iterable
from importlib.resources import files

from .annotate import Annotator, python_value, scalar_tag
from .ctype import (
    Array,
    Callback,
    CType,
    EnumType,
    Pointer,
    Scalar,
    StructType,
    is_variadic,
    parameters,
    resolve,
    signature,
)
from .model import Function, Headers, Struct

_HEAD = "# Generated from the headers by bindgen. Do not edit.\n"
_IMPORTS = "from typing import IO, Literal\n\nfrom typing_extensions import deprecated\n"
_IN_PRELUDE = ("char", "int8_t", "uint8_t")
# What `ffi.new` knows without a header.
_SCALARS = ("char", "int", "unsigned int", "float", "double", "size_t", "_Bool", "FILE",
            *(f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)))
_INIT = "init: Any = None"
_BUFFER = "python_buffer: SupportsBuffer, require_writable: bool = False"
_HANDLERS = "error: Any = None, onerror: Callable[..., Any] | None = None"

Signature = tuple[str, str]  # arguments and result, as Python writes them


def write_stub(headers: Headers, bound: Container[str]) -> str:
    """The `.pyi` of the module that `write_cdef` describes for the same arguments."""
    return _Stub(headers, bound).text()


class _Stub:
    def __init__(self, headers: Headers, bound: Container[str]) -> None:
        self._headers = headers
        self._functions = [one for one in headers.functions.values() if one.name in bound]
        self._annotate = Annotator({one.name for one in self._functions})
        self._named = {name: resolve(one.type, headers, name) for name, one in headers.typedefs.items()}
        self._parts = {part for kind in self._types() for part in _parts(kind)}

    def text(self) -> str:
        """The whole file."""
        structs = [one for struct in self._headers.structs.values() for one in self._struct(struct)]
        parts = [
            _HEAD + files(__package__).joinpath("stub_prelude.pyi").read_text(encoding="utf-8"),
            _IMPORTS,
            *(f"class {scalar_tag(name)}: ..." for name in self._scalar_names()),
            "class c_enum: ...\n",
            *self._enums(),
            *self._aliases(),
            *structs,
            *self._ffi(),
            *self._lib(),
            "ffi: FFI\nlib: Lib\n",
        ]
        return "\n".join(parts)

    def _types(self) -> Iterable[CType]:
        """The type of each typedef, function and field."""
        yield from self._named.values()
        for function in self._functions:
            arguments, result = signature(function.type, self._headers)
            yield from (*arguments, result)
        for struct in self._headers.structs.values():
            yield from (resolve(one.type, self._headers) for one in struct.members or ())

    def _scalar_names(self) -> list[str]:
        names = {one.name for one in self._parts if isinstance(one, Scalar)}
        return sorted(names.union(_SCALARS).difference(_IN_PRELUDE))

    def _enums(self) -> Iterable[str]:
        docs = {one.name: one.doc for one in self._headers.enums if one.name}
        used = {one.name for one in self._parts if isinstance(one, EnumType)}
        for name in [*docs, *sorted(used - docs.keys())]:
            yield from _documented(f"enum_{name}: TypeAlias = int", docs.get(name, ""))

    def _aliases(self) -> Iterable[str]:
        """Typedefs of scalars and callbacks have a name of their own."""
        for name, kind in self._named.items():
            doc = self._headers.typedefs[name].doc
            if isinstance(kind, Scalar):
                yield from _documented(f"{name}: TypeAlias = {python_value(kind.name)}", doc)
            elif isinstance(kind, Callback):
                yield from _documented(f"{name}: TypeAlias = {self._annotate.function_pointer(kind)}", doc)

    def _struct(self, struct: Struct) -> Iterable[str]:
        """The struct's fields, then the struct by value, then a pointer to it: both have the fields."""
        name = f"struct_{struct.name}"
        doc = _docstring(struct.doc or f"`{_c_name(struct)}` of {struct.origin.header}", 4)
        if struct.members is None:
            yield f"class {name}(CData):\n{doc}\n"
            yield f"class {name}_p(StructPointer[{name}]):\n{doc}\n"
            return
        fields = []
        for member in struct.members:
            if keyword.iskeyword(member.name):
                fields.append(f"    # `{member.name}` is a Python keyword: use getattr() and setattr()")
                continue
            annotation = self._annotate.field(resolve(member.type, self._headers))
            fields += _documented(f"{member.name}: {annotation}", member.doc, 4)
        yield f"class _{name}(CData):\n{doc}\n" + "\n".join(fields) + "\n"
        yield f"class {name}(_{name}):\n{doc}\n"
        yield f"class {name}_p(_{name}, StructPointer[{name}]):\n{doc}\n"

    def _ffi(self) -> Iterable[str]:
        """The FFI class: the prelude's, with the types of these headers known by name."""
        yield "class FFI(_FFI):"
        yield _docstring("cffi's FFI object for these headers.", 4)
        yield from _overloads("new", self._new())
        yield from _overloads("from_buffer", self._from_buffer())
        yield from _overloads("callback", self._callback())
        yield from _overloads("addressof", self._addressof())
        yield ""

    def _spellings(self) -> Iterable[tuple[str, str, str]]:
        """C name, pointer annotation and array annotation of every type that `ffi.new` can make."""
        kinds: dict[str, CType] = {"bool": Scalar("_Bool")}
        kinds |= {name: Scalar(name) for name in _SCALARS}
        for struct in self._headers.structs.values():
            if struct.tagged:
                kinds[_c_name(struct)] = StructType(struct.name)
        for enum in self._headers.enums:
            if enum.tagged:
                kinds[f"enum {enum.name}"] = EnumType(enum.name)
        for spelling, kind in (kinds | self._named).items():
            if isinstance(kind, (Scalar, EnumType)) or self._is_complete(kind):
                item, array = self._annotate.result(Pointer(kind)), self._annotate.result(Array(kind))
                yield spelling, item, array

    def _is_complete(self, kind: CType) -> bool:
        return isinstance(kind, StructType) and self._headers.structs[kind.name].members is not None

    def _new(self) -> Iterable[Signature]:
        for spelling, pointer, array in self._spellings():
            yield f'cdecl: Literal["{spelling} *", "{spelling}*"], {_INIT}', pointer
            yield f'cdecl: Literal["{spelling}[]"], {_INIT}', array
        yield f"cdecl: str | _CType, {_INIT}", "Any"

    def _from_buffer(self) -> Iterable[Signature]:
        for spelling, pointer, array in self._spellings():
            yield f'cdecl: Literal["{spelling} *", "{spelling}*"], {_BUFFER}', pointer
            yield f'cdecl: Literal["{spelling}[]"], {_BUFFER}', array
        yield f"cdecl: str | _CType, {_BUFFER}", "Any"
        yield "python_buffer: SupportsBuffer, /, *, require_writable: bool = False", "Array[c_char, bytes]"

    def _callback(self) -> Iterable[Signature]:
        """The function itself, the decorator that takes it, and what no callback is."""
        callbacks = {name: kind for name, kind in self._named.items() if isinstance(kind, Callback)}
        for name, callback in callbacks.items():
            function, alias = self._annotate.python_callable(callback), self._annotate.result(callback)
            yield f'cdecl: Literal["{name}"], python_callable: {function}, {_HANDLERS}', alias
            decorator = f"Callable[[{function}], {alias}]"
            yield f'cdecl: Literal["{name}"], python_callable: None = None, {_HANDLERS}', decorator
        if callbacks:
            names = ", ".join(f'"{name}"' for name in callbacks)
            yield f"cdecl: Literal[{names}], python_callable: Callable[..., Any], {_HANDLERS}", "WrongCallback"
        yield f"cdecl: str | _CType, python_callable: Callable[..., Any] | None = None, {_HANDLERS}", "Any"

    def _addressof(self) -> Iterable[Signature]:
        for struct in self._headers.structs.values():
            if struct.members is not None:
                yield f"cdata: struct_{struct.name}, /", f"struct_{struct.name}_p"
        yield "cdata: _CData | Lib, /, *fields: str | int", "Any"

    def _lib(self) -> Iterable[str]:
        yield "class Lib:"
        yield _docstring("All functions and constants of the headers, under C's names.", 4)
        for constant in self._headers.constants.values():
            python = {"int": "int", "float": "float", "str": "Pointer[c_char, bytes]"}[constant.kind]
            yield from _documented(f"{constant.name}: Final[{python}]", constant.doc, 4)
        for enum in self._headers.enums:
            python = f"enum_{enum.name}" if enum.name else "int"
            for one in enum.constants:
                yield from _documented(f"{one.name}: Final[{python}]", one.doc, 4)
        for function in self._functions:
            yield from self._function(function)
        yield ""

    def _function(self, function: Function) -> Iterable[str]:
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
            yield f"    @deprecated({function.deprecated!r})"
        yield f"    def {function.name}({', '.join(['self', *arguments])}) -> {self._annotate.result(result)}:"
        yield _docstring(f"{doc}\n\n{function.origin.header}:{function.origin.line}".strip(), 8)


def _parts(kind: CType) -> Iterable[CType]:
    """A type and the types inside it."""
    yield kind
    match kind:
        case Pointer(inner) | Array(inner):
            yield from _parts(inner)
        case Callback(arguments, result):
            for one in (*arguments, result):
                yield from _parts(one)


def _c_name(struct: Struct) -> str:
    return f"{struct.kind} {struct.name}" if struct.tagged else struct.name


def _python_name(name: str | None, index: int) -> str:
    if not name:
        return f"arg{index}"
    return f"{name}_" if keyword.iskeyword(name) or name == "self" else name


def _overloads(name: str, signatures: Iterable[Signature]) -> Iterable[str]:
    """A method once for each signature; the first that fits counts."""
    rows = [f"    def {name}(self, {arguments}) -> {result}: ..." for arguments, result in signatures]
    for row in rows:
        if len(rows) > 1:
            yield "    @overload"
        yield row


def _documented(row: str, doc: str, indent: int = 0) -> Iterable[str]:
    """A name with its annotation, and the header's comment below it, where editors look."""
    yield " " * indent + row
    if doc:
        yield _docstring(doc, indent)


def _docstring(text: str, indent: int) -> str:
    """A raw docstring, so that a backslash in a C comment stays one."""
    safe = text.replace('"""', "'''")
    ending = '\n"""' if "\n" in safe or safe.endswith(('"', "\\")) else '"""'
    return textwrap.indent(f'r"""{safe}{ending}', " " * indent, lambda line: bool(line.strip()))
