"""Ctrl-C wherever Python notices it: nothing hangs, and the Embedder computes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Embedder
from rawllama._handle import _Use
from rawllama._queue import FairLock, Worker

Tiny = Callable[[str], Path]
TEXTS = [f"hello the cat {i}" for i in range(60)]
# What raises from __del__ is printed and lost, threads that begin are Python's own affair, and so is the first
# instruction of an __exit__ that is written in Python.
SPARED = {f.__code__ for f in (Worker.__del__, Thread.start, FairLock.__exit__, _Use.__exit__)}
# Places that one round may have: far more than there are.
MOST = 20_000


# What is interrupted in a generator that ends, or a callback of a weak reference, is printed and lost.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def embedder(tiny: Tiny) -> Iterator[Embedder]:
    with Embedder(tiny("bert"), n_threads=2, n_contexts=2, token_budget=128) as made:
        yield made


@pytest.fixture(scope="module")
def expected(embedder: Embedder) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = embedder.encode(TEXTS)
    return rows


def callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


class Interrupt:
    """Raises KeyboardInterrupt at the n-th place of this thread where Python looks for signals.

    Such are the first instruction of a Python function, and the one after a call of C; not the entry of `with`.
    """

    def __init__(self, n: int) -> None:
        self._left = n
        self.raised = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event not in ("call", "c_return") or any(frame.f_code in SPARED for frame in callers(frame)):
            return
        self._left -= 1
        if self._left < 0:
            sys.setprofile(None)
            self.raised = True
            raise KeyboardInterrupt


def everywhere(call: Callable[[], Any], check: Callable[[], None]) -> int:
    """Interrupt the call at one place after the other; how many there are."""
    for n in count():
        interrupt = Interrupt(n)
        sys.setprofile(interrupt)
        try:
            call()
        except KeyboardInterrupt:
            assert interrupt.raised
        finally:
            sys.setprofile(None)
        check()
        if not interrupt.raised:
            return n
        assert n < MOST
    raise AssertionError


def test_a_stream(embedder: Embedder, expected: NDArray[np.float32]) -> None:
    def check() -> None:
        rows = np.concatenate(list(embedder.encode_iter(TEXTS[:4], block_size=2, progress=False)))
        assert np.allclose(rows, expected[:4], atol=1e-6)

    places = everywhere(lambda: list(embedder.encode_iter(iter(TEXTS[:12]), block_size=5, progress=False)), check)
    assert places > 300


def test_several_contexts(embedder: Embedder, expected: NDArray[np.float32]) -> None:
    def check() -> None:
        assert np.allclose(embedder.encode(TEXTS, progress=False), expected, atol=1e-6)

    assert everywhere(lambda: embedder.encode(TEXTS, progress=False), check) > 100


def test_one_text(embedder: Embedder, expected: NDArray[np.float32]) -> None:
    def check() -> None:
        assert np.allclose(embedder.encode(TEXTS[0]), expected[0], atol=1e-6)

    assert everywhere(lambda: embedder.encode(TEXTS[0]), check) > 10
