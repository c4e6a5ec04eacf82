"""The installed rawllama: how it was built, and whether each of its libraries loads, tried in child processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rawllama import faults
from rawllama.paths import BUILD, LIBRARIES, PACKAGE

_SECONDS = 120
# As the module is opened: with all its symbols bound at once, so that none is found missing later.
_LOAD = (
    "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], mode=getattr(os, 'RTLD_NOW', 2) | getattr(os, 'RTLD_LOCAL', 0))"
)
_DEVICES = """
import json
from rawllama import backend
print(json.dumps([{"name": d.name, "kind": d.kind, "description": d.description, "backend": d.backend}
                  for d in backend.devices()]))
"""


@dataclass(frozen=True)
class Library:
    """A library of the package.

    Attributes
    ----------
    path
        The file.
    plugin
        Whether ggml loads it at run time, and does without it if it cannot.
    fault
        Why it does not load; empty if it does.
    remedy
        What to do about that; empty where nothing is known.
    """

    path: Path
    plugin: bool
    fault: str = ""
    remedy: str = ""


def build() -> dict[str, str]:
    """What was built; empty where this is no installation."""
    with suppress(OSError, ValueError):
        facts: dict[str, str] = json.loads(BUILD.read_text(encoding="utf-8"))
        return facts
    return {}


def libraries() -> tuple[Library, ...]:
    """The module and the libraries beside it, each tried in a process of its own."""
    inside = sorted(LIBRARIES.iterdir()) if LIBRARIES.is_dir() else []
    module = sorted(path for path in PACKAGE.glob("_libllama*") if path.suffix in (".so", ".pyd"))
    return tuple(map(_try, (*inside, *module)))


def devices() -> tuple[list[dict[str, Any]], str]:
    """The devices that ggml finds in a child process, and why none were found, where that is so."""
    status, out, err = _child(_DEVICES)
    if status == "":
        with suppress(ValueError, IndexError):
            found: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
            return found, ""
    return [], _words(status, err)


def _try(path: Path) -> Library:
    plugin = path.parent == LIBRARIES and not path.name.startswith(("librawllama-", "rawllama-"))
    status, _, err = _child(_LOAD, str(path))
    if not status:
        return Library(path, plugin)
    fault = _words(status, err).removeprefix("OSError: ")
    return Library(path, plugin, fault, faults.remedy(fault))


def _words(status: str, err: str) -> str:
    """Why a child process failed: its last line, or the signal that ended it."""
    return status if status.startswith("SIG") else (err.strip().splitlines() or [status])[-1]


def _child(code: str, *arguments: str) -> tuple[str, str, str]:
    """How a child process ended, empty for well and the signal's name where one ended it; and what it printed."""
    command = [sys.executable, "-c", code, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer in {_SECONDS} s", "", ""
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name, done.stdout, done.stderr
    return "" if done.returncode == 0 else f"exit status {done.returncode}", done.stdout, done.stderr
