"""`rawllama inspect`: the report says what is so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rawllama import Model, tap

from tests.models import tiny


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny.write("llama", tmp_path / "llama.gguf")


def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rawllama", "inspect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_report(minilm: str) -> None:
    done = inspect(minilm)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["bert.embedding_length", "384"] in lines
    assert ["tokenizer.ggml.tokens", "30,522:", "[PAD],", "▁[unused0],", "▁[unused1],", "..."] in lines
    assert ["position_embd.weight", "f32", "512", "x", "384", "786,432"] in lines
    assert ["all", "101", "tensors", "22,565,376", "weights", "90,261,504", "bytes"] in lines
    assert any(line[:3] == ["CPU", "86.1", "MiB"] for line in lines)
    assert "graph" not in done.stdout


def test_for_programs(llama: Path) -> None:
    done = inspect(llama, "--json", "--graph", "--ctx", 128, "--type-k", "f32", "--flash-attention", "disabled")
    found = json.loads(done.stdout)
    assert found["metadata"]["general.architecture"] == "llama"
    assert len(found["metadata"]["tokenizer.ggml.tokens"]) > 50
    with Model(llama) as model:
        assert sum(one["bytes"] for one in found["tensors"]) == model.size
        names = [info.name for info in tap.names(model, flash_attn_type="disabled")]
    assert [one["name"] for one in found["graph"]] == names
    # n_ctx is rounded up to 256: two layers, two heads of 8 columns, keys of 4 bytes and values of 2.
    assert sum(one["context"] for one in found["memory"]) == 256 * 2 * 2 * 8 * (4 + 2)


def test_mistakes(tmp_path: Path, llama: Path) -> None:
    (tmp_path / "words.gguf").write_text("words")
    for path, words in ((tmp_path / "missing.gguf", "does not exist"), (tmp_path / "words.gguf", "not a GGUF file")):
        done = inspect(path)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
    done = inspect(llama, "--type-k", "q9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "type_k: 'q9' is none of" in done.stderr


def test_strings_that_are_not_utf8_are_shown(tmp_path: Path, llama: Path) -> None:
    data = llama.read_bytes()
    (tmp_path / "odd.gguf").write_bytes(data.replace(b"tiny llama", b"tiny \xff\xfeama"))
    done = inspect(tmp_path / "odd.gguf")
    assert done.returncode == 0
    assert r"tiny \udcff\udcfeama" in done.stdout
