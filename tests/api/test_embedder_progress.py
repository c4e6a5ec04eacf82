"""How far an Embedder says that it is: functions, bars, and whose terminal they are for."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rawllama import Embedder
from rawllama._progress import Progress
from rawllama.errors import MissingExtraError

from ..tools import ROOT

Tiny = Callable[[str], Path]
TEXTS = [("hello the cat " * (i % 19)) + f"mat {i}" for i in range(20_000)]


@pytest.fixture(scope="module")
def embedder(tiny: Tiny) -> Iterator[Embedder]:
    with Embedder(tiny("bert"), n_threads=1) as made:
        yield made


# ---- functions


def test_a_function_is_told_the_tokens(embedder: Embedder) -> None:
    seen: list[tuple[int, int | None]] = []
    embedder.encode(TEXTS, progress=lambda done, total: seen.append((done, total)))
    tokens = int(embedder._lengths(TEXTS).sum())
    done = [one for one, _ in seen]
    assert len(seen) > 5  # about ten times a second
    assert done == sorted(done)
    assert 0 < done[0] < tokens / 2
    assert seen[-1] == (tokens, tokens)
    assert {total for _, total in seen} == {tokens}


def test_equal_texts_count_once(embedder: Embedder) -> None:
    seen: list[tuple[int, int | None]] = []
    embedder.encode(["hello"] * 50, progress=lambda done, total: seen.append((done, total)))
    tokens = embedder.tokenize("hello").size
    assert seen[-1] == (tokens, tokens)


def test_short_work_is_told_of_too(embedder: Embedder) -> None:
    seen: list[tuple[int, int | None]] = []
    embedder.encode("hello", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(embedder.tokenize("hello").size,) * 2]


def test_the_total_is_estimated_until_all_is_tokenised(embedder: Embedder) -> None:
    """The first 65,536 texts stand for the others, which are as long here."""
    texts = [f"cat {i % 10} {'abcdefghij'[i // 10 % 10]} {i // 100}" for i in range(70_000)]
    seen: list[tuple[int, int | None]] = []
    embedder.encode(texts, progress=lambda done, total: seen.append((done, total)))
    tokens = int(embedder._lengths(texts).sum())
    first = seen[0][1]
    assert first is not None
    assert first != tokens
    assert abs(first / tokens - 1) < 0.02
    assert seen[-1] == (tokens, tokens)


@pytest.mark.parametrize("sized", [True, False])
def test_streams(sized: bool, embedder: Embedder) -> None:
    seen: list[tuple[int, int | None]] = []
    texts = TEXTS[:1000]
    source = texts if sized else iter(texts)
    list(embedder.encode_iter(source, block_size=100, progress=lambda done, total: seen.append((done, total))))
    tokens = int(embedder._lengths(texts).sum())
    assert len(seen) == 10
    assert seen[-1] == (tokens, tokens if sized else None)
    if sized:
        assert all(total is not None and abs(total / tokens - 1) < 0.1 for _, total in seen)


def test_windows_count(tiny: Tiny) -> None:
    seen: list[tuple[int, int | None]] = []
    with Embedder(tiny("bert"), n_threads=1, overlong="chunk") as embedder:
        texts = ["hello", "the cat " * 200, "mat"]
        embedder.encode(texts, progress=lambda done, total: seen.append((done, total)))
        tokens = int(embedder._lengths(texts).sum())
    assert tokens > 400
    assert seen[-1] == (tokens, tokens)
    assert seen == sorted(seen)


def test_what_it_raises_ends_the_call(embedder: Embedder) -> None:
    def progress(done: int, total: int | None) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        embedder.encode(TEXTS, progress=progress)
    assert embedder.encode("hello").shape == (32,)


def test_the_embedders_own_function(tiny: Tiny) -> None:
    seen: list[int] = []
    with Embedder(tiny("bert"), n_threads=1, progress=lambda done, total: seen.append(done)) as embedder:
        embedder.encode("hello")
        embedder.encode("hello", progress=False)
    assert len(seen) == 1


# ---- time left


def test_long_sequences_are_more_work_than_their_tokens() -> None:
    """In a model of 384 columns, attention doubles the work of a token where a sequence has 6 * 384 of them."""
    progress = Progress(False, 3, 384)
    work = progress._work(np.array([1, 6 * 384, 512]))
    assert work.tolist() == pytest.approx([1.0, 2 * 6 * 384, 512 * (1 + 512 / 2304)], rel=1e-3)


# ---- bars


CODE = """
import sys, time
from rawllama import Embedder
texts = [("hello the cat " * (i % 19)) + f"mat {i}" for i in range(int(sys.argv[2]))]
progress = {"None": None, "True": True, "False": False}[sys.argv[3]]
with Embedder(sys.argv[1], n_threads=1) as embedder:
    start = time.perf_counter()
    if sys.argv[4] == "iter":
        for _ in embedder.encode_iter(iter(texts), block_size=500, progress=progress):
            pass
    else:
        embedder.encode(texts, progress=progress)
    print(time.perf_counter() - start)
"""


def on_a_terminal(*arguments: object, terminal: bool = True) -> tuple[float, str]:
    """Seconds of work, and what came to standard error."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    stderr = slave if terminal else subprocess.PIPE
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment) as process:
        os.close(slave)
        chunks = []
        if terminal:
            try:
                while chunk := os.read(master, 65536):
                    chunks.append(chunk)
            except OSError:  # the other end is closed
                pass
        out, err = process.communicate()
    os.close(master)
    assert process.returncode == 0
    return float(out), (b"".join(chunks) + (err or b"")).decode()


def test_a_bar_for_long_work_on_a_terminal(tiny: Tiny) -> None:
    seconds, count = 0.0, 10_000
    while seconds < 3:  # as many texts as take longer than it is until a bar comes
        count *= 2
        seconds, shown = on_a_terminal(tiny("bert"), count, None, "list")
    assert re.search(r"\d+%\|.*\| 00:0\d<00:\d\d, [\d,]+ tokens/s", shown)
    percent = [int(one) for one in re.findall(r"(\d+)%\|", shown)]
    assert percent == sorted(percent)
    assert percent[-1] == 100
    assert percent[0] >= 100 * 1.5 / seconds  # none before about 2 s


def test_a_bar_for_a_stream_without_a_length(tiny: Tiny) -> None:
    _, shown = on_a_terminal(tiny("bert"), 5000, True, "iter")
    assert re.search(r"00:0\d, [\d,]+ tokens/s", shown)
    assert "%" not in shown


def test_no_bar(tiny: Tiny) -> None:
    """For short work, for none who asked for none, and where nobody looks."""
    assert on_a_terminal(tiny("bert"), 500, None, "list")[1] == ""
    assert on_a_terminal(tiny("bert"), 20_000, False, "list")[1] == ""
    assert on_a_terminal(tiny("bert"), 20_000, None, "list", terminal=False)[1] == ""
    assert "%" in on_a_terminal(tiny("bert"), 500, True, "list", terminal=False)[1]


def test_without_tqdm(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"pip install 'rawllama\[progress\]'"):
        embedder.encode(["hello"], progress=True)
    assert embedder.encode(["hello"]).shape == (1, 32)
