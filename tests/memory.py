"""The most memory that this process had resident at once, from Linux's own books.

`resource.getrusage` tells the same of a process and of all that it was before: a fork's memory stays its child's peak
behind `exec`, and a peak once reached hides every later one.
"""

from __future__ import annotations

import re
from pathlib import Path


def peak_kb() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def forget_peak() -> None:
    """The peak begins anew, at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
