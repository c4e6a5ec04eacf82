"""One process at a time on one output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rawllama.errors import ConcurrentUseError


@contextmanager
def locked(path: Path, name: str) -> Iterator[None]:
    """Hold the lock of this file, which is made; it ends with the process, however that ends.

    Parameters
    ----------
    path
        The file; whoever holds the lock may remove it.
    name
        What is locked, for messages.

    Raises
    ------
    ConcurrentUseError
        Another process holds it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(descriptor):
                raise ConcurrentUseError(f"{name}: another process is writing it; wait for it, or name another output")
            if _is_there(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)


def _is_there(descriptor: int, path: Path) -> bool:
    """Whether the file has not been removed between its opening and its lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return _try_lock_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_lock_windows(descriptor: int) -> bool:
    from importlib import import_module

    msvcrt = import_module("msvcrt")
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True
