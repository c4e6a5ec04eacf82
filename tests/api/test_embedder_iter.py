"""Blocks of rows: order, reading ahead, equal texts, and every way in which a stream ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from rawllama import Embedder, InvalidArgumentError
from rawllama.embedder import Int8Rows
from rawllama.errors import ClosedError

from ..tools import run_python

Tiny = Callable[[str], Path]
TEXTS = [("hello the cat " * (i % 11)) + f"mat {i % 70}" for i in range(100)]


@pytest.fixture(scope="module")
def embedder(tiny: Tiny) -> Iterator[Embedder]:
    with Embedder(tiny("bert"), n_threads=1) as made:
        yield made


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("rawllama-encode")]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert not our_threads()


# ---- rows


@pytest.mark.parametrize("block_size", [1, 7, 50, 99, 100, 101, 5000])
@pytest.mark.parametrize("kind", [list, iter, tuple, np.array, dict.fromkeys])
def test_blocks_in_order(kind: Callable[[list[str]], Any], block_size: int, embedder: Embedder) -> None:
    texts = kind(TEXTS)
    listed = list(texts) if kind is not iter else TEXTS
    blocks = list(embedder.encode_iter(texts, block_size=block_size))
    sizes = [len(listed[start : start + block_size]) for start in range(0, len(listed), block_size)]
    assert [len(block) for block in blocks] == sizes
    assert np.abs(np.concatenate(blocks) - embedder.encode(listed)).max() < 2e-3
    for start, block in zip(range(0, len(listed), block_size), blocks, strict=True):
        if block_size < 50:
            assert np.array_equal(block, embedder.encode(listed[start : start + block_size]))


@pytest.mark.parametrize(
    "make",
    [
        pa.array,
        lambda texts: pa.chunked_array([texts[:13], texts[13:40], texts[40:]]),
        lambda texts: pd.Series(texts, index=range(1000, 1100)),
        lambda texts: pd.Series(texts, index=texts[::-1]),
        pd.Index,
        pl.Series,
        lambda texts: iter(pl.Series(texts)),
    ],
)
def test_columns(make: Callable[[list[str]], Any], embedder: Embedder) -> None:
    assert np.array_equal(embedder.encode(make(TEXTS)), embedder.encode(TEXTS))
    blocks = list(embedder.encode_iter(make(TEXTS), block_size=30))
    expected = list(embedder.encode_iter(TEXTS, block_size=30))
    assert [len(block) for block in blocks] == [30, 30, 30, 10]
    assert all(np.array_equal(*pair) for pair in zip(blocks, expected, strict=True))


def test_tables_are_refused(embedder: Embedder) -> None:
    for table in (pd.DataFrame({"a": TEXTS}), pa.table({"a": TEXTS}), pl.DataFrame({"a": TEXTS})):
        with pytest.raises(InvalidArgumentError, match="texts: "):
            next(embedder.encode_iter(table))


def test_no_texts(embedder: Embedder) -> None:
    assert list(embedder.encode_iter([])) == []
    assert list(embedder.encode_iter(iter(()))) == []


def test_options(embedder: Embedder) -> None:
    blocks = list(embedder.encode_iter(TEXTS, block_size=64, dtype="int8", dims=8))
    assert all(isinstance(block, Int8Rows) for block in blocks)
    assert [block.values.shape for block in blocks] == [(64, 8), (36, 8)]
    with pytest.raises(InvalidArgumentError, match="block_size: 0 is not between"):
        embedder.encode_iter(TEXTS, block_size=0)
    with pytest.raises(InvalidArgumentError, match="it is one text"):
        embedder.encode_iter("hello")
    with pytest.raises(TypeError, match="unknown"):
        embedder.encode_iter(TEXTS, unknown=1)  # type: ignore[call-arg]


def test_equal_texts_of_a_block_are_computed_once(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1) as embedder:
        context = embedder._pipeline.engine._contexts[0]
        context.reset_perf()
        list(embedder.encode_iter(["hello", "the cat", "hello", "hello"] * 10, block_size=20))
        assert context.perf.n_p_eval == 2 * sum(embedder.tokenize(text).size for text in ("hello", "the cat"))


# ---- reading


def test_it_reads_a_bounded_number_ahead(embedder: Embedder) -> None:
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for text in TEXTS * 20:
            read += 1
            yield text

    blocks = embedder.encode_iter(texts(), block_size=10)
    assert read == 0
    for done in range(1, 21):
        next(blocks)
        assert 10 * done <= read <= 10 * (done + 3)
    blocks.close()  # type: ignore[attr-defined]
    assert read <= 230


def test_it_reads_in_the_callers_thread_while_another_computes(embedder: Embedder) -> None:
    threads = set()

    def texts() -> Iterator[str]:
        for text in TEXTS:
            threads.add(threading.get_ident())
            yield text

    assert len(list(embedder.encode_iter(texts(), block_size=10))) == 10
    assert threads == {threading.get_ident()}


def test_a_slow_source_holds_no_rows_back(embedder: Embedder) -> None:
    """A block that is computed comes with the next text, not with the next block."""
    at = 0

    def texts() -> Iterator[str]:
        nonlocal at
        for at, text in enumerate(TEXTS):
            if at >= 10:
                time.sleep(0.05)
            yield text

    blocks = embedder.encode_iter(texts(), block_size=10)
    next(blocks)
    assert at < 19
    blocks.close()  # type: ignore[attr-defined]


# ---- ends


def test_closing_it_ends_the_thread(embedder: Embedder) -> None:
    blocks = embedder.encode_iter(TEXTS * 50, block_size=1000)
    next(blocks)
    assert len(our_threads()) == 1
    blocks.close()  # type: ignore[attr-defined]
    assert not our_threads()
    assert embedder.encode("hello").shape == (32,)


def test_dropping_it_ends_the_thread(embedder: Embedder) -> None:
    for block in embedder.encode_iter(TEXTS * 50, block_size=1000):
        assert len(block) == 1000
        break
    assert not our_threads()


def test_a_source_that_fails(embedder: Embedder) -> None:
    def texts() -> Iterator[str]:
        yield from TEXTS[:35]
        raise OSError("the line broke")

    got = []
    with pytest.raises(OSError, match="the line broke"):
        for block in embedder.encode_iter(texts(), block_size=10):
            got.append(block)
    assert not our_threads()
    assert len(got) == 3  # all the whole blocks that were read
    for index, block in enumerate(got):
        assert np.array_equal(block, embedder.encode(TEXTS[10 * index : 10 * index + 10]))


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("wrong", ["cat " * 100, None, "\ud800"])
def test_errors_name_the_index_in_the_stream(wrong: Any, kind: Callable[[Any], Any], embedder: Embedder) -> None:
    texts = [*TEXTS[:57], wrong, *TEXTS]
    blocks = embedder.encode_iter(kind(texts), block_size=10)
    assert [len(next(blocks)) for _ in range(5)] == [10] * 5
    with pytest.raises(InvalidArgumentError, match=r"texts\[57\]: "):
        next(blocks)
    with pytest.raises(StopIteration):
        next(blocks)


def test_two_streams_and_calls_between_them(embedder: Embedder) -> None:
    expected = np.concatenate([*embedder.encode_iter(TEXTS, block_size=10)])
    one, two = (embedder.encode_iter(TEXTS, block_size=10) for _ in range(2))
    rows: list[list[Any]] = [[], []]
    for first, second in zip(one, two, strict=True):
        rows[0].append(first)
        rows[1].append(second)
        assert np.array_equal(embedder.encode("hello"), embedder.encode(["hello"])[0])
    for found in rows:
        assert np.array_equal(np.concatenate(found), expected)


def test_closing_the_embedder_ends_a_stream(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1) as embedder:
        blocks = embedder.encode_iter(TEXTS * 50, block_size=10)
        next(blocks)
    with pytest.raises(ClosedError, match="closed"):
        for _ in range(600):
            next(blocks)
    with pytest.raises(ClosedError, match="the Embedder is closed"):
        embedder.encode_iter(TEXTS)


END = """
import atexit, sys, threading, time
atexit.register(lambda: print(time.perf_counter() - start))  # the last thing, as it is the first here
from rawllama import Embedder
embedder = Embedder(sys.argv[1], n_threads=1)
blocks = embedder.encode_iter((f"hello the cat and the mat {i}" for i in range(10**9)), block_size=20_000)
start = time.perf_counter()
next(blocks)
print(time.perf_counter() - start)
start = time.perf_counter()
"""


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "del embedder", "threading.Timer(0.1, print).start()"])
def test_a_program_that_ends_amid_a_stream(end: str, tiny: Tiny) -> None:
    """It does not wait for what nobody will take: one block is in work then, and another waits."""
    block, rest = map(float, run_python(END + end, tiny("bert")).stdout.split())
    assert rest < max(0.5, block / 4)
