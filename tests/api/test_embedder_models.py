"""Each kind of model through one interface: its rows are those of the texts one by one; and what a model cannot do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Embedder, InvalidArgumentError, Model

from ..tools import batch_of, context_of

Tiny = Callable[[str], Path]
TEXTS = ["hello world", "the cat sat on the mat", "a", "hello " * 20, "the mat", "of the world " * 9, "hello world"]


def one_by_one(path: Path, pooling: str, tokens: list[NDArray[np.int32]]) -> NDArray[np.float32]:
    with Model(path) as model, context_of(model, embeddings=True, pooling_type=pooling) as context:
        rows = []
        for sequence in tokens:
            if context.memory is not None:
                context.memory.clear()
            context.process(batch_of(sequence))
            rows.append(context.get_embeddings_seq([0])[0])
        return np.array(rows)


@pytest.mark.parametrize("token_budget", [None, 16])  # the longest have more: 16 leaves each in a batch of its own
@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("bert", "mean"),
        ("bert", "cls"),
        ("bert-reranker", "rank"),
        ("bert-classifier", "rank"),
        ("nomic-bert", "mean"),
        ("jina-bert-v2", "mean"),
        ("modern-bert", "cls"),
        ("gemma-embedding", "mean"),
        ("t5encoder", "mean"),
        ("t5encoder", "last"),
        ("llama", "last"),
        ("llama", "mean"),
        ("qwen3", "last"),
        ("qwen3-embedding", "last"),
        ("qwen3-embedding", "mean"),
        ("qwen3-reranker", "rank"),
        ("qwen2vl", "last"),
        ("gpt2", "last"),
        ("gpt2", "cls"),
        ("mamba", "last"),
        ("mamba", "mean"),
        ("lfm2", "last"),
        ("lfm2", "mean"),
    ],
)
def test_rows_are_those_of_each_text_alone(name: str, pooling: str, token_budget: int | None, tiny: Tiny) -> None:
    with Embedder(tiny(name), pooling=pooling, n_threads=1, token_budget=token_budget) as embedder:
        rows = embedder.encode(TEXTS, normalize="none")
        tokens = [embedder.tokenize(text) for text in TEXTS]
        assert embedder.pooling == pooling
        assert rows.shape == (len(TEXTS), embedder.dims)
    expected = one_by_one(tiny(name), pooling, tokens)
    np.testing.assert_allclose(rows, expected, atol=3e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["bert", "modern-bert", "t5encoder", "llama", "mamba"])
def test_rows_of_tokens(name: str, tiny: Tiny) -> None:
    with Embedder(tiny(name), pooling="none", n_threads=1, token_budget=32) as embedder:
        rows, offsets, tokens = embedder.encode_tokens(TEXTS)
        alone = [embedder.encode_tokens([text]).rows for text in TEXTS]
        assert embedder.dims == rows.shape[1] == 32
    with Embedder(tiny(name), pooling="mean", n_threads=1) as embedder:
        means = embedder.encode(TEXTS, normalize="none")
        assert np.array_equal(tokens, np.concatenate([embedder.tokenize(text) for text in TEXTS]))
    np.testing.assert_allclose(rows, np.concatenate(alone), atol=3e-3 * np.abs(rows).max())
    found = np.add.reduceat(rows, offsets[:-1]) / np.diff(offsets)[:, None]
    np.testing.assert_allclose(found, means, atol=3e-3 * np.abs(rows).max())


def test_scores(tiny: Tiny) -> None:
    with Embedder(tiny("bert-classifier"), n_threads=1) as embedder:
        assert (embedder.pooling, embedder.dims, embedder.n_embd, embedder.normalize) == ("rank", 3, 32, "none")
        scores = embedder.encode(TEXTS)
        assert scores.shape == (len(TEXTS), 3)
        assert np.array_equal(embedder.encode("hello world"), embedder.encode(["hello world"])[0])
        assert np.array_equal(embedder.encode(TEXTS, dtype="float16"), scores.astype(np.float16))


def test_a_real_decoder(smollm2: Path) -> None:
    texts = ["A cat sat on a mat.", "A kitten is sitting on a rug.", "Interest rates rose again."]
    with Embedder(smollm2, pooling="last") as embedder:
        assert (embedder.n_embd, embedder.max_tokens, embedder.dims) == (576, 8192, 576)
        rows = embedder.encode(texts)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.01


@pytest.mark.parametrize(("pooling", "in_pieces"), [("last", True), ("mean", False)])
def test_long_texts_of_a_decoder(pooling: str, in_pieces: bool, smollm2: Path) -> None:
    """They go through the model in pieces where only the last token counts, which takes less memory."""
    texts = ["The cat sat on the mat. " * count for count in (40, 1)]
    with Embedder(smollm2, pooling=pooling, token_budget=128, n_contexts=1) as embedder:
        rows = embedder.encode(texts)
        tokens = [embedder.tokenize(text) for text in texts]
        (context,) = embedder._pipeline.engine._contexts
        assert tokens[0].size > 2 * 128
        assert (context.n_ubatch, context.n_batch) == (128 if in_pieces else 384, 384)
    with Model(smollm2) as model:
        sizes = {"n_ctx": 512, "n_batch": 512, "n_ubatch": 512}
        with context_of(model, embeddings=True, pooling_type=pooling, **sizes) as context:
            for sequence, row in zip(tokens, rows, strict=True):
                assert context.memory is not None
                context.memory.clear()
                context.process(batch_of(sequence))
                expected = context.get_embeddings_seq([0])[0]
                assert row @ expected / np.linalg.norm(expected) > 0.999  # Q4_1: other pieces, other roundings


# ---- what a model cannot do


def test_a_decoder_says_how_to_pool(tiny: Tiny) -> None:
    with Embedder(tiny("llama"), n_threads=1) as embedder:
        assert embedder.pooling == "none"
        for call in (embedder.encode, embedder.encode_query, embedder.encode_iter):
            with pytest.raises(InvalidArgumentError, match="encode_tokens, or pooling='mean', or 'last' for a decoder"):
                call(["hello"])


def test_refusals(tiny: Tiny) -> None:
    with pytest.raises(InvalidArgumentError, match=r"t5\.gguf is an encoder-decoder, which gives no embeddings"):
        Embedder(tiny("t5"))
    with pytest.raises(InvalidArgumentError, match="has no layer that gives scores"):
        Embedder(tiny("qwen3-embedding"), pooling="rank")
    with Model(tiny("bert"), vocab_only=True) as model, pytest.raises(InvalidArgumentError, match="vocab_only=True"):
        Embedder(model)
    with pytest.raises(FileNotFoundError):
        Embedder("nothing-of-this-name")


# ---- whose model it is


def test_a_model_that_is_given_stays_open(tiny: Tiny) -> None:
    with Model(tiny("bert")) as model:
        with Embedder(model, n_threads=1) as one, Embedder(model, pooling="cls", n_threads=1) as two:
            assert one.model is two.model is model
            assert not np.array_equal(one.encode("hello"), two.encode("hello"))
        assert not model.closed
        assert one.closed
        assert not model._children
        with pytest.raises(InvalidArgumentError, match="devices: the Model that is given has its own"):
            Embedder(model, devices=[])
        with pytest.raises(InvalidArgumentError, match="n_gpu_layers: the Model that is given has its own"):
            Embedder(model, n_gpu_layers=0)
        with pytest.raises(InvalidArgumentError, match="dims"):
            Embedder(model, dims=100)
        assert not model.closed
        assert not model._children  # no context is left of it


def test_devices_go_to_the_model(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), devices=[], n_gpu_layers=0, n_threads=1) as embedder:
        assert embedder.encode("hello").shape == (32,)
    with pytest.raises(InvalidArgumentError, match="devices"):
        Embedder(tiny("bert"), devices=["no such device"])


def test_a_name(minilm: str) -> None:
    with Embedder("minilm") as embedder:
        assert (embedder.dims, embedder.max_tokens, embedder.pooling) == (384, 512, "mean")
        assert repr(embedder) == "<Embedder of bert 22M all F32, mean, 384 columns>"
    assert repr(embedder) == "<Embedder closed>"


def test_flash_attention(tiny: Tiny) -> None:
    rows = []
    for flash_attn in (None, True, False):
        with Embedder(tiny("bert"), n_threads=1, flash_attn=flash_attn) as embedder:
            rows.append(embedder.encode(TEXTS))
    assert np.array_equal(rows[0], rows[1])  # libllama's choice on the CPU
    assert not np.array_equal(rows[0], rows[2])  # keys and values are rounded to float16, or not
    assert np.abs(rows[0] - rows[2]).max() < 2e-3
