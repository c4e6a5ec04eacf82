"""Texts without end to blocks of rows: one is computed while the next is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ._pipeline import Encoding, Options, Pipeline
from ._progress import Progress
from ._queue import Stop, Task, Worker
from .texts import read

if TYPE_CHECKING:
    from ._sequences import Prepared
    from .rows import Rows

#: Texts a block: enough to find some of like length, and few enough to come soon.
BLOCK_SIZE = 4096
# Blocks that are computed or wait for it, while one more is read.
_AHEAD = 2


def stream(pipeline: Pipeline, texts: Iterable[str], options: Options, block_size: int) -> Iterator[Rows]:
    """Rows of the texts, block by block, in their order."""
    return stream_blocks(pipeline, _cut(texts, block_size), options, _length(texts))


def stream_blocks(
    pipeline: Pipeline, source: Iterable[Any], options: Options, n_texts: int | None = None
) -> Iterator[Rows]:
    """Rows of each block of texts, in their order; a block that is None only gives time to hand out rows.

    The blocks are read, and tokenised, by the thread that asks for one; a thread of ours computes meanwhile. It ends
    with this generator, in whatever way that ends.
    """
    stop = Stop()
    worker = Worker("rawllama-encode-iter")
    blocks = _Blocks(pipeline, options, stop, worker, n_texts)
    try:
        for block in source:
            if block is not None:
                while len(blocks) >= _AHEAD:
                    yield blocks.next()
                blocks.add(block)
            if blocks.is_ready():
                yield blocks.next()
        while len(blocks):
            yield blocks.next()
    except Exception:  # of the texts: what was read before them is right
        while len(blocks):
            yield blocks.next()
        raise
    finally:
        stop.request()
        worker.close()
        blocks.close()


class _Blocks:
    """Blocks that are computed, in order."""

    def __init__(self, pipeline: Pipeline, options: Options, stop: Stop, worker: Worker, n_texts: int | None) -> None:
        self._pipeline = pipeline
        self._quiet = replace(options, progress=False)  # the worker's; only this thread reports
        self._progress = Progress(options.progress, n_texts, pipeline.width)
        self._stop = stop
        self._worker = worker
        self._pending: deque[tuple[Task[Rows], Prepared]] = deque()
        self._n_read = 0

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, block: Any) -> None:
        """Tokenise a block, and compute it after those before."""
        texts = read(block, first=self._n_read)
        encoding = Encoding(self._pipeline, texts, self._quiet, self._stop, self._n_read)
        prepared = encoding.prepare(encoding.chosen, 1 if self._pending else None)  # the others compute
        task = self._worker.submit(Task(lambda: encoding.run_prepared(prepared), self._stop))
        self._pending.append((task, prepared))
        self._n_read += len(texts)
        self._progress.add(prepared.sequences, n_texts=len(texts))

    def is_ready(self) -> bool:
        """Whether the next one's rows are there."""
        return bool(self._pending) and self._pending[0][0].done

    def next(self) -> Rows:
        """Wait for the rows of the next one."""
        task, prepared = self._pending.popleft()
        try:
            rows = task.result()
        except Exception:
            self._pending.clear()  # those behind it come no more
            raise
        self._progress.finish(prepared.sequences)
        self._progress.show()
        return rows

    def close(self) -> None:
        self._progress.close()


def _length(texts: Iterable[str]) -> int | None:
    return len(texts) if isinstance(texts, Sized) else None


def _cut(texts: Any, size: int) -> Iterator[Any]:
    """Blocks of so many texts; between them None now and then, where reading takes time."""
    rows = getattr(texts, "iloc", texts)  # what pandas has in [] are names
    if isinstance(texts, (list, tuple, np.ndarray)) or (_is_column(texts) and isinstance(texts, Sized)):
        for start in range(0, len(texts), size):
            yield rows[start : start + size]
        return
    block: list[str] = []
    for text in texts:
        block.append(text)
        yield None
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _is_column(texts: object) -> bool:
    """Whether slices of it are columns, whose text need not become Python's strings."""
    return any(hasattr(texts, name) for name in ("iloc", "__arrow_c_array__", "__arrow_c_stream__"))
