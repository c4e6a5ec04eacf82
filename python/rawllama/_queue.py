"""Threads that use one Embedder: a lock that is given in order, and a thread that computes for others."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from .errors import ConcurrentUseError, DecodeAborted

T = TypeVar("T")
_Tasks = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class FairLock:
    """A lock that those who wait for it get in their order: Python's own favours who had it last."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._owner: int | None = None

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._mutex:
            if self._owner is None:
                self._owner = me
                return
            if self._owner == me:
                raise ConcurrentUseError("the Embedder is computing; call it when that has returned, or make another")
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:  # Ctrl-C while it waits
            self._leave(turn)
            raise
        self._owner = me

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._mutex:
            self._pass_on()

    def _leave(self, turn: threading.Lock) -> None:
        with self._mutex:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:  # it has come meanwhile
                self._pass_on()

    def _pass_on(self) -> None:
        self._owner = None if not self._waiting else -1  # until the next one says who it is
        if self._waiting:
            self._waiting.popleft().release()


class Stop:
    """Ends computations from another thread: `request` calls what `watch` was given last."""

    def __init__(self) -> None:
        self._end: Callable[[], object] | None = None
        self.requested = False

    def request(self) -> None:
        """End what is computed now, and what would be later."""
        self.requested = True
        if (end := self._end) is not None:
            end()

    def watch(self, end: Callable[[], object] | None) -> None:
        """What ends the computation that begins now; None when it is over."""
        self._end = end
        if self.requested and end is not None:
            end()

    def require_not_requested(self) -> None:
        """Raise DecodeAborted if it has been requested."""
        if self.requested:
            raise DecodeAborted("the computation was stopped")


class Worker:
    """A thread that calls functions, one after the other.

    A daemon, which is stopped and joined when the interpreter ends: Python waits for other threads until they have done
    work that nobody wants any more.
    """

    _all: ClassVar[weakref.WeakSet[Worker]] = weakref.WeakSet()

    def __init__(self, name: str) -> None:
        self._tasks: _Tasks = SimpleQueue()
        self._stops: dict[Future[Any], Stop] = {}
        self._thread = threading.Thread(target=_work, args=(self._tasks,), name=name, daemon=True)
        self._thread.start()
        Worker._all.add(self)

    def submit(self, function: Callable[[], T], stop: Stop) -> Future[T]:
        """Call it when those before are done; `stop` is what ends it."""
        future: Future[T] = Future()
        self._stops[future] = stop
        future.add_done_callback(self._stops.pop)
        self._tasks.put((future, function))
        return future

    def close(self) -> None:
        """End what is in work, and the thread."""
        for stop in list(self._stops.values()):
            stop.request()
        self._tasks.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __del__(self) -> None:
        self._tasks.put(None)


def _work(tasks: _Tasks) -> None:
    while (task := tasks.get()) is not None:
        future, function = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
        del task, future, function  # or they live until the next one comes


@atexit.register
def _close_all() -> None:
    for worker in list(Worker._all):
        worker.close()
