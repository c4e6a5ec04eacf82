"""Ownership of C pointers: one owner each, closed in order, never used after.

A child (a context) holds its parent (its model) strongly; a parent knows its children weakly and closes them first. It
counts them by their ids too: where parent and child are garbage together, Python drops the weak references before it
calls `__del__`, in any order, and the parent must wait for the child all the same.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from .errors import BorrowedError, ClosedError, ConcurrentUseError, ForkedError, LlamaError, NativeAssertError

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


def _open(handles: Mapping[int, weakref.ref[Handle]]) -> list[Handle]:
    found = [handle for reference in handles.values() if (handle := reference()) is not None]
    return [handle for handle in found if not handle.closed]


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
        self._parent: Handle | None = None
        self._children: dict[int, weakref.ref[Handle]] = {}
        self._borrowers: dict[int, weakref.ref[Handle]] = {}
        self._borrowed: list[Handle] = []
        # Reentrant: the garbage collector may close a child while its parent's mutex is held.
        self._mutex = threading.RLock()
        self._users = 0
        self._lent = 0
        self._ending = False  # closed, but for those who still need the pointer: the last of them frees it
        self._failed: NativeAssertError | None = None
        self._born = _generation
        _count(self, 1)
        if parent is not None:
            self._join(parent)

    def _join(self, parent: Handle) -> None:
        """Become a child: `parent` is closed after this. Its pointer must be in use meanwhile."""
        self._parent = parent
        with parent._mutex:
            parent._children[id(self)] = weakref.ref(self)

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        return self._pointer is None or self._ending

    @property
    def usable(self) -> bool:
        """Whether it is open, and has not failed inside the library."""
        return not self.closed and self._failed is None

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

        Where a context still uses it (an adapter, a thread pool), it is freed when that lets it go; computing raises
        ClosedError until then.

        Raises
        ------
        BorrowedError
            A view of its memory is lent out.
        ConcurrentUseError
            Another thread is using it.
        """
        pointer = self._take() if getattr(self, "_pointer", None) is not None else None
        if pointer is not None:
            self._end(pointer)

    def _take(self) -> Any:
        """Close the children and take the pointer from this object; None if another thread does that, or will."""
        while True:
            with self._mutex:
                children = _open(self._children)
            for child in sorted(children, key=lambda child: child._rank):
                child.close()
            with self._mutex:
                if self.closed:
                    return None
                if self._lent:
                    raise BorrowedError(f"memory of this {type(self).__name__} is lent out; end that first")
                if self._users:
                    raise ConcurrentUseError(f"another thread uses this {type(self).__name__}; close it afterwards")
                if _open(self._children):  # another thread has made one meanwhile
                    continue
                if self._children or self._borrowers:  # being freed by another thread, or garbage as this is
                    self._ending = True
                    return None
                pointer, self._pointer = self._pointer, None
                return pointer

    def _end(self, pointer: Any) -> None:
        """Free the pointer, then let go of what had to live as long."""
        _count(self, -1)
        try:
            if self._born == _generation:  # in a fork's child the memory is the parent's; its threads are not here
                self._free(pointer)
        finally:
            borrowed, self._borrowed = self._borrowed, []
            for other in (*borrowed, self._parent):
                if other is not None:
                    other._let_go(self)

    def _let_go(self, other: Handle) -> None:
        """A child or borrower is gone; the last one closes this if it waits for that."""
        with self._mutex:
            self._children.pop(id(other), None)
            self._borrowers.pop(id(other), None)
            if not self._ending or self._children or self._borrowers or self._pointer is None:
                return
            pointer, self._pointer = self._pointer, None
        self._end(pointer)

    def _lend_to(self, borrower: Handle) -> None:
        """Stay open as long as `borrower` uses this."""
        with self._mutex:
            if self.closed:
                raise ClosedError(f"this {type(self).__name__} is closed; make a new one")
            self._borrowers[id(borrower)] = weakref.ref(borrower)
        borrower._borrowed.append(self)

    def _take_back(self, borrower: Handle) -> None:
        borrower._borrowed.remove(self)
        self._let_go(borrower)

    def _acquire(self) -> Any:
        """The pointer, for the calling thread, until `_release`: what `with self._used` does, in less time."""
        used = False
        try:
            with self._mutex:
                if (
                    self._pointer is None
                    or self._ending
                    or self._failed is not None
                    or self._lent
                    or self._born != _generation
                    or (self._users and not self._shared)
                ):
                    raise self._refusal()
                self._users += 1
                used = True
                return self._pointer
        except BaseException:
            if used:  # Ctrl-C when the mutex was let go
                self._release()
            raise

    def _refusal(self) -> LlamaError:
        """Why it cannot be used."""
        name = type(self).__name__
        if self.closed:
            return ClosedError(f"this {name} is closed; make a new one")
        if self._born != _generation:
            return ForkedError(f"this {name} was made before a fork; make it in the child process")
        if self._failed is not None:
            error = NativeAssertError(
                f"this {name} failed inside the library before, so its state is unknown; close it and make a new one"
            )
            error.__cause__ = self._failed
            return error
        if self._lent:
            return BorrowedError(f"memory of this {name} is lent out; end that first")
        return ConcurrentUseError(f"this {name} is in use by another thread; give each thread its own, or a lock")

    def _release(self) -> None:
        if not self._shared:
            self._users = 0  # it had but this one
            return
        with self._mutex:
            self._users -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pointer", None) is not None and not self._ending and self._born == _generation:
            words = f"a {type(self).__name__} was not closed; use `with` or close()"
            warnings.warn(words, ResourceWarning, stacklevel=2)
            with suppress(BorrowedError):  # the interpreter ends, with a view of its memory about
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
