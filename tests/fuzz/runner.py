"""Runs programs in a child process that is made anew when it dies."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

from ..models import tiny
from .program import MODELS

ROOT = Path(__file__).parent.parent.parent
# Programs take milliseconds; this is a hang.
SECONDS = 120


class Fault(AssertionError):
    """A program ended the process, hung, or raised what users should not see."""


class Runner:
    """Keeps a child for programs, and counts what its operations came to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in MODELS:
            tiny.write(name, folder / f"{name}.gguf")
        tiny.write_lora(folder / "llama-lora.gguf")
        self.outcomes: Counter[str] = Counter()
        self.deaths = 0
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, program: list[Any]) -> None:
        """Run one program; raise Fault if it is one."""
        child = self._child or self._start()
        assert child.stdin and child.stdout
        child.stdin.write(json.dumps(program) + "\n")
        child.stdin.flush()
        line = self._read(child.stdout)
        if not line:
            self.deaths += 1
            child.kill()
            code = child.wait()
            said = self._said()
            self._end()
            raise Fault(f"the process ended with {code}: {said}\n{json.dumps(program)}")
        answer = json.loads(line)
        if "fault" in answer:
            raise Fault(f"{answer['fault']}\n{json.dumps(program)}")
        self.outcomes.update(answer)

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-X", "faulthandler", "-m", f"{__package__}.worker", str(self.folder)]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the child)
        self._child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        return self._child

    def _read(self, pipe: IO[str]) -> str:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            return pipe.readline() if selector.select(SECONDS) else ""

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")[-4000:]

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe:
                    pipe.close()
            self._errors.close()
            self._child = None
