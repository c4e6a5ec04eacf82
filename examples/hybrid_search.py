"""Hybrid search: words (BM25, SQLite's FTS5) and vectors (sqlite-vec) in one database, joined by rank.

    pip install 'rawllama[examples]' && python examples/hybrid_search.py ["a question" ...]

Words find names, numbers and rare terms, which vectors blur. Vectors find what is said in other words. What both rank
well is more often right than what either ranks first, though not always: evaluate_search.py measures it.
"""

from __future__ import annotations

import sys
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import apsw  # brings its own SQLite; the standard library's is often built without extensions
import numpy as np
import sqlite_vec  # type: ignore[import-untyped]
from rawllama import Embedder

if TYPE_CHECKING:
    from numpy.typing import NDArray

SET = Path(__file__).with_name("retrieval_set.toml")
QUESTIONS = (
    "Cormack 2009",  # two words that stand in one passage; for the vectors, mostly noise
    "run the same model twice without using twice the memory",  # said in other words
    "make the output more creative",  # here each alone has the answer, temperature, further down
)
BEST = 3


class Index:
    """Numbered texts, searched by words and by vectors. `path` may be a file, which is there again the next time."""

    def __init__(self, width: int, path: str = ":memory:") -> None:
        self._database = apsw.Connection(path)
        self._database.enable_load_extension(True)
        self._database.load_extension(sqlite_vec.loadable_path())
        # `porter` cuts endings off: "searched" and "searches" are one word.
        self._database.execute("create virtual table if not exists texts using fts5(text, tokenize='porter unicode61')")
        self._database.execute(f"create virtual table if not exists vectors using vec0(vector float[{width}])")

    def __len__(self) -> int:
        return int(self._database.execute("select count(*) from texts").get)

    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        rows = enumerate(zip(texts, vectors, strict=True), start=len(self))
        with self._database:  # one transaction
            for number, (text, vector) in rows:
                self._database.execute("insert into texts(rowid, text) values (?, ?)", (number, text))
                self._database.execute("insert into vectors(rowid, vector) values (?, ?)", (number, vector.tobytes()))

    def by_words(self, question: str, k: int) -> list[int]:
        """The k best texts by BM25 among those that have any of the words."""
        # In quotation marks a word is a word, whatever FTS5's syntax makes of it: AND, *, 4.5, n_ubatch.
        words = " OR ".join('"' + word.replace('"', '""') + '"' for word in question.split())
        words = words or '""'  # which no text has
        query = "select rowid from texts where texts match ? order by rank limit ?"
        return [row[0] for row in self._database.execute(query, (words, k))]

    def by_vector(self, vector: NDArray[np.float32], k: int) -> list[int]:
        """The k texts with the nearest vectors. Of rows of length 1, the nearest have the largest cosines."""
        query = "select rowid from vectors where vector match ? and k = ? order by distance"
        return [row[0] for row in self._database.execute(query, (vector.tobytes(), k))]


def fuse(*rankings: Sequence[int], k: int = 60) -> list[int]:
    """Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).

    BM25's scores and cosines have no common scale, but ranks do. With k = 60 the first place is worth little more than
    the second, so that two good places beat one first.
    """
    scores = defaultdict[int, float](float)
    for ranking in rankings:
        for rank, number in enumerate(ranking, start=1):
            scores[number] += 1 / (k + rank)
    return sorted(scores, key=scores.__getitem__, reverse=True)


def main(questions: Sequence[str]) -> None:
    passages: dict[str, str] = tomllib.loads(SET.read_text(encoding="utf-8"))["passages"]
    names = list(passages)
    with Embedder("minilm", progress=False) as embedder:
        index = Index(embedder.n_embd)
        index.add(list(passages.values()), embedder.encode_document(passages.values()))
        for question in questions:
            words = index.by_words(question, 10)
            vectors = index.by_vector(embedder.encode_query(question), 10)
            print(f"\n{question}")
            for title, ranking in (("words", words), ("vectors", vectors), ("both", fuse(words, vectors))):
                print(f"  {title:8}", ", ".join(names[number] for number in ranking[:BEST]) or "nothing")


if __name__ == "__main__":
    main(sys.argv[1:] or QUESTIONS)
