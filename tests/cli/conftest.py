"""The command `rawllama` in a process of its own, and a model so small that it starts at once."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "rawllama"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a random BERT: 64 positions, 32 columns, mean pooling."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    runpy.run_path(str(Path(__file__).parent / "tiny_bert.py"))["write"](path)
    return str(path)


@pytest.fixture
def start(tiny: str, tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start `rawllama embed` on the tiny model, in a folder of its own; keywords are Popen's."""

    def call(*arguments: str | bytes, **options: Any) -> subprocess.Popen[bytes]:
        command = [*COMMAND, "embed", "--model", tiny, "--threads", "1", *arguments]
        # ggml asks gdb for a backtrace when it aborts, which takes longer than the test.
        env = {**os.environ, "GGML_NO_BACKTRACE": "1"}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, **{"cwd": tmp_path, "env": env, **streams, **options})

    return call


@pytest.fixture
def embed(start: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run it to its end: `feed` is what it reads, `status` the exit status that is right; the rest is Popen's."""

    def call(
        *arguments: str | bytes, feed: bytes | None = None, status: int = 0, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        if feed is not None:
            options["stdin"] = subprocess.PIPE
        process = start(*arguments, **options)
        out, err = process.communicate(feed, timeout=60)
        assert b"Traceback" not in err
        assert b"Warning" not in err
        assert process.returncode == status, err.decode(errors="replace")
        assert not (status and out), "nothing but data goes to standard output"
        if status == 1:
            assert err.startswith(b"rawllama: ")
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return call
