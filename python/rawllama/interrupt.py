"""Ctrl-C during long calls of C: csrc/interrupt.cpp ends them, and Python raises KeyboardInterrupt when C returns."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .raw import lib

#: The ident of the thread that Ctrl-C reaches.
main = threading.main_thread().ident


def _after_fork() -> None:
    global main
    main = threading.main_thread().ident


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def on_main_thread() -> bool:
    """Whether this is the thread that Ctrl-C reaches."""
    return threading.get_ident() == main


@contextmanager
def interruptible() -> Iterator[None]:
    """Let C notice Ctrl-C in the calls of this block, on the main thread. Blocks may nest.

    Calls: rawllama_interrupt_begin, rawllama_interrupt_end
    """
    if not on_main_thread():
        yield
        return
    begun = lib.rawllama_interrupt_begin()
    try:
        yield
    finally:
        if begun:
            lib.rawllama_interrupt_end()
