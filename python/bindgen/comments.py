"""The header's comments, found again for each declaration.

The preprocessor drops comments, so they are looked up in the header's own text by line.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

_TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
_DOXYGEN = re.compile(r"@(?:details|brief)\s+")


class Comments:
    """Comments of one header by line number (the first line is 1)."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self._lines = text.split("\n")
        self._comment: dict[int, tuple[int, str]] = {}
        code = list(text)
        for match in _TOKEN.finditer(text):
            if match[0].startswith("/"):
                self._add(text, match)
                code[match.start():match.end()] = [c if c == "\n" else " " for c in match[0]]
        self._code = "".join(code).split("\n")
        self._continuations = {line for first in self._comment for line in self._below(first)}

    def _add(self, text: str, match: re.Match[str]) -> None:
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - (text.rfind("\n", 0, match.start()) + 1)
        for offset, row in enumerate(match[0].split("\n")):
            self._comment.setdefault(line + offset, (column, row))

    def describe(self, line: int) -> str:
        """The comments of the declaration whose name stands on `line`: above it and behind it."""
        return "\n".join(filter(None, (self._above(self._first_line(line)), self._behind(line))))

    def _has_code(self, line: int) -> bool:
        return 1 <= line <= len(self._code) and bool(self._code[line - 1].strip())

    def _first_line(self, line: int) -> int:
        """Where the statement begins that has its name on `line`."""
        while self._has_code(line - 1):
            above = self._code[line - 2].strip()
            if above.startswith("#") or above[-1] in ";{},":
                break
            line -= 1
        return line

    def _above(self, line: int) -> str:
        """The block of whole-line comments that touches `line` from above."""
        rows: list[str] = []
        line -= 1
        while line in self._comment and line not in self._continuations and not self._has_code(line):
            rows.append(self._comment[line][1])
            line -= 1
        return _clean(rows[::-1])

    def _behind(self, line: int) -> str:
        """The comment at the end of `line`, with its continuation."""
        if line not in self._comment or not self._has_code(line):
            return ""
        return _clean([self._comment[one][1] for one in (line, *self._below(line))])

    def _below(self, line: int) -> list[int]:
        """Lines that continue the comment behind the code of `line`: whole-line comments in its column."""
        if not self._has_code(line):
            return []
        column = self._comment[line][0]
        lines: list[int] = []
        while (line := line + 1) in self._comment and not self._has_code(line) and self._comment[line][0] == column:
            lines.append(line)
        return lines


def _clean(rows: list[str]) -> str:
    """Text of a comment without its slashes and stars."""
    bare = [_DOXYGEN.sub("", re.sub(r"^\s*(?:/{2,}<?|/\*+|\*(?!/))|\*/\s*$", "", row)) for row in rows]
    return textwrap.dedent("\n".join(row.rstrip() for row in bare)).strip()
