"""A model file with a random byte of its header changed ends in vectors or in a message, never in a dead process.

Many more tries, by hand: `python tests/cli/try_damaged.py MODEL SEED COUNT`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
