"""C programs to compare with: llama.cpp's examples, from the pinned source, and our own few lines.

All of them run with the libraries of the installed rawllama: the same libllama on both sides, compiled once, with the
same flags. They are built when they are first wanted and kept in rawllama's cache folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from rawllama import INCLUDE, LIBRARIES, backend
from rawllama.errors import LlamaError
from rawllama.hub import cache_folder
from rawllama.paths import PACKAGE, search_path

#: llama.cpp's programs that can be built.
EXAMPLES = ("llama-embedding", "llama-bench", "llama-batched-bench")
FOLDER = Path(__file__).parent / "c"
# Put there by CMakeLists.txt: what brings the pinned source, and the pin.
_FETCH, _PIN = PACKAGE / "fetch.py", PACKAGE / "llama.cpp.toml"


class BuildError(LlamaError):
    """A C program could not be built; the message has the tool's own words."""


def environment() -> dict[str, str]:
    """The environment in which the programs find their libraries."""
    name = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
    return {**os.environ, name: str(LIBRARIES)}


def why_not() -> str:
    """Why llama.cpp's programs cannot be built for this rawllama; empty if they can."""
    if not LIBRARIES.is_dir():
        return "rawllama was built on a libllama of the system"
    if not _pinned().startswith(backend.build()["commit"] or "none"):
        return "rawllama was built from another llama.cpp than the pinned one"
    return ""


def source() -> Path:
    """Where the pinned source is, once an example has been built."""
    return cache_folder() / "programs" / f"llama.cpp-{_pinned()[:9]}"


def example(name: str, build_type: str = "Release") -> Path:
    """The path of one of `EXAMPLES`, built if it is not there.

    Raises
    ------
    BuildError
        The source cannot be brought, or a tool is missing, or fails; or rawllama has the system's libllama.
    """
    if reason := why_not():
        raise BuildError(f"{name}: {reason}; use that one's {name}")
    folder = source().with_name(f"{source().name}-{build_type}")
    # CMake keeps to one source folder; each installation has its own, and all use this copy.
    project = source().with_name(f"{source().name}-cmake")
    project.mkdir(parents=True, exist_ok=True)
    with _Lock(source().with_name("lock")):
        _run(name, [sys.executable, _FETCH, "--pin", _PIN, "--destination", source()])
        shutil.copy(FOLDER / "CMakeLists.txt", project)
        _configure(name, project, folder, build_type)
        _run(name, ["cmake", "--build", folder, "--target", name, f"-j{os.cpu_count()}"])
    return folder / name


def compile_c(file: Path, folder: Path) -> Path:
    """A C program of one file, with the installed libllama.

    Raises
    ------
    BuildError
        There is no compiler, or it refuses the file.
    """
    libraries = sorted(LIBRARIES.glob("librawllama-*")) if LIBRARIES.is_dir() else []
    if not libraries:
        raise BuildError(f"{file.name}: rawllama was built on a libllama of the system; this is for its own")
    output = folder / file.stem
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I", INCLUDE, f"-Wl,-rpath,{LIBRARIES}"]
    _run(file.name, [os.environ.get("CC", "cc"), *options, "-o", output, file, *libraries, "-lm"])
    return output


def _configure(name: str, project: Path, folder: Path, build_type: str) -> None:
    """Configure the build, from nothing if need be: what an earlier rawllama or environment left may not fit."""
    command = ["cmake", "-G", "Ninja", "-S", project, "-B", folder, f"-DCMAKE_BUILD_TYPE={build_type}",
               # What an earlier environment had is in CMake's cache, and may be gone: all paths are given anew.
               f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}", f"-DLLAMA_SOURCE={source()}",
               f"-DRAWLLAMA_LIBRARIES={LIBRARIES}"]  # fmt: skip
    try:
        _run(name, command)
    except BuildError:
        if not folder.exists():
            raise
        shutil.rmtree(folder)
        _run(name, command)


def _pinned() -> str:
    """The commit of the pinned source."""
    commit: str = tomllib.loads(_PIN.read_text(encoding="utf-8"))["upstream"]["commit"]
    return commit


def _tool(name: str) -> str:
    if found := shutil.which(name, path=search_path()):
        return found
    remedy = "set CC" if name == os.environ.get("CC", "cc") else "pip install 'rawllama[bench]'"
    raise BuildError(f"{name} is not there to build C programs with: {remedy}")


def _run(name: str, command: Sequence[object]) -> None:
    tool = str(command[0])
    words = [tool if Path(tool).is_absolute() else _tool(tool), *map(str, command[1:])]
    done = subprocess.run(words, env={**os.environ, "PATH": search_path()}, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-20:])
        raise BuildError(f"{name} could not be built; {Path(words[0]).name} says:\n{said}")


class _Lock:
    """One process at a time builds; others wait."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()
