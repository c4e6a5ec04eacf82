"""What a raw call costs through rawllama's cffi module and through ctypes, and what the import costs.

    python benchmarks/raw_calls.py

Both call the same library file in the same process. The rounds alternate, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import sys
from collections.abc import Callable
from timeit import Timer
from typing import Any

from rawllama import LIBRARIES, ffi, hub, lib

IMPORT = """
import sys, time
before = time.perf_counter()
import rawllama
print(time.perf_counter() - before, "numpy" in sys.modules)
"""


def empty() -> None:
    """The least that a call costs in Python."""


def make_context(path: str) -> Any:
    """A context with one pooled row in it. It is never freed: the process ends."""
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.embeddings = True
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    context = lib.llama_init_from_model(model, params)
    tokens = ffi.new("llama_token[]", [101, 102])
    if lib.llama_decode(context, lib.llama_batch_get_one(tokens, 2)) != 0:
        sys.exit("llama_decode failed")
    return context


def open_with_ctypes() -> ctypes.CDLL:
    """The library that `lib` uses, typed by hand."""
    library = ctypes.CDLL(str(next(LIBRARIES.glob("*rawllama-llama.*"))))
    library.llama_n_ctx.argtypes = [ctypes.c_void_p]
    library.llama_n_ctx.restype = ctypes.c_uint32
    library.llama_get_embeddings_seq.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.llama_get_embeddings_seq.restype = ctypes.POINTER(ctypes.c_float)
    return library


def make_calls(path: str) -> dict[tuple[str, str], Timer]:
    """What is timed, by function and by way."""
    context = make_context(path)
    library, address = open_with_ctypes(), ctypes.c_void_p(int(ffi.cast("uintptr_t", context)))
    if library.llama_n_ctx(address) != lib.llama_n_ctx(context):
        sys.exit("the two ways do not reach the same library")
    if library.llama_get_embeddings_seq(address, 0)[0] != lib.llama_get_embeddings_seq(context, 0)[0]:
        sys.exit("the two ways do not give the same row")

    def timer(call: str, function: Callable[..., Any], argument: object = None) -> Timer:
        return Timer(call, globals={"f": function, "c": argument})

    return {
        ("empty function", "Python"): timer("f()", empty),
        ("llama_n_ctx", "cffi"): timer("f(c)", lib.llama_n_ctx, context),
        ("llama_n_ctx", "ctypes"): timer("f(c)", library.llama_n_ctx, address),
        ("llama_get_embeddings_seq", "cffi"): timer("f(c, 0)", lib.llama_get_embeddings_seq, context),
        ("llama_get_embeddings_seq", "ctypes"): timer("f(c, 0)", library.llama_get_embeddings_seq, address),
    }


def time_calls(calls: dict[tuple[str, str], Timer], rounds: int, count: int) -> dict[tuple[str, str], float]:
    """Nanoseconds a call, the median of the rounds."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            seconds[key].append(call.timeit(count))
    return {key: statistics.median(times) / count * 1e9 for key, times in seconds.items()}


def time_import(count: int) -> tuple[float, float, bool]:
    """Median and largest milliseconds of `import rawllama` in a new process, and whether numpy came with it."""
    printed = [
        subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True) for _ in range(count)
    ]
    times = [float(one.stdout.split()[0]) * 1e3 for one in printed]
    return statistics.median(times), max(times), any("True" in one.stdout for one in printed)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="Time raw calls through cffi and ctypes, and the import.")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--calls", type=int, default=100_000, help="in a round")
    parser.add_argument("--imports", type=int, default=10)
    parser.add_argument("--model", default="minilm")
    options = parser.parse_args()

    times = time_calls(make_calls(str(hub.resolve(options.model))), options.rounds, options.calls)
    print(f"{options.rounds} rounds of {options.calls} calls, median, Python {sys.version.split()[0]}")
    print(f"{'':26}{'cffi':>10}{'ctypes':>10}   cffi / ctypes")
    print(f"{'empty Python function':26}{times['empty function', 'Python']:7.0f} ns")
    for name in ("llama_n_ctx", "llama_get_embeddings_seq"):
        cffi, by_ctypes = times[name, "cffi"], times[name, "ctypes"]
        print(f"{name:26}{cffi:7.0f} ns{by_ctypes:7.0f} ns   {cffi / by_ctypes:.2f}")
    median, largest, with_numpy = time_import(options.imports)
    numpy = "with numpy" if with_numpy else "numpy is not imported"
    print(
        f"import rawllama: {median:.0f} ms, median of {options.imports} processes (largest {largest:.0f} ms), {numpy}"
    )


if __name__ == "__main__":
    main()
