"""The README's commands and programs do what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_command_prints_what_the_readme_shows(minilm: str) -> None:
    command = re.search(r"&& rawllama (embed .*)", README)
    assert command is not None
    shown = README[command.end() :].partition("this appears:\n\n")[2].partition("\n\nThe tests")[0]
    expected = "\n".join(line.removeprefix("    ") for line in shown.splitlines())
    done = subprocess.run(
        [sys.executable, "-m", "rawllama", *shlex.split(command[1])], capture_output=True, text=True, check=True
    )
    # The last digits shown depend on the processor: its float16 and its vector width.
    numbers = r"-?\d+\.\d+"
    assert re.sub(numbers, "#", done.stdout.strip()) == re.sub(numbers, "#", expected)
    seen, said = (list(map(float, re.findall(numbers, text))) for text in (done.stdout, expected))
    assert seen == pytest.approx(said, abs=2e-3)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs_run(program: str, minilm: str, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").symlink_to(minilm)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_raw_program_gives_the_embedders_vector(minilm: str, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").symlink_to(minilm)
    raw = next(program for program in PROGRAMS if "llama_get_embeddings_seq" in program)
    check = """
import rawllama
with rawllama.Embedder("model.gguf") as embedder:
    expected = embedder.encode([text.decode()], normalize="none")[0]
assert np.abs(vector - expected).max() < 1e-3, (vector, expected)
"""
    subprocess.run([sys.executable, "-c", raw + check], cwd=tmp_path, check=True)
