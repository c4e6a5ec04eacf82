"""rawllama's own source tree, which wheels are built from."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from rawllama.errors import DownloadError, InvalidArgumentError

_MARKS = ("pyproject.toml", "CMakeLists.txt", "vendor/llama.cpp.toml", "python/rawllama")


def find(given: str | None, version: str, cache: Path) -> Path:
    """The tree: a folder or a source distribution that was named, the current folder, or what PyPI has of this version.

    Raises
    ------
    InvalidArgumentError
        What was named is no source of rawllama.
    DownloadError
        The index has none of this version.
    """
    if given is not None:
        path = Path(given).absolute()
        if path.is_file() and path.name.endswith(".tar.gz"):
            return _unpack(path, cache)
        if not is_source(path):
            raise InvalidArgumentError(f"source: {given} is neither rawllama's source tree nor its .tar.gz")
        return path
    return Path.cwd() if is_source(Path.cwd()) else _download(version, cache)


def is_source(folder: Path) -> bool:
    """Whether it is the top of rawllama's tree."""
    return all((folder / mark).exists() for mark in _MARKS)


def _download(version: str, cache: Path) -> Path:
    requirement = f"rawllama=={version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "rawllama", "--no-build-isolation",
               "-d", str(cache), requirement]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(cache.glob(f"rawllama-{version}.tar.gz"))
    if done.returncode or not archives:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise DownloadError(
            f"the source of {requirement} is not in the package index (pip says: {said}); run this in a clone of "
            "rawllama, or name one with --source"
        )
    return _unpack(archives[0], cache)


def _unpack(archive: Path, cache: Path) -> Path:
    """Unpack it once, so that build folders inside are kept."""
    folder = cache / archive.name.removesuffix(".tar.gz")
    if not is_source(folder):
        cache.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            tar.extractall(cache, filter="data")
    if not is_source(folder):
        raise InvalidArgumentError(f"source: {archive} holds no source tree of rawllama")
    return folder
