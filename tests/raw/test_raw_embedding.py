"""examples/raw_embedding.py gives what rawllama.Embedder gives."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawllama import Embedder

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "raw_embedding.py"

TEXTS = [
    "The cat sits outside",
    "",
    "naïve café 東京 🦙",
    "a text of many words " * 60,
    "[not special] \t\n",
    *(f"text number {i}" for i in range(300)),  # more tokens than a batch takes, and more texts
]

# Flash attention rounds to half precision, and where depends on the other texts of the batch.
OTHER_BATCH = 5e-4


@pytest.fixture(scope="module")
def embed() -> Callable[..., Any]:
    function: Callable[..., Any] = runpy.run_path(str(EXAMPLE))["embed"]
    return function


def test_pooled(embed: Any, minilm: str) -> None:
    rows = embed(minilm, TEXTS, "model")
    with Embedder(minilm, kernels="ggml") as embedder:
        expected = embedder.encode(TEXTS)
        alone = np.concatenate([embedder.encode([text]) for text in TEXTS[:5]])
    assert rows.shape == (len(TEXTS), 384) and rows.dtype == np.float32
    assert np.abs(rows - expected).max() < OTHER_BATCH
    assert np.abs(np.concatenate([embed(minilm, [text], "model") for text in TEXTS[:5]]) - alone).max() < 1e-6
    assert np.abs(embed(minilm, TEXTS[:1], "mean") - alone[:1]).max() < 1e-6  # which is what the file says
    assert np.abs(embed(minilm, TEXTS[:1], "cls") - alone[:1]).max() > 1e-2


def test_one_row_a_token(embed: Any, minilm: str) -> None:
    rows = embed(minilm, TEXTS[:40], "none")
    with Embedder(minilm, pooling="none", kernels="ggml") as embedder:
        expected, offsets, _ = embedder.encode_tokens(TEXTS[:40], normalize="l2")
        alone = embedder.encode_tokens(TEXTS[:1], normalize="l2")[0]
    assert rows.shape == (offsets[-1], 384)
    assert np.abs(rows - expected).max() < OTHER_BATCH
    assert np.abs(embed(minilm, TEXTS[:1], "none") - alone).max() < 1e-6


@pytest.mark.parametrize(("pooling", "count"), [("mean", 2), ("none", 8)])
def test_command(embed: Any, minilm: str, pooling: str, count: int) -> None:
    command = [sys.executable, EXAMPLE, "--pooling", pooling, minilm, "one text", "and another"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    printed = [[float(number) for number in re.findall(r"-?\d\.\d+", line)] for line in done.stdout.splitlines()]
    rows = embed(minilm, ["one text", "and another"], pooling)
    assert len(printed) == len(rows) == count
    assert np.allclose(np.delete(rows, np.s_[3:-3], axis=1), printed, atol=2e-6)


def test_errors_say_what_is_wrong(minilm: str, tmp_path: Path) -> None:
    for arguments, message in (
        ([str(tmp_path / "none.gguf"), "text"], "unable to load the model"),
        ([minilm, "many words " * 400], "802 tokens: between 1 and 512"),
    ):
        done = subprocess.run([sys.executable, EXAMPLE, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_types(tmp_path: Path) -> None:
    """Checked outside the repository, where python/rawllama cannot be taken for the package."""
    command = [sys.executable, "-m", "mypy", "--strict", EXAMPLE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 120
