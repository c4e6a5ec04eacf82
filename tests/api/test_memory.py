"""rawllama.memory: after each operation the model goes on as if the sequence had always been that one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawllama.context import Context
from rawllama.errors import InvalidArgumentError
from rawllama.memory import Memory
from rawllama.model import Model

from ..tools import Rows, Tokens, batch_of, context_of, some_tokens

Tiny = Callable[[str], Path]

CACHES = ("llama", "qwen3", "gpt2")  # a cache of keys and values
STATES = ("mamba", "lfm2")  # a state, or both
KINDS = (*CACHES, *STATES)
# Keys and values are rounded to half precision in the cache, and flash attention adds in another order.
CLOSE = 2e-2


@contextmanager
def opened(path: Path, **settings: Any) -> Iterator[tuple[Model, Context, Memory]]:
    with Model(path) as model, context_of(model, **settings) as context:
        assert context.memory is not None
        yield model, context, context.memory


def next_row(context: Context, token: int, pos: int, seq_id: int = 0) -> Rows:
    context.decode(batch_of([token], first=seq_id, start=pos))
    return context.get_logits_ith(-1)


def fresh_row(path: Path, tokens: Tokens, **settings: Any) -> Rows:
    """Logits of the last token, where nothing was done to the memory before."""
    with opened(path, **settings) as (_, context, _):
        context.decode(batch_of(tokens[:-1]))
        return next_row(context, int(tokens[-1]), len(tokens) - 1)


@pytest.mark.parametrize("name", KINDS)
def test_clear(name: str, tiny: Tiny) -> None:
    with opened(tiny(name)) as (model, context, memory):
        tokens = some_tokens(model, 9)
        for data in (True, False):
            context.decode(batch_of(tokens, tokens[:5]))
            rows = context.get_logits_ith()
            assert memory.positions(0) is not None
            memory.clear(data)
            assert [memory.positions(seq_id) for seq_id in range(4)] == [None] * 4
        context.decode(batch_of(tokens, tokens[:5]))
        assert np.array_equal(context.get_logits_ith(), rows)
        assert "Memory" in repr(memory)


@pytest.mark.parametrize("name", KINDS)
def test_positions(name: str, tiny: Tiny) -> None:
    """A cache remembers all of its tokens, a state where it is."""
    with opened(tiny(name)) as (model, context, memory):
        context.decode(batch_of(some_tokens(model, 9), some_tokens(model, 4, 1)))
        first, second = memory.positions(0), memory.positions(1)
        assert first is not None
        assert second is not None
        assert (first[1], second[1]) == (8, 3)
        assert (first[0], second[0]) == ((0, 0) if name in CACHES else (8, 3))
        assert memory.positions(2) is None


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_copy(name: str, unified: bool, tiny: Tiny) -> None:
    """The copy goes on as the original does, and neither disturbs the other."""
    settings = {"kv_unified": unified}
    with opened(tiny(name), **settings) as (model, context, memory):
        tokens = some_tokens(model, 12)
        context.decode(batch_of(tokens[:10]))
        memory.copy(0, 2)
        assert memory.positions(2) == memory.positions(0)
        other = next_row(context, int(tokens[11]), 10, 2)
        row = next_row(context, int(tokens[10]), 10, 0)
        np.testing.assert_allclose(row, fresh_row(tiny(name), tokens[:11], **settings), atol=1e-5)
        alone = np.append(tokens[:10], tokens[11]).astype(np.int32)
        np.testing.assert_allclose(other, fresh_row(tiny(name), alone, **settings), atol=1e-5)
        assert np.abs(row - other).max() > 0.1


def test_copy_of_a_part(tiny: Tiny) -> None:
    """With one cache for all, a range can be copied: it goes on as if the rest had been removed."""
    with opened(tiny("llama")) as (model, context, memory):
        tokens = some_tokens(model, 12)
        context.decode(batch_of(tokens[:10]))
        memory.copy(0, 1, 0, 6)
        assert memory.positions(1) == (0, 5)
        row = next_row(context, int(tokens[6]), 6, 1)
        np.testing.assert_allclose(row, fresh_row(tiny("llama"), tokens[:7]), atol=1e-5)
    with opened(tiny("llama"), kv_unified=False) as (model, context, memory):
        context.decode(batch_of(tokens[:10]))
        for part in ((0, 6), (0, None), (None, 6)):
            with pytest.raises(InvalidArgumentError, match="kv_unified"):
                memory.copy(0, 1, *part)
        next_row(context, int(tokens[10]), 10)


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_keep(name: str, unified: bool, tiny: Tiny) -> None:
    """All others are forgotten, whether or not they share a cache with the one that is kept."""
    with opened(tiny(name), kv_unified=unified) as (model, context, memory):
        tokens = some_tokens(model, 9)
        context.decode(batch_of(tokens[:8], some_tokens(model, 5, 1), tokens[:3]))
        memory.keep(1)
        assert [memory.positions(seq_id) is not None for seq_id in range(4)] == [False, True, False, False]
        memory.keep(2)
        assert [memory.positions(seq_id) for seq_id in range(4)] == [None] * 4
        context.decode(batch_of(tokens[:8], tokens[:4], tokens[:3]))
        memory.keep(0)
        row = next_row(context, int(tokens[8]), 8)
        np.testing.assert_allclose(row, fresh_row(tiny(name), tokens, kv_unified=unified), atol=CLOSE)


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_remove_whole_sequences(name: str, unified: bool, tiny: Tiny) -> None:
    with opened(tiny(name), kv_unified=unified) as (model, context, memory):
        tokens = some_tokens(model, 9)
        context.decode(batch_of(tokens, tokens[:5]))
        assert memory.remove(0)
        assert memory.positions(0) is None
        assert memory.positions(1) is not None
        assert memory.remove(3)  # an empty one
        context.decode(batch_of(tokens))
        assert memory.remove()
        assert [memory.positions(seq_id) for seq_id in range(4)] == [None] * 4
        context.decode(batch_of(tokens[:8]))
        row = next_row(context, int(tokens[8]), 8)
        np.testing.assert_allclose(row, fresh_row(tiny(name), tokens, kv_unified=unified), atol=1e-5)


@pytest.mark.parametrize("name", CACHES)
def test_remove_the_end(name: str, tiny: Tiny) -> None:
    with opened(tiny(name)) as (model, context, memory):
        tokens = some_tokens(model, 12)
        context.decode(batch_of(tokens))
        assert memory.remove(0, 7, None)
        assert memory.positions(0) == (0, 6)
        row = next_row(context, int(tokens[7]), 7)
        np.testing.assert_allclose(row, fresh_row(tiny(name), tokens[:8]), atol=1e-5)
        assert memory.remove(0, 2, 4)
        assert memory.positions(0) == (0, 7)
        assert memory.remove(None, 6, None)
        assert memory.positions(0) == (0, 5)


@pytest.mark.parametrize("name", STATES)
def test_parts_of_a_state_cannot_be_removed(name: str, tiny: Tiny) -> None:
    with opened(tiny(name)) as (model, context, memory):
        tokens = some_tokens(model, 9)
        context.decode(batch_of(tokens[:8]))
        for part in ((4, None), (7, 8)):
            assert not memory.remove(0, *part)
            assert memory.positions(0) is not None
        row = next_row(context, int(tokens[8]), 8)
        np.testing.assert_allclose(row, fresh_row(tiny(name), tokens), atol=1e-5)


def test_states_roll_back_within_n_rs_seq(tiny: Tiny) -> None:
    """Of LFM2 libllama can keep the last states."""
    with opened(tiny("lfm2"), n_rs_seq=3) as (model, context, memory):
        tokens = some_tokens(model, 9)
        context.decode(batch_of(tokens[:8]))
        assert not memory.remove(0, 2, None)
        assert memory.remove(0, 6, None)
        row = next_row(context, int(tokens[6]), 6)
        np.testing.assert_allclose(row, fresh_row(tiny("lfm2"), tokens[:7]), atol=1e-5)


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_shift(name: str, unified: bool, tiny: Tiny) -> None:
    """Rotary positions are relative: all moved by the same is the same."""
    settings = {"kv_unified": unified, "type_k": "f32", "type_v": "f32"}
    expected = None
    with opened(tiny(name), **settings) as (model, context, memory):
        tokens = some_tokens(model, 12)
        expected = fresh_row(tiny(name), tokens, **settings)
        assert memory.can_shift
        context.decode(batch_of(tokens[:11], first=1))
        memory.shift(1, 20)
        assert memory.positions(1) == (20, 30)
        np.testing.assert_allclose(next_row(context, int(tokens[11]), 31, 1), expected, atol=CLOSE)
        memory.remove(1, 31, None)
        memory.shift(1, -15)
        assert memory.positions(1) == (5, 15)
        np.testing.assert_allclose(next_row(context, int(tokens[11]), 16, 1), expected, atol=CLOSE)
        memory.shift(1, -8)  # positions 5, 6 and 7 fall off
        assert memory.positions(1) == (0, 8)


def test_shift_over_a_gap(tiny: Tiny) -> None:
    """What chats do when the memory is full: drop some of the oldest tokens, and move up the rest."""
    path, settings = tiny("llama"), {"type_k": "f32", "type_v": "f32"}
    with Model(path) as model:
        tokens = some_tokens(model, 20)
    with opened(path, **settings) as (_, context, memory):
        context.decode(batch_of(tokens[:19]))
        # One layer sees exactly the tokens that are left; the next saw the dropped ones through it.
        assert memory.remove(0, 4, 9)
        memory.shift(0, -5, 9, None)
        assert memory.positions(0) == (0, 13)
        row = next_row(context, int(tokens[19]), 14)
        far = fresh_row(path, tokens, **settings)
    assert np.isfinite(row).all()
    assert np.abs(row - far).max() > 1e-3


def test_divide(tiny: Tiny) -> None:
    """Positions 0, 0, 1, 1, ... as of tokens that were decoded there."""
    with opened(tiny("llama")) as (model, context, memory):
        tokens = some_tokens(model, 9)
        context.decode(batch_of(tokens))
        memory.divide(0, 2)
        assert memory.positions(0) == (0, 4)
        halved = next_row(context, 9, 5)
        memory.clear()
        context.decode(batch_of(tokens))
        memory.divide(0, 1)
        assert memory.positions(0) == (0, 8)
        memory.divide(0, 3, 6, None)
        assert memory.positions(0) == (0, 5)
        assert np.abs(next_row(context, 9, 6) - halved).max() > 1e-3


def test_models_that_cannot_shift(tiny: Tiny) -> None:
    """libllama would assert; with several positions a token there is no shifting."""
    with opened(tiny("qwen2vl")) as (model, context, memory):
        tokens = some_tokens(model, 6)
        context.decode(batch_of(tokens[:5]))
        assert not memory.can_shift
        with pytest.raises(InvalidArgumentError, match="can_shift"):
            memory.shift(0, 3)
        with pytest.raises(InvalidArgumentError, match="can_shift"):
            memory.divide(0, 2)
        next_row(context, int(tokens[5]), 5)


@pytest.mark.parametrize("name", STATES)
def test_shift_of_a_state(name: str, tiny: Tiny) -> None:
    """Where it can, only the number of the position changes."""
    with opened(tiny(name)) as (model, context, memory):
        tokens = some_tokens(model, 9)
        context.decode(batch_of(tokens[:8]))
        assert memory.can_shift
        memory.shift(0, 10)
        positions = memory.positions(0)
        assert positions is not None
        assert positions[1] == 17
        row = next_row(context, int(tokens[8]), 18)
        np.testing.assert_allclose(row, fresh_row(tiny(name), tokens), atol=CLOSE)


def test_wrong_arguments(tiny: Tiny) -> None:
    with opened(tiny("llama")) as (_, context, memory):
        context.decode(batch_of([5] * 8))
        for wrong in (-1, 4, 2**31, 2**70, 1.0, "0"):
            for call in (memory.remove, memory.keep, memory.positions):
                with pytest.raises(InvalidArgumentError, match="seq_id"):
                    call(wrong)  # type: ignore[operator]
            with pytest.raises(InvalidArgumentError, match="seq_id"):
                memory.shift(wrong, 1)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError, match="seq_id"):
                memory.divide(wrong, 2)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError, match="source"):
                memory.copy(wrong, 1)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError, match="target"):
                memory.copy(0, wrong)  # type: ignore[arg-type]
        for wrong_pos in (-1, 2**31, 2**70):
            with pytest.raises(InvalidArgumentError, match="p0"):
                memory.remove(0, wrong_pos, None)
            with pytest.raises(InvalidArgumentError, match="p1"):
                memory.remove(0, 0, wrong_pos)
        for delta in (2**30, -(2**30), 2**31, 2**70):
            with pytest.raises(InvalidArgumentError, match="delta"):
                memory.shift(0, delta)
        for divisor in (0, -1, 2**30, 2**31):
            with pytest.raises(InvalidArgumentError, match="divisor"):
                memory.divide(0, divisor)
        assert memory.positions(0) == (0, 7)
        memory.shift(0, 2**30 - 8)
        with pytest.raises(InvalidArgumentError, match="delta"):
            memory.shift(0, 2**30 - 9)
        assert memory.positions(0) == (2**30 - 8, 2**30 - 1)
        next_row(context, 5, 2**30)


def test_a_copy_of_nothing_and_of_itself(tiny: Tiny) -> None:
    for unified in (True, False):
        with opened(tiny("llama"), kv_unified=unified) as (_, context, memory):
            context.decode(batch_of([5] * 8))
            memory.copy(0, 0)
            assert memory.positions(0) == (0, 7)
            memory.copy(3, 2)
            assert memory.positions(2) is None
            next_row(context, 5, 8)
