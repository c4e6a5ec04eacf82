"""ALiBi's slopes and bias, and T5's buckets, against ggml and libllama."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Batch, Context, InvalidArgumentError, Model
from rawllama.layers import EmbeddingTable, alibi_bias, alibi_slopes, relative_buckets
from rawllama.layers.check import operations
from rawllama.layers.check.formulas import softmax


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


# ---- ALiBi


def test_slopes_are_geometric() -> None:
    assert np.array_equal(alibi_slopes(8), 2.0 ** -np.arange(1, 9))  # the paper's example
    for n in (1, 2, 4, 16, 64):
        slopes = alibi_slopes(n)
        assert np.allclose(slopes[1:] / slopes[:-1], slopes[0])
        assert slopes[-1] == 2.0**-8


@pytest.mark.parametrize("n", [3, 6, 12, 20])
def test_slopes_of_other_numbers_of_heads_lie_between(n: int) -> None:
    power = 1 << (n.bit_length() - 1)
    slopes = alibi_slopes(n)
    assert slopes.shape == (n,)
    assert np.allclose(slopes[:power], alibi_slopes(power))
    assert np.allclose(slopes[power:], alibi_slopes(2 * power)[0::2][: n - power])


@pytest.mark.parametrize("max_bias", [8.0, 4.0])
@pytest.mark.parametrize("n_head", [1, 2, 3, 4, 6, 8, 12, 20, 32])
def test_as_ggml(n_head: int, max_bias: float) -> None:
    scores, queries, keys = random(n_head, 7, 40), np.arange(20, 27), np.arange(40)
    mask = -np.abs(keys - queries[:, None]).astype(np.float32)
    theirs = operations.soft_max(scores, mask, 0.3, max_bias)
    ours = softmax(scores * 0.3 + alibi_bias(alibi_slopes(n_head, max_bias), queries, keys))
    assert np.abs(ours - theirs).max() < 5e-7
    # A slope can be read from one number of ggml: two keys, equal scores, one step apart.
    pair = operations.soft_max(np.zeros((n_head, 1, 2), np.float32), np.array([[0, -1]], np.float32), 1.0, max_bias)
    assert np.allclose(np.log(pair[:, 0, 0] / pair[:, 0, 1]), alibi_slopes(n_head, max_bias), rtol=1e-4, atol=1e-6)


def test_the_causal_bias() -> None:
    slopes, at = alibi_slopes(4), np.arange(6)
    both, causal = alibi_bias(slopes, at, at), alibi_bias(slopes, at, at, causal=True)
    assert np.array_equal(both, np.swapaxes(both, 1, 2))  # symmetric
    seen = at <= at[:, None]
    assert np.array_equal(causal[:, seen], both[:, seen])
    assert np.isneginf(causal[:, ~seen]).all()
    # Without the query's position, as some write it, the softmax is the same.
    scores = random(4, 6, 6)
    short = np.where(seen, slopes[:, None, None] * at, -np.inf)
    assert np.allclose(softmax(scores + causal), softmax(scores + short))


def test_jina(tiny: Callable[[str], Path]) -> None:
    """The attention of a model with ALiBi, two texts in a batch."""
    with Model(tiny("jina-bert-v2")) as model:
        settings: dict[str, Any] = {"embeddings": True, "pooling_type": "none", "n_seq_max": 2, "kv_unified": True}
        with Context(model, flash_attn_type="disabled", **settings) as context:
            batch = Batch(32)
            batch.add_sequences(np.arange(3, 21), [0, 11, 18])
            with context.tap("Qcur-0", "kq-0", "kq_soft_max-0", "self_kq_mask") as tap:
                context.process(batch)
        at, text = np.r_[np.arange(11), np.arange(7)], np.r_[np.zeros(11), np.ones(7)]
        distances = np.where(text[:, None] == text, -np.abs(at[:, None] - at), -np.inf)
        assert np.array_equal(tap["self_kq_mask"], distances)
        bias = np.where(text[:, None] == text, alibi_bias(alibi_slopes(model.n_head), at, at), -np.inf)
        ours = softmax(tap["kq-0"] / np.sqrt(tap["Qcur-0"].shape[-1]) + bias)
        assert np.abs(ours - tap["kq_soft_max-0"]).max() < 5e-7


# ---- T5


def test_buckets_by_hand() -> None:
    """Encoder: 16 a side, 8 of them for one distance each, and the last from 91 on."""
    found = relative_buckets([0], [0, 1, 7, 8, 9, 15, 16, 31, 32, 64, 127, 128, 5000])[0]
    assert found.tolist() == [0, 17, 23, 24, 24, 25, 26, 27, 28, 30, 31, 31, 31]
    before = relative_buckets([5000], [5000, 4999, 4993, 4992, 4873, 0])[0]
    assert before.tolist() == [0, 1, 7, 8, 15, 15]


def test_buckets_of_a_decoder() -> None:
    found = relative_buckets([10], np.arange(20), bidirectional=False)[0]
    assert found[:11].tolist() == list(range(10, -1, -1))  # 16 distances have a bucket each
    assert (found[10:] == 0).all()
    assert relative_buckets([1000], [0], bidirectional=False) == 31


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_grow_with_the_distance(bidirectional: bool) -> None:
    found = relative_buckets([600], np.arange(600), bidirectional=bidirectional)[0]
    assert (np.diff(found) <= 0).all()
    assert len(set(found.tolist())) == (15 if bidirectional else 31)  # and that of distance 0


def test_t5(tiny: Callable[[str], Path]) -> None:
    """All distances to 400, and the bias that the first layer takes from its table."""
    path = tiny("t5encoder")
    at = np.arange(400)
    batch = Batch(400)
    batch.add_sequence(np.full(400, 5))
    sizes: dict[str, Any] = {"n_ctx": 512, "n_batch": 512, "n_ubatch": 512, "flash_attn_type": "disabled"}
    names = ("pos_bucket_enc", "pos_bias", "kq-0", "kq_plus_kq_b-0")
    with Model(path) as model, Context(model, **sizes) as context, context.tap(*names) as tap:
        context.process(batch)
    buckets = relative_buckets(at, at)
    assert np.array_equal(buckets, tap["pos_bucket_enc"])
    bias = EmbeddingTable(path, "enc.blk.0.attn_rel_b.weight").rows(buckets.ravel()).reshape(400, 400, -1)
    assert np.array_equal(tap.all("pos_bias")[0], bias.transpose(2, 0, 1))
    assert np.allclose(tap["kq_plus_kq_b-0"], tap["kq-0"] + bias.transpose(2, 0, 1), atol=1e-6)


def test_buckets_of_a_decoder_as_libllama(tiny: Callable[[str], Path]) -> None:
    with Model(tiny("t5")) as model, Context(model, n_ctx=512, n_batch=512, n_ubatch=512) as context:
        batch = Batch(300)
        batch.add_sequence(np.full(300, 5))
        context.encode(batch)
        with context.tap("pos_bucket_dec") as tap:
            context.decode(batch)
    seen = np.tril(np.ones((300, 300), bool))
    found = tap["pos_bucket_dec"][:, :300]
    assert np.array_equal(found[seen], relative_buckets(range(300), range(300), bidirectional=False)[seen])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: alibi_slopes(0), "n_head: 0 is no number of heads"),
        (lambda: alibi_slopes(4, 0), "max_bias: 0 is no number above 0"),
        (lambda: alibi_bias([1], [[0]], [0]), "query_positions: int64"),
        (lambda: relative_buckets([0], [0], 2), "n_buckets, max_distance: 2 buckets and 128 positions"),
        (lambda: relative_buckets([0], [0], 32, 8), "n_buckets, max_distance: 32 buckets and 8 positions"),
        (lambda: relative_buckets([0.5], [0]), "query_positions: float64"),
    ],
)
def test_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        call()
