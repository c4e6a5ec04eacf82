"""One text: the short way gives what the way of many texts gives, and leaves to that what it cannot do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawllama import Embedder, InvalidArgumentError
from rawllama.embedder import Int8Rows
from rawllama.errors import ClosedError, TruncationWarning
from rawllama.rows import arrays

from ..tools import run_python

Tiny = Callable[[str], Path]
TEXTS = ("hello", "", "the cat sat on the mat", "[SEP]", "\N{SNOWMAN} \N{GRINNING FACE}", "a\0b")


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The way of each text that is encoded from now on."""
    from rawllama import _single, embedder

    taken: list[str] = []
    short, long = _single.Single.encode, embedder.Embedder._encode

    def through_short(self: Any, text: str) -> Any:
        row = short(self, text)
        taken.append("short" if row is not None else "refused")
        return row

    def through_long(self: Any, *arguments: Any) -> Any:
        taken.append("long")
        return long(self, *arguments)

    monkeypatch.setattr(_single.Single, "encode", through_short)
    monkeypatch.setattr(embedder.Embedder, "_encode", through_long)
    return taken


@pytest.mark.parametrize("architecture", ["bert", "llama", "nomic-bert"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "ubinary"])
def test_the_same_bits(architecture: str, dtype: str, tiny: Tiny, ways: list[str]) -> None:
    prompts = {"query": "the mat: "}
    with Embedder(tiny(architecture), pooling="mean", n_threads=1, dims=17, dtype=dtype, prompts=prompts) as embedder:
        for text in TEXTS:
            for prompt in (None, "query"):
                one, alone = embedder.encode(text, prompt=prompt), embedder.encode([text], prompt=prompt)
                many = embedder.encode((text,), prompt=prompt)
                assert np.array_equal(np.concatenate(arrays(alone), None), np.concatenate(arrays(many), None))
                pairs = zip(one, many, strict=True) if isinstance(many, Int8Rows) else [(one, many)]
                for left, right in pairs:
                    assert left.tobytes() == right.tobytes()
                    assert left.shape == right.shape[1:]
                    assert left.dtype == right.dtype
        first = embedder.encode("hello")
        kept = first.values.copy() if isinstance(first, Int8Rows) else first.copy()
        embedder.encode("world")
        assert np.array_equal(first.values if isinstance(first, Int8Rows) else first, kept)  # each has its own memory
    assert ways[: 6 * len(TEXTS)] == ["short", "short", "long"] * 2 * len(TEXTS)


def test_what_is_asked_for_takes_the_long_way(tiny: Tiny, ways: list[str]) -> None:
    with Embedder(tiny("bert"), n_threads=1) as embedder:
        assert embedder.encode("hello", dims=5).shape == (5,)
        assert embedder.encode("hello", dtype="float16").dtype == np.float16
        assert embedder.encode("hello", progress=False).shape == (32,)
    assert ways == ["long"] * 3


def test_long_texts(tiny: Tiny, ways: list[str]) -> None:
    text = "the cat " * 300
    with Embedder(tiny("bert"), n_threads=1) as embedder:
        with pytest.raises(InvalidArgumentError, match=r"texts\[0\]: .*the model takes"):
            embedder.encode(text)
        assert embedder.encode("hello").shape == (32,)
    with Embedder(tiny("bert"), n_threads=1, overlong="truncate") as embedder:
        with pytest.warns(TruncationWarning):
            row = embedder.encode(text)
        assert embedder.truncated == 1
        assert row.tobytes() == embedder.encode((text,)).tobytes()
    with Embedder(tiny("bert"), n_threads=1, token_budget=8) as embedder:  # longer than the context at first
        assert embedder.encode("the cat sat on the mat and so on").shape == (32,)
    assert "refused" in ways


@pytest.mark.parametrize("text", ["\ud800", "a\udcff"])
def test_no_unicode(text: str, tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1) as embedder, pytest.raises(InvalidArgumentError, match=r"texts\[0\]"):
        embedder.encode(text)


def test_wrong_prompt_and_pooling(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1) as embedder:
        for _ in range(2):
            with pytest.raises(InvalidArgumentError, match="prompt: 'x' is the name of none"):
                embedder.encode("hello", prompt="x")
    with (
        Embedder(tiny("bert"), n_threads=1, pooling="none") as embedder,
        pytest.raises(InvalidArgumentError, match="pooling: none gives a row a token"),
    ):
        embedder.encode("hello")


def test_after_close(tiny: Tiny) -> None:
    embedder = Embedder(tiny("bert"), n_threads=1)
    embedder.encode("hello")
    embedder.close()
    with pytest.raises(ClosedError):
        embedder.encode("hello")


def test_after_tune_and_after_many_texts(tiny: Tiny) -> None:
    texts = [f"hello {'the cat ' * i}" for i in range(20)]
    with Embedder(tiny("bert"), n_threads=2) as embedder:
        before = embedder.encode("hello")
        embedder.encode(texts)  # shares the threads between contexts
        assert embedder.encode("hello").tobytes() == before.tobytes()
        embedder._apply(embedder._settings)
        assert embedder.encode("hello").tobytes() == before.tobytes()


def test_ctrl_c(minilm: str) -> None:
    code = """
import os, signal, sys, threading
from rawllama import Embedder
from rawllama.errors import Interrupted

with Embedder(sys.argv[1], n_threads=1) as embedder:
    text = "hello " * 500
    whole = embedder.encode(text)
    for delay in (0.001, 0.005, 0.01, 0.02, 0.03):
        timer = threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        try:
            while True:
                embedder.encode(text)
        except Interrupted as error:
            print(error.rows.shape, error.done.tolist())
        except KeyboardInterrupt:
            print("between")
        timer.join()
        assert embedder.encode(text).tobytes() == whole.tobytes()
"""
    lines = run_python(code, minilm).stdout.splitlines()
    assert len(lines) == 5
    assert "(1, 384) [False]" in lines
