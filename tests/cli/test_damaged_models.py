"""A model file with a random byte of its header changed ends in vectors or in a message, never in a dead process.

Many more tries, by hand: `python tests/cli/try_damaged.py MODEL SEED COUNT`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

TRY = Path(__file__).parent / "try_damaged.py"


def tries(model: str, seed: int, count: int) -> list[dict[str, Any]]:
    """What became of each try."""
    # ggml asks gdb for a backtrace when it aborts, which takes longer than all the rest.
    env = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    command = [sys.executable, TRY, model, str(seed), str(count)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("model", "seed", "count"), [("tiny", 1, 240), ("minilm", 2, 60)])
def test_no_damage_kills(model: str, seed: int, count: int, request: pytest.FixtureRequest) -> None:
    results = tries(request.getfixturevalue(model), seed, count)
    assert len(results) == count
    for result in results:
        assert result["signal"] is None, result
        assert result["status"] in (0, 1), result
        assert "Traceback" not in result["message"], result
        if result["status"] == 1:
            assert result["message"].startswith("rawllama: "), result
            assert len(result["message"]) > len("rawllama: \n"), result
    # Neither harmless bytes only nor a file that never loads.
    refused = sum(result["status"] for result in results)
    assert 0.2 * count < refused < 0.9 * count
    assert {result["part"] for result in results} == {"keys and values", "arrays", "tensor infos"}


# ---- what such tries have found: ggml's threads ended the process, or it computed with integers as addresses

I32 = int(gguf.GGMLQuantizationType.I32)


@pytest.fixture
def damage(tiny: str, tmp_path: Path) -> Callable[[str, int, int], str]:
    """Change one byte of a tensor's type, or of a number under a key; return the file's path."""

    def call(name: str, byte: int, value: int) -> str:
        path = tmp_path / "damaged.gguf"
        shutil.copy(tiny, path)
        reader = gguf.GGUFReader(path)
        tensors = {tensor.name: tensor.field for tensor in reader.tensors}
        # Of a tensor: its name's length, the name, the rank, the shape, the type, the offset.
        field, part = (tensors[name], 4) if name in tensors else (reader.fields[name], 3)
        position = field.offset + sum(piece.nbytes for piece in field.parts[:part]) + byte
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes([value]))
        return str(path)

    return call


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ("token_embd.weight", I32),
        ("position_embd.weight", I32),
        ("token_types.weight", I32),
        ("blk.0.attn_q.weight", I32),
        ("blk.1.ffn_down.weight", I32),
        ("blk.0.attn_k.bias", I32),
        ("blk.0.attn_output_norm.weight", I32),
        ("blk.1.layer_output_norm.bias", int(gguf.GGMLQuantizationType.F16)),  # the file's last: less is no loss
    ],
)
def test_types_that_cannot_be_computed_with(
    tensor: str, kind: int, damage: Callable[[str, int, int], str], embed: Callable[..., Any]
) -> None:
    done = embed("--model", damage(tensor, 0, kind), "--threads", "2", "hello world", status=1)
    assert f"is damaged: the tensor {tensor} cannot be of the type".encode() in done.stderr


@pytest.mark.parametrize(("byte", "value"), [(3, 0xAB), (3, 0xFF)], ids=["negative", "not a number"])
def test_epsilon(byte: int, value: int, damage: Callable[[str, int, int], str], embed: Callable[..., Any]) -> None:
    key = "bert.attention.layer_norm_epsilon"
    done = embed("--model", damage(key, byte, value), "--threads", "2", "hello world", status=1)
    assert f"is damaged: {key} cannot be".encode() in done.stderr
