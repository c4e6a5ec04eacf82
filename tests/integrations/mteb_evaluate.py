"""Whole tasks through MTEB, which needs torch for them. By hand: `pytest tests/integrations/mteb_evaluate.py`."""

from __future__ import annotations

import mteb
import numpy as np
import pytest
from rawllama import Embedder
from rawllama.integrations.mteb import RawllamaEncoder
from scipy.stats import spearmanr

from .conftest import DOCUMENTS, QUERIES
from .mteb_tasks import OwnRetrieval, OwnSTS


def scores(encoder: RawllamaEncoder, task: mteb.AbsTask) -> dict[str, float]:
    results = mteb.evaluate(encoder, [task], cache=None)
    return dict(results.task_results[0].scores["test"][0])


def test_sts(embedder: Embedder) -> None:
    found = scores(RawllamaEncoder(embedder), OwnSTS())
    cosines = embedder.encode(DOCUMENTS) @ embedder.encode(QUERIES).T
    expected = spearmanr(cosines.ravel(), np.eye(len(DOCUMENTS)).ravel()).statistic
    assert 0.5 < expected < 1
    for name in ("cosine_spearman", "spearman"):  # MTEB's own, and by the encoder's similarity_pairwise
        assert found[name] == pytest.approx(expected, abs=1e-6)


def test_retrieval(embedder: Embedder) -> None:
    found = scores(RawllamaEncoder(embedder), OwnRetrieval())
    assert found["ndcg_at_10"] == 1
    assert found["main_score"] == 1
    assert found["recall_at_1"] == 1


def test_retrieval_uses_the_prompts_of_queries(embedder: Embedder) -> None:
    prompts = {"query": DOCUMENTS[0] * 20}  # so that each query is the first document
    with Embedder(embedder.model, prompts=prompts) as wrong:
        found = scores(RawllamaEncoder(wrong), OwnRetrieval())
    assert found["recall_at_1"] == pytest.approx(1 / len(QUERIES))
