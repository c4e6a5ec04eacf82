"""Which search is best? nDCG@10 of words, vectors and both, over the questions of retrieval_set.toml.

    pip install 'rawllama[examples]' && python examples/evaluate_search.py

pytrec_eval is the yardstick of TREC's evaluations: the same code that published numbers come from.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

import numpy as np
import pytrec_eval
from hybrid_search import SET, Index, fuse
from rawllama import Embedder

DEPTH = 20  # places of each search that are joined
MEASURE = "ndcg_cut_10"

Rankings = Mapping[str, list[int]]


def rankings(passages: Mapping[str, str], questions: list[str]) -> dict[str, Rankings]:
    """For each search, what it finds for each question, best first."""
    with Embedder("minilm", progress=False) as embedder:
        index = Index(embedder.n_embd)
        index.add(list(passages.values()), embedder.encode_document(passages.values()))
        vectors = embedder.encode_query(questions)
    words = {question: index.by_words(question, DEPTH) for question in questions}
    near = {question: index.by_vector(vector, DEPTH) for question, vector in zip(questions, vectors, strict=True)}
    both = {question: fuse(words[question], near[question]) for question in questions}
    return {"words": words, "vectors": near, "both": both}


def evaluate(found: Rankings, names: list[str], judgements: dict[str, dict[str, int]]) -> list[float]:
    """nDCG@10 of each question."""
    # TREC's format wants a score for each document: minus the rank.
    run = {
        question: {names[number]: float(-rank) for rank, number in enumerate(ranking)}
        for question, ranking in found.items()
    }
    results = pytrec_eval.RelevanceEvaluator(judgements, {"ndcg_cut.10"}).evaluate(run)
    return [results[question][MEASURE] if question in results else 0.0 for question in judgements]


def main() -> None:
    data = tomllib.loads(SET.read_text(encoding="utf-8"))
    passages, judgements = data["passages"], data["questions"]
    searches = rankings(passages, list(judgements))
    scores = {name: evaluate(found, list(passages), judgements) for name, found in searches.items()}
    width = max(map(len, judgements))
    print(f"{'nDCG@10':{width}}" + "".join(f"{name:>9}" for name in scores))
    for question, row in zip(judgements, zip(*scores.values(), strict=True), strict=True):
        print(f"{question:{width}}" + "".join(f"{score:9.2f}" for score in row))
    print(f"{'mean':{width}}" + "".join(f"{np.mean(column):9.3f}" for column in scores.values()))
    # Few questions say little: a difference counts if it is more than twice its standard error.
    for name in ("words", "vectors"):
        gains = np.subtract(scores["both"], scores[name])
        error = gains.std(ddof=1) / np.sqrt(gains.size)
        print(f"{f'both against {name}, and the standard error':{width}}{gains.mean():+9.3f}{error:9.3f}")


if __name__ == "__main__":
    main()
