"""This repository's documentation, cut into passages that can be searched. Other examples import it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
# docs/api.md says nothing that the docstrings do not say: it is made of them.
MARKDOWN = ("README.md", "docs/benchmarks/README.md", "vendor/README.md", "tests/survival/README.md")
MODULES = "python/rawllama/[!_]*.py"

# Characters, about 150 tokens. A vector is one point: of a long passage it says only roughly what is in it.
LONGEST = 600


class Passage(NamedTuple):
    source: str  # the file, and the heading or the name in it
    text: str

    @property
    def searched(self) -> str:
        """What is embedded: a paragraph often says only together with its heading what it is about."""
        return f"{self.source}\n{self.text}"


def read() -> list[Passage]:
    """All passages of the repository."""
    passages = list[Passage]()
    for name in MARKDOWN:
        for heading, text in sections((ROOT / name).read_text(encoding="utf-8")):
            passages += (Passage(f"{name}: {heading}", part) for part in parts(text))
    for path in sorted(ROOT.glob(MODULES)):
        for name, text in docstrings(ast.parse(path.read_text(encoding="utf-8")), f"rawllama.{path.stem}"):
            passages += (Passage(name, part) for part in parts(text))
    return passages


def sections(markdown: str) -> Iterator[tuple[str, str]]:
    """Headings, and the text under each."""
    heading, lines, is_program = "", list[str](), False
    for line in markdown.splitlines():
        is_program ^= line.startswith("```")
        if line.startswith("#") and not is_program:  # in a program it is a comment
            yield heading, "\n".join(lines)
            heading, lines = line.lstrip("# "), []
        else:
            lines.append(line)
    yield heading, "\n".join(lines)


def docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Names of public classes, functions and methods, and what they say of themselves."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not child.name.startswith("_"):
            path = f"{name}.{child.name}"
            yield path, ast.get_docstring(child) or ""
            yield from docstrings(child, path)


def parts(text: str) -> Iterator[str]:
    """Paragraphs put together up to `LONGEST` characters; a longer one, mostly a table, is cut between its lines."""
    part = ""
    for paragraph in text.strip().split("\n\n"):
        for piece in [paragraph] if len(paragraph) <= LONGEST else paragraph.splitlines():
            if part and len(part) + len(piece) > LONGEST:
                yield part
                part = ""
            part += f"\n{piece}" if part else piece
    if part:
        yield part
