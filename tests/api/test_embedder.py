"""What an Embedder refuses, and texts longer than a batch. Its vectors: tests/fidelity."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawllama import Embedder, InvalidArgumentError, ModelLoadError
from rawllama.context import Context
from rawllama.embedder import plan
from rawllama.errors import ClosedError, TruncationWarning

TINY_BERT = Path(__file__).parent.parent / "cli" / "tiny_bert.py"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a random BERT: 64 positions unless said otherwise, 32 columns, mean pooling."""
    write = runpy.run_path(str(TINY_BERT))["write"]

    def make(**options: Any) -> Path:
        path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
        write(path, **options)
        return path

    return make


@pytest.fixture(scope="module")
def embedder(tiny: Callable[..., Path]) -> Iterator[Embedder]:
    with Embedder(tiny(), n_threads=1) as made:
        yield made


# ---- making one


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "median"}, "pooling: 'median' is none of none, mean"),
        ({"pooling": "rank"}, "has no layer that gives scores"),
        ({"n_threads": 0}, "n_threads: 0 is not between 1 and 512"),
        ({"n_threads": -1}, "n_threads: -1 is not"),
        ({"n_threads": 100_000}, "n_threads: 100000 is not"),
        ({"n_threads": 1 << 40}, "n_threads: 1099511627776 is not"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], words: str, tiny: Callable[..., Path]) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        Embedder(tiny(), **options)


def test_files_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Embedder(tmp_path / "missing.gguf")
    with pytest.raises(IsADirectoryError):
        Embedder(tmp_path)
    (tmp_path / "text.gguf").write_text("This is a text.")
    with pytest.raises(ModelLoadError, match="is not a GGUF file"):
        Embedder(tmp_path / "text.gguf")
    (tmp_path / "magic.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelLoadError, match="could not be loaded: gguf_init"):
        Embedder(tmp_path / "magic.gguf")


def test_a_failed_assert_of_the_library_is_an_error(tiny: Callable[..., Path]) -> None:
    with pytest.raises(ModelLoadError, match="GGML_ASSERT"):
        Embedder(tiny(block_count=0))


def test_a_scoring_layer_makes_rank_possible(tiny: Callable[..., Path]) -> None:
    with Embedder(tiny(classifier=True), pooling="rank", n_threads=1) as embedder:
        assert (embedder.n_embd, embedder.dims) == (32, 1)
        assert embedder.encode(["hello world", "the cat"], normalize="none").shape == (2, 1)


# ---- texts


def test_one_string_gives_one_row(embedder: Embedder, tiny: Callable[..., Path]) -> None:
    assert np.array_equal(embedder.encode("hello"), embedder.encode(["hello"])[0])
    with Embedder(tiny(), pooling="none", n_threads=1) as other:
        of_string, of_list = other.encode_tokens("hello"), other.encode_tokens(["hello"])
        assert np.array_equal(of_string.rows, of_list.rows)
        assert of_string.offsets.tolist() == [0, 3]


def test_any_iterable(embedder: Embedder) -> None:
    texts = ["hello", "the cat sat", "world"]
    expected = embedder.encode(texts)
    for given in (iter(texts), tuple(texts), dict.fromkeys(texts), np.array(texts)):
        assert np.array_equal(embedder.encode(given), expected)


def test_equal_texts_are_computed_once(tiny: Callable[..., Path]) -> None:
    texts = ["hello", "the cat sat", "hello", "world", "the cat sat", "hello"]
    with Embedder(tiny(), n_threads=1) as embedder:
        expected = embedder.encode(texts[:2] + texts[3:4])
        context = next(iter(embedder.model._children.values()))()
        assert isinstance(context, Context)
        context.reset_perf()
        rows = embedder.encode(texts)
        assert np.array_equal(rows, expected[[0, 1, 0, 2, 1, 0]])
        assert context.perf.n_p_eval == sum(embedder.tokenize(text).size for text in ("hello", "the cat sat", "world"))


@pytest.mark.parametrize("text", [1, None, b"hello", ["hello"], "\ud800"])
def test_what_is_no_text(text: Any, embedder: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=r"texts\[1\]: "):
        embedder.encode(["hello", text])


def test_no_texts(embedder: Embedder) -> None:
    assert embedder.encode([]).shape == (0, 32)


def test_an_error_leaves_it_as_it_was(embedder: Embedder) -> None:
    before = embedder.encode(["hello world"])
    with pytest.raises(InvalidArgumentError):
        embedder.encode(["hello world", "cat " * 100])
    assert np.array_equal(embedder.encode(["hello world"]), before)


def test_the_limit_is_exact(embedder: Embedder) -> None:
    assert embedder.max_tokens == 64
    assert embedder.encode(["cat " * 62]).shape == (1, 32)  # with [CLS] and [SEP]: 64
    with pytest.raises(InvalidArgumentError, match=r"texts\[0\]: 65 tokens, and the model takes 64; shorten it"):
        embedder.encode(["cat " * 63])


def test_truncate_keeps_the_last_token(tiny: Callable[..., Path]) -> None:
    with Embedder(tiny(), pooling="none", n_threads=1) as embedder:
        whole = embedder.tokenize("the cat sat on the mat " * 20)
        with pytest.warns(TruncationWarning, match="1 texts were cut"):
            _, _, cut = embedder.encode_tokens(["the cat sat on the mat " * 20], overlong="truncate")
    assert cut.tolist() == [*whole[:63], whole[-1]]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("count", [509, 510, 511, 700, 1023, 2046])
def test_texts_longer_than_a_batch(count: int, pooling: str, tiny: Callable[..., Path]) -> None:
    with Embedder(tiny(positions=2048), pooling="none", n_threads=1) as embedder:
        rows, _, _ = embedder.encode_tokens(["cat " * count])
    with Embedder(tiny(positions=2048), pooling=pooling, n_threads=1) as embedder:
        pooled = embedder.encode(["hello", "cat " * count, "world"], normalize="none")[1]
    wanted = {"mean": rows.mean(axis=0, dtype=np.float64), "cls": rows[0], "last": rows[-1]}[pooling]
    assert rows.shape == (count + 2, 32)
    assert np.abs(pooled - wanted).max() < 1e-3


def test_more_texts_than_sequences(embedder: Embedder) -> None:
    texts = ["", "hello", "the cat sat on the mat"] * 150
    rows = embedder.encode(texts)
    assert np.abs(rows.reshape(150, 3, 32) - rows[:3]).max() < 1e-3


def test_the_plan() -> None:
    """The longest first, so that memory is taken at once and contexts side by side end together."""
    order, bounds = plan(np.array([3, 200, 3, 700, 250, 5, 60]))
    assert order.tolist() == [3, 4, 1, 6, 5, 0, 2]
    assert bounds.tolist() == [0, 1, 4, 7]
    order, bounds = plan(np.array([3, 200, 3, 700, 250, 5, 60]), 11)
    assert bounds.tolist() == [0, 1, 2, 3, 4, 7]
    assert plan(np.full(1000, 2))[1].tolist() == [*range(0, 1000, 128), 1000]
    assert [part.tolist() for part in plan(np.array([9]))] == [[0], [0, 1]]
    assert [part.tolist() for part in plan(np.empty(0, np.int64))] == [[], [0]]


# ---- closing


def test_closed(tiny: Callable[..., Path]) -> None:
    embedder = Embedder(tiny(), n_threads=1)
    embedder.close()
    embedder.close()
    for call in (embedder.encode, embedder.tokenize):
        with pytest.raises(ClosedError, match="closed"):
            call(["hello"] if call == embedder.encode else "hello")


def test_the_other_kind_of_rows(embedder: Embedder, tiny: Callable[..., Path]) -> None:
    with pytest.raises(InvalidArgumentError, match="mean gives a row a text"):
        embedder.encode_tokens(["hello"])
    other = Embedder(tiny(), pooling="none", n_threads=1)
    with other, pytest.raises(InvalidArgumentError, match="none gives a row a token"):
        other.encode(["hello"])
