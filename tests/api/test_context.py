"""rawllama.context: parameters, computing, results, settings."""

from __future__ import annotations

import inspect
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawllama import ffi, lib
from rawllama._handle import live
from rawllama.batch import Batch
from rawllama.context import Context
from rawllama.errors import (
    BorrowedError,
    ClosedError,
    ConcurrentUseError,
    ContextCreateError,
    ContextFullError,
    DecodeAborted,
    InvalidArgumentError,
    InvalidBatchError,
    NativeAssertError,
)
from rawllama.model import Model
from rawllama.threadpool import ThreadPool

from ..models.test_models import FACTS
from ..models.tiny import MODELS, POSITIONS, WIDTH
from ..tools import Rows, batch_of, context_of, run_python, some_tokens

Tiny = Callable[[str], Path]


@pytest.fixture
def llama(tiny: Tiny) -> Iterator[Model]:
    with Model(tiny("llama")) as model:
        yield model


@pytest.fixture
def bert(tiny: Tiny) -> Iterator[Model]:
    with Model(tiny("bert")) as model:
        yield model


def logits_of(model: Model, **settings: Any) -> Rows:
    """Logits of two sequences, decoded in two steps each, as prompts and the tokens after them are."""
    with context_of(model, **settings) as context:
        context.decode(batch_of(some_tokens(model, 30), some_tokens(model, 7, 1)))
        first = context.get_logits_ith()
        context.decode(batch_of(some_tokens(model, 1, 2), start=30))
        return np.concatenate([first, context.get_logits_ith()])


# ---- parameters


def test_every_parameter_is_a_keyword() -> None:
    """Those of the C struct, but for callbacks, contexts in contexts, and samplers inside the graph; `taps` is ours."""
    fields = {name for name, _ in ffi.typeof("struct llama_context_params").fields}
    parameters = inspect.signature(Context.__init__).parameters
    keywords = set(parameters) - {"self", "model", "taps"}
    callbacks = {"cb_eval", "cb_eval_user_data", "abort_callback", "abort_callback_data"}
    assert fields - keywords - callbacks == {"defrag_thold", "samplers", "n_samplers", "ctx_other"}
    assert keywords <= fields
    assert {parameters[name].default for name in keywords} == {None}


def test_sequences_that_do_not_divide_a_ubatch(minilm: str) -> None:
    with Model(minilm) as model, pytest.raises(ContextCreateError, match="make n_ubatch a multiple of n_seq_max"):
        Context(model, embeddings=True, n_ubatch=512, n_seq_max=3)


YARN = {"rope_scaling_type": "yarn", "rope_freq_scale": 0.5, "yarn_ext_factor": 1.0}


@pytest.mark.parametrize(
    ("settings", "other"),
    [
        ({"flash_attn_type": "disabled"}, {"flash_attn_type": "enabled"}),
        ({"rope_freq_base": 100.0}, {}),
        ({"rope_freq_scale": 0.5}, {}),
        ({"rope_scaling_type": "none", "rope_freq_scale": 0.5}, {"rope_freq_scale": 0.5}),
        ({"attention_type": "non_causal"}, {"attention_type": "causal"}),
        ({"type_k": "bf16"}, {"type_k": "f16"}),
        ({"type_v": "bf16"}, {"type_v": "f16"}),
        (YARN, YARN | {"yarn_ext_factor": 0.0}),
        (YARN | {"yarn_beta_fast": 1.0, "yarn_beta_slow": 0.01}, YARN | {"yarn_beta_slow": 0.01}),
        (YARN | {"yarn_beta_slow": 5.0}, YARN),
        (YARN | {"yarn_orig_ctx": 16}, YARN),
        ({"yarn_attn_factor": 2.0}, {}),
    ],
    ids=str,
)
def test_parameters_that_change_the_numbers(settings: dict[str, Any], other: dict[str, Any], llama: Model) -> None:
    assert not np.array_equal(logits_of(llama, **settings), logits_of(llama, **other))


@pytest.mark.parametrize(
    "settings",
    [
        {"ctx_type": "default"}, {"offload_kqv": False}, {"op_offload": False}, {"swa_full": False}, {"no_perf": True},
        {"n_outputs_max": 100}, {"n_outputs_max_per_seq": 40}, {"n_rs_seq": 2}, {"flash_attn_type": "auto"},
        {"attention_type": "unspecified"}, {"rope_scaling_type": "unspecified"}, {"pooling_type": "unspecified"},
        {"flash_attn_type": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED}, {"embeddings": True}, {"n_ubatch": 0},
        {"kv_unified": False}, {"n_ubatch": 32}, {"n_batch": 64},
    ],
    ids=str,
)  # fmt: skip
def test_parameters_that_do_not(settings: dict[str, Any], llama: Model) -> None:
    np.testing.assert_allclose(logits_of(llama, **settings), logits_of(llama), atol=1e-5)


def test_sizes_are_those_that_libllama_made(llama: Model) -> None:
    with context_of(llama) as context:
        assert (context.n_ctx, context.n_ctx_seq, context.n_batch, context.n_ubatch, context.n_seq_max) == (
            256, 256, 256, 256, 4
        )  # fmt: skip
        assert context.kv_unified
    with context_of(llama, kv_unified=False, n_ctx=1024, n_ubatch=512, n_batch=64) as context:
        assert not context.kv_unified
        assert (context.n_ctx, context.n_ctx_seq, context.n_batch, context.n_ubatch) == (1024, 256, 64, 64)
    with context_of(llama, n_ctx=10) as context:  # libllama rounds up
        assert context.n_ctx == lib.llama_n_ctx(context._pointer) == 256
        assert context.n_batch == lib.llama_n_batch(context._pointer)
    with context_of(llama, n_ctx=0, kv_unified=False, n_seq_max=1) as context:
        assert context.n_ctx >= llama.n_ctx_train
    with context_of(llama, n_threads=2, n_threads_batch=3) as context:
        assert (context.n_threads, context.n_threads_batch) == (2, 3)
    with Context(llama) as context:
        assert context.n_seq_max == 1
        assert not context.embeddings
        assert context.pooling_type == "none"
        assert context.causal_attn
        assert context.model is llama
        assert "llama" in repr(context)
        assert context.n_tokens == context.n_outputs == 0
    assert "closed" in repr(context)


def test_cache_types_take_less_room(tiny: Tiny) -> None:
    with Model(tiny("qwen3")) as model:
        sizes = []
        for kind in ("f32", "f16"):
            with context_of(model, type_k=kind, type_v=kind) as context:
                context.decode(batch_of(some_tokens(model, 60)))
                sizes.append(len(context.state.save()))
    assert sizes[0] > 1.8 * sizes[1] > 5000


@pytest.mark.parametrize(
    "settings",
    [
        {"n_ctx": -1}, {"n_ctx": 2**32}, {"n_ctx": 1.5}, {"n_ctx": "many"}, {"n_batch": -5}, {"n_ubatch": 2**40},
        {"n_seq_max": -1}, {"n_rs_seq": -1}, {"n_outputs_max": -1}, {"n_outputs_max_per_seq": 2**32},
        {"n_threads": 0}, {"n_threads": -3}, {"n_threads": 513}, {"n_threads": 1.0}, {"n_threads_batch": 10**9},
        {"ctx_type": "other"}, {"rope_scaling_type": "cubic"}, {"rope_scaling_type": 99}, {"pooling_type": "max"},
        {"pooling_type": 5}, {"pooling_type": 1.0e9}, {"attention_type": "sparse"}, {"flash_attn_type": 3},
        {"flash_attn_type": "yes"}, {"rope_freq_base": "high"}, {"rope_freq_base": math.nan},
        {"rope_freq_base": math.inf}, {"rope_freq_base": -1.0}, {"rope_freq_scale": math.nan},
        {"rope_freq_scale": -0.5}, {"rope_freq_base": 1e39}, {"rope_freq_base": 10**50},
        {"yarn_ext_factor": math.nan}, {"yarn_attn_factor": math.inf},
        {"yarn_beta_fast": math.nan}, {"yarn_beta_slow": -math.inf}, {"yarn_orig_ctx": -1}, {"type_k": "i32"},
        {"type_k": "q6_k"}, {"type_v": "q8_k"}, {"type_v": 10**6}, {"embeddings": "on"}, {"kv_unified": [True]},
        {"pooling_type": "rank"}, {"n_ctx": None, "pooling_type": ""},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_parameters_are_named(settings: dict[str, Any], llama: Model) -> None:
    name = next(key for key, value in settings.items() if value is not None)
    with pytest.raises(InvalidArgumentError, match=name):
        context_of(llama, **settings)
    assert live["Context"] == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_seq_max": 257}, "n_seq_max"),
        ({"type_v": "q8_0", "flash_attn_type": "disabled"}, "flash_attn"),
        ({"type_k": "q8_0"}, "block size"),
        ({"n_ctx": 2**32 - 1}, "alloc"),
        ({"ctx_type": "mtp"}, "context"),
    ],
    ids=str,
)
def test_what_libllama_refuses(settings: dict[str, Any], words: str, llama: Model) -> None:
    with pytest.raises(ContextCreateError, match=words):
        context_of(llama, **settings)
    assert live["Context"] == 0
    context_of(llama).close()


# ---- computing


@pytest.mark.parametrize("name", [name for name in MODELS if name != "t5"])
def test_process_encodes_or_decodes(name: str, tiny: Tiny) -> None:
    """Encoders remember nothing; what a decoder has processed is in its memory."""
    facts = FACTS[name]
    with Model(tiny(name)) as model, context_of(model, pooling_type="none", embeddings=True) as context:
        tokens = some_tokens(model, 9)
        context.process(batch_of(tokens))
        assert context.n_tokens == context.n_outputs == 9
        rows = context.get_embeddings_ith()
        assert rows.shape == (9, WIDTH)
        assert np.isfinite(rows).all()
        if name != "t5encoder":  # libllama gives it a memory that it does not use
            assert (context.memory is not None) == facts.memory
        if context.memory is not None:
            assert context.memory.positions(0) == (None if facts.encoder else pytest.approx((0, 8), abs=8))
        if facts.memory and not facts.encoder:
            assert context.memory is not None
            context.memory.clear()
        (context.encode if facts.encoder else context.decode)(batch_of(tokens))
        assert np.array_equal(context.get_embeddings_ith(), rows)


def test_what_a_model_cannot_do(tiny: Tiny, llama: Model, bert: Model) -> None:
    with context_of(llama) as context, pytest.raises(InvalidArgumentError, match="no encoder"):
        context.encode(batch_of([1, 2]))
    with (
        Model(tiny("t5encoder")) as model,
        context_of(model) as context,
        pytest.raises(InvalidArgumentError, match="no decoder"),
    ):
        context.decode(batch_of([1, 2]))
    with context_of(bert, embeddings=True) as context:  # there both are the same
        context.encode(batch_of([5, 6, 7]))
        rows = context.get_embeddings_seq()
        context.decode(batch_of([5, 6, 7]))
        assert np.array_equal(rows, context.get_embeddings_seq())


def test_t5_encodes_then_decodes(tiny: Tiny) -> None:
    """The decoder's logits depend on what was encoded, and decoding in steps is decoding at once."""
    with Model(tiny("t5")) as model:
        assert model.decoder_start_token == 0
        start = [model.decoder_start_token, 10, 11]

        def run(text: Any, *steps: list[int]) -> Rows:
            with context_of(model) as context:
                with pytest.raises(InvalidArgumentError, match=r"encode\(\) or decode\(\)"):
                    context.process(batch_of(text))
                context.encode(batch_of(text, logits="last"))  # the decoder wants all rows, whatever is flagged
                assert context.n_outputs == len(text)
                assert context.get_embeddings_ith().shape == (len(text), WIDTH)
                rows, at = [], 0
                for step in steps:
                    context.decode(batch_of(step, start=at))
                    rows.append(context.get_logits_ith())
                    at += len(step)
                return np.concatenate(rows)

        first = run(some_tokens(model, 9), start)
        assert first.shape == (3, model.vocab.n_tokens)
        assert np.array_equal(run(some_tokens(model, 9), start), first)
        np.testing.assert_allclose(run(some_tokens(model, 9), start[:1], start[1:2], start[2:]), first, atol=2e-2)
        assert np.abs(run(some_tokens(model, 9, seed=1), start) - first).max() > 0.1


def test_batches_that_a_context_cannot_take(llama: Model, bert: Model) -> None:
    """Each error says what is wrong, and the context works on with its memory as it was."""
    with context_of(llama, n_batch=32, n_ubatch=32, n_ctx=256) as context:
        context.decode(batch_of([5, 6]))

        def refused(batch: Batch, words: str) -> None:
            with pytest.raises(InvalidBatchError, match=words):
                context.decode(batch)
            assert context.n_tokens == 0

        refused(Batch(4), "no tokens")
        refused(batch_of([5] * 33), "33 tokens, and n_batch is 32")
        refused(batch_of([5, llama.vocab.n_tokens], start=2), r"token\[1\] is 367")
        refused(batch_of([5, -1], start=2), r"token\[1\] is -1")
        refused(batch_of([5, 6], first=4), "seq_id of token 0 is 4, and they are from 0 to 3")
        refused(batch_of([5], first=-1), "seq_id of token 0 is -1")
        refused(batch_of([5], start=-2), "pos of token 0 is -2")
        refused(batch_of([5], start=7), "consecutive")  # libllama's own check
        several = batch_of([5], start=2)
        several.n_seq_id[0] = 2
        refused(several, r"n_seq_id\[0\] is 2")
        several.n_seq_id[0] = 0
        refused(several, r"n_seq_id\[0\] is 0")
        vectors = Batch(2, n_embd=WIDTH + 1)
        vectors.n_tokens = 2
        refused(vectors, f"rows have {WIDTH + 1} floats, and the model takes {WIDTH}")
        positions = Batch(2, n_embd=WIDTH, n_pos=4)
        positions.n_tokens = 2
        refused(positions, "rows have 4 positions, and the model takes 1")
        damaged = batch_of([5, 6])
        damaged.c.batch.n_tokens = 3
        refused(damaged, "n_tokens is 3, with room for 2")
        damaged.c.batch.n_tokens = -1
        refused(damaged, "n_tokens is -1")
        assert context.memory is not None
        assert context.memory.positions(0) == (0, 1)
        context.decode(batch_of([5], start=2))
    with context_of(bert, embeddings=True, n_ubatch=16) as context:
        with pytest.raises(InvalidBatchError, match="17 tokens must be computed at once, and n_ubatch is 16"):
            context.process(batch_of([5] * 17))
        with pytest.raises(InvalidBatchError, match=f"pos of token 9 is {POSITIONS}, .* to {POSITIONS - 1}"):
            context.process(batch_of([5] * 10, start=POSITIONS - 9))
        context.process(batch_of([5] * 16, start=POSITIONS - 16))


def test_pooled_sequences_are_computed_at_once(tiny: Tiny) -> None:
    """Mean and cls would cover the last ubatch only; `last` takes its row from there anyway."""
    with Model(tiny("qwen3-embedding")) as model:
        for pooling in ("mean", "cls"):
            with context_of(model, embeddings=True, pooling_type=pooling, n_ubatch=16) as context:
                with pytest.raises(InvalidBatchError, match="n_ubatch is 16"):
                    context.decode(batch_of([5] * 17))
                context.decode(batch_of([5] * 16))
        tokens = some_tokens(model, 40)
        rows = []
        for n_ubatch in (16, 256):
            with context_of(model, embeddings=True, n_ubatch=n_ubatch) as context:
                context.decode(batch_of(tokens))
                rows.append(context.get_embeddings_seq())
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-4)
    with Model(tiny("llama")) as model, context_of(model, n_ubatch=16, attention_type="non_causal") as context:
        with pytest.raises(InvalidBatchError, match="n_ubatch is 16"):
            context.decode(batch_of([5] * 17))
        context.causal_attn = True
        context.decode(batch_of([5] * 17))


def test_a_full_memory(llama: Model) -> None:
    with context_of(llama, n_ctx=256) as context:
        context.decode(batch_of([5] * 250))
        with pytest.raises(ContextFullError) as caught:
            context.decode(batch_of([5] * 7, first=1))
        assert (caught.value.code, caught.value.function) == (1, "llama_decode")
        assert context.n_tokens == 0
        with pytest.raises(InvalidArgumentError, match="no results"):
            context.get_logits_ith()
        context.decode(batch_of([5] * 6, first=1))
        assert context.n_tokens == 6


def test_more_outputs_than_n_outputs_max(llama: Model) -> None:
    with context_of(llama, n_outputs_max=4) as context:
        with pytest.raises(InvalidBatchError, match="10 outputs, and n_outputs_max is 4"):
            context.decode(batch_of([5] * 10))
        context.decode(batch_of([5] * 10, logits="last"))
        assert context.get_logits_ith().shape == (1, llama.vocab.n_tokens)
        with pytest.raises(InvalidArgumentError, match="n_outputs_max: 3 is less than n_seq_max"):
            context_of(llama, n_outputs_max=3)


def test_an_assert_in_the_library_ends_the_context_alone(tiny: Callable[[str], Path]) -> None:
    """A decoder that was given nothing to attend to: libllama asserts while it builds the graph."""
    with Model(tiny("t5")) as model, context_of(model, n_seq_max=1) as other, context_of(model, n_seq_max=1) as context:
        with pytest.raises(NativeAssertError, match="llama_encode must be called first") as caught:
            context.decode(batch_of([5] * 10))
        assert caught.value.function == "llama_decode"
        with pytest.raises(NativeAssertError, match="make a new one"):
            context.encode(batch_of([5] * 10))
        other.encode(batch_of([5] * 10))
        other.decode(batch_of([5] * 10, logits="last"))
        assert np.isfinite(other.get_logits_ith()).all()
    assert context.closed


def test_encoders_take_unusual_sequences(bert: Model) -> None:
    """Sequences may be interleaved, with gaps between ids: it is all in the attention mask."""
    tokens = some_tokens(bert, 8)
    with context_of(bert, embeddings=True, pooling_type="none") as context:
        context.process(batch_of(tokens[:4], tokens[4:]))
        expected = context.get_embeddings_ith()
        batch = Batch(8)
        for index in range(4):
            batch.add_sequence(tokens[index : index + 1], 3, pos=index)
            batch.add_sequence(tokens[4 + index : 5 + index], 1, pos=index)
        context.process(batch)
        np.testing.assert_allclose(context.get_embeddings_ith()[[0, 2, 4, 6, 1, 3, 5, 7]], expected, atol=1e-4)


# ---- results


@pytest.mark.parametrize(
    ("name", "pooling", "width"),
    [
        ("bert", "mean", WIDTH), ("bert", "cls", WIDTH), ("bert", "last", WIDTH), ("bert-reranker", "rank", 1),
        ("bert-classifier", "rank", 3), ("qwen3-reranker", "rank", 2), ("qwen3-embedding", "last", WIDTH),
        ("llama", "mean", WIDTH), ("gemma-embedding", "mean", WIDTH), ("mamba", "last", WIDTH),
    ],
)  # fmt: skip
def test_pooled_rows(name: str, pooling: str, width: int, tiny: Tiny) -> None:
    with Model(tiny(name)) as model, context_of(model, embeddings=True, pooling_type=pooling) as context:
        assert context.pooling_type == pooling
        batch = Batch(30)
        for seq_id, length in ((2, 5), (0, 7), (3, 4)):
            batch.add_sequence(some_tokens(model, length, seq_id), seq_id)
        context.process(batch)
        rows = context.get_embeddings_seq()
        assert rows.shape == (3, width)
        assert rows.dtype == np.float32
        assert np.isfinite(rows).all()
        assert np.array_equal(context.get_embeddings_seq([3, 0]), rows[[2, 0]])
        assert np.array_equal(context.get_embeddings_seq(2), rows[1])
        assert context.get_embeddings_seq([]).shape == (0, width)
        raw = lib.llama_get_embeddings_seq(context._pointer, 3)
        assert np.array_equal(np.frombuffer(ffi.buffer(raw, 4 * width), np.float32), rows[2])
        for missing in (1, -1, 4, 2**31 - 1):
            with pytest.raises(InvalidArgumentError, match="seq_ids"):
                context.get_embeddings_seq([0, missing])
        with pytest.raises(InvalidArgumentError, match="pooling_type"):
            context.get_embeddings_ith()
        with pytest.raises(InvalidArgumentError, match="pooling_type"), context.lend_embeddings():
            pass
        rows[:] = 0  # a copy
        assert np.abs(context.get_embeddings_seq()).max() > 0


def test_rows_by_token(llama: Model) -> None:
    """Only flagged tokens have logits; negative indices count from the last output."""
    with context_of(llama) as context:
        batch = batch_of(some_tokens(llama, 9), logits="none")
        batch.logits[[2, 5, 8]] = True
        context.decode(batch)
        assert (context.n_tokens, context.n_outputs) == (9, 3)
        rows = context.get_logits_ith()
        assert rows.shape == (3, llama.vocab.n_tokens)
        assert np.array_equal(context.get_logits_ith([8, 2, 5]), rows[[2, 0, 1]])
        assert np.array_equal(context.get_logits_ith(-1), rows[2])
        assert np.array_equal(context.get_logits_ith(np.array([-3, 5])), rows[:2])
        for missing in (0, 1, 9, -4, 2**31 - 1, -(2**31), 2**31, 2**32 + 2, -(2**32) - 1, 2**70):
            with pytest.raises(InvalidArgumentError, match="indices"):
                context.get_logits_ith([2, missing])
        for wrong in (0.5, [2.5], "2", [[2]], [2, "5"], np.array([2.0])):
            with pytest.raises(InvalidArgumentError, match="indices"):
                context.get_logits_ith(wrong)
        assert np.array_equal(context.get_logits_ith(), rows)
        with pytest.raises(InvalidArgumentError, match="embeddings"):
            context.get_embeddings_ith()
        with pytest.raises(InvalidArgumentError, match="pooling_type"):
            context.get_embeddings_seq()


def test_results_end(llama: Model) -> None:
    """After a failed batch, a restored state or new settings there is nothing, and no row of before."""
    with context_of(llama, embeddings=True) as context:
        none = pytest.raises(InvalidArgumentError, match="no results")
        with none:
            context.get_logits_ith()
        with none, context.lend_logits():
            pass
        context.decode(batch_of([5, 6, 7]))
        state = context.state.save()
        assert len(context.get_embeddings_ith()) == len(context.get_logits_ith()) == 3
        with pytest.raises(InvalidBatchError):
            context.decode(batch_of([5], start=9))
        for call in (context.get_logits_ith, context.get_embeddings_ith):
            with none:
                call()
        context.decode(batch_of([5], start=3))
        assert len(context.get_logits_ith()) == 1
        context.state.load(state)
        with none:
            context.get_logits_ith(0)
        context.decode(batch_of([5], start=3))
        context.embeddings = False
        with none:
            context.get_logits_ith(0)


def test_models_without_logits(bert: Model, tiny: Tiny) -> None:
    """libllama would give memory that nothing was written to."""
    with context_of(bert) as context:
        context.process(batch_of([5, 6]))
        with pytest.raises(InvalidArgumentError, match="no logits"):
            context.get_logits_ith()
        with pytest.raises(InvalidArgumentError, match="no logits"), context.lend_logits():
            pass
        with pytest.raises(InvalidArgumentError, match="embeddings"):
            context.get_embeddings_seq()
    with Model(tiny("lfm2")) as model, context_of(model, embeddings=True) as context:
        context.process(batch_of([5, 6]))
        with pytest.raises(InvalidArgumentError, match="turn them off"):
            context.get_logits_ith()


@pytest.mark.parametrize("embeddings", [True, False])
def test_lent_rows_are_the_copied_ones(embeddings: bool, llama: Model) -> None:
    with context_of(llama, embeddings=embeddings) as context:
        context.decode(batch_of(some_tokens(llama, 5)))
        expected = context.get_embeddings_ith() if embeddings else context.get_logits_ith()
        with (context.lend_embeddings() if embeddings else context.lend_logits()) as view:
            assert view.shape == expected.shape
            assert view.format == "f"
            array = np.asarray(view)
            assert np.array_equal(array, expected)
            start = (lib.llama_get_embeddings if embeddings else lib.llama_get_logits)(context._pointer)
            assert array.ctypes.data == int(ffi.cast("intptr_t", start))
            for use in (
                lambda: context.decode(batch_of([5], start=5)), context.get_logits_ith, context.close,
                context.state.save, context.synchronize, llama.close, lambda: setattr(context, "embeddings", False),
            ):  # fmt: skip
                with pytest.raises(BorrowedError):
                    use()
            del array
        context.decode(batch_of([5], start=5))


def test_a_view_that_outlives_its_block(llama: Model) -> None:
    with context_of(llama) as context:
        context.decode(batch_of(some_tokens(llama, 5)))
        kept = None
        with pytest.raises(BorrowedError, match="still in use"), context.lend_logits() as view:
            kept = np.asarray(view)[1:3]
        first = kept.copy()
        with pytest.raises(BorrowedError):
            context.decode(batch_of([5], start=5))
        with pytest.raises(BorrowedError):
            context.close()
        assert np.array_equal(kept, first)
        del view, kept
        context.decode(batch_of([5], start=5))
        with pytest.raises(KeyError), context.lend_logits() as view:
            kept = np.asarray(view)  # no error of ours hides another
            raise KeyError
        del view, kept
        context.synchronize()


# ---- settings


def test_embeddings_and_causal_attn_can_be_changed(llama: Model) -> None:
    tokens = some_tokens(llama, 9)
    with context_of(llama) as context:
        memory = context.memory
        assert memory is not None

        def run() -> Rows:
            memory.clear()
            context.decode(batch_of(tokens))
            return context.get_logits_ith()

        causal = run()
        context.embeddings = True
        assert context.embeddings
        np.testing.assert_allclose(run(), causal, atol=1e-5)
        rows = context.get_embeddings_ith()
        assert rows.shape == (9, WIDTH)
        context.causal_attn = False
        assert not context.causal_attn
        assert not lib.llama_get_causal_attn(context._pointer)
        assert np.abs(run()[0] - causal[0]).max() > 0.1
        context.causal_attn = True
        context.embeddings = False
        np.testing.assert_allclose(run(), causal, atol=1e-5)
        with pytest.raises(InvalidArgumentError, match="embeddings"):
            context.get_embeddings_ith()


def test_threads(llama: Model) -> None:
    expected = logits_of(llama)
    with context_of(llama) as context:
        context.set_n_threads(2)
        assert (context.n_threads, context.n_threads_batch) == (2, 2)
        context.set_n_threads(1, 3)
        assert (context.n_threads, context.n_threads_batch) == (1, 3)
        assert lib.llama_n_threads_batch(context._pointer) == 3
        for wrong in ((0,), (513,), (1, 0), (1.0,), (1, -1)):
            with pytest.raises(InvalidArgumentError, match="n_threads"):
                context.set_n_threads(*wrong)  # type: ignore[arg-type]
        assert (context.n_threads, context.n_threads_batch) == (1, 3)
        context.decode(batch_of(some_tokens(llama, 30), some_tokens(llama, 7, 1)))
        np.testing.assert_allclose(context.get_logits_ith(), expected[:37], atol=1e-5)


def test_thread_pools(llama: Model) -> None:
    expected = logits_of(llama)[:37]
    batch = batch_of(some_tokens(llama, 30), some_tokens(llama, 7, 1))
    with context_of(llama, n_threads=1, n_threads_batch=2) as context, ThreadPool(2, poll=0) as pool:
        assert context.memory is not None
        with ThreadPool(1) as small:
            with pytest.raises(InvalidArgumentError, match="pool has 1 threads, fewer than the 2"):
                context.attach_threadpool(small)
            context.attach_threadpool(small, pool)
            context.decode(batch)
            np.testing.assert_allclose(context.get_logits_ith(), expected, atol=1e-5)
            context.memory.clear()
        assert small.closed
        with pytest.raises(ClosedError):
            context.decode(batch)
        context.attach_threadpool(pool)
        context.decode(batch)
        np.testing.assert_allclose(context.get_logits_ith(), expected, atol=1e-5)
        context.detach_threadpool()
        pool.close()
        context.memory.clear()
        context.decode(batch)
        with pytest.raises(ClosedError):
            context.attach_threadpool(pool)
        context.decode(batch_of([5], start=30))
    with ThreadPool(2) as pool:  # closing the context gives it back
        for _ in range(2):
            with context_of(llama) as context:
                context.attach_threadpool(pool)
                context.decode(batch)
        pool.pause()
        pool.resume()
    assert live["ThreadPool"] == 0


def test_more_threads_than_the_pool_has(llama: Model) -> None:
    """After the pool is attached too: with OpenMP ggml would write behind the pool's end."""
    with ThreadPool(2) as pool, context_of(llama, n_threads=1, n_threads_batch=1) as context:
        context.attach_threadpool(pool)
        with pytest.raises(InvalidArgumentError, match="n_threads"):
            context.set_n_threads(4)
        context.set_n_threads(2)
        context.decode(batch_of([5] * 20))


def test_two_contexts_do_not_compute_with_one_pool(smollm2: Path) -> None:
    with Model(smollm2) as model, ThreadPool(1) as pool:
        one, two = context_of(model, n_ctx=1024, n_batch=512), context_of(model)
        for context in (one, two):
            context.attach_threadpool(pool)
        thread = threading.Thread(target=one.decode, args=(batch_of([5] * 256),))
        thread.start()
        _wait_until(lambda: one._users > 0)
        time.sleep(0.02)
        with pytest.raises(ConcurrentUseError):
            two.decode(batch_of([5]))
        thread.join()
        two.decode(batch_of([5]))
        one.close()
        two.close()


@pytest.mark.parametrize(
    "settings", [{"n_threads": 0}, {"n_threads": 513}, {"poll": -1}, {"poll": 101}, {"cpus": [-1]}, {"cpus": [512]},
                 {"prio": "urgent"}, {"strict_cpu": "no"}], ids=str,
)  # fmt: skip
def test_wrong_thread_pools(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(settings))):
        ThreadPool(**({"n_threads": 1} | settings))
    assert live["ThreadPool"] == 0


def test_thread_pool_parameters(llama: Model) -> None:
    """In a child, as the calling thread computes too, and stays on its processor."""
    code = (
        "import os, sys\n"
        "from rawllama.model import Model\n"
        "from rawllama.threadpool import ThreadPool\n"
        "from tests.tools import batch_of, context_of\n"
        "cpu = min(os.sched_getaffinity(0))\n"
        "with Model(sys.argv[1]) as model, context_of(model, n_threads_batch=2) as context:\n"
        "    with ThreadPool(2, prio='normal', poll=100, cpus=[cpu], strict_cpu=False) as pool:\n"
        "        context.attach_threadpool(pool)\n"
        "        context.decode(batch_of([5] * 20))\n"
        "        context.detach_threadpool()\n"
        "assert os.sched_getaffinity(0) == {cpu}\n"
    )
    run_python(code, llama.paths[0])


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_abort(smollm2: Path) -> None:
    """From another thread, within a moment; the context works on, with what it remembered before."""
    with Model(smollm2) as model:
        tokens = some_tokens(model, 2048)
        with context_of(model, n_ctx=2048, n_batch=2048, n_ubatch=2048) as context:
            assert context.memory is not None
            context.abort()  # nothing runs: no effect
            context.decode(batch_of([5, 6, 7]))
            before = context.get_logits_ith()
            for _ in range(2):
                errors: list[BaseException] = []

                def run(errors: list[BaseException] = errors) -> None:
                    try:
                        context.decode(batch_of(tokens[:1900], first=1, logits="last"))
                    except BaseException as raised:
                        errors.append(raised)

                thread = threading.Thread(target=run)
                thread.start()
                _wait_until(lambda: context._users > 0)
                time.sleep(0.05)
                with pytest.raises(ConcurrentUseError):
                    context.get_logits_ith()
                with pytest.raises(ConcurrentUseError):
                    context.close()
                context.abort()
                start = time.monotonic()
                thread.join()
                assert time.monotonic() - start < 2
                (error,) = errors
                assert isinstance(error, DecodeAborted)
                assert isinstance(error, InterruptedError)
                assert error.code == 2
                assert context.n_tokens == 0
            assert context.memory.positions(0) == (0, 2)
            context.memory.remove(1)
            context.memory.remove(0)
            context.decode(batch_of([5, 6, 7]))
            np.testing.assert_allclose(context.get_logits_ith(), before, atol=1e-4)
        context.abort()  # closed: no effect


def test_warmup(llama: Model, bert: Model, tiny: Tiny) -> None:
    expected = logits_of(llama)
    with context_of(llama, no_perf=False) as context:
        context.warmup()
        assert context.perf.t_p_eval_ms == context.perf.t_eval_ms == 0
        assert context.memory is not None
        assert context.memory.positions(0) is None
        with pytest.raises(InvalidArgumentError, match="no results"):
            context.get_logits_ith()
        context.decode(batch_of(some_tokens(llama, 30), some_tokens(llama, 7, 1)))
        assert np.array_equal(context.get_logits_ith(), expected[:37])
        with pytest.raises(InvalidArgumentError, match="memory is in use"):
            context.warmup()
        assert context.memory.positions(0) is not None
    for name in MODELS:
        with Model(tiny(name)) as model, context_of(model) as context:
            context.warmup()
            assert context.n_tokens == 0


def test_perf(llama: Model) -> None:
    with context_of(llama, no_perf=False) as context:
        context.decode(batch_of([5] * 20))
        context.synchronize()
        context.decode(batch_of([5], start=20))
        context.synchronize()
        perf = context.perf
        assert (perf.n_p_eval, perf.n_eval) == (20, 1)
        assert perf.t_p_eval_ms > 0
        assert perf.t_eval_ms > 0
        context.reset_perf()
        assert context.perf.n_p_eval < 20
        assert context.perf.t_p_eval_ms == 0
    with context_of(llama, no_perf=True) as context:
        context.decode(batch_of([5] * 20))
        assert context.perf.t_p_eval_ms == 0


def test_require_sequence(llama: Model) -> None:
    with context_of(llama) as context:
        assert context.require_sequence("seq_id", 3) == 3
        for wrong in (-1, 4, 1.0, "0", None):
            with pytest.raises(InvalidArgumentError, match="seq_id"):
                context.require_sequence("seq_id", wrong)  # type: ignore[arg-type]


def test_closed(llama: Model) -> None:
    context = context_of(llama)
    memory = context.memory
    assert memory is not None
    context.close()
    context.close()
    for use in (
        lambda: context.decode(batch_of([5])), lambda: context.n_threads, lambda: context.perf, context.reset_perf,
        context.synchronize, context.detach_threadpool, memory.clear, lambda: memory.can_shift, context.state.save,
        lambda: context.state.load(b"1234"), lambda: context.set_n_threads(1), lambda: context.set_adapters({}),
        lambda: context.set_control_vector(None), context.warmup, lambda: setattr(context, "causal_attn", True),
        lambda: setattr(context, "embeddings", True), context.get_logits_ith, lambda: memory.positions(0),
    ):  # fmt: skip
        with pytest.raises(ClosedError):
            use()
