"""What the system says when it cannot write."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(name: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors of the system that name no file name this one; those of other libraries have their number in words."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        found = re.search(r"os error (\d+)", str(error))
        number = error.errno or (int(found[1]) if found else errno.EIO)
        words = os.strerror(number) if error.errno or found else str(error)
        raise OSError(number, words, os.fspath(name)) from error


def sync_folder(path: Path) -> None:
    """Let the names of files in a folder be on the disk."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
