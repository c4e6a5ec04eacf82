"""One Embedder, several threads: calls queue, `encode_async` leaves the loop free, and closing waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import ConcurrentUseError, Embedder, InvalidArgumentError, Model
from rawllama._queue import FairLock
from rawllama.errors import ClosedError, DecodeAborted

Tiny = Callable[[str], Path]
TEXTS = [("hello the cat " * (i % 11)) + f"mat {i}" for i in range(100)]


@pytest.fixture(scope="module")
def embedder(tiny: Tiny) -> Iterator[Embedder]:
    with Embedder(tiny("bert"), n_threads=1) as made:
        yield made


# ---- threads


def test_calls_of_many_threads(embedder: Embedder) -> None:
    parts = [TEXTS[i::8] for i in range(8)]
    expected = [embedder.encode(part) for part in parts]

    def work(index: int) -> bool:
        return all(np.array_equal(embedder.encode(parts[index]), expected[index]) for _ in range(30))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


def test_a_query_gets_its_turn_between_blocks(embedder: Embedder) -> None:
    """A stream always has the next block waiting, so with Python's own lock a query might never come."""
    blocks = 0
    between = 0
    ended = threading.Event()

    def queries() -> None:
        nonlocal between
        while not ended.is_set():
            before = blocks
            embedder.encode("hello")
            between = max(between, blocks - before)

    thread = threading.Thread(target=queries)
    thread.start()
    for _ in embedder.encode_iter(TEXTS * 100, block_size=200):
        blocks += 1
    ended.set()
    thread.join()
    assert blocks == 50
    assert between <= 3


def test_the_lock_is_given_in_order() -> None:
    lock = FairLock()
    order: list[int] = []

    def work(index: int) -> None:
        with lock:
            order.append(index)

    with lock:
        threads = []
        for index in range(20):
            threads.append(threading.Thread(target=work, args=(index,)))
            threads[-1].start()
            while len(lock._waiting) <= index:
                time.sleep(0.0001)
        with pytest.raises(ConcurrentUseError, match="the Embedder is computing"), lock:
            pass
    for thread in threads:
        thread.join()
    assert order == list(range(20))
    with lock:
        pass


def test_a_callback_cannot_call_the_embedder(embedder: Embedder) -> None:
    def progress(done: int, total: int | None) -> None:
        embedder.encode("hello")

    with pytest.raises(ConcurrentUseError, match="the Embedder is computing"):
        embedder.encode(TEXTS, progress=progress)
    assert embedder.encode("hello").shape == (32,)


# ---- async


def test_async_gives_the_same(embedder: Embedder) -> None:
    async def main() -> list[NDArray[np.float32]]:
        return await asyncio.gather(*(embedder.encode_async(TEXTS[i::4], dims=20) for i in range(4)))

    for index, rows in enumerate(asyncio.run(main())):
        assert np.array_equal(rows, embedder.encode(TEXTS[index::4], dims=20))
    assert asyncio.run(embedder.encode_async("hello")).shape == (32,)
    with pytest.raises(InvalidArgumentError, match=r"texts\[1\]: 102 tokens"):
        asyncio.run(embedder.encode_async(["hello", "cat " * 100]))
    with pytest.raises(InvalidArgumentError, match="dtype"):
        asyncio.run(embedder.encode_async(["hello"], dtype="int4"))


def test_async_leaves_the_loop_free(embedder: Embedder) -> None:
    async def main() -> tuple[int, int]:
        loop = threading.get_ident()
        reading: set[int] = set()

        def texts() -> Iterator[str]:
            for index in range(5000):
                reading.add(threading.get_ident())
                yield f"hello the cat {index}"

        task = asyncio.create_task(embedder.encode_async(list(texts())))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert reading == {loop}
        task = asyncio.create_task(embedder.encode_async(texts()))
        await task
        assert len(reading) == 2
        return ticks, len(task.result())

    ticks, count = asyncio.run(main())
    assert ticks > 20
    assert count == 5000


def test_cancelling_ends_the_computation(tiny: Tiny) -> None:
    texts = [f"hello the cat and the mat {i}" for i in range(200_000)]

    async def main() -> tuple[float, float]:
        start = time.perf_counter()
        task = asyncio.create_task(embedder.encode_async(texts))
        queued = asyncio.create_task(embedder.encode_async(texts))
        await asyncio.sleep(0.5)
        task.cancel()
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.CancelledError):
            await queued
        cancelled = time.perf_counter() - start
        await embedder.encode_async("hello")  # has its turn once the other has ended
        return cancelled, time.perf_counter() - start

    with Embedder(tiny("bert"), n_threads=1) as embedder:
        cancelled, free = asyncio.run(main())
    assert cancelled < 2
    assert free < 5  # all of it would take half a minute


# ---- closing


def test_closing_waits_for_others(tiny: Tiny) -> None:
    embedder = Embedder(tiny("bert"), n_threads=1)
    expected = embedder.encode(TEXTS)
    context = embedder._pipeline.engine._contexts[0]
    results: list[NDArray[np.float32]] = []
    thread = threading.Thread(target=lambda: results.append(embedder.encode(TEXTS * 40, progress=False)))
    thread.start()
    while not context._users and thread.is_alive():
        time.sleep(0.0001)
    embedder.close()
    thread.join()
    assert np.array_equal(results[0], np.concatenate([expected] * 40))
    assert embedder.model.closed
    for call in (embedder.encode, embedder.tokenize, embedder.encode_query):
        with pytest.raises(ClosedError, match="closed"):
            call("hello")  # type: ignore[operator]
    with pytest.raises(ClosedError, match="closed"):
        asyncio.run(embedder.encode_async("hello"))


def test_closing_ends_what_is_async(tiny: Tiny) -> None:
    async def main() -> None:
        task = asyncio.create_task(embedder.encode_async([f"hello {i}" for i in range(200_000)]))
        await asyncio.sleep(0.5)
        embedder.close()
        with pytest.raises(DecodeAborted, match="stopped"):
            await task

    embedder = Embedder(tiny("bert"), n_threads=1)
    start = time.perf_counter()
    asyncio.run(main())
    assert time.perf_counter() - start < 5


def test_the_model_is_closed_by_others(tiny: Tiny) -> None:
    model = Model(tiny("bert"))
    with Embedder(model, n_threads=1) as embedder:
        blocks = embedder.encode_iter(TEXTS, block_size=10)
        next(blocks)
        while True:
            try:
                model.close()
                break
            except ConcurrentUseError:  # the stream computes
                time.sleep(0.001)
        assert embedder.closed
        for call in (embedder.encode, embedder.tokenize, embedder.encode_query):
            with pytest.raises(ClosedError, match="closed"):
                call("hello")  # type: ignore[operator]
        with pytest.raises(ClosedError, match="closed"):
            for _ in range(20):
                next(blocks)


@pytest.mark.filterwarnings("ignore::rawllama.errors.TruncationWarning")
def test_threads_that_tokenise_are_waited_for(tiny: Tiny) -> None:
    """Tokenising needs the model, and no turn: here it takes most of the time."""
    texts = [f"{i} " + "the cat sat on the mat " * 4000 for i in range(8)]
    for _ in range(5):
        embedder = Embedder(tiny("bert"), n_threads=1, overlong="truncate")
        errors: list[Exception] = []

        def work(embedder: Embedder = embedder, errors: list[Exception] = errors) -> None:
            try:
                while True:
                    embedder.encode(texts)
            except Exception as caught:
                errors.append(caught)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        embedder.close()
        for thread in threads:
            thread.join()
        assert [type(error) for error in errors] == [ClosedError] * 3
