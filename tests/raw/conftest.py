"""Child processes, C libraries made on the spot, and contexts for the tests of the raw layer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rawllama import ffi, lib

COMPILER = shutil.which(os.environ.get("CC", "cc"))


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a process of its own; `fails` lets it end with anything but 0."""

    def run(
        code: str, *args: object, fails: bool = False, timeout: float = 60, **env: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, args)]
        # gdb would take seconds to print what nobody reads when the library aborts.
        environment = {**os.environ, "GGML_NO_BACKTRACE": "1", **env}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        if not fails:
            assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a shared library, or a program, of C source."""
    assert COMPILER, "the tests need a C compiler, as the build does"

    def compile_(name: str, source: str, *options: str, shared: bool = True) -> Path:
        folder = tmp_path_factory.mktemp("c")
        (folder / "source.c").write_text(source)
        output = folder / name
        kind = ["-shared", "-fPIC"] if shared else []
        subprocess.run([COMPILER, *kind, "-O1", "-w", "-o", output, folder / "source.c", *options], check=True)
        return output

    return compile_


@pytest.fixture
def make_context(minilm: str) -> Iterator[Callable[..., Any]]:
    """Make contexts of one MiniLM; keywords are fields of llama_context_params."""
    model = lib.llama_model_load_from_file(minilm.encode(), lib.llama_model_default_params())
    assert model
    contexts = []

    def make(**fields: Any) -> Any:
        params = lib.llama_context_default_params()
        params.embeddings = True
        params.n_ctx = params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = 1
        for name, value in fields.items():
            setattr(params, name, value)
        contexts.append(lib.llama_init_from_model(model, params))
        assert contexts[-1]
        return contexts[-1]

    yield make
    for context in contexts:
        lib.llama_free(context)
    lib.llama_model_free(model)


@pytest.fixture
def make_batch() -> Iterator[Callable[..., Any]]:
    """Make a llama_batch that holds the same token again and again, in one sequence."""
    batches = []

    def make(count: int, token: int = 2023) -> Any:
        batch = lib.llama_batch_init(count, 0, 1)
        batches.append(batch)
        batch.n_tokens = count
        for i in range(count):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        return batch

    yield make
    for batch in batches:
        lib.llama_batch_free(batch)


@pytest.fixture(scope="session")
def log_callback() -> tuple[Any, Any]:
    """The C function that libllama and ggml log to, and its user data."""
    callback, data = ffi.new("ggml_log_callback *"), ffi.new("void **")
    lib.llama_log_get(callback, data)
    return callback[0], data[0]


@pytest.fixture(scope="session")
def say(log_callback: tuple[Any, Any]) -> Callable[[int, str | bytes], None]:
    """Log a part as libllama does: through the callback that is installed."""
    callback, data = log_callback

    def call(level: int, text: str | bytes) -> None:
        callback(level, text.encode() if isinstance(text, str) else text, data)

    return call
