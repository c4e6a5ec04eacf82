"""Models in several files: libllama finds the others by the name of the first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def number_of(name: str) -> int | None:
    """Which of the files it is, from 1 on; None for the only one."""
    found = _SPLIT.search(name)
    return int(found[1]) if found and len(all_of(name)) > 1 else None


def all_of(name: str) -> list[str]:
    """The names of all files of the model that this one belongs to."""
    found = _SPLIT.search(name)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        return [name]
    return [f"{name[: found.start()]}-{number:05}-of-{found[2]}.gguf" for number in range(1, int(found[2]) + 1)]


def files_of(paths: Sequence[str]) -> list[Path]:
    """All files of a model that was loaded from these; a whole one may have kept the name of a part."""
    files = [Path(name) for name in (all_of(paths[0]) if len(paths) == 1 else paths)]
    return files if all(file.exists() for file in files) else [Path(name) for name in paths]
