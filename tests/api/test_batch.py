"""rawllama.batch: filling by hand and in C, and that libllama sees what numpy wrote."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawllama import ffi, lib
from rawllama.batch import Batch
from rawllama.errors import InvalidArgumentError, InvalidBatchError
from rawllama.model import Model

from ..models.tiny import WIDTH
from ..tools import batch_of, context_of, some_tokens

Tiny = Callable[[str], Path]


def contents(batch: Batch) -> list[tuple[int, int, list[int], int]]:
    """Token, position, sequence ids and flag of each, as C reads them."""
    c = batch.c.batch
    return [
        (c.token[i], c.pos[i], [c.seq_id[i][j] for j in range(c.n_seq_id[i])], c.logits[i]) for i in range(c.n_tokens)
    ]


# ---- filling


def test_add_sequence() -> None:
    batch = Batch(10)
    assert len(batch) == batch.n_tokens == 0
    batch.add_sequence([11, 12, 13])
    batch.add_sequence(np.array([14, 15]), 7, pos=20, logits="last")
    batch.add_sequence((16, 17), logits="none")
    batch.add_sequence([])
    assert contents(batch) == [
        (11, 0, [0], 1), (12, 1, [0], 1), (13, 2, [0], 1), (14, 20, [7], 0), (15, 21, [7], 1), (16, 0, [0], 0),
        (17, 1, [0], 0),
    ]  # fmt: skip
    assert len(batch) == 7
    assert repr(batch) == "<Batch of 7 tokens, room for 10>"
    batch.clear()
    assert contents(batch) == []


def test_several_sequences_of_a_token() -> None:
    batch = Batch(4, n_seq_max=3)
    batch.add_sequence([5, 6], [2, 0, 1])
    batch.add_sequence([7], 4)
    batch.add_sequence([8], [3, 1])
    assert [row[2] for row in contents(batch)] == [[2, 0, 1], [2, 0, 1], [4], [3, 1]]
    for ids in ([], [0, 1, 2, 3]):
        with pytest.raises(InvalidBatchError, match="seq_id"):
            Batch(4, n_seq_max=3).add_sequence([5], ids)


texts = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=8)


@settings(max_examples=200, deadline=None)
@given(texts, st.data())
def test_add_sequences_is_adding_one_by_one(sequences: list[list[int]], data: st.DataObject) -> None:
    """Or the arrays filled by hand; whatever was there before stays."""
    count = len(sequences)
    ids = data.draw(st.none() | st.lists(st.integers(0, 300), min_size=count, max_size=count))
    starts = data.draw(st.none() | st.lists(st.integers(0, 2**31 - 10), min_size=count, max_size=count))
    logits = data.draw(st.sampled_from(["all", "last", "none"]))
    skipped = data.draw(st.integers(0, 3))
    flat = [99] * skipped + [token for sequence in sequences for token in sequence] + [98]
    offsets = np.cumsum([skipped, *map(len, sequences)])
    at_once, one_by_one = Batch(64), Batch(64)
    for batch in (at_once, one_by_one):
        batch.add_sequence([1, 2])
    at_once.add_sequences(flat, offsets, ids, starts, logits=logits)
    expected: list[Any] = contents(one_by_one)
    for index, sequence in enumerate(sequences):
        seq_id, start = ids[index] if ids else index, starts[index] if starts else 0
        one_by_one.add_sequence(sequence, seq_id, pos=start, logits=logits)
        for place, token in enumerate(sequence):
            flag = {"all": 1, "none": 0, "last": int(place + 1 == len(sequence))}[logits]
            expected.append((token, start + place, [seq_id], flag))
    assert contents(at_once) == contents(one_by_one) == expected


def test_no_room_changes_nothing() -> None:
    batch = Batch(5)
    batch.add_sequence([1, 2, 3])
    before = contents(batch)
    for call in (
        lambda: batch.add_sequence([4, 5, 6]),
        lambda: batch.add_sequences([4, 5, 6, 7], [0, 2, 4]),
        lambda: batch.add_sequences(np.zeros(10**6, np.int32), [0, 10**6]),
    ):
        with pytest.raises(InvalidBatchError, match="3 of 5 are in use"):
            call()
        assert contents(batch) == before
    batch.add_sequence([4, 5])
    with pytest.raises(InvalidBatchError, match="5 of 5"):
        batch.add_sequence([6])
    batch.clear()
    batch.add_sequence([6, 7, 8, 9, 10])


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0, 4], "offsets"), ([0, 2, 1], "offsets"), ([-1, 2], "offsets"), ([2, 0], "offsets"), ([], "offsets"),
        ([[0, 1]], "offsets"), ([0, 2**62], "offsets"), ([-(2**63), 2**63 - 1], "offsets"), ([0.0, 1.5], "offsets"),
        (["0", "1"], "offsets"), ([0, 2**64], "offsets"), (None, "offsets"),
    ],
)  # fmt: skip
def test_wrong_offsets(offsets: Any, words: str) -> None:
    batch = Batch(9)
    with pytest.raises(InvalidArgumentError, match=words):
        batch.add_sequences([1, 2, 3], offsets)
    assert len(batch) == 0


@pytest.mark.parametrize(
    "tokens",
    [
        [[1, 2]], 5, [1.5], ["a"], [2**31], [-(2**31) - 1], [2**70], [None], np.array([1.0]), b"12", [[1], [2, 3]],
    ],
    ids=repr,
)  # fmt: skip
def test_wrong_tokens(tokens: Any) -> None:
    batch = Batch(9)
    with pytest.raises(InvalidArgumentError, match="tokens"):
        batch.add_sequence(tokens)
    assert len(batch) == 0


def test_wrong_arguments() -> None:
    batch = Batch(9)
    for settings_ in ({"seq_ids": [0, 1]}, {"seq_ids": []}, {"seq_ids": [2**31]}, {"seq_ids": [0.5]}):
        with pytest.raises(InvalidArgumentError, match="seq_ids"):
            batch.add_sequences([1, 2], [0, 2], **settings_)
    for positions in ([0, 1], [2**31], ["0"]):
        with pytest.raises(InvalidArgumentError, match="pos"):
            batch.add_sequences([1, 2], [0, 2], pos=positions)
    with pytest.raises(InvalidArgumentError, match="pos"):
        batch.add_sequence([1], pos=2**31)
    for seq_id in (2**31, [2**40], 1.5, "0", [None]):
        with pytest.raises(InvalidArgumentError, match="seq_id"):
            batch.add_sequence([1], seq_id)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="logits"):
        batch.add_sequence([1], logits="first")
    assert len(batch) == 0
    for count in (-1, 10, 2**31):
        with pytest.raises(InvalidBatchError, match="n_tokens"):
            batch.n_tokens = count
    with pytest.raises(InvalidBatchError, match="vectors"):
        Batch(4, n_embd=8).add_sequence([1])


def test_numpy_integers_are_integers() -> None:
    """As ids that come out of an array."""
    batch = Batch(4)
    batch.add_sequence([1], np.int32(3), pos=np.int64(7))  # type: ignore[arg-type]
    assert contents(batch) == [(1, 7, [3], 1)]


@pytest.mark.parametrize(
    "sizes",
    [
        {"capacity": 0}, {"capacity": -1}, {"capacity": 2**31}, {"capacity": 1.0}, {"capacity": "4"},
        {"n_seq_max": 0}, {"n_embd": -1}, {"n_pos": 0}, {"n_pos": None}, {"n_embd": 2**31},
        {"capacity": 2**31 - 1, "n_seq_max": 2**31 - 1}, {"capacity": 2**31 - 1, "n_embd": 2**31 - 1},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_sizes(sizes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(sizes))):
        Batch(**({"capacity": 4} | sizes))


def test_it_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match="one process"):
        pickle.dumps(Batch(4))


# ---- the memory is C's


def test_arrays_are_the_struct() -> None:
    batch = Batch(6, n_seq_max=2)
    c = batch.c.batch
    batch.token[:3] = [7, 8, 9]
    batch.pos[:3] = [0, 1, 2]
    batch.seq_id[:3] = [[0, 1], [2, 3], [4, 5]]
    batch.n_seq_id[:3] = [1, 2, 2]
    batch.logits[2] = True
    batch.n_tokens = 3
    assert contents(batch) == [(7, 0, [0], 0), (8, 1, [2, 3], 0), (9, 2, [4, 5], 1)]
    assert c.embd == ffi.NULL
    assert c.seq_id[6] == ffi.NULL
    c.token[1], c.seq_id[2][1] = 42, 43
    assert (batch.token[1], batch.seq_id[2, 1]) == (42, 43)
    assert batch.token.shape == batch.pos.shape == (6,)
    assert batch.embd.size == 0
    vectors = Batch(3, n_embd=5)
    assert vectors.c.batch.token == ffi.NULL
    vectors.embd[2, 4] = 1.5
    assert vectors.c.batch.embd[14] == 1.5


def test_it_works_with_raw_calls(tiny: Tiny) -> None:
    with Model(tiny("llama")) as model, context_of(model) as context:
        tokens = some_tokens(model, 9)
        batch = batch_of(tokens[:5], tokens[5:])
        assert lib.llama_decode(context.c, batch.c.batch) == 0
        raw = np.frombuffer(ffi.buffer(lib.llama_get_logits(context.c), 9 * model.vocab.n_tokens * 4), np.float32)
        raw = raw.reshape(9, -1).copy()
        assert context.memory is not None
        context.memory.clear()
        context.decode(batch)
        assert np.array_equal(context.get_logits_ith(), raw)


def test_reuse(tiny: Tiny) -> None:
    """One batch for many, as large and as small ones follow each other; its arrays stay where they are."""
    with Model(tiny("bert")) as model, context_of(model, embeddings=True) as context:
        batch = Batch(60)
        place = batch.token.ctypes.data
        for lengths in ((20, 30), (3,), (1, 2, 3), (60,)):
            sequences = [some_tokens(model, length, length) for length in lengths]
            batch.clear()
            batch.add_sequences(np.concatenate(sequences), np.cumsum([0, *lengths]))
            context.process(batch)
            rows = context.get_embeddings_seq()
            context.process(batch_of(*sequences))
            assert np.array_equal(rows, context.get_embeddings_seq())
        assert batch.token.ctypes.data == place == int(ffi.cast("intptr_t", batch.c.batch.token))


def test_the_batch_is_copied(tiny: Tiny) -> None:
    """What is written to it afterwards changes no result."""
    with Model(tiny("llama")) as model, context_of(model) as context:
        batch = batch_of(some_tokens(model, 5))
        context.decode(batch)
        rows = context.get_logits_ith()
        for array in (batch.token, batch.pos, batch.seq_id, batch.logits):
            array[:] = -1
        assert np.array_equal(context.get_logits_ith(), rows)


# ---- what the model sees


def test_a_shared_prefix(tiny: Tiny) -> None:
    """Tokens of several sequences are computed once, and each sequence goes on as if it were alone."""
    with Model(tiny("llama")) as model:
        tokens = some_tokens(model, 10)
        with context_of(model) as context:
            batch = Batch(10, n_seq_max=3)
            batch.add_sequence(tokens[:6], [0, 1, 2], logits="none")
            for seq_id in range(3):
                batch.add_sequence(tokens[6 + seq_id : 7 + seq_id], seq_id, pos=6)
            context.decode(batch)
            rows = context.get_logits_ith()
        for seq_id in range(3):
            with context_of(model) as context:
                context.decode(batch_of(np.append(tokens[:6], tokens[6 + seq_id]), logits="last"))
                np.testing.assert_allclose(context.get_logits_ith(0 - 1), rows[seq_id], atol=1e-4)


def embedding_table(path: Path) -> Any:
    tensor = next(one for one in gguf.GGUFReader(path).tensors if one.name == "token_embd.weight")
    return tensor.data.reshape(-1, WIDTH)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "mamba", "lfm2"])
def test_vectors_in_place_of_tokens(name: str, tiny: Tiny) -> None:
    """The rows of the token table are what the tokens are."""
    with Model(tiny(name)) as model, context_of(model) as context:
        tokens = some_tokens(model, 7)
        context.decode(batch_of(tokens[:4], tokens[4:]))
        expected = context.get_logits_ith()
        assert context.memory is not None
        context.memory.clear()
        batch = Batch(9, n_embd=model.n_embd_inp, n_pos=model.n_pos)
        batch.n_tokens = 7
        batch.embd[:7] = embedding_table(tiny(name))[tokens]
        batch.pos[:7] = [0, 1, 2, 3, 0, 1, 2]
        batch.seq_id[:7, 0] = [0] * 4 + [1] * 3
        batch.logits[:7] = True
        context.decode(batch)
        np.testing.assert_allclose(context.get_logits_ith(), expected, atol=1e-5)


def test_vectors_with_several_positions(tiny: Tiny) -> None:
    """M-RoPE: text has the same position four times; as a picture it has others."""
    with Model(tiny("qwen2vl")) as model, context_of(model) as context:
        assert model.n_pos == 4
        memory = context.memory
        assert memory is not None
        tokens = some_tokens(model, 6)
        context.decode(batch_of(tokens))
        expected = context.get_logits_ith()

        def run(positions: Sequence[Sequence[int]]) -> Any:
            memory.clear()
            batch = Batch(10, n_embd=WIDTH, n_pos=4)
            batch.n_tokens = 6
            assert batch.pos.shape == (4, 6)
            batch.pos[:] = positions
            batch.embd[:6] = embedding_table(tiny("qwen2vl"))[tokens]
            batch.logits[:6] = True
            context.decode(batch)
            return context.get_logits_ith()

        text = list(range(6))
        np.testing.assert_allclose(run([text, text, text, [0] * 6]), expected, atol=1e-5)
        picture = run([text, [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], [0] * 6])
        assert np.abs(picture - expected).max() > 0.01
        batch = Batch(4, n_embd=WIDTH, n_pos=4)
        batch.n_tokens = 4
        batch.pos[2, 3] = -1
        memory.clear()
        with pytest.raises(InvalidBatchError, match="pos of token 3 is -1"):
            context.decode(batch)
        plain = Batch(4, n_embd=WIDTH)
        plain.n_tokens = 4
        with pytest.raises(InvalidBatchError, match="rows have 1 positions, and the model takes 4"):
            context.decode(plain)
