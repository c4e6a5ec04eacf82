"""What all tests share: the models."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rawllama.bench import decoder

from .models import tiny as tiny_models


@pytest.fixture(scope="session")
def minilm() -> str:
    """Path of all-MiniLM-L6-v2 in F32: an encoder with 512 positions and 384 columns, mean pooling."""
    from rawllama import hub

    return str(hub.resolve("minilm"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a small random model, by its name in tests/models/tiny.py; "llama-lora" is an adapter for "llama"."""
    folder = tmp_path_factory.mktemp("tiny")

    def path(name: str) -> Path:
        file = folder / f"{name}.gguf"
        if file.exists():
            return file
        return tiny_models.write_lora(file) if name == "llama-lora" else tiny_models.write(name, file)

    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Path of SmolLM2-135M-Instruct in Q4_1: a decoder with 8192 positions and 576 columns."""
    return decoder.path()


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command sets handlers for its process; called in this one, it must not leave them behind."""
    numbers = [signal.SIGTERM, *([signal.SIGPIPE] if hasattr(signal, "SIGPIPE") else [])]
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
