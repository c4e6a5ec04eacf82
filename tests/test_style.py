"""The linters and the type checker, with pyproject.toml's settings."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["mypy", "-p", "rawllama"],  # the installed package, as users' checkers see it
        ["mypy", "python/bindgen", "vendor/fetch.py"],
    ],
    ids=" ".join,
)
def test_clean(command: list[str], tmp_path: Path) -> None:
    environment_python = [sys.executable, "-m", *command]
    if "-p" in command:  # outside the repository, where python/rawllama cannot be taken for the package
        environment_python += ["--strict"]
    cwd = tmp_path if "-p" in command else ROOT
    done = subprocess.run(environment_python, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
