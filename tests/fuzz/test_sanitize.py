"""What exercises csrc most, under AddressSanitizer and UBSan. All of it: `python -m tests.fuzz.sanitize`."""

from __future__ import annotations

import sys

import pytest

from .sanitize import ROOT, run


@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers are found as GCC has them on Linux")
def test_no_reports() -> None:
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = [str(ROOT / "tests" / "raw" / "test_guard.py"), str(ROOT / "tests" / "api" / "test_batch.py")]
    assert run("address,undefined", [*command, *tests]) == 0
