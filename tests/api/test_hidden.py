"""Hidden states: what each layer hands to the next, of every architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Batch, Context, ContextFullError, InvalidArgumentError, Model
from rawllama.tap import Tap

from tests.models import tiny as tiny_models
from tests.tools import batch_of, context_of, some_tokens

Tiny = Callable[[str], Path]
# An encoder-decoder has two stacks of layers.
NAMES = [name for name in tiny_models.MODELS if name != "t5"]


@pytest.mark.parametrize("name", NAMES)
def test_the_last_state_is_the_embedding(name: str, tiny: Tiny) -> None:
    with Model(tiny(name)) as model, context_of(model, embeddings=True, pooling_type="none") as context:
        states = context.hidden_states(batch_of(some_tokens(model, 6), some_tokens(model, 5, seed=1)))
        assert (states.dtype, states.shape) == (np.float32, (model.n_layer + 1, 11, model.n_embd))
        assert np.array_equal(states[-1], context.get_embeddings_ith()[:, : model.n_embd])
        assert all(np.abs(states[i] - states[i + 1]).max() > 1e-3 for i in range(model.n_layer)), "layers do something"


@pytest.mark.parametrize("name", ["modern-bert", "gemma-embedding", "llama", "gpt2"])
def test_a_layer_begins_with_the_norm_of_what_the_one_before_gave(name: str, tiny: Tiny) -> None:
    with Model(tiny(name)) as model, context_of(model, embeddings=True, pooling_type="none") as context:
        rows, tap = state_and_tap(context, model, "norm-1")
    if name in ("modern-bert", "gpt2"):  # the others keep the mean
        rows -= rows.mean(-1, keepdims=True)
    expected = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-5)
    assert np.abs(tap.all("norm-1")[0] - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "weight"), [("bert", "attn_q"), ("jina-bert-v2", "attn_k"), ("nomic-bert", "attn_qkv")]
)
def test_or_with_the_product_of_that_and_its_weights(name: str, weight: str, tiny: Tiny) -> None:
    with Model(tiny(name)) as model, context_of(model, embeddings=True, pooling_type="none") as context:
        rows, tap = state_and_tap(context, model, f"MUL_MAT@blk.1.{weight}.weight")
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tiny(name)).tensors}
    expected = rows @ tensors[f"blk.1.{weight}.weight"].T.astype(float)
    assert np.abs(tap[f"MUL_MAT@blk.1.{weight}.weight"] - expected).max() < 1e-5


def state_and_tap(context: Context, model: Model, pattern: str) -> tuple[NDArray[np.float64], Tap]:
    """What enters layer 1, and what a tap finds in the same batch."""
    batch = batch_of(some_tokens(model, 6))
    state = context.hidden_states(batch, [1])[0]
    if context.memory is not None:
        context.memory.clear()
    with context.tap(pattern) as tap:
        context.process(batch)
    return state.astype(float), tap


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooled_in_numpy_it_is_the_pooled_embedding(minilm: str, pooling: str) -> None:
    with Model(minilm) as model, context_of(model, embeddings=True, pooling_type=pooling) as context:
        batch = batch_of(some_tokens(model, 30), some_tokens(model, 12, seed=1), some_tokens(model, 3, seed=2))
        state = context.hidden_states(batch, [-1], pooling=pooling)[0]
        assert np.abs(state - context.get_embeddings_seq()).max() < 1e-6


def test_pooling_follows_ids_and_positions(tiny: Tiny) -> None:
    """Tokens of two sequences, mixed."""
    with Model(tiny("bert")) as model, context_of(model, embeddings=True, pooling_type="mean") as context:
        batch = Batch(6)
        for seq_id, position in ((1, 0), (0, 0), (1, 1), (0, 1), (1, 2), (0, 2)):
            batch.add_sequence([5 + 3 * position + seq_id], seq_id, pos=position)
        states = context.hidden_states(batch, [-1])[0]
        pooled = {how: context.hidden_states(batch, [-1], pooling=how)[0] for how in ("mean", "cls", "last")}
        assert np.array_equal(pooled["cls"], states[[1, 0]])
        assert np.array_equal(pooled["last"], states[[5, 4]])
        assert np.abs(pooled["mean"] - [states[[1, 3, 5]].mean(0), states[[0, 2, 4]].mean(0)]).max() < 1e-6
        assert np.abs(pooled["mean"] - context.get_embeddings_seq()).max() < 1e-5


def test_all_tokens_have_states_where_only_some_are_outputs(tiny: Tiny) -> None:
    """libllama drops the other tokens' rows in the last layer; here they are asked for."""
    with Model(tiny("llama")) as model, context_of(model) as context:
        batch = batch_of(some_tokens(model, 7), logits="last")
        states = context.hidden_states(batch)
        assert states.shape[1] == 7
        context.memory.clear()  # type: ignore[union-attr]
        context.process(batch)
        assert context.n_outputs == 1, "and not for later batches"


def test_ubatches_are_put_together(tiny: Tiny) -> None:
    with Model(tiny("llama")) as model:
        batch = batch_of(some_tokens(model, 20))
        with context_of(model, embeddings=True, pooling_type="none") as context:
            whole = context.hidden_states(batch)
        with context_of(model, embeddings=True, pooling_type="none", n_ubatch=6) as context:
            assert np.abs(context.hidden_states(batch) - whole).max() < 1e-5


def test_chosen_layers(tiny: Tiny) -> None:
    with Model(tiny("bert")) as model, context_of(model, embeddings=True) as context:
        batch = batch_of(some_tokens(model, 6))
        every = context.hidden_states(batch)
        assert np.array_equal(context.hidden_states(batch, [2, 0, -1]), every[[2, 0, 2]])
        for wrong in ([3], [-4], ["1"]):
            with pytest.raises(InvalidArgumentError, match=r"layers: .* is not from 0 to 2"):
                context.hidden_states(batch, wrong)  # type: ignore[arg-type]


def test_vectors_in(tiny: Tiny) -> None:
    with Model(tiny("llama")) as model, context_of(model, embeddings=True, pooling_type="none") as context:
        rows = np.random.default_rng(0).standard_normal((5, model.n_embd), np.float32)
        batch = Batch(5, n_embd=model.n_embd)
        batch.embd[:], batch.n_tokens = rows, 5
        batch.pos[:5] = np.arange(5)
        states = context.hidden_states(batch)
        assert np.array_equal(states[0], rows)


def test_a_permuted_batch_is_refused(tiny: Tiny) -> None:
    """Without a common cache libllama computes sequences side by side."""
    settings = {"embeddings": True, "pooling_type": "none", "kv_unified": False}
    with Model(tiny("llama")) as model, context_of(model, **settings) as context:
        batch = batch_of(some_tokens(model, 6), some_tokens(model, 5, seed=1))
        with pytest.raises(InvalidArgumentError, match="kv_unified=True"):
            context.hidden_states(batch)


def test_other_mistakes(tiny: Tiny) -> None:
    for name, settings, words in (
        ("bert", {"pooling": "max"}, "pooling: 'max' is none of mean, cls, last"),
        ("t5", {}, "an encoder and a decoder"),
    ):
        with Model(tiny(name)) as model, context_of(model, embeddings=True) as context:
            batch = batch_of(some_tokens(model, 6))
            with pytest.raises(InvalidArgumentError, match=words):
                context.hidden_states(batch, **settings)


def test_it_works_after_a_failure(tiny: Tiny) -> None:
    with Model(tiny("llama")) as model, context_of(model, n_ctx=256, embeddings=True, pooling_type="none") as context:
        batch = batch_of(some_tokens(model, 200))
        context.hidden_states(batch)
        with pytest.raises(ContextFullError):
            context.hidden_states(batch_of(some_tokens(model, 200), start=200))
        context.memory.clear()  # type: ignore[union-attr]
        assert context.hidden_states(batch).shape[1] == 200
