"""A scan of C and C++ that finds functions, what each one names, and the places in them that can end the process.

It is no parser: it knows comments, strings, directives, braces and what a declaration looks like. All branches of `#if`
are taken, in the state that the first one found.
"""

from __future__ import annotations

import bisect
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

# The libraries. The first one that has a file keeps it.
LAYERS = {
    "ggml": ("ggml/src/ggml-backend-reg.cpp", "ggml/src/ggml-backend-dl.*"),
    "base": ("ggml/include/*.h", "ggml/src/*.c", "ggml/src/*.cpp", "ggml/src/*.h"),
    "cpu": ("ggml/src/ggml-cpu/**/*.c", "ggml/src/ggml-cpu/**/*.cpp", "ggml/src/ggml-cpu/**/*.h"),
    "llama": ("include/*.h", "src/**/*.cpp", "src/**/*.h"),
}
# Which of them each may call by name; what else it calls, it has a pointer to.
CALLABLE = {
    "base": ("base", "ggml"),  # its headers declare ggml's functions
    "cpu": ("base", "cpu"),
    "ggml": ("base", "cpu", "ggml"),
    "llama": ("base", "cpu", "ggml", "llama"),
}
# Kernels of other vendors, off unless somebody asks for them.
LEFT_OUT = ("ggml/src/ggml-cpu/spacemit/", "ggml/src/ggml-cpu/kleidiai/")
# Tables of numbers without a function.
NO_CODE = ("src/unicode-data.cpp", "ggml/src/ggml-common.h")

ASSERTS = {"GGML_ASSERT": "assert", "GGML_ABORT": "abort"}
ENDS = {"abort", "exit", "_exit", "_Exit", "quick_exit", "terminate"}
SPAWNS = {"thread", "jthread", "async", "pthread_create", "ggml_thread_create"}

TOKEN = re.compile(
    r"""
      (?P<space> \s+ | //(?:[^\n\\]|\\.|\\\n)* | /\*.*?\*/ )
    | (?P<text>  (?:u8|[uUL])?R"(?P<mark>[^\s()\\]{0,16})\(.*?\)(?P=mark)" | (?:u8|[uUL])?"(?:[^"\\\n]|\\.)*"
                 | (?:u8|[uUL])?'(?:[^'\\\n]|\\.)*' )
    | (?P<rule>  \#(?:[^\n\\/]|\\\n|\\.|/(?!\*|/)|//[^\n]*|/\*.*?\*/)* )
    | (?P<name>  [A-Za-z_]\w* )
    | (?P<number> \.?\d(?:[eEpP][+-]|[\w.']|)* )
    | (?P<sign>  ::|->|\#\#|. )
    """,
    re.VERBOSE | re.DOTALL,
)
NO_CODE_IN = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'", re.DOTALL)
# fmt: off
KEYWORDS = frozenset((
    "if", "else", "for", "while", "do", "switch", "case", "default", "return", "break", "continue", "goto", "sizeof",
    "static", "const", "constexpr", "inline", "void", "int", "char", "float", "double", "bool", "auto", "struct",
    "class", "enum", "union", "typedef", "using", "namespace", "template", "typename", "public", "private",
    "protected", "virtual", "override", "unsigned", "signed", "long", "short", "extern", "volatile", "new", "delete",
    "this", "operator", "nullptr", "NULL", "true", "false", "static_cast", "reinterpret_cast", "const_cast",
    "dynamic_cast", "try", "catch", "friend", "explicit", "noexcept", "final", "std",
))
# fmt: on


class Token(NamedTuple):
    """A token and where it begins in its file's text."""

    kind: str
    text: str
    start: int


class Site(NamedTuple):
    """A place that can end the process."""

    file: str
    line: int
    function: str
    kind: str  # assert, abort, throw, end
    condition: str


@dataclass
class Node:
    """A function, a global variable, a macro or a class: who names it reaches what it names."""

    name: str
    owner: str  # the class of a method, or an empty string
    file: str
    layer: str
    kind: str  # function, variable, macro, class
    static: bool = False
    noexcept: bool = False
    calls: set[str] = field(default_factory=set)  # names in front of ( or <
    builds: set[str] = field(default_factory=set)  # names that are not followed by * and the like
    mentions: set[str] = field(default_factory=set)  # all names
    sites: list[Site] = field(default_factory=list)
    spawns: bool = False
    alias: str = ""  # of a macro that stands for one name: that name

    @property
    def label(self) -> str:
        """Its name with its class."""
        return f"{self.owner}::{self.name}" if self.owner else self.name


# ---- the source as nodes


def scan(source: Path) -> tuple[list[Node], list[str]]:
    """All nodes of the CPU build's source, and files of which the scan lost places."""
    nodes: list[Node] = []
    lost: list[str] = []
    taken: set[Path] = set()
    for layer, patterns in LAYERS.items():
        files = sorted({path for pattern in patterns for path in source.glob(pattern)} - taken)
        taken.update(files)
        for path in files:
            name = path.relative_to(source).as_posix()
            if not name.startswith(LEFT_OUT) and name not in NO_CODE:
                text = path.read_text(encoding="utf-8")
                found = File(name, layer, text).nodes()
                missing = _asserts(text) - sum(site.kind != "end" for node in found for site in node.sites)
                lost += [f"{name}: {missing} places are in no function"] if missing else []
                nodes += found
    return nodes, lost


def _asserts(text: str) -> int:
    """How many asserts, aborts and throws a file has: a check of the scan by simpler means."""
    code = re.sub(r"#\s*define GGML_(ASSERT|ABORT)\b[^\n]*", "", NO_CODE_IN.sub(" ", text))
    return len(re.findall(r"\bthrow\b|\bGGML_(?:ASSERT|ABORT)\s*\(", code))


def tokens_of(text: str) -> Iterator[Token]:
    """The tokens that are not white space."""
    for match in TOKEN.finditer(text):
        if match.lastgroup not in ("space", "mark"):
            yield Token(match.lastgroup or "text", match.group(), match.start())


@dataclass
class _State:
    """Where a scan is: what the open braces are, and the tokens since the last finished declaration."""

    scopes: list[tuple[str, str]]  # kind (space, class) and name
    head: list[Token]

    def copy(self) -> _State:
        return _State(list(self.scopes), list(self.head))


class File:
    """One file's nodes."""

    def __init__(self, name: str, layer: str, text: str) -> None:
        self.name = name
        self.layer = layer
        self.text = text
        self._state = _State([], [])
        self._branches: list[_State] = []  # the state at each open #if
        self._nodes: list[Node] = []
        self._classes: dict[str, Node] = {}

    @cached_property
    def _lines(self) -> list[int]:
        return [match.start() for match in re.finditer("\n", self.text)]

    def line(self, start: int) -> int:
        """The line of a position."""
        return bisect.bisect_left(self._lines, start) + 1

    def nodes(self) -> list[Node]:
        """All of them."""
        tokens = list(tokens_of(self.text))
        at = 0
        while at < len(tokens):
            at = self._step(tokens, at)
        return self._nodes

    def _step(self, tokens: list[Token], at: int) -> int:
        """Take one token, or a whole body; return what comes next."""
        token, state = tokens[at], self._state
        if token.kind == "rule":
            self._directive(token)
            return at + 1
        if token.text == "{":
            return self._open(tokens, at)
        if token.text == "}":
            if state.scopes:
                state.scopes.pop()
            state.head.clear()
        elif token.text == ";":
            self._declared()
        elif token.text == ":" and len(state.head) == 1 and state.head[0].text in ("public", "private", "protected"):
            state.head.clear()
        else:
            state.head.append(token)
        return at + 1

    def _directive(self, token: Token) -> None:
        """Branches of #if begin in the same state; a #define is a node."""
        word = re.match(r"#\s*(\w*)", token.text)
        kind = word.group(1) if word else ""
        if kind.startswith("if"):
            self._branches.append(self._state.copy())
        elif kind in ("else", "elif") and self._branches:
            self._state = self._branches[-1].copy()
        elif kind == "endif" and self._branches:
            self._branches.pop()
        elif kind == "define":
            self._define(token)

    def _define(self, token: Token) -> None:
        match = re.match(r"#\s*define\s+(\w+)(\([^)]*\))?", token.text)
        if not match or match.group(1) in ASSERTS:
            return
        offset = token.start + match.end()
        body = [one._replace(start=one.start + offset) for one in tokens_of(token.text[match.end() :])]
        node = Node(match.group(1), "", self.name, self.layer, "macro")
        if len(body) == 1 and body[0].kind == "name" and not match.group(2):
            node.alias = body[0].text
        self._read(node, body)
        self._nodes.append(node)

    # -- declarations

    def _open(self, tokens: list[Token], at: int) -> int:
        """An opening brace outside of functions: what it opens depends on what stands before it."""
        state = self._state
        head = _plain(state.head)
        words = [token.text for token in head]
        if not head or words[0] == "namespace" or words[:2] == ["inline", "namespace"] or _is_linkage(head):
            state.scopes.append(("space", words[-1] if len(words) > 1 and words[0] == "namespace" else ""))
            state.head.clear()
            return at + 1
        name = _function_name(head)
        if name and _in_initializers(head):
            end = _closing(tokens, at)
            state.head.extend(tokens[at : end + 1])
            return end + 1
        if name:
            return self._function(name, tokens, at)
        if _is_class(head):
            state.scopes.append(("class", _class_name(words)))
            self._members(state.head)  # its base classes
            state.head.clear()
            return at + 1
        # A variable's initializer, or an enum: its braces belong to the declaration.
        end = _closing(tokens, at)
        state.head.extend(token for token in tokens[at : end + 1] if token.kind != "rule")
        return end + 1

    def _function(self, name: list[str], tokens: list[Token], at: int) -> int:
        head, end = self._state.head, _closing(tokens, at)
        owner = name[-2] if len(name) > 1 else self._class()
        words = {token.text for token in head}
        node = Node(
            name[-1],
            owner,
            self.name,
            self.layer,
            "function",
            static=not owner and ("static" in words or self._anonymous()),
            noexcept=name[-1].startswith("~") or "noexcept" in words,
        )
        body = [token for token in tokens[at : end + 1] if token.kind != "rule"]
        self._read(node, head[_first_parenthesis(head) :] + body)
        node.spawns |= any("omp parallel" in token.text for token in tokens[at:end] if token.kind == "rule")
        for token in tokens[at : end + 1]:
            if token.kind == "rule" and re.match(r"#\s*define", token.text):
                self._define(token)
        self._nodes.append(node)
        self._state.head.clear()
        return end + 1

    def _declared(self) -> None:
        """A declaration ends: a variable's is a node, as its initializer may name functions."""
        head = self._state.head
        self._state.head = []
        words = [token.text for token in head]
        if not head or words[0] in ("using", "typedef", "friend", "template"):
            return
        if self._class():
            self._members(head)
        name = _variable_name(_plain(head))
        if name and any(text in ("=", "{", "(") for text in words):
            node = Node(name, self._class(), self.name, self.layer, "variable")
            self._read(node, head)
            self._nodes.append(node)

    def _members(self, head: list[Token]) -> None:
        """Whoever makes or destroys an object does so with its members."""
        name = self._class()
        if name not in self._classes:
            self._classes[name] = Node(name, "", self.name, self.layer, "class")
            self._nodes.append(self._classes[name])
        self._read(self._classes[name], [token for token in head if token.text != name])

    def _class(self) -> str:
        return next((name for kind, name in reversed(self._state.scopes) if kind == "class"), "")

    def _anonymous(self) -> bool:
        return any(kind == "space" and name == "namespace" for kind, name in self._state.scopes)

    # -- bodies

    def _read(self, node: Node, tokens: list[Token]) -> None:
        """What the tokens name, and the places in them."""
        for index, token in enumerate(tokens):
            if token.kind != "name" or token.text in KEYWORDS:
                continue
            node.mentions.add(token.text)
            following = tokens[index + 1].text if index + 1 < len(tokens) else ""
            if following in ("(", "<", "{"):
                node.calls.add(token.text)
            if following not in ("*", "&", "::", ".", "->"):
                node.builds.add(token.text)
            node.spawns |= token.text in SPAWNS and self._spawns(tokens, index, following)
            site = self._site(node, tokens, index, following)
            if site:
                node.sites.append(site)

    @staticmethod
    def _spawns(tokens: list[Token], index: int, following: str) -> bool:
        """Whether a thread may begin here: not a mere std::thread::hardware_concurrency()."""
        standard = index > 1 and tokens[index - 1].text == "::" and tokens[index - 2].text == "std"
        return following != "::" and (standard or tokens[index].text.endswith("thread_create"))

    def _site(self, node: Node, tokens: list[Token], index: int, following: str) -> Site | None:
        token = tokens[index]
        if token.text in ASSERTS and following == "(":
            kind, inside = ASSERTS[token.text], self._inside(tokens, index + 1)
        elif token.text == "throw":
            kind, inside = "throw", self._until_semicolon(tokens, index + 1)
        elif token.text in ENDS and following == "(" and tokens[index - 1].text not in (".", "->"):
            kind, inside = "end", token.text
        else:
            return None
        return Site(self.name, self.line(token.start), node.label, kind, inside)

    def _inside(self, tokens: list[Token], at: int) -> str:
        """The text between a parenthesis and the one that closes it, on one line."""
        end = _closing(tokens, at, "(", ")")
        return _one_line(self.text[tokens[at].start + 1 : tokens[min(end, len(tokens) - 1)].start])

    def _until_semicolon(self, tokens: list[Token], at: int) -> str:
        end = next((i for i in range(at, len(tokens)) if tokens[i].text == ";"), len(tokens) - 1)
        return _one_line(self.text[tokens[at].start : tokens[end].start]) if at < len(tokens) else ""


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\\\n", " ", text)).strip()


def _closing(tokens: list[Token], at: int, opening: str = "{", closing: str = "}") -> int:
    """The index of what closes tokens[at]; the branches of an #if count once."""
    depth, branches = 0, []
    for index in range(at, len(tokens)):
        token = tokens[index]
        if token.text == opening:
            depth += 1
        elif token.text == closing:
            depth -= 1
            if depth == 0:
                return index
        elif token.kind == "rule":
            if re.match(r"#\s*if", token.text):
                branches.append(depth)
            elif re.match(r"#\s*el", token.text):
                depth = branches[-1] if branches else 0  # of an #if before `at`: the other branch opens once more
            elif re.match(r"#\s*endif", token.text) and branches:
                branches.pop()
    return len(tokens) - 1


def _plain(head: list[Token]) -> list[Token]:
    """A declaration without `template <...>` and attributes."""
    kept: list[Token] = []
    index = 0
    while index < len(head):
        text = head[index].text
        if text == "template" and index + 1 < len(head):
            index = _closing_angle(head, index + 1) + 1
        elif text in ("__attribute__", "alignas", "LLAMA_ATTRIBUTE_FORMAT", "GGML_ATTRIBUTE_FORMAT", "GGML_DEPRECATED"):
            index = _closing(head, index + 1, "(", ")") + 1
        elif text == "[" and index + 1 < len(head) and head[index + 1].text == "[":
            index = _closing(head, index, "[", "]") + 1
        else:
            kept.append(head[index])
            index += 1
    return kept


def _closing_angle(head: list[Token], at: int) -> int:
    """The index of the > that closes a template's parameters; > inside parentheses does not count."""
    depth = parentheses = 0
    for index in range(at, len(head)):
        text = head[index].text
        parentheses += (text == "(") - (text == ")")
        if not parentheses:
            depth += (text == "<") - (text == ">")
            if depth == 0:
                return index
    return len(head) - 1


def _is_linkage(head: list[Token]) -> bool:
    return len(head) == 2 and head[0].text == "extern" and head[1].kind == "text"


def _first_parenthesis(head: list[Token]) -> int:
    """The index of the ( of a function's parameters, or -1: none, or = comes first."""
    for index, token in enumerate(head):
        if token.text == "=" and (index == 0 or head[index - 1].text != "operator"):
            return -1
        if token.text == "operator":
            return next((i for i in range(index + 2, len(head)) if head[i].text == "("), -1)
        if token.text == "(":
            return index
    return -1


def _function_name(head: list[Token]) -> list[str]:
    """A function's name with its classes, or nothing if the declaration is none of a function."""
    at = _first_parenthesis(head)
    if at < 1:
        return []
    words = [token.text for token in head[:at]]
    if "operator" in words:
        where = words.index("operator")
        return [*_qualifiers(words[:where]), "operator" + "".join(words[where + 1 :])]
    words = _without_arguments(words)
    if not words or not re.match(r"[A-Za-z_]", words[-1]) or words[-1] in KEYWORDS:
        return []
    name = words[-1]
    if len(words) > 1 and words[-2] == "~":
        return [*_qualifiers(words[:-2]), f"~{name}"]
    return [*_qualifiers(words[:-1]), name]


def _qualifiers(words: list[str]) -> list[str]:
    """The class before the :: that ends the words: its name without template arguments."""
    if not words or words[-1] != "::":
        return []
    return _without_arguments(words[:-1])[-1:]


def _without_arguments(words: list[str]) -> list[str]:
    """The words without template arguments at their end."""
    depth = 0
    for index in range(len(words) - 1, -1, -1):
        depth += (words[index] == ">") - (words[index] == "<")
        if depth == 0:
            return words[:index] if words[index] == "<" else words[: index + 1]
    return []


def _in_initializers(head: list[Token]) -> bool:
    """Whether a brace here is a member's initializer of a constructor rather than its body."""
    at = _first_parenthesis(head)
    end = _closing(head, at, "(", ")")
    following = [token.text for token in head[end + 1 :]]
    return following[:1] == [":"] and following[-1] not in (")", "}")


def _is_class(head: list[Token]) -> bool:
    words = {token.text for token in head}
    return bool(words & {"struct", "class", "union"}) and "=" not in words and "enum" not in words


def _class_name(words: list[str]) -> str:
    """The name after struct or class, before its base classes."""
    at = next(i for i, word in enumerate(words) if word in ("struct", "class", "union"))
    before = words[at + 1 : words.index(":", at) if ":" in words[at:] else len(words)]
    names = [word for word in before if re.match(r"[A-Za-z_]", word) and word != "final"]
    return names[-1] if names else ""


def _variable_name(head: list[Token]) -> str:
    """The declared name: the last one before =, [, { or (."""
    name = ""
    for token in head:
        if token.text in ("=", "[", "{", "("):
            break
        if token.kind == "name" and token.text not in KEYWORDS:
            name = token.text
    return name


# ---- what reaches what


class Graph:
    """Nodes and who reaches whom."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self._by_name: dict[str, list[Node]] = defaultdict(list)
        self._next: dict[int, list[Node]] = {}
        for node in nodes:
            self._by_name[node.name].append(node)
            if node.alias:  # the function may be compiled under the macro's name
                self._by_name[node.alias].append(node)
            if node.name.startswith("~"):  # whoever names a class may destroy one
                self._by_name[node.name[1:]].append(node)

    def named(self, name: str) -> list[Node]:
        """The functions of a name, or of `class::name`."""
        return [node for node in self._by_name.get(name.rsplit("::", 1)[-1], []) if name in (node.name, node.label)]

    def closure(self, start: Iterable[Node], barred: Iterable[int] = (), plain: bool = False) -> set[int]:
        """The ids of all nodes that are reached from some, without passing through barred ones.

        `plain` follows calls of C functions by their name alone.
        """
        reached = set(barred)
        waiting = list(start)
        while waiting:
            node = waiting.pop()
            if id(node) not in reached:
                reached.add(id(node))
                following = (one for one in self.next(node) if not plain or self._plainly(node, one))
                waiting.extend(one for one in following if id(one) not in reached)
        return reached.difference(barred)

    @staticmethod
    def _plainly(user: Node, used: Node) -> bool:
        return used.kind == "function" and not used.owner and used.name in user.calls

    def next(self, node: Node) -> list[Node]:
        """What a node reaches at once."""
        if id(node) not in self._next:
            self._next[id(node)] = [
                one
                for name in node.mentions
                for one in self._by_name.get(name, ())
                if self._visible(node, one) and name in self._means(node, one)
            ]
        return self._next[id(node)]

    @staticmethod
    def _means(user: Node, used: Node) -> set[str]:
        """The names by which one may reach the other: a method's by calling it, as another's name is a variable's."""
        if used.kind == "class" or used.name.lstrip("~") == used.owner:
            return user.builds
        return user.calls if used.owner and used.kind == "function" else user.mentions

    @staticmethod
    def _visible(user: Node, used: Node) -> bool:
        if used.layer not in CALLABLE[user.layer]:
            return False
        hidden = used.static or used.kind in ("macro", "class")
        return not hidden or used.file == user.file or used.file.endswith(".h")
