"""Pooled rows are what numpy makes of the rows of the tokens; other sequences of the batch do not matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from rawllama.model import Model

from ..tools import Rows, Tokens, batch_of, context_of, some_tokens

Tiny = Callable[[str], Path]

NAMES = ["bert", "nomic-bert", "jina-bert-v2", "modern-bert", "llama", "qwen3", "qwen3-embedding", "gemma-embedding",
         "gpt2", "mamba", "lfm2"]  # fmt: skip
LENGTHS = (11, 1, 30, 2, 17)  # of the texts; longer than the tiny models' sliding window, too

POOL: dict[str, Callable[[Rows], Any]] = {
    "mean": lambda rows: rows.astype(np.float64).mean(axis=0),
    "cls": lambda rows: rows[0],
    "last": lambda rows: rows[-1],
}
# Keys and values are rounded to half precision, in decoders and inside flash attention: another batch, other numbers.
TINY = {"flash_attn_type": "disabled", "type_k": "f32", "type_v": "f32"}


def texts_of(model: Model) -> list[Tokens]:
    return [some_tokens(model, length, length) for length in LENGTHS]


def token_rows(model: Model, texts: list[Tokens], **settings: Any) -> list[Rows]:
    """Embeddings of the tokens, one array a text."""
    with context_of(model, n_seq_max=8, embeddings=True, pooling_type="none", **settings) as context:
        context.process(batch_of(*texts))
        rows = context.get_embeddings_ith()
    return np.split(rows, np.cumsum([len(text) for text in texts])[:-1])


def pooled_rows(model: Model, texts: list[Tokens], pooling: str | None, **settings: Any) -> Rows:
    with context_of(model, n_seq_max=8, embeddings=True, pooling_type=pooling, **settings) as context:
        context.process(batch_of(*texts))
        return context.get_embeddings_seq()


def cosines(a: Rows, b: Rows) -> Any:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("pooling", POOL)
@pytest.mark.parametrize("name", NAMES)
def test_numpy_pools_the_same(name: str, pooling: str, tiny: Tiny) -> None:
    with Model(tiny(name)) as model:
        texts = texts_of(model)
        by_hand = np.stack([POOL[pooling](rows) for rows in token_rows(model, texts, **TINY)])
        pooled = pooled_rows(model, texts, pooling, **TINY)
    np.testing.assert_allclose(pooled, by_hand, atol=2e-5)


@pytest.mark.parametrize(
    "name", ["bert", "nomic-bert", "jina-bert-v2", "modern-bert", "gemma-embedding", "qwen3-embedding"]
)
def test_the_models_own_pooling(name: str, tiny: Tiny) -> None:
    """What the file says, without a parameter."""
    kind = {"modern-bert": "cls", "qwen3-embedding": "last"}.get(name, "mean")
    with Model(tiny(name)) as model:
        texts = texts_of(model)
        assert np.array_equal(pooled_rows(model, texts, None), pooled_rows(model, texts, kind))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_t5encoder(pooling: str, tiny: Tiny) -> None:
    with Model(tiny("t5encoder")) as model:
        texts = texts_of(model)
        by_hand = np.stack([POOL[pooling](rows) for rows in token_rows(model, texts, **TINY)])
        np.testing.assert_allclose(pooled_rows(model, texts, pooling, **TINY), by_hand, atol=2e-5)


@pytest.mark.parametrize("pooling", ["none", "mean", "cls", "last"])
@pytest.mark.parametrize("name", [*NAMES, "t5encoder"])
def test_one_is_many(name: str, pooling: str, tiny: Tiny) -> None:
    """A text alone gives what it gives among others, in any order, but for GELU: a table of half floats."""
    with Model(tiny(name)) as model:
        texts = texts_of(model)
        if pooling == "none":
            together = np.concatenate(token_rows(model, texts, **TINY))
            alone = np.concatenate([token_rows(model, [text], **TINY)[0] for text in texts])
            backwards = np.concatenate(token_rows(model, texts[::-1], **TINY)[::-1])
        else:
            together = pooled_rows(model, texts, pooling, **TINY)
            alone = np.concatenate([pooled_rows(model, [text], pooling, **TINY) for text in texts])
            backwards = pooled_rows(model, texts[::-1], pooling, **TINY)[::-1]
    np.testing.assert_allclose(together, alone, atol=5e-4)
    np.testing.assert_allclose(together, backwards, atol=5e-4)


# ---- rerankers


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor.data.astype(np.float64) for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("name", ["bert-reranker", "bert-classifier"])
def test_scores_of_bert(name: str, tiny: Tiny) -> None:
    """The first token through a dense layer, tanh, and the layer that scores."""
    weights = tensors(tiny(name))
    with Model(tiny(name)) as model:
        texts = texts_of(model)
        first = np.stack([rows[0] for rows in token_rows(model, texts, **TINY)])
        scores = pooled_rows(model, texts, "rank", **TINY)
        alone = np.concatenate([pooled_rows(model, [text], None, **TINY) for text in texts])
        assert scores.shape == (len(texts), model.n_cls_out)
    dense = np.tanh(first @ weights["cls.weight"].T + weights["cls.bias"])
    by_hand = dense @ weights["cls.output.weight"].T + weights["cls.output.bias"]
    np.testing.assert_allclose(scores, by_hand, atol=5e-5)
    np.testing.assert_allclose(scores, alone, atol=5e-5)
    assert scores.std() > 0.1


def test_scores_of_qwen3(tiny: Tiny) -> None:
    """The last token through the layer that scores, then softmax."""
    weights = tensors(tiny("qwen3-reranker"))
    with Model(tiny("qwen3-reranker")) as model:
        texts = texts_of(model)
        last = np.stack([rows[-1] for rows in token_rows(model, texts, **TINY)])
        scores = pooled_rows(model, texts, "rank", **TINY)
    exponents = np.exp(last @ weights["cls.output.weight"].T)
    np.testing.assert_allclose(scores, exponents / exponents.sum(axis=1, keepdims=True), atol=5e-5)


# ---- real models, as they are run


@pytest.mark.parametrize("pooling", POOL)
def test_minilm(pooling: str, minilm: str) -> None:
    with Model(minilm) as model:
        texts = texts_of(model)
        by_hand = np.stack([POOL[pooling](rows) for rows in token_rows(model, texts)])
        together = pooled_rows(model, texts, pooling)
        alone = np.concatenate([pooled_rows(model, [text], pooling) for text in texts])
    np.testing.assert_allclose(together, by_hand, atol=1e-5)
    assert cosines(together, alone).min() >= 0.99999


@pytest.mark.parametrize("pooling", POOL)
def test_smollm2(pooling: str, smollm2: Path) -> None:
    """Quantised weights: the activations are rounded too, by row, so another batch is another rounding in places."""
    with Model(smollm2) as model:
        texts = texts_of(model)
        by_hand = np.stack([POOL[pooling](rows) for rows in token_rows(model, texts)])
        together = pooled_rows(model, texts, pooling)
        alone = np.concatenate([pooled_rows(model, [text], pooling) for text in texts])
    np.testing.assert_allclose(together, by_hand, atol=1e-3, rtol=1e-4)
    assert cosines(together, alone).min() >= 0.999


@pytest.mark.parametrize("name", ["llama", "qwen3-embedding", "gpt2", "mamba", "lfm2"])
def test_after_restoring(name: str, tiny: Tiny) -> None:
    """The last row of a text whose beginning comes from a saved state is the row of the whole text."""
    with Model(tiny(name)) as model:
        tokens = some_tokens(model, 20)
        settings: dict[str, Any] = {"embeddings": True, "pooling_type": "last", **TINY}
        with context_of(model, **settings) as context:
            context.decode(batch_of(tokens[:15]))
            data = context.state.save()
            context.decode(batch_of(tokens[15:], start=15))
            expected = context.get_embeddings_seq()
        with context_of(model, **settings) as context:
            context.state.load(data)
            context.decode(batch_of(tokens[15:], start=15))
            assert np.array_equal(context.get_embeddings_seq(), expected)
        whole = pooled_rows(model, [tokens], "last", **TINY)
    np.testing.assert_allclose(expected, whole, atol=5e-5)
