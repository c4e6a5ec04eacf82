"""The records that the parser makes and the writers read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pycparser import c_ast


@dataclass(frozen=True)
class Origin:
    """Where a declaration stands: the header's file name and the line."""

    header: str
    line: int


@dataclass(frozen=True)
class Function:
    """A function; `inline` ones live in the header and are in no library."""

    name: str
    decl: c_ast.Decl
    origin: Origin
    doc: str
    deprecated: str | None
    inline: bool

    @property
    def type(self) -> c_ast.FuncDecl:
        """The signature."""
        node = self.decl.type
        assert isinstance(node, c_ast.FuncDecl)
        return node


@dataclass(frozen=True)
class Member:
    """A struct's field or an enum's constant; `type` is None for a constant."""

    name: str
    type: c_ast.Node | None
    doc: str


@dataclass(frozen=True)
class Struct:
    """A struct or union; `members` is None where the header keeps it opaque."""

    kind: Literal["struct", "union"]
    name: str
    tagged: bool
    members: tuple[Member, ...] | None
    origin: Origin
    doc: str


@dataclass(frozen=True)
class Enum:
    """An enum; without a tag it has its typedef's name or, where there is none, an empty one."""

    name: str
    tagged: bool
    constants: tuple[Member, ...]
    origin: Origin
    doc: str


@dataclass(frozen=True)
class Typedef:
    """A typedef; `type` is the type that it names."""

    name: str
    type: c_ast.Node
    origin: Origin
    doc: str


@dataclass(frozen=True)
class Constant:
    """A `#define` or a `static const` with a value; the compiler knows which."""

    name: str
    kind: Literal["int", "float", "str"]
    macro: bool
    origin: Origin
    doc: str


@dataclass
class Headers:
    """All that the given headers declare, in the order of the headers.

    `nodes` keeps the syntax tree for the cdef: its order is one that C accepts.
    `function_macros` are the `#define NAME(...)` ones and those without a value,
    which have no C symbol and no Python meaning. `untagged` names the structs and
    enums that C leaves without a tag, by the `id` of their node.
    """

    nodes: list[c_ast.Node] = field(default_factory=list)
    functions: dict[str, Function] = field(default_factory=dict)
    structs: dict[str, Struct] = field(default_factory=dict)
    enums: list[Enum] = field(default_factory=list)
    typedefs: dict[str, Typedef] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    function_macros: list[str] = field(default_factory=list)
    untagged: dict[int, str] = field(default_factory=dict)

    @property
    def callbacks(self) -> dict[str, Typedef]:
        """The typedefs that name a function pointer."""
        return {name: one for name, one in self.typedefs.items() if is_function_pointer(one.type)}

    @property
    def files(self) -> list[str]:
        """The headers' names, in the order in which they were first met."""
        kinds: list[Iterable[Function | Struct | Enum | Typedef | Constant]] = [
            self.functions.values(), self.structs.values(), self.enums, self.typedefs.values(), self.constants.values()]
        return list(dict.fromkeys(one.origin.header for records in kinds for one in records))


def is_function_pointer(node: c_ast.Node) -> bool:
    """Whether a type is a pointer to a function."""
    return isinstance(node, c_ast.PtrDecl) and isinstance(node.type, c_ast.FuncDecl)
