"""The compiler's own view of the headers: preprocessed text and macros."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_MARKER = re.compile(r'#\s*(?:line\s+)?(\d+)\s+"((?:[^"\\]|\\.)*)"(.*)')
_DEFINE = re.compile(r"#\s*define\s+(\w+)(\()?(.*)")
_UNDEF = re.compile(r"#\s*undef\s+(\w+)")


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
        Folders that hold the headers; text of files elsewhere (libc's) is dropped. In a folder that
        the compiler searches anyway (/usr/include), only `headers` are kept.
    defines
        `NAME` or `NAME=VALUE`, as for `-D`.
    """
    with tempfile.TemporaryDirectory(prefix="bindgen-") as folder:
        source = Path(folder) / "all.c"
        source.write_text("".join(f'#include "{header}"\n' for header in headers), encoding="ascii")
        command = [*compiler, "-E", "-dD", *(f"-I{path}" for path in include), *(f"-D{name}" for name in defines),
                   str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        except FileNotFoundError:
            raise PreprocessError(f"{command[0]} is not installed; give a C compiler's command") from None
    if done.returncode != 0:
        raise PreprocessError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return _split(done.stdout, headers, [path.resolve() for path in include])


def _split(output: str, headers: Sequence[str], folders: Sequence[Path]) -> Preprocessed:
    """Separate declarations from macros, for the wanted files."""
    text: list[str] = []
    macros: dict[str, Macro] = {}
    wanted: dict[str, Path | None] = {}
    path: Path | None = None
    line = 0
    for row in output.split("\n"):
        if marker := _MARKER.match(row):
            name = marker[2]
            if name not in wanted:
                wanted[name] = _wanted(name, "3" in marker[3].split(), headers, folders)
            path, line = wanted[name], int(marker[1])
            if path:
                text.append(f'#line {line} "{path}"')
            continue
        if path:
            if define := _DEFINE.match(row):
                macros[define[1]] = Macro(define[1], define[3].strip(), bool(define[2]), path, line)
            elif undef := _UNDEF.match(row):
                macros.pop(undef[1], None)
            text.append("" if row.lstrip().startswith("#") else row)
        line += 1
    return Preprocessed("\n".join(text) + "\n", list(macros.values()))


def _wanted(name: str, system: bool, headers: Sequence[str], folders: Sequence[Path]) -> Path | None:
    """The file's path if it stands below one of the folders; a system header must be asked for by its name."""
    if name.startswith("<"):  # <built-in>, <command-line>
        return None
    path = Path(name).resolve()
    below = [path.relative_to(folder).as_posix() for folder in folders if path.is_relative_to(folder)]
    return path if below and (not system or any(one in headers for one in below)) else None
