"""What a GBNF grammar would do to libllama, found out before libllama gets it.

libllama's parser takes a few lines for endless loops, gigabytes or more stack than there is; none of them can be
caught. So this follows llama_grammar_parser and llama_grammar_init_impl (src/llama-grammar.cpp) step by step, keeping
of each rule only what it begins with.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from .errors import InvalidArgumentError

# Each level of parentheses is about 600 bytes of stack in C, and three frames here.
MAX_NESTING = 100
# Each rule that begins with another one is a call in C, of less than 168 bytes of stack.
MAX_DEPTH = 4000
# libllama follows every way to begin a rule, and keeps a stack for each.
MAX_BEGINNINGS = 100_000
# Characters and references with all repetitions written out; C keeps 8 bytes for each, several times.
MAX_ELEMENTS = 1_000_000
# MAX_REPETITION_THRESHOLD of src/llama-grammar.cpp.
MAX_REPETITIONS = 2000

_CHAR = r'\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[trn\\"\[\]-])'
_LITERAL = re.compile(rf'"((?:{_CHAR}|[^"\\])*)"')
_SET = re.compile(rf"\[\^?((?:{_CHAR}|[^\]\\])*)\]")
_ONE_CHAR = re.compile(rf"{_CHAR}|[^\\]")
_TOKEN = re.compile(r"!?<(?:\[[0-9]{1,10}\]|(?!\[)[^>]*)>")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_COMMENT = r"#[^\r\n]*"
# In a rule that is not within parentheses, the end of the line is the end of the rule.
_SPACE = {nested: re.compile(rf"(?:[ \t{end}]|{_COMMENT})*") for nested, end in ((False, ""), (True, r"\r\n"))}
_ANY_TIMES = {"*": (0, None), "+": (1, None), "?": (0, 1)}

# A terminal is None, a reference the number of a rule; a rule is its alternatives.
Sequence = list[int | None]
Rules = dict[int, list[Sequence]]
Beginnings = dict[int, list[tuple[int, bool]]]
Edges = dict[int, list[int]]


def check(text: str, root: str) -> None:
    """Refuse a grammar that libllama cannot parse, or that would end the process.

    Raises
    ------
    InvalidArgumentError
        What is wrong, and in which line.
    """
    grammar = _Grammar(text)
    grammar.parse()
    names = {number: name for name, number in grammar.symbols.items()}
    if root not in grammar.symbols:
        raise InvalidArgumentError(f"grammar: it has no rule {root!r}; give the name of its start as grammar_root")
    used = {item for rule in grammar.rules.values() for sequence in rule for item in sequence if item is not None}
    for number in sorted(used - grammar.rules.keys()):
        raise InvalidArgumentError(f"grammar: the rule {names[number]!r} is used and not defined")
    _require_shallow(grammar.rules, names)
    _require_end(grammar.rules, names)


class _Grammar:
    """llama_grammar_parser, of which each method here has its like."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0
        self._nesting = 0
        self._n_elements = 0
        self.symbols: dict[str, int] = {}
        self.rules: Rules = {}

    def parse(self) -> None:
        self._skip_space(nested=True)
        if self._pos == len(self._text):
            raise InvalidArgumentError("grammar: it is empty")
        while self._pos < len(self._text):
            self._rule()

    def _refuse(self, words: str) -> InvalidArgumentError:
        line = self._text.count("\n", 0, self._pos) + 1
        return InvalidArgumentError(f"grammar, line {line}: {words} at {self._text[self._pos : self._pos + 20]!r}")

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if match := pattern.match(self._text, self._pos):
            self._pos = match.end()
        return match

    def _skip_space(self, *, nested: bool) -> None:
        self._take(_SPACE[nested])

    def _next_is(self, word: str) -> bool:
        if self._text.startswith(word, self._pos):
            self._pos += len(word)
            return True
        return False

    def _symbol(self, name: str) -> int:
        return self.symbols.setdefault(name, len(self.symbols))

    def _new_symbol(self, name: str) -> int:
        return self._symbol(f"{name}_{len(self.symbols)}")

    def _count(self, n_elements: int) -> None:
        self._n_elements += n_elements
        if self._n_elements > MAX_ELEMENTS:
            raise self._refuse(f"it has more than {MAX_ELEMENTS} characters, repetitions written out; repeat less")

    def _rule(self) -> None:
        name = self._take(_NAME)
        if not name:
            raise self._refuse("a rule's name is missing")
        self._skip_space(nested=False)
        number = self._symbol(name[0])
        if not self._next_is("::="):
            raise self._refuse("'::=' is missing")
        self._skip_space(nested=True)
        self._alternatives(name[0], number, nested=False)
        if self._pos < len(self._text) and self._text[self._pos] not in "\r\n":
            raise self._refuse("it cannot be read")
        self._skip_space(nested=True)

    def _alternatives(self, name: str, number: int, *, nested: bool) -> None:
        rule = [_Sequence(self, name, nested).parse()]
        while self._next_is("|"):
            self._skip_space(nested=True)
            rule.append(_Sequence(self, name, nested).parse())
        self.rules[number] = rule

    def _group(self, name: str, *, nested: bool) -> int:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise self._refuse(f"more than {MAX_NESTING} parentheses within each other; name some of them")
        self._skip_space(nested=True)
        number = self._new_symbol(name)
        self._alternatives(name, number, nested=True)
        if not self._next_is(")"):
            raise self._refuse("')' is missing")
        self._nesting -= 1
        return number


class _Sequence:
    """One alternative: llama_grammar_parser::parse_sequence."""

    def __init__(self, grammar: _Grammar, name: str, nested: bool) -> None:
        self._grammar = grammar
        self._name = name
        self._nested = nested
        self._items: Sequence = []
        self._start = 0  # of the last symbol, which a repetition repeats
        self._width = 0  # its elements
        self._n_rules = 1  # that it stands for

    def parse(self) -> Sequence:
        while self._symbol() or self._repetition():
            self._grammar._skip_space(nested=self._nested)
        return self._items

    def _put(self, item: int | None, width: int, n_rules: int = 1) -> bool:
        self._start, self._width, self._n_rules = len(self._items), width, n_rules
        if width:
            self._items.append(item)
        self._grammar._count(width)
        return True

    def _symbol(self) -> bool:
        grammar = self._grammar
        if match := grammar._take(_LITERAL) or grammar._take(_SET):
            return self._put(None, len(_ONE_CHAR.findall(match[1])))
        if grammar._take(_TOKEN) or grammar._next_is("."):
            return self._put(None, 1)
        if match := grammar._take(_NAME):
            return self._put(grammar._symbol(match[0]), 1)
        if grammar._next_is("("):
            before = len(grammar.symbols)
            number = grammar._group(self._name, nested=self._nested)
            return self._put(number, 1, len(grammar.symbols) - before)
        return False

    def _repetition(self) -> bool:
        grammar = self._grammar
        for sign, times in _ANY_TIMES.items():
            if grammar._next_is(sign):
                self._repeat(*times)
                return True
        if not grammar._next_is("{"):
            return False
        least = self._number()
        if least is None:
            raise grammar._refuse("a number is missing")
        most = self._number() if grammar._next_is(",") else least
        if not grammar._next_is("}"):
            raise grammar._refuse("'}' is missing")
        if least > MAX_REPETITIONS:
            raise grammar._refuse(f"more than {MAX_REPETITIONS} repetitions")
        # libllama counts down from the difference, which is unsigned.
        if most is not None and most < least:
            raise grammar._refuse(f"the repetition {{{least},{most}}} ends before it begins")
        self._repeat(least, None if most is None or most > MAX_REPETITIONS else most)
        return True

    def _number(self) -> int | None:
        self._grammar._skip_space(nested=self._nested)
        digits = self._grammar._take(re.compile(r"[0-9]{1,19}"))
        self._grammar._skip_space(nested=self._nested)
        return int(digits[0]) if digits else None

    def _repeat(self, least: int, most: int | None) -> None:
        grammar, repeated = self._grammar, self._items[self._start :]
        if not repeated:
            raise grammar._refuse("there is nothing to repeat")
        total = most or least or 1
        if self._n_rules * total > MAX_REPETITIONS:
            raise grammar._refuse(f"more than {MAX_REPETITIONS} repetitions, counting those within")
        n_optional = 1 if most is None else most - least
        grammar._count((self._width + 2) * (max(least - 1, 0) + n_optional))
        if least == 0:
            del self._items[self._start :]
        self._items += repeated * (least - 1)
        last: int | None = None
        for _ in range(n_optional):
            number = grammar._new_symbol(self._name)
            follows = number if most is None else last
            grammar.rules[number] = [[*repeated, *([] if follows is None else [follows])], []]
            last = number
        if last is not None:
            self._items.append(last)
        self._width = self._width * least + (last is not None)
        self._n_rules *= total


def _beginnings(rules: Rules, empty: set[int]) -> Beginnings:
    """The rules that each rule may begin with, once for each way, and whether something follows there."""
    return {
        number: [pair for sequence in alternatives for pair in _leftmost(sequence, empty)]
        for number, alternatives in rules.items()
    }


def _leftmost(sequence: Sequence, empty: set[int]) -> Iterator[tuple[int, bool]]:
    for place, item in enumerate(sequence, start=1):
        if item is None:
            return
        yield item, place < len(sequence)
        if item not in empty:
            return


def _require_end(rules: Rules, names: dict[int, str]) -> None:
    """Refuse left recursion that libllama does not see, as it only knows rules with an empty alternative as empty.

    It would expand such a rule for ever, with each round's rest on the stack. Where there is no rest, it ends.
    """
    empty = _empty(rules)
    beginnings = _beginnings(rules, empty)
    edges = _edges(beginnings)
    core = edges.keys() - set(_order(edges))
    for number in core:
        for to, rest in beginnings[number]:
            if rest and _reaches(edges, to, number):
                raise _left_recursion(names[number], ", behind others that may be empty")


def _left_recursion(name: str, how: str = "") -> InvalidArgumentError:
    rule = name.partition("_")[0]  # what follows is a number, where it is a part of that rule
    words = f"grammar: the rule {rule!r} can begin with itself{how}; write it so that something comes before"
    return InvalidArgumentError(words)


def _empty(rules: Rules) -> set[int]:
    """Rules that may match nothing."""
    users: dict[int, set[int]] = {}
    for number, alternatives in rules.items():
        for sequence in alternatives:
            for item in sequence:
                if item is not None:
                    users.setdefault(item, set()).add(number)
    found = {number for number, alternatives in rules.items() if [] in alternatives}
    todo = list(found)
    while todo:
        for user in users.get(todo.pop(), ()):
            if user not in found and any(all(item in found for item in sequence) for sequence in rules[user]):
                found.add(user)
                todo.append(user)
    return found


def _edges(beginnings: Beginnings) -> Edges:
    return {number: [to for to, _ in ways] for number, ways in beginnings.items()}


def _order(edges: Edges) -> list[int]:
    """The nodes that no cycle leads to, each before those that its edges lead to."""
    incoming = dict.fromkeys(edges, 0)
    for targets in edges.values():
        for to in targets:
            incoming[to] += 1
    todo = deque(number for number, count in incoming.items() if not count)
    order = []
    while todo:
        number = todo.popleft()
        order.append(number)
        for to in edges[number]:
            incoming[to] -= 1
            if not incoming[to]:
                todo.append(to)
    return order


def _reaches(edges: Edges, start: int, end: int) -> bool:
    seen, todo = {start}, [start]
    while todo:
        number = todo.pop()
        if number == end:
            return True
        new = set(edges[number]) - seen
        seen |= new
        todo += new
    return False


def _require_shallow(rules: Rules, names: dict[int, str]) -> None:
    """Refuse what llama_grammar_detect_left_recursion would refuse, and what it has no stack or time for."""
    empty = {number for number, alternatives in rules.items() if [] in alternatives}
    edges = _edges(_beginnings(rules, empty))
    order = _order(edges)
    for number in edges.keys() - set(order):
        if any(_reaches(edges, to, number) for to in edges[number]):
            raise _left_recursion(names[number])
    depth: dict[int, int] = {}
    ways: dict[int, int] = {}
    for number in reversed(order):
        depth[number] = 1 + max((depth[to] for to in edges[number]), default=0)
        ways[number] = min(1 + sum(ways[to] for to in edges[number]), MAX_BEGINNINGS + 1)
        if depth[number] > MAX_DEPTH:
            raise InvalidArgumentError(f"grammar: more than {MAX_DEPTH} rules begin with each other in a row")
        if ways[number] > MAX_BEGINNINGS:
            rule = names[number].partition("_")[0]
            raise InvalidArgumentError(f"grammar: the rule {rule!r} can begin in more than {MAX_BEGINNINGS} ways")
