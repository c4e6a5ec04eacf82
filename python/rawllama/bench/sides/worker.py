# Runs in the environment of the side, where mypy is not, and imports its neighbours as a script does.
# mypy: ignore-errors
"""A process that holds one side of the benchmark and computes when it is asked over a pipe.

Requests and answers are a line of JSON each; ../processes.py asks, one process at a time. The first answer says what
the side is, or what it lacks. Runs in the environment of the side, so it needs the standard library and numpy alone.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


class Side(ABC):
    """What one file of this folder gives: texts to rows.

    Parameters
    ----------
    settings
        `model`, the path of the GGUF file (sides that read no GGUF have the same weights from elsewhere); `threads`, so
        many compute; `variant`, which of the side's forms; and what the side wants besides.
    """

    #: Modules that must be there.
    needs: tuple[str, ...] = ()
    #: Distributions whose versions are printed.
    shown: tuple[str, ...] = ()
    #: Sizes of a batch, e.g. "8 texts", of which the fastest is taken; none where the side has no such choice.
    batch_sizes: tuple[str, ...] = ()

    def __init__(self, settings: dict[str, Any]) -> None:
        self.threads: int = settings["threads"]
        self.batch_size = next(iter(self.batch_sizes), "")

    def about(self) -> str:
        """Versions and settings."""
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in self.shown)

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Rows | None:
        """One row a text; None where the side only computes."""

    def seconds(self, texts: Sequence[str]) -> float:
        """Time of `encode`."""
        start = time.perf_counter()
        self.encode(texts)
        return time.perf_counter() - start

    def peak(self) -> int:
        """Largest resident memory so far in bytes."""
        return peak_of("self")

    def tune(self, texts: Sequence[str]) -> str:
        """Take the fastest batch size for these texts, by the better of two runs in turn."""
        times: dict[str, list[float]] = {size: [] for size in self.batch_sizes}
        for _ in range(2):
            for size in self.batch_sizes:
                self.batch_size = size
                times[size].append(self.seconds(texts))
        self.batch_size = min(times, key=lambda size: min(times[size]), default="")
        return self.batch_size


class Missing(Exception):
    """Something that is no Python module is not there; says what."""


def peak_of(process: int | str) -> int:
    """VmHWM of a process in bytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def make(kind: type[Side], settings: dict[str, Any]) -> Side:
    missing = [name for name in kind.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise Missing(f"no module {', '.join(missing)}")
    return kind(settings)


def answer(side: Side, sets: dict[str, list[str]], request: dict[str, Any]) -> Any:
    """Carry out one request."""
    texts = sets.get(request.get("set", ""), [])
    match request["do"]:
        case "texts":
            sets[request["set"]] = json.loads(Path(request["file"]).read_text(encoding="utf-8"))
            return len(sets[request["set"]])
        case "batch_size":
            side.batch_size = request["value"]
            return side.batch_size
        case "tune":
            return side.tune(texts)
        case "seconds":
            return [side.seconds(texts) for _ in range(request["count"])]
        case "run":
            return side.encode(texts) is not None
        case "rows":
            rows = side.encode(texts)
            if rows is not None:
                np.save(request["file"], np.asarray(rows, np.float32))
            return rows is not None
        case "peak":
            return side.peak()
        case "call":  # something of one side's own
            return getattr(side, request["method"])(texts, **request["options"])
    raise ValueError(request["do"])


def serve(kind: type[Side]) -> None:
    """Answer until the pipe closes; the settings are the first argument, as JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer

    def say(value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        start = time.perf_counter()
        side = make(kind, json.loads(sys.argv[1]))
    except Missing as error:
        say({"missing": str(error)})
        return
    say({"about": side.about(), "python": sys.version.split()[0], "start_s": time.perf_counter() - start})
    sets: dict[str, list[str]] = {}
    for line in sys.stdin:
        say(answer(side, sets, json.loads(line)))
