"""Ctrl-C, NaN and errors keep what is done; contexts side by side."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from rawllama import Embedder, LlamaError
from rawllama.embedder import Int8Rows

from ..tools import run_python

Tiny = Callable[[str], Path]

START = """
import os, signal, sys, threading, time
import numpy as np
from rawllama import Embedder
from rawllama.errors import Interrupted

def words(count, longest=12):
    random = np.random.default_rng(0)
    letters = np.array(["the", "cat", "sat", "on", "mat", "hello", "world"])
    return [" ".join(random.choice(letters, random.integers(1, longest))) + f" {i}" for i in range(count)]

def interrupt(delay):
    timer = threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    return timer
"""


# ---- Ctrl-C


@pytest.mark.parametrize("n_contexts", [1, 2])
def test_what_is_done_is_kept(n_contexts: int, tiny: Tiny) -> None:
    code = START + """
texts = words(20_000)
texts[100] = texts[7]  # equal ones share their row
with Embedder(sys.argv[1], n_threads=int(sys.argv[2]), n_contexts=int(sys.argv[2])) as embedder:
    start = time.perf_counter()
    expected = embedder.encode(texts)
    taken = time.perf_counter() - start
    partly = 0
    for part in (0.3, 0.5, 0.7, 0.4, 0.6, 0.55, 0.45, 0.65):
        timer = interrupt(part * taken)
        try:
            embedder.encode(texts)
            timer.join()
            time.sleep(0.05)
        except Interrupted as error:
            timer.join()
            assert isinstance(error, KeyboardInterrupt)
            rows, done = error.rows, error.done
            assert rows.shape == expected.shape and done.shape == (len(texts),) and done.dtype == bool
            assert np.array_equal(rows[done], expected[done])
            assert not rows[~done].any()
            assert done[100] == done[7]
            assert not any(context._users for context in embedder._pipeline.engine._contexts)
            assert done.mean() < 0.95  # no context went on to the end
            if 0 < done.sum() < len(texts):
                partly += 1
                rest = np.flatnonzero(~done)
                rows[rest] = embedder.encode([texts[i] for i in rest])
                assert np.abs(rows - expected).max() < 5e-3
        except KeyboardInterrupt:  # outside of encode
            pass
        if partly == 2:
            break
    assert partly == 2, partly
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    assert run_python(code, tiny("bert"), n_contexts).stdout.split() == ["True"]


def test_it_ends_at_once_in_a_long_batch(minilm: str) -> None:
    """One batch takes seconds here, and the signal ends it within an operation of the graph."""
    code = START + """
with Embedder(sys.argv[1], n_threads=1, token_budget=16384) as embedder:
    embedder.encode(["hello"])
    texts = [("hello world " * 250) + str(i) for i in range(32)]
    timer = interrupt(0.5)
    start = time.perf_counter()
    try:
        embedder.encode(texts)
    except Interrupted as error:
        print(time.perf_counter() - start, error.done.sum())
    start = time.perf_counter()
    embedder.encode(texts[:8])
    print(time.perf_counter() - start)
"""
    interrupted, done, taken = map(float, run_python(code, minilm).stdout.split())
    assert done == 0
    assert interrupted < 0.5 + max(1.0, 2 * taken)  # of four times as much work


@pytest.mark.parametrize("end", ["cancel", "ctrl-c"])
def test_async_ends_at_once_in_a_long_batch(end: str, minilm: str) -> None:
    """The thread that computes is not the one that Ctrl-C reaches."""
    code = START + """
import asyncio
texts = [("hello world " * 250) + str(i) for i in range(32)]

async def main():
    task = asyncio.create_task(embedder.encode_async(texts))
    if sys.argv[2] == "ctrl-c":
        interrupt(0.5)
        await task
    await asyncio.sleep(0.5)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        await embedder.encode_async("hello")

with Embedder(sys.argv[1], n_threads=1, token_budget=16384) as embedder:
    embedder.encode(texts[:4])
    start = time.perf_counter()
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        embedder.encode("hello")
    print(time.perf_counter() - start)
    start = time.perf_counter()
    embedder.encode(texts[:8])
    print(time.perf_counter() - start)
"""
    ended, taken = map(float, run_python(code, minilm, end).stdout.split())
    assert ended < 0.5 + max(1.0, 2 * taken)  # of four times as much work


@pytest.mark.parametrize("n_contexts", [1, 2])
def test_a_handler_that_does_not_raise(n_contexts: int, minilm: str) -> None:
    """What it interrupts is computed again."""
    code = START + """
caught = []
signal.signal(signal.SIGINT, lambda *_: caught.append(1))
texts = [("hello world " * 240) + str(i) for i in range(12)]
with Embedder(sys.argv[1], n_threads=int(sys.argv[2]), n_contexts=int(sys.argv[2])) as embedder:
    start = time.perf_counter()
    expected = embedder.encode(texts)
    taken = time.perf_counter() - start
    timers = [interrupt(taken * i / 6) for i in range(1, 6)]
    rows = embedder.encode(texts)
    for timer in timers:
        timer.join()
    time.sleep(0.05)
    print(np.array_equal(rows, expected), len(caught) > 2)
"""
    assert run_python(code, minilm, n_contexts).stdout.split() == ["True", "True"]


def test_in_windows_of_a_long_text_and_in_rows_of_tokens(tiny: Tiny) -> None:
    code = START + """
texts = words(3_000, 150)
for pooling, overlong in (("mean", "chunk"), ("none", "truncate")):
    with Embedder(sys.argv[1], n_threads=1, pooling=pooling, overlong=overlong) as embedder:
        call = embedder.encode if pooling == "mean" else embedder.encode_tokens
        start = time.perf_counter()
        expected = call(texts)
        taken = time.perf_counter() - start
        for part in (0.4, 0.6, 0.5, 0.3, 0.7, 0.45, 0.55):
            timer = interrupt(part * taken)
            try:
                call(texts)
                timer.join()
                time.sleep(0.05)
            except Interrupted as error:
                timer.join()
                rows, done = error.rows, error.done
                if pooling == "none":
                    assert np.array_equal(rows.offsets, expected.offsets)
                    of_text = np.repeat(np.arange(len(texts)), np.diff(rows.offsets))
                    done, rows = done[of_text], rows.rows
                wanted = expected if pooling == "mean" else expected.rows
                assert np.array_equal(rows[done], wanted[done])
                assert not rows[~done].any()
                if 0 < done.sum() < done.size:
                    print("partly")
                    break
            except KeyboardInterrupt:
                pass
"""
    assert run_python(code, tiny("bert")).stdout.split() == ["partly"] * 2


def test_the_main_thread_waits_for_its_turn(tiny: Tiny) -> None:
    """Ctrl-C ends the waiting; the thread that computes is not disturbed."""
    code = START + """
texts = words(20_000)
with Embedder(sys.argv[1], n_threads=1) as embedder:
    results = []
    thread = threading.Thread(target=lambda: results.append(embedder.encode(texts)))
    thread.start()
    while not embedder._pipeline.engine._contexts[0]._users:
        time.sleep(0.001)
    timer = interrupt(0.2)
    try:
        embedder.encode("hello")
        print("not interrupted")
    except KeyboardInterrupt as error:
        print(type(error).__name__, thread.is_alive())
    thread.join()
    print(results[0].any(axis=1).all(), embedder.encode("hello").shape)
"""
    assert run_python(code, tiny("bert")).stdout.split() == ["Interrupted", "True", "True", "(32,)"]


def test_an_error_leaves_no_context_at_work(minilm: str) -> None:
    """They write to rows that the caller has then."""
    texts = [("hello world " * 100) + str(i) for i in range(64)]

    def progress(done: int, total: int | None) -> None:
        raise RuntimeError("enough")

    with Embedder(minilm, n_threads=2, n_contexts=2) as embedder:
        start = time.perf_counter()
        for _ in range(3):
            with pytest.raises(RuntimeError, match="enough"):
                embedder.encode(texts, progress=progress)
            assert not any(context._users for context in embedder._pipeline.engine._contexts)
        stopped = time.perf_counter() - start
        embedder.encode(texts)
        assert stopped < 2 * (time.perf_counter() - start - stopped)  # of three times as much work


# ---- rows that are not finite


@pytest.fixture
def poisoned(tiny: Tiny, tmp_path: Path) -> tuple[Path, str]:
    """A BERT with NaN in the vector of one token, and a word that is this token."""
    path = Path(shutil.copy(tiny("bert"), tmp_path / "poisoned.gguf"))
    with Embedder(path, n_threads=1) as embedder:
        known = embedder.model.vocab
        token = next(token for token in embedder.tokenize("cat").tolist()[1:-1])
        assert embedder.tokenize("hello the mat").tolist().count(token) == 0
        assert token < len(known)
    reader = gguf.GGUFReader(path, "r+")
    table = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    table.data[token] = np.nan
    reader.data.flush()
    return path, "cat"


@pytest.mark.parametrize("n_contexts", [1, 2])
def test_the_text_is_named(n_contexts: int, poisoned: tuple[Path, str]) -> None:
    path, word = poisoned
    texts = [f"hello the mat {i}" for i in range(40)]
    with Embedder(path, n_threads=n_contexts, n_contexts=n_contexts) as embedder:
        expected = embedder.encode(texts)
        texts[17] += f" {word}"
        for dtype in ("float32", "float16", "int8", "ubinary"):
            with pytest.raises(LlamaError, match=r"texts\[17\]: its embedding is not finite") as caught:
                embedder.encode(texts, dtype=dtype)
            error: Any = caught.value
            assert not error.done[17]
        with pytest.raises(LlamaError) as caught:
            embedder.encode(texts)
        rows, done = caught.value.rows, caught.value.done
        assert done is not None
        assert done.sum() >= 20  # of its batch all others are done, although NaN may have reached them
        assert np.abs(rows[done] - expected[done]).max() < 2e-3
        assert not rows[~done].any()
        assert np.abs(embedder.encode(texts[:17]) - expected[:17]).max() < 2e-3


def test_the_text_is_named_in_streams_windows_and_tokens(poisoned: tuple[Path, str]) -> None:
    path, word = poisoned
    texts = [f"hello the mat {i}" for i in range(40)]
    texts[31] += f" {word}"
    with Embedder(path, n_threads=1) as embedder:
        blocks = embedder.encode_iter(iter(texts), block_size=8)
        with pytest.raises(LlamaError, match=r"texts\[31\]: its embedding is not finite") as caught:
            for _ in range(10):
                next(blocks)
        assert caught.value.done is not None
        assert caught.value.done.tolist() == [True] * 7 + [False]
    texts[30] = "hello " * 200 + word
    chunks = Embedder(path, n_threads=1, overlong="chunk")
    with chunks, pytest.raises(LlamaError, match=r"texts\[30\]: its embedding is not finite"):
        chunks.encode(texts)
    with Embedder(path, n_threads=1, pooling="none") as embedder:
        with pytest.raises(LlamaError, match=r"texts\[31\]: its embedding is not finite") as caught:
            embedder.encode_tokens([*texts[:30], "mat", texts[31]])
        assert caught.value.done is not None
        assert caught.value.done.tolist() == [True] * 31 + [False]


def test_an_error_in_a_later_window_keeps_the_rows(tiny: Tiny) -> None:
    """Texts are tokenised 65,536 at a time, so the error comes when the first ones are computed."""
    texts = [f"{i} mat" for i in range(65_600)]
    texts[65_590] = "cat " * 100
    with Embedder(tiny("bert"), n_threads=1) as embedder:
        with pytest.raises(LlamaError, match=r"texts\[65590\]: 102 tokens") as caught:
            embedder.encode(texts, dtype="int8")
        rows, done = caught.value.rows, caught.value.done
        assert isinstance(rows, Int8Rows)
        assert done is not None
        assert done.sum() == 65_536
        values, scales = embedder.encode(texts[:5], dtype="int8")
        assert np.abs(rows.values[:5] * rows.scales[:5, None] - values * scales[:, None]).max() < 0.01
        with pytest.raises(LlamaError, match=r"texts\[1\]: 102 tokens") as caught:
            embedder.encode(["mat", texts[65_590]])
        assert (caught.value.rows, caught.value.done) == (None, None)  # nothing was computed


# ---- contexts side by side


@pytest.mark.parametrize("name", ["bert", "llama", "mamba"])
def test_contexts_side_by_side_give_the_same_rows(name: str, tiny: Tiny) -> None:
    texts = [("hello the cat " * (i % 15)) + f"mat {i}" for i in range(300)]
    with Embedder(tiny(name), pooling="last", n_threads=1, token_budget=128) as embedder:
        expected = embedder.encode(texts)
    with Embedder(tiny(name), pooling="last", n_threads=3, n_contexts=3, token_budget=128) as embedder:
        assert np.array_equal(embedder.encode(texts), expected)
        contexts = embedder._pipeline.engine._contexts
        assert [context.n_threads_batch for context in contexts] == [1, 1, 1]
        assert np.array_equal(embedder.encode(texts[5]), embedder.encode(texts[5:6])[0])
        assert contexts[0].n_threads_batch == 3  # a text alone has all threads
        assert np.array_equal(embedder.encode(texts), expected)
        for _ in range(20):
            assert np.array_equal(embedder.encode(texts[:100]), embedder.encode(texts[:100]))
