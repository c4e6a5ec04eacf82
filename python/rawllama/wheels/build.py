"""pip builds the wheel, in a folder that is kept for this set of options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from rawllama.errors import LlamaError, MissingExtraError
from rawllama.paths import search_path

from .variant import Variant

_NINJA = re.compile(r"\[(\d+)/(\d+)\]")
# Where CMake says what is missing, and what ends that; and the first error of a compiler.
_CMAKE_ERROR = re.compile(r"^ *CMake Error.*?(?=^ *(?:Call Stack|-- |\*\*\*|$^ *$))", re.MULTILINE | re.DOTALL)
_COMPILER_ERROR = re.compile(r"^.*(?:fatal )?error: (?!subprocess).*$", re.MULTILINE)


class BuildError(LlamaError):
    """A wheel could not be built; the message has the words of what failed."""


def build(variant: Variant, source: Path, output: Path, environment: Mapping[str, str]) -> Path:
    """The wheel that pip makes of it; all that is printed meanwhile goes to build.log in the build folder.

    Parameters
    ----------
    environment
        Variables that are set beside this process's.

    Raises
    ------
    BuildError
        Something is missing, or does not compile.
    """
    folder = source / "build" / variant.folder
    folder.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--verbose", "--wheel-dir", str(output), str(source),
               "--config-settings", f"build-dir={folder}"]  # fmt: skip
    for name, value in variant.definitions().items():
        command += ["--config-settings", f"cmake.define.{name}={value}"]
    log = folder / "build.log"
    status = _run(command, log, environment)
    text = log.read_text(encoding="utf-8", errors="replace")
    if status:
        raise BuildError(f"{_reason(text)}\nThe whole log: {log}")
    found = re.search(r"filename=(rawllama-\S+\.whl)", text)
    if found is None:
        raise BuildError(f"pip did not say which wheel it made: {log}")
    return output / found[1]


def _run(command: list[str], log: Path, environment: Mapping[str, str]) -> int:
    """Run it with a bar; its exit status."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise MissingExtraError("rawllama wheel needs more packages: pip install 'rawllama[wheel]'") from error
    merged = {**os.environ, "PATH": search_path(), **environment}
    with (
        log.open("w", buffering=1, encoding="utf-8") as file,
        tqdm(desc="building", unit=" files", disable=None, leave=False) as bar,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                         env=merged) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if step := _NINJA.search(line):
                bar.total = int(step[2])
                bar.update(int(step[1]) - bar.n)
    return process.returncode


def _reason(text: str) -> str:
    """What went wrong, of a build's log."""
    if found := _CMAKE_ERROR.search(text):
        return "\n".join(line.strip() for line in found[0].strip().splitlines())
    if errors := _COMPILER_ERROR.findall(text):
        return "\n".join(errors[:3])
    return "\n".join(text.strip().splitlines()[-15:])
