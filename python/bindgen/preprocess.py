"""The compiler's own view of the headers: preprocessed text and macros."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_MARKER = re.compile(r'#\s*(?:line\s+)?(\d+)\s+"((?:[^"\\]|\\.)*)"')
_DEFINE = re.compile(r"#\s*define\s+(\w+)(\()?(.*)")


@dataclass(frozen=True)
class Macro:
    """A `#define`: its body, and whether it takes arguments."""

    name: str
    body: str
    has_arguments: bool
    path: Path
    line: int


@dataclass(frozen=True)
class Preprocessed:
    """Text of the wanted headers with `#line` directives, and their macros."""

    text: str
    macros: list[Macro]


class PreprocessError(RuntimeError):
    """The compiler could not preprocess the headers."""


def preprocess(
    compiler: Sequence[str], headers: Sequence[str], include: Sequence[Path], defines: Sequence[str] = ()
) -> Preprocessed:
    """Run the C preprocessor over `headers` and keep what stands below `include`.

    Parameters
    ----------
    compiler
        The command of a compiler that knows `-E -dD` (GCC, Clang), e.g. `["cc"]`.
    headers
        Names as in `#include`, e.g. `llama.h`.
    include
        Folders that hold the headers; text of files elsewhere (libc's) is dropped.
    defines
        `NAME` or `NAME=VALUE`, as for `-D`.
    """
    with tempfile.TemporaryDirectory(prefix="bindgen-") as folder:
        source = Path(folder) / "all.c"
        source.write_text("".join(f'#include "{header}"\n' for header in headers), encoding="ascii")
        command = [*compiler, "-E", "-dD", *(f"-I{path}" for path in include), *(f"-D{name}" for name in defines),
                   str(source)]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise PreprocessError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return _split(done.stdout, [path.resolve() for path in include])


def _split(output: str, folders: Sequence[Path]) -> Preprocessed:
    """Separate declarations from macros, for the files below `folders`."""
    text: list[str] = []
    macros: list[Macro] = []
    wanted: dict[str, Path | None] = {}
    path: Path | None = None
    line = 0
    for row in output.splitlines():
        if marker := _MARKER.match(row):
            name = marker[2]
            if name not in wanted:
                wanted[name] = _below(name, folders)
            path, line = wanted[name], int(marker[1])
            if path:
                text.append(f'#line {line} "{path}"')
            continue
        if path:
            if define := _DEFINE.match(row):
                macros.append(Macro(define[1], define[3].strip(), bool(define[2]), path, line))
                text.append("")
            else:
                text.append("" if row.lstrip().startswith("#") else row)
        line += 1
    return Preprocessed("\n".join(text) + "\n", macros)


def _below(name: str, folders: Sequence[Path]) -> Path | None:
    """The file's path if it stands below one of the folders."""
    path = Path(name).resolve()
    return path if any(path.is_relative_to(folder) for folder in folders) else None
