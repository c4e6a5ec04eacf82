"""A bar for jobs: rows, tokens a second, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rawllama.errors import InvalidArgumentError, MissingExtraError

#: None: a bar on a terminal. Or whether there is one. Or what is called with the rows and the tokens done.
Wanted = bool | Callable[[int, int], object] | None


class Progress:
    """Reports one run.

    Parameters
    ----------
    wanted
        What the caller wants to see.
    total, done
        Rows in all, and those that runs before have done.

    Raises
    ------
    MissingExtraError
        A bar is wanted, and tqdm is not there.
    InvalidArgumentError
        `wanted` is none of what it may be.
    """

    def __init__(self, wanted: Wanted, total: int, done: int) -> None:
        if wanted is not None and not isinstance(wanted, bool) and not callable(wanted):
            raise InvalidArgumentError(f"progress: {wanted!r} is none of None, True, False, or a function")
        self._call = wanted if callable(wanted) else None
        self._rows = done
        self._started = time.monotonic()
        self._bar = None if self._call or wanted is False else _bar(wanted is True, total, done)

    def add(self, rows: int, tokens: int) -> None:
        """So many rows more are done, and so many tokens in all of this run."""
        self._rows += rows
        if self._call:
            self._call(self._rows, tokens)
        if self._bar is not None:
            rate = tokens / (time.monotonic() - self._started)
            self._bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
            self._bar.update(rows)

    def close(self) -> None:
        """Let the bar stand as it is."""
        if self._bar is not None:
            self._bar.close()


def _bar(is_required: bool, total: int, done: int) -> Any:
    if not is_required and not (sys.stderr is not None and sys.stderr.isatty()):
        return None
    try:
        tqdm = import_module("tqdm.auto").tqdm
    except ImportError:
        if is_required:
            raise MissingExtraError("progress: tqdm is not installed: pip install 'rawllama[progress]'") from None
        return None
    return tqdm(total=total, initial=done, unit=" rows", unit_scale=True, dynamic_ncols=True)
