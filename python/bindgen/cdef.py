"""Records to the declarations that cffi reads.

Everything that the compiler knows better is left to it: enum values, `#define` values and array sizes
are written as `...`.
"""

from __future__ import annotations

import copy
from collections.abc import Container

from pycparser import c_ast, c_generator

from .model import Constant, Headers


def write_cdef(headers: Headers, bound: Container[str]) -> str:
    """C declarations of all types and constants, and of the functions named in `bound`."""
    generator = _Generator()
    parts: list[str] = []
    for node in headers.nodes:
        if isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.FuncDecl) and node.name not in bound:
            continue
        if isinstance(node, c_ast.Decl) and node.name in headers.constants:
            continue
        parts.append(generator.visit(_without_storage(node)) + ";")
    parts += [_constant(one) for one in headers.constants.values()]
    return "\n".join(parts) + "\n"


def _constant(constant: Constant) -> str:
    if constant.kind == "str":
        return f"static const char *const {constant.name};"
    if constant.kind == "float":
        return f"static const double {constant.name};"
    # As a macro, cffi takes the value whatever its integer type is.
    return f"#define {constant.name} ..."


def _without_storage(node: c_ast.Node) -> c_ast.Node:
    """`extern`, `inline` and `_Noreturn` say nothing to cffi and stop its parser."""
    if not isinstance(node, c_ast.Decl):
        return node
    bare = copy.copy(node)
    bare.storage, bare.funcspec = [], []
    return bare


class _Generator(c_generator.CGenerator):  # type: ignore[misc] # pycparser carries no types
    """pycparser's generator, with the compiler's part written as dots."""

    def visit_Enum(self, node: c_ast.Enum) -> str:
        if node.values is None:
            return f"enum {node.name}"
        names = ", ".join(one.name for one in node.values.enumerators)
        return f"enum {node.name or ''} {{ {names}, ... }}"

    def visit_ParamList(self, node: c_ast.ParamList) -> str:
        return ", ".join(self.visit(_as_pointer(one)) for one in node.params)

    def _generate_type(self, node: c_ast.Node, *args: object, **kwargs: object) -> str:
        if _is_computed(node):
            node = copy.copy(node)
            node.dim = c_ast.ID("...")
        text: str = super()._generate_type(node, *args, **kwargs)
        return text


def _is_computed(node: c_ast.Node) -> bool:
    """Whether an array's length is an expression, or that of the arrays in it: cffi wants dots outside of dots."""
    while isinstance(node, c_ast.ArrayDecl):
        if node.dim is not None and not isinstance(node.dim, c_ast.Constant):
            return True
        node = node.type
    return False


def _as_pointer(node: c_ast.Node) -> c_ast.Node:
    """A parameter; the length of an array means nothing to C there, and cffi takes no dots for it."""
    if not isinstance(getattr(node, "type", None), c_ast.ArrayDecl):
        return node
    node = copy.copy(node)
    node.type = copy.copy(node.type)
    node.type.dim = None
    return node
