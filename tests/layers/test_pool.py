"""Pooling against llama_get_embeddings_seq."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Batch, Context, InvalidArgumentError, Model
from rawllama.layers import ClassificationHead, pool

from ..models import tiny as models

OFFSETS = np.array([0, 11, 12, 19])


def computed(model: Model, pooling: str) -> NDArray[np.float32]:
    """Three texts: a row for each token without pooling, else for each text."""
    settings: dict[str, Any] = {"n_ctx": 192, "n_batch": 192, "n_ubatch": 192, "n_seq_max": 3, "kv_unified": True}
    with Context(model, embeddings=True, pooling_type=pooling, **settings) as context:
        batch = Batch(32)
        batch.add_sequences(np.arange(3, 22), OFFSETS)
        context.process(batch)
        return context.get_embeddings_ith() if pooling == "none" else context.get_embeddings_seq()


@pytest.mark.parametrize("name", ["bert", "modern-bert", "t5encoder", "llama", "qwen3", "gpt2"])
def test_as_libllama(tiny: Callable[[str], Path], name: str) -> None:
    with Model(tiny(name)) as model:
        rows = computed(model, "none")
        for pooling in ("cls", "last"):
            assert np.array_equal(pool(rows, OFFSETS, pooling), computed(model, pooling))
        mean = pool(rows, OFFSETS, "mean")
        assert mean.dtype == np.float32
        assert np.abs(mean - computed(model, "mean")).max() < 1e-6


def test_minilm(minilm: str) -> None:
    with Model(minilm) as model:
        rows = computed(model, "none")
        assert np.abs(pool(rows, OFFSETS, "mean") - computed(model, "mean")).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "takes", "n"), [("bert-reranker", "cls", 1), ("bert-classifier", "cls", 3), ("qwen3-reranker", "last", 2)]
)
def test_rank(tiny: Callable[[str], Path], name: str, takes: str, n: int) -> None:
    with Model(tiny(name)) as model:
        head = ClassificationHead.read(model)
        assert head.pooling == takes
        found = pool(computed(model, "none"), OFFSETS, "rank", head)
        theirs = computed(model, "rank")
    assert found.shape == theirs.shape == (3, n)
    assert np.abs(found - theirs).max() < 1e-6


def test_rank_of_modern_bert(tmp_path: Path) -> None:
    """Mean, dense, GELU, norm, linear. ggml reads GELU from a table of float16."""
    path = tmp_path / "modern-bert-reranker.gguf"
    writer = gguf.GGUFWriter(path, "modern-bert")
    shapes = models.MODELS["modern-bert"].fill(writer)
    shapes |= models._linear("cls", models.WIDTH) | models._norm("cls.norm") | models._linear("cls.output", 1)
    models._save(writer, shapes, 0)
    with Model(path) as model:
        head = ClassificationHead.read(path)
        assert head.pooling == "mean"
        assert head.has_gelu
        assert head.norm is not None
        found = pool(computed(model, "none"), OFFSETS, "rank", head)
        assert np.abs(found - computed(model, "rank")).max() < 5e-3


def test_by_hand() -> None:
    rows = np.arange(12.0).reshape(6, 2)
    assert pool(rows, [0, 1, 4], "mean").tolist() == [[0, 1], [4, 5]]
    assert pool(rows, [1, 3, 6], "cls").tolist() == [[2, 3], [6, 7]]
    assert pool(rows, [1, 3, 6], "last").tolist() == [[4, 5], [10, 11]]
    assert pool(rows, [1, 3, 5], "none").tolist() == rows[1:5].tolist()
    assert pool(rows.astype(np.float16), [0, 6], "mean").dtype == np.float16


@pytest.mark.parametrize(
    ("rows", "offsets", "pooling", "words"),
    [
        (np.zeros((4, 2)), [0, 2, 2, 4], "mean", "offsets: a text has no rows, or they lie outside the 4"),
        (np.zeros((4, 2)), [0, 5], "cls", "offsets: a text has no rows, or they lie outside"),
        (np.zeros((4, 2)), [-1, 4], "last", "offsets: a text has no rows, or they lie outside"),
        (np.zeros((4, 2)), [0], "mean", r"rows: shape \(4, 2\) is no matrix, or `offsets` are not n \+ 1"),
        (np.zeros(4), [0, 4], "mean", r"rows: shape \(4,\) is no matrix"),
        (np.zeros((4, 2)), [0.5, 4], "mean", "offsets: float64"),
        (np.zeros((4, 2)), [0, 4], "max", "pooling: 'max' is none of none, mean, cls, last, rank"),
        (np.zeros((4, 2)), [0, 4], "rank", r"head: pooling rank needs one; pass ClassificationHead.read\(model\)"),
    ],
)
def test_refused(rows: NDArray[np.float64], offsets: Any, pooling: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        pool(rows, offsets, pooling)


def test_no_head(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"bert\.gguf has no classification head; pooling rank needs one"):
        ClassificationHead.read(tiny("bert"))
