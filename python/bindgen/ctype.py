"""C types, resolved: typedefs followed to what they name."""

from __future__ import annotations

from dataclasses import dataclass

from pycparser import c_ast

from .model import Headers


@dataclass(frozen=True)
class Void:
    """`void`."""


@dataclass(frozen=True)
class Scalar:
    """A number or character; `alias` is the typedef under which it was written."""

    name: str
    alias: str = ""


@dataclass(frozen=True)
class EnumType:
    """An enum by its tag."""

    name: str


@dataclass(frozen=True)
class StructType:
    """A struct or union by its tag, or by its typedef where it has no tag."""

    name: str


@dataclass(frozen=True)
class Pointer:
    """A pointer to anything but a function."""

    target: CType
    const: bool = False


@dataclass(frozen=True)
class Array:
    """An array inside a struct."""

    item: CType


@dataclass(frozen=True)
class Callback:
    """A pointer to a function; `alias` is its typedef."""

    arguments: tuple[CType, ...]
    result: CType
    alias: str = ""


CType = Void | Scalar | EnumType | StructType | Pointer | Array | Callback


def resolve(node: c_ast.Node, headers: Headers, alias: str = "") -> CType:
    """The type that a syntax tree node of `headers` stands for."""
    if isinstance(node, c_ast.Typename):
        return resolve(node.type, headers)
    if isinstance(node, c_ast.FuncDecl):  # as a parameter or behind a typedef: C makes a pointer of it
        return Callback(*signature(node, headers), alias)
    if isinstance(node, c_ast.PtrDecl) and _is_function(node.type, headers):
        return resolve(node.type, headers, alias)
    if isinstance(node, c_ast.PtrDecl):
        return Pointer(resolve(node.type, headers), "const" in getattr(node.type, "quals", ()))
    if isinstance(node, c_ast.ArrayDecl):
        return Array(resolve(node.type, headers))
    inner = node.type
    if isinstance(inner, c_ast.Enum):
        return EnumType(inner.name or headers.untagged[id(inner)])
    if isinstance(inner, (c_ast.Struct, c_ast.Union)):
        return StructType(inner.name or headers.untagged[id(inner)])
    return _named(inner.names, headers, alias)


def _is_function(node: c_ast.Node, headers: Headers) -> bool:
    """Whether a node is a function's type, itself or by its typedef."""
    while isinstance(node, c_ast.TypeDecl) and isinstance(node.type, c_ast.IdentifierType):
        typedef = headers.typedefs.get(node.type.names[0])
        if typedef is None:
            return False
        node = typedef.type
    return isinstance(node, c_ast.FuncDecl)


def _named(words: list[str], headers: Headers, alias: str) -> CType:
    """A scalar or a typedef."""
    if words == ["void"]:
        return Void()
    if typedef := headers.typedefs.get(words[0]):
        return resolve(typedef.type, headers, words[0])
    return Scalar(_canonical(words), alias)


_WORDS = ("signed", "unsigned", "short", "long", "char", "int", "double")


def _canonical(words: list[str]) -> str:
    """The usual name of a number type: `long unsigned int` is `unsigned long`."""
    if not set(words) <= set(_WORDS):
        return "_Bool" if words == ["bool"] else " ".join(words)
    kept = sorted((word for word in words if word != "signed" or "char" in words), key=_WORDS.index)
    if "short" in kept or "long" in kept:
        kept = [word for word in kept if word != "int"]
    elif kept in ([], ["unsigned"]):
        kept.append("int")
    return " ".join(kept)


def signature(node: c_ast.FuncDecl, headers: Headers) -> tuple[tuple[CType, ...], CType]:
    """Argument types and result of a function; an array argument is a pointer, as in C."""
    types = (resolve(one.type, headers) for one in parameters(node))
    arguments = tuple(Pointer(one.item) if isinstance(one, Array) else one for one in types)
    return arguments, resolve(node.type, headers)


def parameters(node: c_ast.FuncDecl) -> list[c_ast.Decl | c_ast.Typename]:
    """A function's parameters, without `(void)` and `...`."""
    if node.args is None:
        return []
    return [one for one in node.args.params if not isinstance(one, c_ast.EllipsisParam) and not _is_void(one.type)]


def is_variadic(node: c_ast.FuncDecl) -> bool:
    """Whether a function ends with `...`."""
    return node.args is not None and any(isinstance(one, c_ast.EllipsisParam) for one in node.args.params)


def _is_void(node: c_ast.Node) -> bool:
    return isinstance(node, c_ast.TypeDecl) and getattr(node.type, "names", None) == ["void"]
