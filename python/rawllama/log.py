"""libllama's log in Python's `logging`, under the logger `rawllama`.

C appends lines to a queue (csrc/log.cpp); a thread of ours hands them to `logging`. So no Python runs in ggml's
threads, and a log line never waits for the GIL. Quiet by default except for errors; to hear more:

    logging.getLogger("rawllama").setLevel(logging.INFO)
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque

from .raw import ffi, lib

_TO_PYTHON = {
    lib.GGML_LOG_LEVEL_DEBUG: logging.DEBUG,
    lib.GGML_LOG_LEVEL_INFO: logging.INFO,
    lib.GGML_LOG_LEVEL_WARN: logging.WARNING,
    lib.GGML_LOG_LEVEL_ERROR: logging.ERROR,
}
_RECENT = 16


class LibraryLogger(logging.Logger):
    """A logger whose level also reaches C, where a line below it costs next to nothing."""

    def setLevel(self, level: int | str) -> None:  # noqa: N802 (logging's name)
        """Set the level here and in libllama. Calls: rawllama_log_set_level."""
        super().setLevel(level)
        tell_level()


logger = logging.getLogger("rawllama")
_lock = threading.RLock()
_recent: deque[str] = deque(maxlen=_RECENT)
_buffer = ffi.new("char[]", 4096)
_thread: threading.Thread | None = None


def tell_level() -> None:
    """Tell C which lines the logger wants."""
    wanted = logger.getEffectiveLevel()
    levels = [level for level, python in _TO_PYTHON.items() if python >= wanted]
    lib.rawllama_log_set_level(min(levels, default=lib.GGML_LOG_LEVEL_CONT))


def flush() -> None:
    """Hand all lines that C holds to `logging` now. Calls: rawllama_log_read."""
    global _buffer
    level = ffi.new("int32_t *")
    with _lock:
        while (length := lib.rawllama_log_read(level, _buffer, len(_buffer))) >= 0:
            if length >= len(_buffer):
                _buffer = ffi.new("char[]", length + 1)
                continue
            text = ffi.string(_buffer).decode("utf-8", "backslashreplace")
            _recent.append(text)
            logger.log(_TO_PYTHON.get(level[0], logging.INFO), "%s", text)
        if dropped := lib.rawllama_log_dropped():
            logger.warning("%d of libllama's log lines were dropped: they came faster than they were handled", dropped)


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
    # A logger that somebody made before this import stays the same object.
    logger.__class__ = LibraryLogger
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)
    tell_level()
    lib.rawllama_log_install()
    _start_thread()
    atexit.register(_stop)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
