"""libllama's log in Python's `logging`, under the logger `rawllama`.

C appends lines to a queue (csrc/log.cpp); a thread of ours hands them to `logging`. So no Python runs in ggml's
threads, and a log line never waits for the GIL. Quiet by default except for errors; to hear more:

    logging.getLogger("rawllama").setLevel(logging.INFO)

Lines that a thread logs reach `logging` soon; `flush()` brings all of them at once. A forked child that ends by
`os._exit`, as those of multiprocessing do, loses what has not got there.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import traceback
from collections import deque

from .raw import ffi, lib

_TO_PYTHON = {
    lib.GGML_LOG_LEVEL_DEBUG: logging.DEBUG,
    lib.GGML_LOG_LEVEL_INFO: logging.INFO,
    lib.GGML_LOG_LEVEL_WARN: logging.WARNING,
    lib.GGML_LOG_LEVEL_ERROR: logging.ERROR,
}
_RECENT = 16
_CAPACITY = 4096  # lines that C holds at most: csrc/log.cpp


class LibraryLogger(logging.Logger):
    """A logger whose level also reaches C, where a line below it costs next to nothing."""

    def setLevel(self, level: int | str) -> None:
        """Set the level here and in libllama. Calls: rawllama_log_set_level."""
        super().setLevel(level)
        tell_level()


logger = logging.getLogger("rawllama")
_lock = threading.RLock()
_recent: deque[str] = deque(maxlen=_RECENT)
_buffer = ffi.new("char[]", 4096)
_thread: threading.Thread | None = None


def tell_level() -> None:
    """Tell C which lines are wanted: the logger's, and errors always, because exceptions quote them."""
    wanted = logger.getEffectiveLevel()
    levels = [level for level, python in _TO_PYTHON.items() if python >= wanted]
    lib.rawllama_log_set_level(min(levels, default=lib.GGML_LOG_LEVEL_ERROR))


def flush() -> None:
    """Hand all lines that C holds to `logging` now. Calls: rawllama_log_read."""
    with _lock:
        for _ in range(_CAPACITY):  # lines that come meanwhile are for the next time, or this might never end
            line = _read()
            if dropped := lib.rawllama_log_dropped():
                _hand_over(logging.WARNING, f"{dropped} lines of libllama's log were dropped: they came too fast")
            if line is None:
                break
            level, text = line
            _recent.append(text)
            _hand_over(level, text)


def _read() -> tuple[int, str] | None:
    """Take the oldest line from C, with `logging`'s level."""
    global _buffer
    level = ffi.new("int32_t *")
    while (length := lib.rawllama_log_read(level, _buffer, len(_buffer))) >= len(_buffer):
        _buffer = ffi.new("char[]", length + 1)
    if length < 0:
        return None
    text = ffi.string(_buffer).decode("utf-8", "backslashreplace")
    return _TO_PYTHON.get(level[0], logging.INFO), text


def _hand_over(level: int, text: str) -> None:
    """Log one line. A filter of the user's that raises must not end the thread, nor the call that flushes."""
    try:
        logger.log(level, "%s", text)
    except Exception:
        if logging.raiseExceptions:  # as logging does where a handler raises
            traceback.print_exc()


def take_recent() -> list[str]:
    """Return the last lines of libllama's log and forget them."""
    flush()
    with _lock:
        lines = list(_recent)
        _recent.clear()
    return lines


def _pump() -> None:
    while lib.rawllama_log_wait():
        flush()


def _start_thread() -> None:
    global _thread
    _thread = threading.Thread(target=_pump, name="rawllama-log", daemon=True)
    _thread.start()


def _stop() -> None:
    lib.rawllama_log_close()
    if _thread is not None:
        _thread.join()
    flush()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    lib.rawllama_log_after_fork()
    tell_level()
    _start_thread()


def start() -> None:
    """Begin to hand lines over; called once, when rawllama is imported."""
    # A logger that somebody made before this import stays the same object, with its own class below ours.
    logger.__class__ = type("LibraryLogger", (LibraryLogger, type(logger)), {})
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)
    tell_level()
    flush()  # what the backends said when they were loaded
    _start_thread()
    atexit.register(_stop)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
