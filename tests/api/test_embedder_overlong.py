"""Prompts, and texts with more tokens than the model takes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Embedder, InvalidArgumentError, Model
from rawllama.errors import TruncationWarning

from ..models import tiny as tiny_models

LONG = "the cat sat on the mat and hello to all the world " * 12
Tiny = Callable[[str], Path]


@pytest.fixture(scope="module")
def embedder(tiny: Tiny) -> Iterator[Embedder]:
    with Embedder(tiny("bert"), n_threads=1) as made:
        yield made


def rows_of(path: Path, pooling: str | None, sequences: list[Any]) -> NDArray[np.float32]:
    """Rows of sequences of tokens, not normalised."""
    with Embedder(path, n_threads=1, pooling=pooling) as embedder:
        offsets = np.cumsum([0, *map(len, sequences)])
        rows: NDArray[np.float32] = embedder._encode_tokens(np.concatenate(sequences).astype(np.int32), offsets)
        return rows


def unit(rows: NDArray[Any]) -> NDArray[Any]:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# ---- prompts


def test_a_prompt_is_put_before_each_text(tiny: Tiny) -> None:
    prompts = {"query": "find the ", "passage": "hello: ", "other": "ä "}
    texts = ["cat", "", "mat on the mat"]
    with Embedder(tiny("bert"), n_threads=1, prompts=prompts) as embedder:
        assert dict(embedder.prompts) == prompts
        plain = embedder.encode(texts)
        for name, text in prompts.items():
            expected = embedder.encode([text + one for one in texts])
            assert np.array_equal(embedder.encode(texts, prompt=name), expected)
            assert not np.array_equal(expected, plain)
        assert np.array_equal(embedder.encode_query(texts), embedder.encode(texts, prompt="query"))
        assert np.array_equal(embedder.encode_document(texts), embedder.encode(texts, prompt="passage"))
        assert np.array_equal(embedder.encode_query("cat"), embedder.encode("find the cat"))
        (block,) = embedder.encode_iter(texts, prompt="query")
        assert np.array_equal(block, embedder.encode_query(texts))
        with pytest.raises(InvalidArgumentError, match="prompt: 'qery' is the name of none; known are query, passage,"):
            embedder.encode(texts, prompt="qery")


def test_without_prompts_queries_are_texts(embedder: Embedder) -> None:
    assert dict(embedder.prompts) == {}
    assert np.array_equal(embedder.encode_query(["cat"]), embedder.encode(["cat"]))
    assert np.array_equal(embedder.encode_document(["cat"]), embedder.encode(["cat"]))


def with_keys(path: Path, add: Callable[[gguf.GGUFWriter], object], name: str = "bert") -> Path:
    """A tiny model with more keys in its file."""
    writer = gguf.GGUFWriter(path, tiny_models.MODELS[name].architecture)
    shapes = tiny_models.MODELS[name].fill(writer)
    add(writer)
    tiny_models._save(writer, shapes, 0)
    return path


def with_strings(path: Path, **keys: str) -> Path:
    def add(writer: gguf.GGUFWriter) -> None:
        for key, value in keys.items():
            writer.add_string(f"rawllama.{key}", value)

    return with_keys(path, add)


def test_prompts_of_the_file(tmp_path: Path) -> None:
    path = with_strings(tmp_path / "a.gguf", **{"prompts.query": "find: ", "prompts.corpus": "text: "})
    with Embedder(path, n_threads=1) as embedder:
        assert dict(embedder.prompts) == {"query": "find: ", "corpus": "text: "}
        assert np.array_equal(embedder.encode_query("cat"), embedder.encode("find: cat"))
        assert np.array_equal(embedder.encode_document("cat"), embedder.encode("text: cat"))
    with Embedder(path, n_threads=1, prompts={"x": "y"}) as embedder:
        assert dict(embedder.prompts) == {"x": "y"}


def test_the_default_prompt_of_the_file(tmp_path: Path) -> None:
    path = with_strings(tmp_path / "a.gguf", **{"prompts.base": "all: ", "default_prompt": "base"})
    with Embedder(path, n_threads=1) as embedder:
        plain = embedder.encode("cat", prompt="")
        assert np.array_equal(embedder.encode("cat"), embedder.encode("all: cat", prompt=""))
        assert not np.array_equal(embedder.encode("cat"), plain)
    with Embedder(path, n_threads=1, prompts={}) as embedder:
        assert np.array_equal(embedder.encode("cat"), plain)


def test_a_prompt_counts_as_tokens(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1, prompts={"query": "cat cat "}) as embedder:
        embedder.encode("cat " * 60, prompt="query")
        with pytest.raises(InvalidArgumentError, match=r"texts\[0\]: 65 tokens, and the model takes 64"):
            embedder.encode("cat " * 61, prompt="query")


# ---- limits


def test_the_limit_is_the_callers(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1, max_tokens=10) as embedder:
        assert embedder.max_tokens == 10
        assert embedder.encode(["cat " * 8]).shape == (1, 32)
        with pytest.raises(InvalidArgumentError, match=r"texts\[1\]: 11 tokens, and max_tokens is 10; shorten it"):
            embedder.encode(["cat", "cat " * 9])


# ---- truncate


@pytest.mark.parametrize("name", ["bert", "modern-bert", "gemma-embedding", "t5encoder", "qwen3-embedding", "llama"])
@pytest.mark.parametrize("max_tokens", [None, 17])
def test_truncate_keeps_the_closing_token(name: str, max_tokens: int | None, tiny: Tiny) -> None:
    pooling = "mean" if name in ("llama", "t5encoder") else None
    with Embedder(tiny(name), n_threads=1, max_tokens=max_tokens, overlong="truncate", pooling=pooling) as embedder:
        whole = embedder.tokenize(LONG)
        closing = embedder._specials[1].size
        kept = embedder.max_tokens
        with pytest.warns(TruncationWarning, match="1 texts were cut"):
            rows = embedder.encode([LONG, "hello"], normalize="none")
        assert closing == (0 if name == "llama" else 1)
        assert whole.size > 2 * kept
    cut = np.concatenate([whole[: kept - closing], whole[whole.size - closing :]])
    assert cut.size == kept
    expected = rows_of(tiny(name), pooling, [cut])
    np.testing.assert_allclose(rows[:1], expected, atol=2e-3)


def test_truncation_is_counted_and_warned_of_once(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1) as embedder:
        assert embedder.truncated == 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            embedder.encode(["cat"], overlong="truncate")
            assert not caught
            embedder.encode([LONG, LONG + "cat", "cat"], overlong="truncate")
            embedder.encode([LONG], overlong="truncate")
            list(embedder.encode_iter([LONG] * 3, block_size=1, overlong="truncate"))
        assert [warning.category for warning in caught] == [TruncationWarning]
        assert embedder.truncated == 6


# ---- chunk


def windows_of(body: list[int], room: int, overlap: int) -> list[tuple[list[int], int]]:
    """Windows of a text's tokens and how many of theirs are new, in plain Python; the last one is full."""
    windows = [(body[:room], room)]
    end = room
    while end < len(body):
        last = min(end - overlap + room, len(body))
        windows.append((body[last - room : last], last - end))
        end = last
    return windows


@pytest.mark.parametrize("overlap", [None, 0, 5, 61])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_chunks_are_weighted_means(pooling: str, overlap: int | None, tiny: Tiny) -> None:
    texts = ["hello", LONG, "the cat", LONG[: len(LONG) // 2] + "cat"]
    with Embedder(tiny("bert"), n_threads=1, pooling=pooling, overlong="chunk", overlap=overlap) as embedder:
        assert embedder.overlap == (8 if overlap is None else overlap)
        rows = embedder.encode(texts)
        tokens = [embedder.tokenize(text).tolist() for text in texts]
        short = embedder.encode([texts[0], texts[2]])
        cut = embedder.encode(texts, dims=9, dtype="float16")
        assert embedder.truncated == 0
    for text in (1, 3):
        opening, *body, closing = tokens[text]
        parts, weights = zip(*windows_of(body, 62, 8 if overlap is None else overlap), strict=True)
        assert sum(weights) == len(body)
        raw = rows_of(tiny("bert"), pooling, [[opening, *part, closing] for part in parts])
        mean = np.average(raw, axis=0, weights=weights)
        np.testing.assert_allclose(rows[text], unit(mean), atol=5e-4)
        np.testing.assert_allclose(cut[text], unit(mean[:9]), atol=2e-3)
    np.testing.assert_allclose(rows[[0, 2]], short, atol=5e-4)


def test_each_window_has_the_prompt(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1, overlong="chunk", overlap=10, prompts={"p": "hello world "}) as embedder:
        rows = embedder.encode([LONG], prompt="p")
        opening, *body, closing = embedder.tokenize(LONG).tolist()
        prompt = embedder.tokenize("hello world ").tolist()[1:-1]
        with pytest.raises(InvalidArgumentError, match="overlap: 10 tokens beside a prompt of 52 leave no room"):
            with_long = Embedder(tiny("bert"), n_threads=1, overlong="chunk", overlap=10, prompts={"p": "cat " * 52})
            with with_long:
                with_long.encode([LONG], prompt="p")
    assert len(prompt) == 2
    parts, weights = zip(*windows_of(body, 60, 10), strict=True)
    raw = rows_of(tiny("bert"), None, [[opening, *prompt, *part, closing] for part in parts])
    np.testing.assert_allclose(rows[0], unit(np.average(raw, axis=0, weights=weights)), atol=5e-4)


def test_a_text_that_just_fits_is_no_window(embedder: Embedder) -> None:
    assert np.array_equal(embedder.encode(["cat " * 62], overlong="chunk"), embedder.encode(["cat " * 62]))


def test_a_decoder_in_windows(tiny: Tiny) -> None:
    with Embedder(tiny("qwen3-embedding"), n_threads=1, overlong="chunk") as embedder:
        row = embedder.encode(LONG)
        tokens = embedder.tokenize(LONG).tolist()
        opening, closing = (part.tolist() for part in embedder._specials)
    assert (opening, len(closing)) == ([], 1)
    parts, weights = zip(*windows_of(tokens[:-1], 63, 8), strict=True)
    raw = rows_of(tiny("qwen3-embedding"), None, [[*part, *closing] for part in parts])
    np.testing.assert_allclose(row, unit(np.average(raw, axis=0, weights=weights)), atol=5e-4)


# ---- special tokens


@pytest.mark.parametrize(
    ("name", "opening", "closing"),
    [
        ("bert", "[CLS]", "[SEP]"),
        ("modern-bert", "[CLS]", "[SEP]"),
        ("gemma-embedding", "<bos>", "<eos>"),
        ("t5encoder", "", "</s>"),
        ("qwen3-embedding", "", "<|endoftext|>"),
        ("llama", "<s>", ""),
        ("gpt2", "", ""),
    ],
)
def test_special_tokens_are_there_once(name: str, opening: str, closing: str, tiny: Tiny) -> None:
    with Model(tiny(name)) as model, Embedder(model, pooling="mean", n_threads=1) as embedder:
        names = ["".join(map(model.vocab.text, part)) for part in embedder._specials]
        tokens = [model.vocab.text(token) for token in embedder.tokenize("hello the cat")]
    assert names == [opening, closing]
    assert tokens.count(closing) == (1 if closing else 0)
    assert tokens.count(opening) == (1 if opening else 0)
    assert tokens[0] == opening or not opening
    assert tokens[-1] == closing or not closing


def test_a_closing_token_that_the_tokenizer_leaves_out(tmp_path: Path) -> None:
    """libllama's tokenizer of byte pairs adds `eos` where it is wanted, and never `sep`."""
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_sep_token_id(7)
        writer.add_add_sep_token(True)

    path = with_keys(tmp_path / "a.gguf", add, "gpt2")
    text = "the cat " * 100
    with Embedder(path, pooling="last", n_threads=1, overlong="truncate") as embedder:
        plain = embedder.model.vocab.tokenize("the cat").tolist()
        assert embedder.tokenize("the cat").tolist() == [*plain, 7]
        assert embedder._specials[1].tolist() == [7]
        row = embedder.encode("the cat", normalize="none")
        with pytest.warns(TruncationWarning):
            cut = embedder.encode(text, normalize="none")
        whole = embedder.model.vocab.tokenize(text).tolist()
        assert embedder.encode("").shape == (32,)  # its only token is the closing one
    np.testing.assert_allclose([row], rows_of(path, "last", [[*plain, 7]]), atol=1e-4)
    np.testing.assert_allclose([cut], rows_of(path, "last", [[*whole[:63], 7]]), atol=1e-4)
