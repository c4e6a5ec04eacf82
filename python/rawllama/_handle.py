"""Ownership of C pointers: one owner each, closed in order, never used after.

A child (a context) holds its parent (its model) strongly; a parent knows its children weakly and closes them first.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from .errors import BorrowedError, ClosedError, ConcurrentUseError, ForkedError, NativeAssertError

#: Open handles by class name: all zero when nothing leaks.
live: Counter[str] = Counter()
_live_mutex = threading.RLock()

# Threads and locks of the library do not survive a fork, so a process uses only what it opened itself.
_generation = 0


def _after_fork() -> None:
    global _generation
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _count(handle: Handle, change: int) -> None:
    with _live_mutex:
        live[type(handle).__name__] += change


class Handle:
    """The one owner of a C pointer: `close()` frees it, and so does the end of a `with` block.

    Methods reach the pointer by `with self._used as pointer`, which refuses closed handles, forked ones, and a second
    thread, unless the class says that C allows several (`_shared`). After an assert inside the library a `_fragile`
    one, whose state is then unknown, refuses everything but `close()`.
    """

    _shared = False
    _fragile = False
    #: Children of a higher rank are closed later: a context before the adapters that it uses.
    _rank = 0

    def __init__(self, pointer: Any, free: Callable[[Any], object], parent: Handle | None = None) -> None:
        self._pointer = pointer
        self._free = free
        self._parent = parent
        self._children: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._borrowers: weakref.WeakSet[Handle] = weakref.WeakSet()
        # Reentrant: the garbage collector may close a child while its parent's mutex is held.
        self._mutex = threading.RLock()
        self._users = 0
        self._lent = 0
        self._failed: NativeAssertError | None = None
        self._born = _generation
        _count(self, 1)
        if parent is not None:
            with parent._mutex:
                parent._children.add(self)

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        return self._pointer is None

    @property
    def usable(self) -> bool:
        """Whether it is open, and has not failed inside the library."""
        return self._pointer is not None and self._failed is None

    @property
    def c(self) -> Any:
        """The C pointer, for calls of `rawllama.lib`. Nothing checks what they do with it; it ends with `close()`."""
        with self._used as pointer:
            return pointer

    @property
    def _used(self) -> _Use:
        return _Use(self)

    def close(self) -> None:
        """Close what depends on this object, then free it; a second time does nothing.

        Raises
        ------
        BorrowedError
            A view of its memory is lent out, or another object uses it.
        ConcurrentUseError
            Another thread is using it.
        """
        pointer = self._take() if getattr(self, "_pointer", None) is not None else None
        if pointer is None:
            return
        _count(self, -1)
        if self._parent is not None:
            with self._parent._mutex:
                self._parent._children.discard(self)
        if self._born == _generation:  # in a fork's child the memory is the parent's; its threads are not here to join
            self._free(pointer)

    def _take(self) -> Any:
        """Close the children and take the pointer from this object; None if another thread was faster."""
        while True:
            with self._mutex:
                children = [child for child in self._children if not child.closed]
            for child in sorted(children, key=lambda child: child._rank):
                child.close()
            with self._mutex:
                if self._lent:
                    raise BorrowedError(f"memory of this {type(self).__name__} is lent out; end that first")
                for borrower in self._borrowers:
                    if not borrower.closed:
                        raise BorrowedError(f"{borrower!r} uses this {type(self).__name__}; take it away there first")
                if self._users:
                    raise ConcurrentUseError(f"another thread uses this {type(self).__name__}; close it afterwards")
                if all(child.closed for child in self._children):  # or another thread has made one meanwhile
                    pointer, self._pointer = self._pointer, None
                    return pointer

    def _lend_to(self, borrower: Handle) -> None:
        """Stay open as long as `borrower` uses this."""
        with self._mutex:
            if self._pointer is None:
                raise ClosedError(f"this {type(self).__name__} is closed; make a new one")
            self._borrowers.add(borrower)

    def _take_back(self, borrower: Handle) -> None:
        with self._mutex:
            self._borrowers.discard(borrower)

    def _acquire(self) -> Any:
        with self._mutex:
            if self._pointer is None:
                raise ClosedError(f"this {type(self).__name__} is closed; make a new one")
            if self._born != _generation:
                raise ForkedError(f"this {type(self).__name__} was made before a fork; make it in the child process")
            if self._failed is not None:
                raise NativeAssertError(
                    f"this {type(self).__name__} failed inside the library before, so its state is unknown;"
                    " close it and make a new one"
                ) from self._failed
            if self._lent:
                raise BorrowedError(f"memory of this {type(self).__name__} is lent out; end that first")
            if self._users and not self._shared:
                raise ConcurrentUseError(
                    f"this {type(self).__name__} is in use by another thread; give each thread its own, or a lock"
                )
            self._users += 1
            return self._pointer

    def _release(self) -> None:
        with self._mutex:
            self._users -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pointer", None) is not None and self._born == _generation:
            words = f"a {type(self).__name__} was not closed; use `with` or close()"
            warnings.warn(words, ResourceWarning, stacklevel=2)
            self.close()

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} lives in one process; send paths and settings, and open it there")


class _Use:
    """The `with` block around each use of a handle."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __enter__(self) -> Any:
        return self._handle._acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, NativeAssertError) and self._handle._fragile:
            self._handle._failed = error
        self._handle._release()
