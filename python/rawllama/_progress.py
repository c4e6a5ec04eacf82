"""How far an Embedder is: a bar on a terminal, or a function of the caller's."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InvalidArgumentError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._engine import Job, Sequences

#: None: a bar on a terminal, where the work is long. Or whether there is one. Or what is called with the tokens done
#: and those in all, None while nothing says how many.
Wanted = bool | Callable[[int, int | None], object] | None
# Seconds of work that is too short for a bar.
_SHORT = 2.0
_FORMAT = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_ENDLESS = "{elapsed}{postfix}"


def require_progress(wanted: Wanted) -> Wanted:
    """`wanted`, if it is one of what it may be."""
    if wanted is not None and not isinstance(wanted, bool) and not callable(wanted):
        raise InvalidArgumentError(f"progress: {wanted!r} is none of None, True, False, or a function")
    return wanted


class Progress:
    """Reports one call.

    Time is told by work, not by texts: the longest come first. A sequence of n tokens in a model of width d takes work
    for n (1 + n / 6d) tokens: of a layer's products, 24 d^2 a token, attention is 4 n d.

    Parameters
    ----------
    wanted
        What the caller wants to see.
    n_texts
        Texts in all; None if that is not known.
    width
        Columns of the model's hidden state.
    """

    def __init__(self, wanted: Wanted, n_texts: int | None, width: int) -> None:
        self._call = wanted if callable(wanted) else None
        self._bar_from = _bar_from(wanted)
        self._n_texts = n_texts
        self._width = width
        self._started = time.monotonic()
        self._bar: Any = None
        # Of the texts whose tokens are known: how many, their tokens and work. The others are taken for like them.
        self._texts = 0
        self._known = self._done = (0, 0.0)
        self._job: Job | None = None
        self._work_after: list[float] = []

    def add(self, sequences: Sequences, chosen: NDArray[np.int64] | None = None, n_texts: int = 0) -> None:
        """These sequences, or those chosen of them, will be computed for so many texts more."""
        if self._is_wanted():
            self._texts += n_texts
            self._known = self._plus(self._known, sequences, chosen)

    def finish(self, sequences: Sequences, chosen: NDArray[np.int64] | None = None) -> None:
        """These are computed."""
        if self._is_wanted():
            self._done = self._plus(self._done, sequences, chosen)

    def update(self, job: Job) -> None:
        """Report the job that is running."""
        if not self._call and time.monotonic() - self._started < self._bar_from:
            return
        if job is not self._job:
            self._job = job
            self._work_after = [0.0, *np.cumsum(np.add.reduceat(self._work(job.lengths), job.bounds[:-1])).tolist()]
        state = job.state
        self._report(self._done[0] + state.tokens, self._done[1] + self._work_after[state.batches])

    def show(self) -> None:
        """Report what is finished."""
        if self._call or time.monotonic() - self._started >= self._bar_from:
            self._report(*self._done)

    def close(self) -> None:
        """Let the bar stand as it is."""
        if self._bar is not None:
            self._bar.close()

    def _is_wanted(self) -> bool:
        return self._call is not None or self._bar_from < math.inf

    def _plus(
        self, before: tuple[int, float], sequences: Sequences, chosen: NDArray[np.int64] | None
    ) -> tuple[int, float]:
        lengths = sequences.lengths if chosen is None else sequences.lengths[chosen]
        return before[0] + int(lengths.sum()), before[1] + float(self._work(lengths).sum())

    def _work(self, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        return lengths * (1 + lengths / (6 * self._width))

    def _report(self, tokens: int, work: float) -> None:
        all_tokens = all_work = None
        if self._n_texts is not None:
            share = self._n_texts / self._texts
            all_tokens, all_work = round(self._known[0] * share), self._known[1] * share
        if self._call:
            self._call(tokens, all_tokens)
        elif self._bar_from < math.inf:
            self._draw(tokens, work, all_work)

    def _draw(self, tokens: int, work: float, total: float | None) -> None:
        if self._bar is None:
            tqdm = _tqdm()
            if tqdm is None:  # only where nobody asked for a bar
                self._bar_from = math.inf
                return
            # With a delay it shows nothing before the first refresh, which would be 0 %.
            self._bar = tqdm(total=total, bar_format=_FORMAT if total else _ENDLESS, delay=1e-9)
            self._bar.start_t -= time.monotonic() - self._started
        rate = tokens / (time.monotonic() - self._started)
        self._bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        self._bar.total, self._bar.n = total, work
        self._bar.refresh()


def _bar_from(wanted: Wanted) -> float:
    """Seconds after which there is a bar."""
    if wanted is True:
        if _tqdm() is None:
            raise MissingExtraError("progress: tqdm is not installed: pip install 'rawllama[progress]'")
        return 0.0
    return _SHORT if wanted is None and sys.stderr is not None and sys.stderr.isatty() else math.inf


def _tqdm() -> Any:
    try:
        return import_module("tqdm.auto").tqdm
    except ImportError:
        return None
