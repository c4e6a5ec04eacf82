"""Tensors inside the graph: right values, whatever the backend does with their memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from rawllama import Batch, ClosedError, Context, InvalidArgumentError, Model
from rawllama import tap as taps

from tests.models import tiny as tiny_models
from tests.tools import batch_of, context_of, run_python, some_tokens

Tiny = Callable[[str], Path]
HEADS, HEAD, WIDTH = tiny_models.HEADS, tiny_models.HEAD, tiny_models.WIDTH


@pytest.fixture(scope="module")
def bert(tiny: Tiny) -> Iterator[Model]:
    with Model(tiny("bert")) as model:
        yield model


@pytest.fixture(scope="module")
def llama(tiny: Tiny) -> Iterator[Model]:
    with Model(tiny("llama")) as model:
        yield model


def encoder(model: Model, **settings: Any) -> Context:
    return context_of(model, embeddings=True, **settings)


def stored(path: Path, name: str) -> Any:
    return next(tensor.data for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)


# ---- values


def test_queries_are_the_layers_input_times_the_weights(bert: Model, tiny: Tiny) -> None:
    batch = batch_of(some_tokens(bert, 7))
    with encoder(bert) as context, context.tap("inp_norm-0", "Qcur-0") as tap:
        context.process(batch)
    weight, bias = (stored(tiny("bert"), f"blk.0.attn_q.{part}") for part in ("weight", "bias"))
    expected = (tap["inp_norm-0"].astype(float) @ weight.T.astype(float) + bias).reshape(7, HEADS, HEAD)
    assert tap["Qcur-0"].shape == (7, HEADS, HEAD), "ggml's dimensions the other way round"
    assert np.abs(tap["Qcur-0"] - expected).max() < 1e-5


@pytest.mark.parametrize("name", ["bert", "llama", "gemma-embedding", "mamba"])
def test_each_tensor_is_the_same_alone_and_among_all(name: str, tiny: Tiny) -> None:
    """Memory of tensors is taken over by later ones: what is copied too late would differ."""
    with Model(tiny(name)) as model, encoder(model, pooling_type="mean") as context:
        batch = batch_of(some_tokens(model, 6))

        def values(*patterns: str) -> dict[tuple[str, int], Any]:
            if context.memory is not None:
                context.memory.clear()
            with context.tap(*patterns) as tap:
                context.process(batch)
            numbers: dict[str, int] = {}
            found = {}
            for tensor in tap.tensors:
                numbers[tensor.name] = numbers.get(tensor.name, -1) + 1
                found[tensor.name, numbers[tensor.name]] = tensor.values
            return found

        together = values("**")
        assert len(together) > 40
        for chosen in list(dict.fromkeys(name for name, _ in together if "node" not in name and " " not in name)):
            for place, alone in values(chosen).items():
                assert np.array_equal(alone, together[place], equal_nan=True), place


def test_views_have_their_own_order(bert: Model) -> None:
    batch = batch_of(some_tokens(bert, 5))
    with encoder(bert, flash_attn_type="enabled") as context, context.tap("Kcur-1", "Kcur-1 **") as tap:
        context.process(batch)
    assert np.array_equal(tap["Kcur-1 (permuted)"], tap["Kcur-1"].transpose(1, 0, 2))
    halves = next(tensor for tensor in tap.tensors if tensor.name == "Kcur-1 (permuted) (copy)")
    assert (halves.type, halves.op, halves.values.dtype) == ("f16", "CPY", np.float32)
    assert np.array_equal(halves.values[:, :5], tap["Kcur-1 (permuted)"].astype(np.float16).astype(np.float32))


def test_inputs_of_the_graph(llama: Model) -> None:
    tokens = some_tokens(llama, 6)
    with encoder(llama) as context, context.tap("inp_tokens", "inp_pos", "attn_inp_kq_mask") as tap:
        context.process(batch_of(tokens, start=3))
    assert tap["inp_tokens"].dtype == np.int32
    assert np.array_equal(tap["inp_tokens"], tokens)
    assert np.array_equal(tap["inp_pos"], np.arange(3, 9))
    mask = tap["attn_inp_kq_mask"][:6, :6]
    assert np.array_equal(mask == 0, np.tri(6, dtype=bool)), "each token sees those before it, and itself"


def test_attention_weights_sum_to_one(bert: Model) -> None:
    with encoder(bert, flash_attn_type="disabled") as context, context.tap("kq_soft_max-*") as tap:
        context.process(batch_of(some_tokens(bert, 6)))
    assert list(tap) == ["kq_soft_max-0", "kq_soft_max-1"]
    assert tap["kq_soft_max-1"].shape == (HEADS, 6, 6)
    assert np.abs(tap["kq_soft_max-1"].sum(-1) - 1).max() < 1e-6


def test_the_operation_on_a_weight(bert: Model, tiny: Tiny) -> None:
    batch = batch_of(some_tokens(bert, 6))
    with encoder(bert) as context, context.tap("@position_embd.weight", "MUL_MAT@blk.*.ffn_up.weight") as tap:
        context.process(batch)
    assert np.array_equal(tap["@position_embd.weight"], stored(tiny("bert"), "position_embd.weight")[:6])
    assert [tensor.layer for tensor in tap.tensors] == [None, 0, 1]
    assert tap["MUL_MAT@blk.1.ffn_up.weight"].shape == (6, tiny_models.INNER)


def test_layer_outputs_are_there_under_one_name(bert: Model, llama: Model) -> None:
    for model in (bert, llama):
        with encoder(model, pooling_type="none") as context:
            with context.tap("layer_output-*") as tap:
                context.process(batch_of(some_tokens(model, 6)))
            assert [(tensor.name, tensor.shape) for tensor in tap.tensors] == [
                ("layer_output-0", (6, WIDTH)), ("layer_output-1", (6, WIDTH)),
            ]  # fmt: skip
            if model is bert:  # its last layer is its end
                assert np.array_equal(tap["layer_output-1"], context.get_embeddings_ith())


def test_a_name_that_comes_twice(llama: Model) -> None:
    with encoder(llama) as context, context.tap("Qcur-0") as tap:
        context.process(batch_of(some_tokens(llama, 4)))
    ops = [tensor.op for tensor in tap.tensors]
    assert ops[0] == "MUL_MAT"
    assert ops[-1] == "ROPE"
    before, after = tap.all("Qcur-0")[-2:]
    assert np.array_equal(after, tap["Qcur-0"])
    assert np.array_equal(before[0], after[0]), "position 0 is not rotated"
    assert not np.array_equal(before[1], after[1])


def test_ubatches_are_graphs_of_their_own(llama: Model) -> None:
    tokens = some_tokens(llama, 10)
    with encoder(llama, n_ubatch=4, pooling_type="none") as context, context.tap("inp_tokens") as tap:
        context.process(batch_of(tokens[:9]))
        context.process(batch_of(tokens[9:], start=9))
    assert [(tensor.graph, tensor.values.size) for tensor in tap.tensors] == [(0, 4), (1, 4), (2, 1), (3, 1)]
    assert np.array_equal(np.concatenate(tap.all("inp_tokens")), tokens)


def test_one_token_is_still_a_row(llama: Model) -> None:
    with encoder(llama) as context, context.tap("attn_norm-0") as tap:
        context.process(batch_of(some_tokens(llama, 1)))
    assert tap["attn_norm-0"].shape == (1, WIDTH)


def test_results_are_the_same_bits_with_a_tap(minilm: str) -> None:
    with Model(minilm) as model, encoder(model) as context:
        batch = batch_of(some_tokens(model, 40), some_tokens(model, 20, seed=1))
        context.process(batch)
        expected = context.get_embeddings_seq()
        with context.tap("**"):
            context.process(batch)
        assert np.array_equal(context.get_embeddings_seq(), expected)
        context.process(batch)
        assert np.array_equal(context.get_embeddings_seq(), expected)


def test_our_kernels_give_their_own_values(minilm: str) -> None:
    with Model(minilm, kernels="rawllama") as model, encoder(model) as context, context.tap("ffn_out-5") as tap:
        context.process(batch_of(some_tokens(model, 40)))
    with Model(minilm) as model, encoder(model) as context, context.tap("ffn_out-5") as reference:
        context.process(batch_of(some_tokens(model, 40)))
    a, b = (one["ffn_out-5"].astype(float) for one in (tap, reference))
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.9999
    assert not np.array_equal(a, b), "ggml's attention has keys in float16"


# ---- choice


def test_layers(bert: Model) -> None:
    batch = batch_of(some_tokens(bert, 5))
    with encoder(bert) as context:
        for layers in ([1], [-1]):
            with context.tap("Qcur-*", "inp_pos", "@blk.*.attn_k.weight", layers=layers) as tap:
                context.process(batch)
            assert set(tap) == {"inp_pos", "Qcur-1", "@blk.1.attn_k.weight"}


def test_rows(bert: Model) -> None:
    batch = batch_of(some_tokens(bert, 5))
    with encoder(bert) as context:
        with context.tap("Qcur-0", "Qcur-0 (view) (permuted)") as tap:
            context.process(batch)
        for rows in ([0], [1, 2, 4], [-1, 0, 0]):
            names = ("Qcur-0", "Qcur-0 (view) (permuted)")
            chosen = rows if max(rows) < HEADS else rows[:2]
            with context.tap(*names, rows=chosen) as some:
                context.process(batch)
            for name in names:
                assert np.array_equal(some[name], tap[name][chosen]), name


def test_names_lists_the_graph(bert: Model, tiny: Tiny) -> None:
    found = taps.names(bert)
    queries = [info for info in found if info.name == "Qcur-1"]
    assert [info.op for info in queries] == ["MUL_MAT", "ADD", "RESHAPE"]
    assert queries[-1] == taps.Info("Qcur-1", "RESHAPE", "f32", (3, HEADS, HEAD), 1)
    assert not any(info.name == "kq_soft_max-0" for info in found)
    assert any(info.name == "kq_soft_max-0" for info in taps.names(bert, flash_attn_type="disabled"))
    with Model(tiny("t5")) as model:
        found = taps.names(model)
        assert {info.op for info in found if info.name == "inp_tokens"} == {"NONE"}
        assert sum(info.name == "inp_tokens" for info in found) == 2, "of the encoder and the decoder"


# ---- mistakes


def test_wrong_names_end_the_block_with_the_closest(bert: Model) -> None:
    with encoder(bert) as context:
        wrong = pytest.raises(InvalidArgumentError, match=r"Qcurr-0: no tensor .* the closest are Qcur-0")
        with wrong, context.tap("Qcurr-0", "Kcur-0"):
            context.process(batch_of(some_tokens(bert, 5)))
        with context.tap("Kcur-0") as tap:
            context.process(batch_of(some_tokens(bert, 5)))
            with pytest.raises(InvalidArgumentError, match=r"Vcur-0: it was not asked for"):
                _ = tap["Vcur-0"]
            with pytest.raises(InvalidArgumentError, match=r"kcur-0: .* the closest are .*Kcur-0"):
                _ = tap["kcur-0"]


def test_nothing_computed(bert: Model) -> None:
    with encoder(bert) as context, context.tap("Qcurr-0") as tap:
        with pytest.raises(InvalidArgumentError, match="nothing was computed with this tap"):
            _ = tap["Qcur-0"]
        assert (len(tap), tap.tensors, "Qcur-0" in tap) == (0, (), False)


@pytest.mark.parametrize("layers", [[2], [-3], [0, 7], ["0"], [1.0]])
def test_layers_out_of_range(bert: Model, layers: list[Any]) -> None:
    with encoder(bert) as context, pytest.raises(InvalidArgumentError, match=r"layers: .* is not from 0 to 1"):
        context.tap("Qcur-*", layers=layers)
    with encoder(bert) as context, pytest.raises(InvalidArgumentError, match="layers: none given"):
        context.tap("Qcur-*", layers=[])


def test_rows_out_of_range(bert: Model) -> None:
    with encoder(bert) as context:
        for row in (5, -6):
            wrong = pytest.raises(InvalidArgumentError, match=f"rows: Qcur-0 has 5 rows, and no row {row}")
            with wrong, context.tap("Qcur-0", rows=[0, row]):
                context.process(batch_of(some_tokens(bert, 5)))
        for rows in ([], ["x"], [2**70]):
            with pytest.raises(InvalidArgumentError, match="rows: "):
                context.tap("Qcur-0", rows=rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("patterns", [(), ("",), (3,), ("a\0b",)])
def test_patterns_that_are_none(bert: Model, patterns: tuple[Any, ...]) -> None:
    with encoder(bert) as context, pytest.raises(InvalidArgumentError, match="patterns: "):
        context.tap(*patterns)


def test_a_closed_context(bert: Model) -> None:
    context = encoder(bert)
    tap = context.tap("Qcur-0")
    context.close()
    with pytest.raises(ClosedError):
        context.tap("Qcur-0")
    with pytest.raises(ClosedError), tap:
        pass


def test_what_was_copied_outlives_the_context(bert: Model) -> None:
    context = encoder(bert)
    with context.tap("Qcur-0") as tap:
        context.process(batch_of(some_tokens(bert, 5)))
        context.close()
    assert tap["Qcur-0"].shape == (5, HEADS, HEAD)


def test_one_tap_at_a_time(bert: Model) -> None:
    with encoder(bert) as context, context.tap("Qcur-0") as tap:
        with pytest.raises(InvalidArgumentError, match="tap: this context has one in use"), context.tap("Kcur-0"):
            pass
        with pytest.raises(InvalidArgumentError, match="tap: this context has one in use"):
            context.hidden_states(batch_of(some_tokens(bert, 5)))
        context.process(batch_of(some_tokens(bert, 5)))
    assert "Qcur-0" in tap


def test_contexts_that_may_not_be_tapped(bert: Model) -> None:
    with encoder(bert, taps=False) as context:
        assert not context.taps
        with pytest.raises(InvalidArgumentError, match="taps: they are off"):
            context.tap("Qcur-0")
        with pytest.raises(InvalidArgumentError, match="taps: they are off"):
            context.hidden_states(batch_of(some_tokens(bert, 5)))


def test_errors_of_the_block_are_not_hidden(bert: Model) -> None:
    with encoder(bert) as context:
        with pytest.raises(KeyError, match="mine"), context.tap("Qcurr-0"):
            context.process(batch_of(some_tokens(bert, 5)))
            raise KeyError("mine")
        context.process(batch_of(some_tokens(bert, 5)))  # the tap is out


def test_a_batch_that_is_refused_leaves_the_tap_in_place(bert: Model) -> None:
    with encoder(bert) as context, context.tap("Qcur-0") as tap:
        with pytest.raises(InvalidArgumentError, match="it has no tokens"):
            context.process(Batch(3))
        context.process(batch_of(some_tokens(bert, 5)))
    assert len(tap.tensors) == 3


def test_clear_forgets(bert: Model) -> None:
    with encoder(bert) as context, context.tap("inp_tokens") as tap:
        context.process(batch_of(some_tokens(bert, 5)))
        tap.clear()
        context.process(batch_of(some_tokens(bert, 3)))
    assert [tensor.values.size for tensor in tap.tensors] == [3]


def test_taps_leave_no_memory_behind(tiny: Tiny) -> None:
    run_python(
        """
import sys
from rawllama import Batch, Context, Model
from tests.memory import peak_kb
with Model(sys.argv[1]) as model, Context(model, embeddings=True, n_ctx=64, n_threads=1, n_threads_batch=1) as context:
    batch = Batch(60)
    batch.add_sequence([5] * 60)
    peaks = []
    for round in range(600):
        with context.tap("*") as tap:
            context.process(batch)
        assert len(tap) > 40
        peaks.append(peak_kb())
    assert peaks[-1] - peaks[100] < 4000, peaks[::100]  # kB; all of one round's copies are 700
""",
        tiny("bert"),
    )
