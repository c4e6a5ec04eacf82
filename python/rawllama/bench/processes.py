"""The sides of a comparison: each a process of its own, in the environment that has what it needs.

All are started first, then asked in turn over a pipe, so that one computes at a time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rawllama.errors import LlamaError
from rawllama.hub import resolve

from . import programs

SIDES = Path(__file__).parent / "sides"
_PAUSE_S = 0.1  # until the threads of the one before sleep


@dataclass(frozen=True)
class Spec:
    """A side.

    Attributes
    ----------
    name
        What tables call it.
    file
        Its file in sides/.
    variant, settings
        Which of its forms.
    outtype
        Type of the weights of a named model.
    against
        The side that it is compared with; "" for none.
    here, elsewhere
        Whether it runs in this environment only, or in the peers' only, not in the first that has what it needs.
    latency
        Whether one query can be timed.
    only_named
        Whether it has the weights of a named model, and reads no GGUF.
    program
        The C program that it runs.
    """

    name: str
    file: str
    variant: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    outtype: Any = "f32"
    against: str = "rawllama"
    here: bool = False
    elsewhere: bool = False
    latency: bool = True
    only_named: bool = False
    program: str = ""


OURS = Spec("rawllama", "ours", against="", here=True)
SPECS = (
    OURS,
    Spec("rawllama q8_0", "ours", outtype="q8_0", against="", here=True, only_named=True),
    Spec("rawllama, another build", "ours", elsewhere=True),
    # As the C loop, which cannot have rawllama's kernels: what the Embedder adds to the same computation.
    Spec("rawllama, ggml's kernels", "ours", "ggml", here=True),
    Spec("C loop", "c_loop", against="rawllama, ggml's kernels", here=True),
    Spec("llama-embedding", "llama_embedding", here=True, latency=False, program="llama-embedding"),
    Spec("llama-cpp-python, defaults", "llama_cpp_python", "default"),
    Spec("llama-cpp-python, tuned", "llama_cpp_python", "tuned"),
    Spec("sentence-transformers", "sbert", only_named=True),
    Spec("onnxruntime fp32", "onnx_runtime", "fused", only_named=True),
    Spec("onnxruntime int8", "onnx_runtime", "int8", against="rawllama q8_0", only_named=True),
    Spec("OpenVINO fp32", "openvino_runtime", "plain", only_named=True),
    Spec("fastembed", "fast_embed", only_named=True),
)


class Missing(Exception):
    """No environment has what a side needs."""


class SideError(LlamaError):
    """A side's process ended; the message has its last words."""


class Process:
    """A side's process."""

    def __init__(self, spec: Spec, python: str, model: str, threads: int) -> None:
        if shutil.which(python) is None:
            raise Missing("no such program")
        self.spec = spec
        path = resolve(model, outtype=spec.outtype)
        settings = {"model": str(path), "threads": threads, "variant": spec.variant, **spec.settings}
        if spec.program:
            settings["program"] = str(programs.example(spec.program))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [python, SIDES / f"{spec.file}.py", json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env=programs.environment() if spec.program else None,
        )  # fmt: skip
        try:
            self.about: dict[str, Any] = self._read()
        except SideError:
            self.__exit__()
            raise
        if "missing" in self.about:
            self.__exit__()
            raise Missing(self.about["missing"])

    def _read(self) -> Any:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._errors.seek(0)
        raise SideError(f"{self.spec.name} ended:\n{self._errors.read()[-3000:]}")

    def ask(self, do: str, **request: Any) -> Any:
        """Have it do something; what that gives."""
        assert self._process.stdin
        print(json.dumps({"do": do, **request}), file=self._process.stdin, flush=True)
        return self._read()

    def seconds(self, name: str, count: int = 1) -> list[float]:
        """Times of so many runs of a set of texts."""
        time.sleep(_PAUSE_S)
        times: list[float] = self.ask("seconds", set=name, count=count)
        return times

    def give(self, texts: Mapping[str, Sequence[str]]) -> None:
        """Sets of texts, by name."""
        with tempfile.TemporaryDirectory() as folder:
            for name, chosen in texts.items():
                file = Path(folder, name)
                file.write_text(json.dumps(list(chosen)), encoding="utf-8")
                self.ask("texts", set=name, file=str(file))

    def rows(self, name: str) -> NDArray[np.float32] | None:
        """Rows of a set of texts, where the side gives some."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "rows.npy")
            return np.load(file) if self.ask("rows", set=name, file=str(file)) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # the end of its input ends it
        self._errors.close()


def start(spec: Spec, pythons: Sequence[str], model: str, threads: int) -> Process:
    """The side's process, in the first environment that has what it needs.

    Raises
    ------
    Missing
        None has.
    """
    words = [] if pythons or not spec.elsewhere else ["--pythons names no environment"]
    for python in [*([] if spec.here else pythons), *([] if spec.elsewhere else [sys.executable])]:
        try:
            return Process(spec, python, model, threads)
        except (Missing, programs.BuildError) as error:
            words.append(f"{error} ({Path(python).parent.parent.name})")
        except SideError as error:  # another library's trouble is no reason to measure nothing
            if spec.here:
                raise
            words.append(f"{str(error).splitlines()[-1]} ({Path(python).parent.parent.name})")
    raise Missing("; ".join(words))


def start_all(
    specs: Sequence[Spec], pythons: Sequence[str], model: str, threads: int, stack: ExitStack
) -> tuple[dict[str, Process], list[str]]:
    """The processes of all sides that are there, by name; and notes of those that are missing."""
    processes: dict[str, Process] = {}
    notes = []
    for spec in specs:
        try:
            processes[spec.name] = stack.enter_context(start(spec, pythons, model, threads))
        except Missing as error:
            notes.append(f"{spec.name} is missing: {error}")
    return processes, notes
