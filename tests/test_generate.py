"""examples/generate.py on a real decoder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent.parent / "examples" / "generate.py"
PROMPT = "The capital of France is"


def generate(model: Path, tokens: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(PROGRAM), str(model), PROMPT, str(tokens)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_it_goes_on_from_the_prompt(smollm2: Path) -> None:
    done = generate(smollm2, 12)
    assert done.stdout.startswith(PROMPT)
    assert len(done.stdout.removeprefix(PROMPT).split()) >= 4, "words"
    assert re.fullmatch(r"\d+ tokens after the prompt, \d+\.\d\d s\n", done.stderr)


def test_the_seed_decides(smollm2: Path) -> None:
    assert generate(smollm2, 12).stdout == generate(smollm2, 12).stdout


def test_it_is_short() -> None:
    assert len(PROGRAM.read_text(encoding="utf-8").splitlines()) < 40
