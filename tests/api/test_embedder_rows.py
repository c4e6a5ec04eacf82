"""The forms of rows: columns cut, float16, int8, bits, norms; and what has no meaning together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Embedder, InvalidArgumentError
from rawllama.embedder import Int8Rows
from rawllama.normalize import normalize_rows
from rawllama.rows import RowError

TEXTS = ["hello world", "the cat sat on the mat", "", "a", "hello"]


@pytest.fixture(scope="module")
def embedder(tiny: Callable[[str], Path]) -> Iterator[Embedder]:
    with Embedder(tiny("bert"), n_threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def raw(embedder: Embedder) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = embedder.encode(TEXTS, normalize="none")
    return rows


# ---- columns and norms


@pytest.mark.parametrize("dims", [1, 7, 8, 9, 31, 32])
def test_columns_are_cut_before_the_norm(dims: int, embedder: Embedder, raw: NDArray[np.float32]) -> None:
    rows = embedder.encode(TEXTS, dims=dims)
    assert rows.shape == (len(TEXTS), dims)
    assert np.array_equal(rows, normalize_rows(raw[:, :dims], "l2"))


@pytest.mark.parametrize("normalize", ["none", "max-abs", "l1", "l2", 3, 0.5])
@pytest.mark.parametrize("dims", [5, 32])
def test_norms_are_those_of_normalize(
    normalize: Any, dims: int, embedder: Embedder, raw: NDArray[np.float32]
) -> None:
    rows = embedder.encode(TEXTS, normalize=normalize, dims=dims)
    np.testing.assert_allclose(rows, normalize_rows(raw[:, :dims], normalize), rtol=1e-6)


# ---- types


def test_float16(embedder: Embedder, raw: NDArray[np.float32]) -> None:
    rows = embedder.encode(TEXTS, dtype="float16", dims=20)
    assert rows.dtype == np.float16
    assert np.array_equal(rows, normalize_rows(raw[:, :20], "l2").astype(np.float16))


def test_float16_that_would_be_infinite_is_refused(embedder: Embedder) -> None:
    """No model here has such rows, so C gets them directly."""
    target = embedder._profile.options(normalize="none", dtype="float16").target
    rows = target.empty(2)
    source = np.full((2, 32), 65504.0, np.float32)
    target.write(source, np.arange(2), rows)
    assert np.array_equal(rows, source.astype(np.float16))
    source[1, 31] = 65505.0
    with pytest.raises(RowError) as caught:
        target.write(source, np.arange(2), rows)
    assert str(caught.value.named("texts[1]")).startswith("texts[1]: its embedding is too large for float16; normalise")
    assert caught.value.index == 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "ubinary"])
@pytest.mark.parametrize("normalize", ["none", "max-abs", "l2"])
def test_rows_of_zeros_stay(normalize: str, dtype: str, embedder: Embedder) -> None:
    target = embedder._profile.options(normalize=normalize, dtype=dtype).target
    rows = target.empty(3)
    ones = tuple(rows) if isinstance(rows, Int8Rows) else (rows,)
    for array in ones:
        array.fill(1)
    target.write(np.zeros((1, 32), np.float32), np.array([1]), rows)
    for array in ones:
        assert not array[1].any()
        assert array[[0, 2]].all()


@pytest.mark.parametrize("dims", [9, 32])
def test_int8(dims: int, embedder: Embedder, raw: NDArray[np.float32]) -> None:
    rows = embedder.encode(TEXTS, dtype="int8", dims=dims)
    exact = normalize_rows(raw[:, :dims], "l2")
    assert isinstance(rows, Int8Rows)
    assert (rows.values.dtype, rows.values.shape) == (np.int8, (len(TEXTS), dims))
    assert (rows.scales.dtype, rows.scales.shape) == (np.float32, (len(TEXTS),))
    assert np.abs(rows.values).max(axis=1).tolist() == [127] * len(TEXTS)  # the whole range is used
    error = np.abs(rows.values * rows.scales[:, None] - exact)
    assert (error <= rows.scales[:, None] / 2 * 1.0001).all()


@pytest.mark.parametrize("dims", [1, 8, 9, 32])
def test_bits(dims: int, embedder: Embedder, raw: NDArray[np.float32]) -> None:
    rows = embedder.encode(TEXTS, dtype="ubinary", dims=dims)
    assert rows.dtype == np.uint8
    assert np.array_equal(rows, np.packbits(raw[:, :dims] > 0, axis=1))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "ubinary"])
def test_one_string_and_equal_texts_in_each_type(dtype: str, embedder: Embedder) -> None:
    def arrays(rows: Any) -> tuple[NDArray[Any], ...]:
        return tuple(rows) if isinstance(rows, Int8Rows) else (rows,)

    of_one = arrays(embedder.encode("hello", dtype=dtype))
    of_list = arrays(embedder.encode(["hello"], dtype=dtype))
    for one, listed in zip(of_one, of_list, strict=True):
        assert isinstance(one, np.ndarray)
        assert one.shape == listed.shape[1:]
        assert np.array_equal(one, listed[0])
    for array in arrays(embedder.encode(["hello", "world", "hello", "hello"], dtype=dtype)):
        assert np.array_equal(array[0], array[2])
        assert np.array_equal(array[0], array[3])
        assert array.any(axis=tuple(range(1, array.ndim))).all()


def test_what_the_embedder_was_made_with_is_the_default(tiny: Callable[[str], Path], embedder: Embedder) -> None:
    with Embedder(tiny("bert"), n_threads=1, dims=12, dtype="float16", normalize="l1") as other:
        assert (other.n_embd, other.dims, other.dtype, other.normalize) == (32, 12, "float16", 1.0)
        assert np.array_equal(other.encode(TEXTS), embedder.encode(TEXTS, dims=12, dtype="float16", normalize="l1"))
        wide = other.encode(TEXTS, dims=32, dtype="float32", normalize="l2")
    assert np.array_equal(wide, embedder.encode(TEXTS))


def test_no_texts_in_each_type(embedder: Embedder) -> None:
    assert embedder.encode([], dtype="ubinary").shape == (0, 4)
    values, scales = embedder.encode([], dtype="int8")
    assert (values.shape, scales.shape) == ((0, 32), (0,))


def test_rows_of_tokens_in_each_type(tiny: Callable[[str], Path]) -> None:
    with Embedder(tiny("bert"), pooling="none", n_threads=1) as embedder:
        assert embedder.normalize == "none"
        rows, offsets, tokens = embedder.encode_tokens(TEXTS)
        assert np.array_equal(np.diff(offsets), [embedder.tokenize(text).size for text in TEXTS])
        assert np.array_equal(tokens, np.concatenate([embedder.tokenize(text) for text in TEXTS]))
        for dtype in ("float16", "int8", "ubinary"):
            exact = normalize_rows(rows[:, :10], "l2")
            other = embedder.encode_tokens(TEXTS, dtype=dtype, dims=10, normalize="l2").rows
            if dtype == "float16":
                assert np.array_equal(other, exact.astype(np.float16))
            elif dtype == "int8":
                assert np.abs(other.values * other.scales[:, None] - exact).max() < 0.005
            else:
                assert np.array_equal(other, np.packbits(exact > 0, axis=1))


# ---- what has no meaning


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": 0}, "dims: 0 is not between 1 and 32"),
        ({"dims": 33}, "dims: 33 is not between 1 and 32"),
        ({"dims": 1.5}, "dims: 1.5 is no integer"),
        ({"dtype": "float64"}, "dtype: 'float64' is none of float32, float16, int8, ubinary"),
        ({"normalize": "l3"}, "normalize: 'l3' is none of"),
        ({"overlong": "cut"}, "overlong: 'cut' is none of error, truncate, chunk"),
        ({"progress": "yes"}, "progress: 'yes' is none of"),
        ({"prompt": "query"}, "prompt: 'query' is the name of none; the Embedder has no prompts"),
    ],
)
def test_wrong_options_of_a_call(options: dict[str, Any], words: str, embedder: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        embedder.encode(TEXTS, **options)
    with pytest.raises(InvalidArgumentError, match=words):  # before the first block is asked for
        embedder.encode_iter(TEXTS, **options)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("bert", {"dims": 33}, "dims: 33 is not between 1 and 32"),
        ("bert", {"dtype": "int4"}, "dtype: 'int4' is none of"),
        ("bert", {"max_tokens": 65}, "max_tokens: 65 is not between 2 and 64"),
        ("bert", {"max_tokens": 2}, "max_tokens: 2 leaves no room beside the special tokens"),
        ("bert", {"max_tokens": 10, "overlap": 8}, "overlap: 8 is not between 0 and 7"),
        ("bert", {"overlap": -1}, "overlap: -1 is not between"),
        ("bert", {"token_budget": 0}, "token_budget: 0 is not between 1 and"),
        ("bert", {"n_contexts": 2, "n_threads": 1}, "n_contexts: 2 is not between 1 and 1"),
        ("bert", {"flash_attn": "on"}, "flash_attn: 'on' is none of True, False, None"),
        ("bert", {"prompts": {"query": 1}}, "prompts: 'query': 1 is not a name and a text"),
        ("bert", {"overlong": "split"}, "overlong: 'split' is none of"),
        ("bert-reranker", {"dims": 1}, "dims: rank gives scores"),
        ("bert-reranker", {"dtype": "int8"}, "dtype: rank gives scores, which int8 would spoil"),
        ("bert-reranker", {"dtype": "ubinary"}, "dtype: rank gives scores, which ubinary would spoil"),
        ("bert-reranker", {"overlong": "chunk"}, "overlong: scores of parts make no score"),
        ("llama", {"overlong": "chunk"}, "overlong: none pools no rows"),
    ],
)
def test_wrong_options_of_an_embedder(
    name: str, options: dict[str, Any], words: str, tiny: Callable[[str], Path]
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        Embedder(tiny(name), **options)
