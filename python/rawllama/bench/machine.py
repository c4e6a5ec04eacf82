"""What a number belongs to: processor, compiler, flags, commits, versions; and whether others used the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from rawllama import backend

_PACKAGES = ("rawllama", "numpy", "cffi")
# Shares of the processors' time that are worth a warning.
_BUSY, _STOLEN = 0.05, 0.01
_WATCHED_S = 1.0


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of main memory; 0 where the system does not say."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def facts() -> dict[str, Any]:
    """All of it, for a record."""
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_gib": round(memory() / 2**30, 1),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "devices": [f"{device.name}: {device.description}" for device in backend.devices()],
        "build": backend.build(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Watch:
    """Notices what others do with the machine, where Linux tells: before the measurement, and the hypervisor in it."""

    def __init__(self) -> None:
        before = _times()
        time.sleep(_WATCHED_S if before else 0)
        self._start = _times()
        self.busy = _share(before, self._start, "busy")

    def notes(self) -> list[str]:
        """What there is to say at the end."""
        stolen = _share(self._start, _times(), "stolen")
        found = []
        if self.busy > _BUSY:
            found.append(f"other processes used {self.busy:.0%} of the machine before: the numbers are noisy")
        if stolen > _STOLEN:
            found.append(f"the hypervisor took {stolen:.0%} of the processors' time: the numbers are noisy")
        return found


def _times() -> dict[str, int]:
    """Ticks of all processors so far; empty where /proc/stat is not."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return {}
    user, nice, kernel, idle, waiting, interrupts, soft, stolen = map(int, first.split()[1:9])
    busy = user + nice + kernel + interrupts + soft
    return {"busy": busy, "stolen": stolen, "all": busy + idle + waiting + stolen}


def _share(before: dict[str, int], after: dict[str, int], what: str) -> float:
    if not before or not after:
        return 0.0
    return (after[what] - before[what]) / max(1, after["all"] - before["all"])
