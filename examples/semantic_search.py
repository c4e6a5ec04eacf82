"""Semantic search over this repository's own documentation: `python examples/semantic_search.py ["a question" ...]`.

A question needs none of the words of the passage that answers it: vectors of texts with a like meaning point in like
directions, and the cosine between them says how like.
"""

from __future__ import annotations

import sys
import textwrap
import time

import documents
import numpy as np
from rawllama import Embedder

QUESTIONS = (
    "How can another thread stop a calculation?",
    "What happens to texts that are too long?",
    "Why does a wrong call not crash Python?",
    "How is the speed of two programs compared fairly?",
)
BEST = 3


def main(questions: list[str]) -> None:
    passages = documents.read()
    with Embedder("minilm", progress=False) as embedder:
        # Once for each corpus: all passages together, so that they share batches. `np.save` would keep the matrix.
        start = time.perf_counter()
        vectors = embedder.encode_document([passage.searched for passage in passages], overlong="truncate")
        seconds = time.perf_counter() - start
        print(f"{len(passages)} passages became a matrix {vectors.shape} in {seconds:.1f} s")

        # Once for each question. The rows have length 1, so that the dot product is the cosine: one matrix product
        # compares all questions with all passages.
        scores = embedder.encode_query(questions) @ vectors.T

    for question, row in zip(questions, scores, strict=True):
        print(f"\n{question}")
        for i in np.argsort(-row)[:BEST]:
            print(f"  {row[i]:.3f}  {passages[i].source}")
            text = " ".join(passages[i].text.split())
            print(textwrap.indent(textwrap.fill(textwrap.shorten(text, 220), 100), " " * 9))


if __name__ == "__main__":
    main(sys.argv[1:] or list(QUESTIONS))
