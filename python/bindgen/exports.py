"""The symbols that a built library really offers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# nm's letters for code and data that other libraries can use.
_DEFINED = frozenset("TWVDBRSCiu")


class ExportsError(RuntimeError):
    """A library's symbols could not be listed."""


def exported_symbols(nm: str, libraries: Iterable[Path]) -> set[str]:
    """Names that the shared libraries export, as C spells them.

    Parameters
    ----------
    nm
        The command: binutils' or LLVM's `nm`.
    libraries
        Paths of shared libraries (ELF or Mach-O).
    """
    return {name for library in libraries for name in _symbols(nm, library)}


def _symbols(nm: str, library: Path) -> set[str]:
    mach_o = sys.platform == "darwin"
    command = [nm, "-gU" if mach_o else "-D", str(library)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        raise ExportsError(f"{nm} is not installed; it comes with the compiler's binutils") from None
    if done.returncode != 0:
        raise ExportsError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    rows = (row.split() for row in done.stdout.splitlines())
    names = {row[-1].partition("@")[0] for row in rows if len(row) == 3 and row[1] in _DEFINED}
    return {name.removeprefix("_") for name in names} if mach_o else names
