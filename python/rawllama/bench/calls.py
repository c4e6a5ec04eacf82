"""What a raw call costs through rawllama's cffi module, through ctypes and in C; and what the import costs."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from timeit import Timer
from typing import Any

from rawllama import LIBRARIES, ffi, hub, lib
from rawllama.errors import LlamaError
from rawllama.guard import guarded

from . import machine, programs
from .record import Record

FUNCTIONS = ("llama_n_ctx", "llama_get_embeddings_seq")
_IMPORT = """
import time
before = time.perf_counter()
import rawllama
print(time.perf_counter() - before)
"""


class CallsError(LlamaError):
    """The ways do not do the same, so that their times mean nothing."""


@dataclass(frozen=True)
class Settings:
    """How often it is called.

    Attributes
    ----------
    model
        A path, or a name of `hub`'s.
    rounds
        So many.
    calls
        In a round, of each function.
    imports
        Processes that import rawllama.
    """

    model: str = "minilm"
    rounds: int = 21
    calls: int = 100_000
    imports: int = 10


def measure(settings: Settings) -> Record:
    """Nanoseconds a call by each way, in rounds that take them in turn; all use the same library file."""
    record, watch = Record("calls", machine.facts(), asdict(settings)), machine.Watch()
    path, calls = str(hub.resolve(settings.model)), settings.calls
    timers = _timers(path)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in timers}
    with tempfile.TemporaryDirectory() as folder:
        program = programs.compile_c(programs.FOLDER / "calls.c", Path(folder))
        with subprocess.Popen([program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as c_program:
            for _ in range(settings.rounds):
                for key, timer in timers.items():
                    times[key].append(timer.timeit(calls) / calls * 1e9)
                for function, nanoseconds in zip(FUNCTIONS, _ask(c_program, calls), strict=True):
                    times.setdefault(("C", function), []).append(nanoseconds)
            c_program.communicate()
    for (way, function), values in times.items():
        record.add(way, function, "ns", "lower", values)
    record.add("rawllama", "import", "ms", "lower", [_import_ms() for _ in range(settings.imports)])
    record.sides["C"] = "cc -O2, through the shared library"
    record.notes += watch.notes()
    return record


def empty() -> None:
    """The least that a call costs in Python."""


def _ask(program: subprocess.Popen[str], calls: int) -> list[float]:
    assert program.stdin and program.stdout
    print(calls, file=program.stdin, flush=True)
    return [float(word) for word in program.stdout.readline().split()]


def _context(path: str) -> Any:
    """A context with one pooled row in it. It is never freed: the process ends."""
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.embeddings = True
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    context = lib.llama_init_from_model(model, params)
    tokens = ffi.new("llama_token[]", [1, 2])
    if lib.llama_decode(context, lib.llama_batch_get_one(tokens, 2)) != 0:
        raise CallsError("llama_decode failed")
    return context


def _by_ctypes() -> ctypes.CDLL:
    """The library that `lib` uses, typed by hand."""
    library = ctypes.CDLL(str(next(LIBRARIES.glob("*rawllama-llama.*"))))
    library.llama_n_ctx.argtypes = [ctypes.c_void_p]
    library.llama_n_ctx.restype = ctypes.c_uint32
    library.llama_get_embeddings_seq.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.llama_get_embeddings_seq.restype = ctypes.POINTER(ctypes.c_float)
    return library


def _timers(path: str) -> dict[tuple[str, str], Timer]:
    """What is timed in Python, by way and function."""
    context = _context(path)
    library, address = _by_ctypes(), ctypes.c_void_p(int(ffi.cast("uintptr_t", context)))
    if library.llama_n_ctx(address) != lib.llama_n_ctx(context):
        raise CallsError("ctypes and cffi do not reach the same library")
    if library.llama_get_embeddings_seq(address, 0)[0] != lib.llama_get_embeddings_seq(context, 0)[0]:
        raise CallsError("ctypes and cffi do not give the same row")

    def timer(call: str, function: Callable[..., Any], argument: object = None) -> Timer:
        return Timer(call, globals={"f": function, "c": argument})

    timers = {("Python", "empty function"): timer("f()", empty)}
    for function, call in zip(FUNCTIONS, ("f(c)", "f(c, 0)"), strict=True):
        timers["cffi", function] = timer(call, getattr(lib, function), context)
        timers["cffi, guarded", function] = timer(call, getattr(guarded, function), context)
        timers["ctypes", function] = timer(call, getattr(library, function), address)
    return timers


def _import_ms() -> float:
    done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1e3
