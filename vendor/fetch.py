#!/usr/bin/env python3
"""Bring the pinned llama.cpp to vendor/llama.cpp/.

pip downloads a source distribution by its hash into the user's cache folder; from there only the pinned
paths are unpacked. The tree appears under its name in one rename, complete and stamped, or not at all. Where
it is there already, nothing is written. Needs the standard library and, for the download, pip.
"""

from __future__ import annotations

import argparse
import errno
import filecmp
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

HERE = Path(__file__).resolve().parent
STAMP = ".rawllama-pin"
COMPARE = "Compare it with llama.cpp.toml in the repository."
BROKEN_ARCHIVE = (tarfile.TarError, EOFError, zlib.error)
NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota error
NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


class FetchError(Exception):
    """What went wrong and what to do about it, for a person to read."""


@dataclass(frozen=True)
class Pin:
    """What llama.cpp.toml says."""

    distribution: str
    version: str
    sha256: str
    size: int  # bytes
    folder: PurePosixPath
    repository: str
    commit: str
    paths: tuple[PurePosixPath, ...]

    @property
    def archive(self) -> str:
        """File name that the index gives the source distribution."""
        return f"{self.distribution.replace('-', '_')}-{self.version}.tar.gz"

    @property
    def title(self) -> str:
        """Name for messages."""
        return f"{self.repository}@{self.commit[:9]} ({self.distribution} {self.version})"

    @property
    def stamp(self) -> dict[str, Any]:
        """Identity of a tree made from this pin; two pins with the same values have the same."""
        return {
            "distribution": self.distribution,
            "version": self.version,
            "commit": self.commit,
            "pin": hashlib.sha256(repr(self).encode()).hexdigest(),
        }


def read_pin(file: Path) -> Pin:
    """Read llama.cpp.toml or a file like it."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        source, upstream = table["source"], table["upstream"]
        return Pin(
            distribution=source["distribution"],
            version=source["version"],
            sha256=source["sha256"],
            size=source["size"],
            folder=PurePosixPath(source["folder"]),
            repository=upstream["repository"],
            commit=upstream["commit"],
            paths=tuple(PurePosixPath(path) for path in table["unpack"]["paths"]),
        )
    except FileNotFoundError:
        raise FetchError(f"There is no pin file {file}. Name one with --pin.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FetchError(f"The pin file {file} is not TOML: {error}. {COMPARE}") from None
    except (KeyError, TypeError) as error:
        raise FetchError(f"The pin file {file} lacks a value or has a wrong one: {error}. {COMPARE}") from None


# The tree


def count_files(tree: Path, paths: tuple[PurePosixPath, ...]) -> int:
    """Count the files below the pinned paths. What a user adds beside them, a build folder say, does not count."""
    total = 0
    for path in paths:
        place = tree / path
        total += 1 if place.is_file() else sum(len(files) for _, _, files in os.walk(place))
    return total


def is_whole(tree: Path, pin: Pin) -> bool:
    """Whether `tree` was made from `pin` and still has its files.

    Counting takes milliseconds and notices what was deleted. What was edited or added is somebody's work.
    """
    try:
        stamp = json.loads((tree / STAMP).read_text(encoding="utf-8"))
        files = stamp.pop("files")
        return bool(stamp == pin.stamp and count_files(tree, pin.paths) >= files)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, AttributeError, TypeError):
        return False


def check_replaceable(tree: Path, pin: Pin) -> None:
    """Refuse to remove what is not ours: a file, or a folder without stamp that holds unpinned paths."""
    if not tree.exists():
        return
    ours = {path.parts[0] for path in pin.paths}
    if tree.is_dir() and ((tree / STAMP).exists() or ours.issuperset(entry.name for entry in tree.iterdir())):
        return
    raise FetchError(
        f"{tree} was not made by this script, so it is not replaced.\n"
        "Move it away or name another place with --destination.\n"
        "vendor/README.md says how to build a llama.cpp of your own."
    )


def select(archive: tarfile.TarFile, pin: Pin) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    """Yield the members to unpack with their places in the tree; fail where a pinned path has none."""
    missing = set(pin.paths)
    for member in archive:
        parts = PurePosixPath(member.name).parts[1:]  # the top folder carries the version
        if parts[: len(pin.folder.parts)] != pin.folder.parts or member.isdir():
            continue
        place = PurePosixPath(*parts[len(pin.folder.parts) :])
        # No build needs a dot file, and a .gitignore would hide sources from tools that pack them again.
        wanted = [path for path in pin.paths if place.is_relative_to(path)]
        if wanted and not any(part.startswith(".") and part != ".." for part in place.parts):
            missing.difference_update(wanted)
            yield member, place
    if missing:
        names = ", ".join(sorted(str(path) for path in missing))
        raise FetchError(f"{pin.archive} has no {names} in {pin.folder}. Correct `paths` or `folder` in the pin.")


def unpack(file: Path, pin: Pin, tree: Path) -> None:
    """Unpack the pinned paths, and nothing that is not a plain file."""
    if not hasattr(tarfile, "data_filter"):
        raise FetchError("This Python cannot unpack safely: 3.11.4 or later is needed.")
    try:
        with tarfile.open(file, "r:gz") as archive:
            for member, place in select(archive, pin):
                if not member.isreg() or ".." in place.parts:
                    raise FetchError(f"{file} holds {member.name}, a link or a way out. Do not use this file.")
                # The archive has one time for every file of every version, which would tell a build that
                # nothing changed. Without it (None) each file is as new as this run.
                plain = member.replace(name=str(place), mtime=None, deep=False)  # type: ignore[arg-type]
                archive.extract(plain, tree, filter="data")
    except BROKEN_ARCHIVE as error:
        raise FetchError(
            f"{file} has the pinned hash but cannot be read as tar.gz: {error}. Correct the pin."
        ) from None


def keep_times(new: Path, old: Path) -> None:
    """Give what is the same in both trees its old time, so that a build makes only what changed."""
    for folder, _, names in os.walk(new):
        for name in names:
            file = Path(folder, name)
            before = old / file.relative_to(new)
            if before.is_file() and filecmp.cmp(file, before, shallow=False):
                times = before.stat()
                os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def write_stamp(tree: Path, pin: Pin) -> int:
    """Write the stamp, last, once all before it is on the disk; returns the number of files."""
    files = count_files(tree, pin.paths)
    if sys.platform != "win32":
        os.sync()  # one call for all files; a power cut must not leave the stamp without them
    with (tree / STAMP).open("w", encoding="utf-8") as file:
        file.write(json.dumps({**pin.stamp, "files": files}, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return files


def make_tree(archive: Path, pin: Pin, destination: Path, work: Path) -> int:
    """Unpack beside `destination` and rename into place; returns the number of files.

    Killed at any point, `destination` is the old tree, no tree, or the new one.
    """
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=work) as folder:
        new, old = Path(folder, "new"), Path(folder, "old")
        new.mkdir()
        unpack(archive, pin, new)
        if destination.exists():
            keep_times(new, destination)
        files = write_stamp(new, pin)
        if destination.exists():
            destination.rename(old)
        new.rename(destination)
    return files


# The archive


def cache_folder() -> Path:
    """Find the folder for archives: the user's choice, else what the platform has for caches."""
    if own := os.environ.get("RAWLLAMA_CACHE"):
        return Path(own).expanduser().absolute()
    try:
        home = Path.home()
    except RuntimeError:
        raise FetchError("There is no home folder to cache in. Set RAWLLAMA_CACHE to a folder.") from None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(base, "rawllama")


def find_fault(archive: Path, pin: Pin) -> str | None:
    """Say what is wrong with the file; None for the pinned one."""
    if (size := archive.stat().st_size) != pin.size:
        return f"{archive} has {size:,} bytes, not {pin.size:,} as pinned: it is cut short or another file."
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != pin.sha256:
        return f"{archive} is damaged or another file: its sha256 is\n  {digest}, not\n  {pin.sha256} as pinned."
    return None


def pip_download(pin: Pin) -> list[str]:
    """Begin the command that downloads, for this script and for a person alike."""
    # Not `--no-binary :all:`: pip prepares metadata even for what it only downloads, and would build the
    # tools for that from source too (45 seconds instead of 5).
    return ["-m", "pip", "download", "--no-deps", "--no-binary", pin.distribution]


def by_hand(pin: Pin) -> str:
    """Tell how to bring the archive without this script."""
    command = " ".join(["python", *pip_download(pin), f"{pin.distribution}=={pin.version}"])
    return (
        f"On a machine with network run\n  {command}\n"
        f"then either copy {pin.archive} to\n  {cache_folder() / pin.archive}\n"
        f"or run\n  python {Path(__file__).resolve()} --archive {pin.archive}"
    )


def run_pip(pin: Pin, folder: Path) -> None:
    """Let pip put the archive into `folder`."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"{sys.executable} has no pip, which does the download. Run\n  {sys.executable} -m ensurepip\n"
            f"or do without. {by_hand(pin)}"
        )
    wanted = folder / "requirement.txt"
    wanted.write_text(f"{pin.distribution}=={pin.version} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    what = ["--require-hashes", "-r", str(wanted), "-d", str(folder)]
    how = ["--progress-bar", "off", "--disable-pip-version-check", "--no-input"]
    pip = subprocess.run(
        [sys.executable, *pip_download(pin), *what, *how],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if pip.returncode:
        tail = "\n".join(f"  | {line}" for line in pip.stdout.splitlines()[-12:])
        raise FetchError(f"pip could not download {pin.archive}:\n{tail}\n{remedy(pip.stdout, pin)}")


def remedy(output: str, pin: Pin) -> str:
    """Tell what to do after pip failed with `output`."""
    if "DO NOT MATCH THE HASHES" in output:
        return (
            "The index has another file than the pin names. If you moved the pin, correct its sha256\n"
            "(vendor/README.md). Otherwise do not use that file, and tell the project."
        )
    if os.strerror(errno.ENOSPC) in output:
        return f"Make room in {tempfile.gettempdir()} (or set TMPDIR) and in {cache_folder()}."
    return f"Is there a network, and does pip need a proxy or an index? {by_hand(pin)}"


def download(pin: Pin, cache: Path) -> None:
    """Put the archive into the cache, in one rename."""
    print(f"downloading {pin.archive} ({pin.size / 1e6:.0f} MB) with pip", flush=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as folder:
        run_pip(pin, Path(folder))
        archive = Path(folder, pin.archive)
        if not archive.exists():
            raise FetchError(f"pip brought no {pin.archive}. Correct `distribution` in the pin.")
        if fault := find_fault(archive, pin):
            raise FetchError(f"{fault}\nCorrect `size` in the pin.")
        archive.replace(cache / pin.archive)


def cached_archive(pin: Pin) -> Path:
    """Return the archive in the cache, bringing it there if need be."""
    cache = cache_folder()
    archive = cache / pin.archive
    if archive.exists() and not find_fault(archive, pin):
        return archive  # before the lock: a cache may be read-only
    with locked(cache):
        fault = find_fault(archive, pin) if archive.exists() else None
        if fault:
            print(f"{fault}\nIt is deleted.", flush=True)
            archive.unlink()
        if not archive.exists():
            download(pin, cache)
    return archive


def given_archive(archive: Path, pin: Pin) -> Path:
    """Return the archive that was named on the command line, if it is the pinned one."""
    if not archive.is_file():
        raise FetchError(f"There is no file {archive}. {by_hand(pin)}")
    if fault := find_fault(archive, pin):
        raise FetchError(f"{fault}\n{by_hand(pin)}\nIf the pin is what should change, see vendor/README.md.")
    return archive


# Several runs at once


if sys.platform == "win32":
    import msvcrt

    def acquire(descriptor: int) -> None:
        """Wait for the lock."""
        while True:
            try:
                return msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
            except OSError as error:
                if error.errno != errno.EDEADLOCK:  # that one says that ten seconds went by
                    raise

else:
    import fcntl

    def acquire(descriptor: int) -> None:
        """Wait for the lock."""
        fcntl.flock(descriptor, fcntl.LOCK_EX)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time works in `folder`, and what killed ones left there is removed.

    The kernel releases the lock of a process that ends, however it ends: no lock outlives its holder, and
    whoever has it knows that no temporary folder is in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as file:
        acquire(file.fileno())
        for leftover in [*folder.glob("unpack-*"), *folder.glob("download-*")]:
            shutil.rmtree(leftover)
        yield


# The command


def fetch(pin: Pin, destination: Path, archive: Path | None) -> None:
    """Make the tree at `destination` what the pin says, if it is not."""
    if is_whole(destination, pin):
        print(f"{destination} is {pin.title} already: nothing to do")
        return
    work = destination.parent / f".{destination.name}.fetch"  # beside the tree, so that a rename is enough
    with locked(work):
        (work / ".gitignore").write_text("*\n", encoding="utf-8")
        if is_whole(destination, pin):
            print(f"{destination} is {pin.title} now: another run made it")
            return
        check_replaceable(destination, pin)
        source = given_archive(archive, pin) if archive else cached_archive(pin)
        files = make_tree(source, pin, destination, work)
    print(f"{destination} is {pin.title}: {files} files")


def explain(error: OSError) -> str:
    """Add a way out to an error of the operating system."""
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in NO_SPACE:
        return f"{what}. Make room: 80 MB in {cache_folder()} and 50 MB beside the destination."
    if error.errno in NO_PERMISSION:
        return (
            f"{what}. Change the permissions, or use other folders:\n"
            "RAWLLAMA_CACHE=/some/folder for the archive, --destination /some/folder for the tree."
        )
    return what


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Bring the pinned llama.cpp, once.")
    add = parser.add_argument
    add("--destination", type=Path, default=HERE / "llama.cpp", metavar="DIR", help="default: %(default)s")
    add("--archive", type=Path, metavar="FILE", help="take this source distribution, do not download")
    add("--pin", type=Path, default=HERE / "llama.cpp.toml", metavar="FILE", help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    """Run the command; what can be foreseen to fail ends in one message and status 1."""
    arguments = parse_arguments()
    try:
        try:
            fetch(read_pin(arguments.pin), arguments.destination.resolve(), arguments.archive)
        except OSError as error:
            raise FetchError(explain(error)) from None
    except FetchError as error:
        sys.exit(f"fetch: {error}")
    except KeyboardInterrupt:
        sys.exit("fetch: stopped; the next run begins anew")


if __name__ == "__main__":
    main()
