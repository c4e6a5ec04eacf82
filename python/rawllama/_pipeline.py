"""Texts to rows: windows of texts, their sequences, their computation, and what is left of it when that ends early."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._engine import Engine, Job, Work
from ._progress import Progress, Wanted
from ._queue import FairLock, Stop
from ._sequences import Prepared, Sequencer, Windows
from .errors import ClosedError, Interrupted, LlamaError, TruncationWarning
from .rows import RowError, RowFormat, Rows, arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .texts import Texts

# Texts whose tokens are in memory at a time, and bytes of text.
_WINDOW = 65536
_WINDOW_BYTES = 8 << 20
# Rows that are copied at a time.
_ROWS = 4096


@dataclass(frozen=True)
class Options:
    """What one call wants.

    Attributes
    ----------
    prefix
        What each text begins with, UTF-8.
    target
        How rows are written.
    overlong
        See `_sequences.OVERLONG`.
    progress
        See `_progress.Wanted`.
    """

    prefix: bytes
    target: RowFormat
    overlong: str
    progress: Wanted


@contextmanager
def kept(value: Any, done: NDArray[np.bool_]) -> Iterator[None]:
    """Give what is done of `value` to those who interrupt this block, or get an error of it."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(value, done) from None
    except LlamaError as error:
        if done.any():
            error.rows, error.done = value, done
        raise


class Pipeline:
    """What calls of one Embedder share. Several threads may use it: each waits for its turn to compute.

    Attributes
    ----------
    width
        Columns of the model's hidden state.
    turn
        Who holds it computes, or changes how.
    truncated
        How many texts were cut so far.
    """

    def __init__(self, engine: Engine, sequencer: Sequencer) -> None:
        self.engine = engine
        self.sequencer = sequencer
        self.width = engine.model.n_embd
        self.turn = FairLock()
        self.truncated = 0
        self.closed = False
        self._preparing: set[threading.Lock] = set()  # of each call that tokenises, locked while it does
        self._counting = threading.Lock()

    def require_open(self) -> None:
        """Raise ClosedError after `close`."""
        if self.closed:
            raise ClosedError("the Embedder is closed; make a new one")

    def close(self) -> None:
        """Free the contexts, when those who compute or tokenise have ended. Calls: llama_free."""
        with self.turn:
            self.closed = True
            self.engine.close()
        for preparing in list(self._preparing):
            with preparing:
                pass

    def replace(self, engine: Engine, sequencer: Sequencer) -> None:
        """Compute with another engine from now on."""
        with self.turn:
            self.engine.close()
            self.engine, self.sequencer = engine, sequencer

    def prepare(
        self, texts: Texts, indices: NDArray[np.int64], options: Options, first: int = 0, n_threads: int | None = None
    ) -> Prepared:
        """`Sequencer.prepare`, which counts the texts that were cut."""
        preparing = threading.Lock()
        with preparing:
            self._preparing.add(preparing)  # before it is asked whether `close` was called, which asks for this then
            try:
                self.require_open()
                prepared = self.sequencer.prepare(
                    texts, indices, prefix=options.prefix, overlong=options.overlong, first=first, n_threads=n_threads
                )
            finally:
                self._preparing.discard(preparing)
        self.count_truncated(prepared.truncated)
        return prepared

    def count_truncated(self, count: int) -> None:
        """So many texts were cut; the first of all are worth a warning."""
        with self._counting:
            before, self.truncated = self.truncated, self.truncated + count
        if count and not before:
            words = f"{count} texts were cut to what the model takes; Embedder.truncated counts them"
            warnings.warn(words, TruncationWarning, stacklevel=2)

    def run(self, work: Work, stop: Stop, report: Callable[[Job], object]) -> None:
        """`Engine.run`, for who has the turn."""
        self.require_open()
        self.engine.run(work, stop, report)


class Encoding:
    """Texts that become a row each, in one result; equal ones are computed once.

    Parameters
    ----------
    pipeline
        What computes them.
    texts
        The texts.
    options
        How.
    stop
        Ends it.
    first
        What messages add to a text's index.
    """

    def __init__(self, pipeline: Pipeline, texts: Texts, options: Options, stop: Stop, first: int = 0) -> None:
        self._pipeline = pipeline
        self._texts = texts
        self._options = options
        self._stop = stop
        self._first = first
        self.rows = options.target.empty(len(texts))
        self.done = np.zeros(len(texts), np.bool_)
        everything = np.arange(len(texts))
        self._firsts = texts.firsts() if everything.size > 1 else everything
        #: The texts that are computed: int64.
        self.chosen = np.flatnonzero(self._firsts == everything) if everything.size > 1 else everything
        self._progress = Progress(options.progress, self.chosen.size, pipeline.width)

    def run(self) -> Rows:
        """Compute window by window, so that not all tokens are in memory at once."""
        with self._result():
            for indices in self._windows():
                self._compute(indices, self.prepare(indices))
        return self.rows

    def prepare(self, indices: NDArray[np.int64], n_threads: int | None = None) -> Prepared:
        """The sequences of these texts."""
        return self._pipeline.prepare(self._texts, indices, self._options, self._first, n_threads)

    def run_prepared(self, prepared: Prepared) -> Rows:
        """Compute what `prepare` made of all that are `chosen`."""
        with self._result():
            self._compute(self.chosen, prepared)
        return self.rows

    @contextmanager
    def _result(self) -> Iterator[None]:
        with kept(self.rows, self.done):
            try:
                yield
            finally:
                self._progress.close()
                self._copy_equal()

    def _windows(self) -> Iterator[NDArray[np.int64]]:
        """Indices of texts that are not too many at once."""
        if self.chosen.size < 2:
            yield from (self.chosen,) * self.chosen.size
            return
        ends = np.cumsum(self._texts.sizes()[self.chosen])
        start, before = 0, 0
        while start < self.chosen.size:
            end = int(np.searchsorted(ends, before + _WINDOW_BYTES, side="right"))
            end = min(max(end, start + 1), start + _WINDOW)
            yield self.chosen[start:end]
            start, before = end, int(ends[end - 1])

    def _compute(self, indices: NDArray[np.int64], prepared: Prepared) -> None:
        windows = prepared.windows
        self._progress.add(prepared.sequences, prepared.whole, indices.size)
        if windows is not None:
            self._progress.add(windows.sequences)
        with self._pipeline.turn:
            if windows is not None:
                self._compute_windows(indices, windows)
                self._progress.finish(windows.sequences)
            work = Work(prepared.sequences, prepared.whole, indices, self._options.target, self.rows)
            try:
                self._run(work, indices)
            finally:
                self.done[indices[work.done]] = True
            self._progress.finish(prepared.sequences, prepared.whole)

    def _compute_windows(self, indices: NDArray[np.int64], windows: Windows) -> None:
        """Rows of overlong texts: the means of their windows' rows."""
        everything = np.arange(len(windows.sequences))
        rows = self._options.target.raw.empty(everything.size)
        work = Work(windows.sequences, everything, everything, self._options.target.raw, rows)
        try:
            self._run(work, indices[windows.texts])
        finally:
            texts, means = windows.means(rows, work.done)
            self._write(means, indices[texts])

    def _run(self, work: Work, texts: NDArray[np.int64]) -> None:
        """Compute; sequence i is part of the text texts[i]."""
        try:
            self._pipeline.run(work, self._stop, self._progress.update)
        except RowError as error:
            raise error.named(f"texts[{texts[error.index] + self._first}]") from None

    def _write(self, rows: NDArray[np.float32], places: NDArray[np.int64]) -> None:
        try:
            self._options.target.write(rows, places, self.rows)
        except RowError as error:
            raise error.named(f"texts[{error.index + self._first}]") from None
        self.done[places] = True

    def _copy_equal(self) -> None:
        if self.chosen.size == self.done.size:
            return
        again = np.flatnonzero(self._firsts != np.arange(self._firsts.size))
        for start in range(0, again.size, _ROWS):
            part = again[start : start + _ROWS]
            for array in (*arrays(self.rows), self.done):
                array[part] = array[self._firsts[part]]
