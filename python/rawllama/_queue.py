"""Threads that use one Embedder: a lock that is given in order, and a thread that computes for others."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from .errors import ConcurrentUseError, DecodeAborted

T = TypeVar("T")
_Queue: TypeAlias = "SimpleQueue[Task[Any] | None]"


class FairLock:
    """A lock that those who wait for it get in their order: Python's own favours who had it last."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._owner: int | None = None

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner == me:
            raise ConcurrentUseError("the Embedder is computing; call it when that has returned, or make another")
        try:
            self._wait(me)
        except BaseException:  # Ctrl-C
            self._leave(me)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._mutex:
            self._pass_on()

    def _wait(self, me: int) -> None:
        turn = threading.Lock()
        with self._mutex:
            if self._owner is None:
                self._owner = me
                return
            turn.acquire()
            self._waiting.append((me, turn))
        turn.acquire()

    def _leave(self, me: int) -> None:
        with self._mutex:
            if self._owner == me:  # it has come meanwhile
                self._pass_on()
            else:
                self._waiting = deque(other for other in self._waiting if other[0] != me)

    def _pass_on(self) -> None:
        self._owner = None
        if self._waiting:
            self._owner, turn = self._waiting.popleft()
            turn.release()


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


class Task(Generic[T]):
    """What a `Worker` calls, and what comes of it.

    Not a Future: that one's lock is Python code, and Ctrl-C in the midst of it leaves it locked for good.

    Parameters
    ----------
    function
        What is called.
    stop
        Ends it; once requested, it is not begun.
    on_end
        Called when the result is there, by the worker.
    """

    def __init__(self, function: Callable[[], T], stop: Stop, on_end: Callable[[], object] = lambda: None) -> None:
        self.stop = stop
        self.done = False
        self._function: Callable[[], T] | None = function
        self._on_end = on_end
        self._value: T
        self._error: BaseException | None = None
        self._wake: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Call the function. It must not have been called before."""
        function, self._function = self._function, None  # what it holds need not live as long as this
        assert function is not None
        try:
            self.stop.require_not_requested()
            self._value = function()
        except BaseException as error:
            self._error = error
        self.done = True
        self._wake.put(None)
        self._on_end()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is done, or so long; whether it is done."""
        while not self.done:
            try:
                self._wake.get(timeout=seconds)
            except Empty:
                break
        return self.done

    def result(self) -> T:
        """Wait for it, and return what it returned or raise what it raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._value


class Worker:
    """A thread that calls functions, one after the other.

    A daemon, which is stopped and joined when the interpreter ends: Python waits for other threads until they have done
    work that nobody wants any more.
    """

    _all: ClassVar[weakref.WeakSet[Worker]] = weakref.WeakSet()

    def __init__(self, name: str) -> None:
        self._queue: _Queue = SimpleQueue()
        self._tasks: weakref.WeakSet[Task[Any]] = weakref.WeakSet()
        self._thread = threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True)
        self._thread.start()
        Worker._all.add(self)

    def submit(self, task: Task[T]) -> Task[T]:
        """Run it when those before are done."""
        self._tasks.add(task)
        self._queue.put(task)
        return task

    def drain(self) -> None:
        """Wait until all that was submitted is done, whatever comes."""
        interrupt = None
        mark: Task[None] | None = None
        while mark is None or not mark.done:
            try:
                mark = mark or self.submit(Task(lambda: None, Stop()))
                mark.wait()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def close(self) -> None:
        """End what is in work, and the thread."""
        for task in list(self._tasks):
            task.stop.request()
        self._queue.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __del__(self) -> None:
        if (queue := getattr(self, "_queue", None)) is not None:  # it may have been interrupted when it was made
            queue.put(None)


def _work(queue: _Queue) -> None:
    while (task := queue.get()) is not None:
        task.run()
        del task  # or it lives until the next one comes


@atexit.register
def _close_all() -> None:
    for worker in list(Worker._all):
        worker.close()
