"""What exercises csrc most, under AddressSanitizer and UBSan. All of it: `python -m tests.fuzz.sanitize`."""

from __future__ import annotations

import sys

from .sanitize import ROOT, run


def test_no_reports() -> None:
    if sys.platform != "linux":
        return  # the sanitizers are found as GCC has them there
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = [str(ROOT / "tests" / "raw" / "test_guard.py"), str(ROOT / "tests" / "api" / "test_batch.py")]
    assert run("address,undefined", [*pytest, *tests]) == 0
