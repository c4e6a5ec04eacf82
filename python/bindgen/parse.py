"""Headers to records: pycparser reads the preprocessed text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pycparser import c_ast, c_parser

from .comments import Comments
from .ctype import Array, CType, EnumType, Pointer, Scalar, resolve
from .model import Constant, Enum, Function, Headers, Member, Origin, Struct, Typedef
from .preprocess import Macro, Preprocessed

# What the headers take from libc, and C23's keyword. Sizes do not matter here: cffi knows these names.
_LIBC_TYPES = (
    "bool", "size_t", "ssize_t", "ptrdiff_t", "intptr_t", "uintptr_t", "va_list", "FILE",
    *(f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
_DEPRECATED = re.compile(r"\(\(\s*(?:__)?deprecated(?:__)?\s*(?:\(\s*((?:\"(?:\\.|[^\"\\])*\"\s*)*)\))?")
# A string or character is one word: nothing in it is expanded.
_WORD = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[A-Za-z_]\w*')

Kind = Literal["int", "float", "str"]


class ParseError(RuntimeError):
    """A header holds something that bindgen does not understand."""


def parse(source: Preprocessed) -> Headers:
    """Read everything that the preprocessed headers declare."""
    text, deprecated = _strip_extensions(source.text)
    try:
        tree = c_parser.CParser().parse(_typedefs(_LIBC_TYPES) + text, "<headers>")
    except c_parser.ParseError as error:
        raise ParseError(f"pycparser cannot read the headers: {error}") from error
    reader = _Reader(deprecated)
    for node in tree.ext[len(_LIBC_TYPES):]:
        reader.read(node)
    reader.read_macros(source.macros)
    return reader.headers


def _typedefs(names: Iterable[str]) -> str:
    """Lines that make pycparser take these names for types."""
    return "".join(f"typedef int {name};\n" for name in names)


def _strip_extensions(text: str) -> tuple[str, dict[str, str]]:
    """Remove what ISO C does not know; return the text and the deprecated functions' hints."""
    text = re.sub(r"\b__(?:restrict|inline|const|volatile)(?:__)?\b", lambda m: m[0].strip("_"), text)
    text = re.sub(r"\b__extension__\b", "", text)
    deprecated: dict[str, str] = {}
    pieces: list[str] = []
    start = 0
    for match in re.finditer(r"__attribute__\s*", text):
        if match.start() < start:
            continue
        end = _closing(text, match.end())
        if hint := _DEPRECATED.match(text, match.end()):
            # A macro within a declaration, as C's bool is one, brings #line into its middle.
            statement = re.split(r"[;{}]", re.sub(r"#line.*", "", text[start:match.start()]))[-1]
            if name := re.search(r"(\w+)\s*\(", statement):
                words = "".join(re.findall(r'"((?:\\.|[^"\\])*)"', hint[1] or ""))
                deprecated[name[1]] = re.sub(r'\\(["\\])', r"\1", words)
        pieces.append(text[start:match.start()])
        start = end
    return "".join(pieces) + text[start:], deprecated


def _closing(text: str, start: int) -> int:
    """The index behind the bracket that closes the one at `start`."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    raise ParseError("an __attribute__ does not end")


class _Reader:
    """Fills `Headers` from syntax tree nodes, one call a node."""

    def __init__(self, deprecated: dict[str, str]) -> None:
        self.headers = Headers()
        self._deprecated = deprecated
        self._comments: dict[str, Comments] = {}

    def read(self, node: c_ast.Node) -> None:
        """Take one top-level node."""
        if self._is_repeated(node):  # C allows to say it again, cffi does not
            return
        if isinstance(node, c_ast.FuncDef):
            self._function(node.decl, inline=True)
            node = node.decl
        elif isinstance(node, c_ast.Typedef):
            self._typedef(node)
        elif isinstance(node, c_ast.Decl):
            self._declaration(node)
        elif isinstance(node, (c_ast.StaticAssert, c_ast.Pragma)):
            return
        else:
            raise ParseError(f"{node.coord}: a {type(node).__name__} at the top level")
        self.headers.nodes.append(node)
        self._opaque_structs(node)

    def _is_repeated(self, node: c_ast.Node) -> bool:
        if isinstance(node, c_ast.FuncDef):
            node = node.decl
        known = self.headers.typedefs if isinstance(node, c_ast.Typedef) else self.headers.functions
        return isinstance(node, (c_ast.Typedef, c_ast.Decl)) and node.name in known

    def _opaque_structs(self, node: c_ast.Node) -> None:
        """Structs that are only named, as in `typedef struct ggml_backend * ggml_backend_t`."""
        if isinstance(node, (c_ast.Struct, c_ast.Union)) and node.name and node.decls is None:
            self._struct(node, node.name)
        for _, child in node.children():
            self._opaque_structs(child)

    def _declaration(self, node: c_ast.Decl) -> None:
        if isinstance(node.type, c_ast.FuncDecl):
            self._function(node, inline="inline" in node.funcspec)
        elif isinstance(node.type, (c_ast.Struct, c_ast.Union)):
            self._struct(node.type, node.type.name)
        elif isinstance(node.type, c_ast.Enum):
            self._enum(node.type, node.type.name or "")
        elif "const" in node.quals and (kind := _value_kind(resolve(node.type, self.headers))):
            origin, doc = self._where(node)
            self.headers.constants[node.name] = Constant(node.name, kind, False, origin, doc)
        else:
            raise ParseError(f"{node.coord}: {node.name} is a variable, which bindgen does not bind")

    def _function(self, decl: c_ast.Decl, *, inline: bool) -> None:
        origin, doc = self._where(decl)
        hint = self._deprecated.get(decl.name)
        self.headers.functions[decl.name] = Function(decl.name, decl, origin, doc, hint, inline)

    def _typedef(self, node: c_ast.Typedef) -> None:
        origin, doc = self._where(node)
        direct = isinstance(node.type, c_ast.TypeDecl)
        self._inner(node.type, node.name if direct else f"{node.name}__item")
        self.headers.typedefs[node.name] = Typedef(node.name, node.type, origin, doc)

    def _inner(self, node: c_ast.Node, name: str) -> None:
        """The struct or enum whose body stands inside a type; `name` is for one without a tag."""
        while isinstance(node, (c_ast.PtrDecl, c_ast.ArrayDecl, c_ast.TypeDecl)):
            node = node.type
        if not isinstance(node, (c_ast.Struct, c_ast.Union, c_ast.Enum)):
            return
        if not node.name:
            name = self.headers.untagged.setdefault(id(node), name)
        if isinstance(node, c_ast.Enum):
            self._enum(node, node.name or name)
        else:
            self._struct(node, node.name or name)

    def _struct(self, node: c_ast.Struct | c_ast.Union, name: str) -> None:
        known = self.headers.structs.get(name)
        if known and (known.members is not None or node.decls is None):
            return
        kind: Literal["struct", "union"] = "struct" if isinstance(node, c_ast.Struct) else "union"
        origin, doc = self._where(node)
        members = None if node.decls is None else tuple(self._members(node, name))
        self.headers.structs[name] = Struct(kind, name, bool(node.name), members, origin, doc)

    def _members(self, node: c_ast.Struct | c_ast.Union, owner: str) -> list[Member]:
        """Fields, those of inner structs and unions without a name included."""
        members: list[Member] = []
        for one in node.decls:
            if not isinstance(one, c_ast.Decl):
                continue
            if one.name is None:
                members += self._members(one.type, owner)
                continue
            self._inner(one.type, f"{owner}__{one.name}")
            # On the struct's own line, a comment is the struct's.
            doc = self._where(one)[1] if one.coord.line != node.coord.line else ""
            members.append(Member(one.name, one.type, doc))
        return members

    def _enum(self, node: c_ast.Enum, name: str) -> None:
        if node.values is None or any(one.name == name != "" for one in self.headers.enums):
            return
        origin, doc = self._where(node)
        constants = tuple(Member(one.name, None, self._where(one)[1]) for one in node.values.enumerators)
        self.headers.enums.append(Enum(name, bool(node.name), constants, origin, doc))

    def _where(self, node: c_ast.Node) -> tuple[Origin, str]:
        """Where a node stands and what the header's comment says of it."""
        return self._look_up(Path(node.coord.file), node.coord.line)

    def _look_up(self, path: Path, line: int) -> tuple[Origin, str]:
        if str(path) not in self._comments:
            self._comments[str(path)] = Comments(path)
        return Origin(path.name, line), self._comments[str(path)].describe(line)

    def read_macros(self, macros: list[Macro]) -> None:
        """Sort the macros into constants and those that are no value."""
        values = _Values(self.headers, {macro.name: macro.body for macro in macros if not macro.has_arguments})
        for macro in macros:
            kind = None if macro.has_arguments else values.kind(macro.body)
            if kind is None:
                self.headers.function_macros.append(macro.name)
            else:
                origin, doc = self._look_up(macro.path, macro.line)
                self.headers.constants[macro.name] = Constant(macro.name, kind, True, origin, doc)


def _value_kind(kind: CType) -> Kind | None:
    """What kind of Python value a C type's values are."""
    match kind:
        case Scalar("float" | "double"):
            return "float"
        case Scalar() | EnumType():
            return "int"
        case Pointer(Scalar("char")) | Array(Scalar("char")):
            return "str"
    return None


class _Values:
    """Tells what kind of value a macro's body is; None if it is no constant expression."""

    def __init__(self, headers: Headers, bodies: dict[str, str]) -> None:
        self._headers = headers
        self._bodies = bodies
        self._enumerators = {one.name for enum in headers.enums for one in enum.constants}

    def kind(self, body: str) -> Kind | None:
        """Kind of a macro's body, the macros in it expanded."""
        body = self._expanded(body, frozenset())
        if not body:
            return None
        words = set(re.findall(r"\w+", body))
        types = [name for name in (*_LIBC_TYPES, *self._headers.typedefs) if name in words]
        try:
            tree = c_parser.CParser().parse(f"{_typedefs(types)}long value = {body};")
        except c_parser.ParseError:
            return None
        return self._of(tree.ext[-1].init) if len(tree.ext) == len(types) + 1 else None

    def _expanded(self, body: str, within: frozenset[str]) -> str:
        """`within` are the macros that led here: C does not expand those again."""

        def word(match: re.Match[str]) -> str:
            name = match[0]
            known = name in self._bodies and name not in within
            return self._expanded(self._bodies[name], within | {name}) if known else name

        return _WORD.sub(word, body)

    def _of(self, node: c_ast.Node) -> Kind | None:
        if isinstance(node, c_ast.Constant):
            if node.type == "string":
                return "str"
            return "float" if node.type in ("float", "double", "long double") else "int"
        if isinstance(node, c_ast.ID):
            constant = self._headers.constants.get(node.name)
            return constant.kind if constant else "int" if node.name in self._enumerators else None
        if isinstance(node, c_ast.UnaryOp) and node.op == "sizeof":
            return "int"
        if not isinstance(node, (c_ast.UnaryOp, c_ast.BinaryOp, c_ast.TernaryOp, c_ast.Cast)):
            return None
        kinds = [self._of(child) for name, child in node.children() if name != "to_type"]
        if None in kinds or "str" in kinds:
            return None
        if isinstance(node, c_ast.Cast):
            return _value_kind(resolve(node.to_type, self._headers))
        return "float" if "float" in kinds else "int"
