"""Which files a job reads: from names, folders, globs and addresses, in an order that is always the same."""

from __future__ import annotations

import bz2
import errno
import fnmatch
import glob
import gzip
import lzma
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

from rawllama.errors import InvalidArgumentError, MissingExtraError

#: Formats by the endings of names.
ENDINGS = {
    ".txt": "lines",
    ".text": "lines",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
#: Formats that inputs may have.
KINDS = tuple(dict.fromkeys(ENDINGS.values()))
# Formats whose files are read from the first byte to the last, so that they may be compressed as a whole.
_STREAMED = ("lines", "jsonl", "csv", "tsv")
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
# `s3://bucket/file`, and chained ones: `simplecache::s3://bucket/file`.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]*://\S")
# What tells a file of a remote store from an older one of its name; the first that the store has.
_STAMPS = ("ETag", "etag", "checksum", "md5", "sha256", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class InputFile:
    """A file as it was when the job looked.

    Attributes
    ----------
    name
        Path or address.
    kind
        One of `KINDS`.
    size
        Bytes; -1 where a store does not say.
    stamp
        Time of the last change, in ns, or a store's own mark for the version.
    """

    name: str
    kind: str
    size: int
    stamp: str
    store: Any = field(default=None, compare=False, repr=False)

    def open(self) -> IO[bytes]:
        """Its bytes, unpacked where the name's ending says that they are packed."""
        stream = self.open_raw()
        return _unpacked(stream, Path(self.name).suffix.lower()) if self.kind in _STREAMED else stream

    def open_raw(self) -> IO[bytes]:
        """Its bytes as they are."""
        if self.store is None:
            return Path(self.name).open("rb")
        return cast("IO[bytes]", self.store.open(self.name, "rb"))

    def require_same(self) -> None:
        """Raise if the file is no longer the one that it was.

        Raises
        ------
        FileNotFoundError
            It is gone.
        InvalidArgumentError
            It has changed.
        """
        now = _found(self.name, self.store, self.kind)
        if now != self:
            raise InvalidArgumentError(f"{self.name}: it changed while it was read; start anew with --restart")


def is_address(name: str) -> bool:
    """Whether it is a URL of fsspec's: `s3://bucket/file`."""
    return _ADDRESS.match(name) is not None


def exists(name: str) -> bool:
    """Whether it names inputs: a file, a folder, a glob that finds something, or any address."""
    return is_address(name) or (name != "" and os.path.exists(name)) or bool(_globbed(name))  # noqa: PTH110 (any string)


def find(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    kind: str | None = None,
    leave_out: Path | None = None,
) -> list[InputFile]:
    """The files of a source.

    Parameters
    ----------
    source
        A path, a glob (`**` for folders within folders), a folder, an address, or several of them. The files of a
        folder or glob are taken in the order of their names.
    kind
        One of `KINDS`; None: by the ending of each name. Of a folder, files with other endings are left out, and those
        whose names begin with `.` or `_`.
    leave_out
        A folder of the job's own.

    Raises
    ------
    FileNotFoundError
        There are none.
    InvalidArgumentError
        A name's ending says nothing, or a file is named twice.
    MissingExtraError
        An address, and fsspec is not there.
    """
    if kind is not None and kind not in KINDS:
        raise InvalidArgumentError(f"input_format: {kind!r} is none of {', '.join(KINDS)}")
    names = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    found: dict[str, InputFile] = {}
    for path in names:
        name = os.fspath(path)
        for file in _remote(name, kind) if is_address(name) else _local(name, kind, leave_out):
            if found.setdefault(file.name, file) is not file:
                raise InvalidArgumentError(f"{file.name}: it is named twice; each input is read once")
    if not found:
        raise InvalidArgumentError("source: it names no inputs")
    return list(found.values())


def kind_of(name: str) -> str | None:
    """The format that a name's ending tells, that of the compression taken off."""
    path = Path(name)
    if path.suffix.lower() in _COMPRESSIONS:
        path = path.with_suffix("")
    return ENDINGS.get(path.suffix.lower())


def open_store(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path there.

    Raises
    ------
    MissingExtraError
        fsspec, or its package for this kind of store, is not there.
    InvalidArgumentError
        No such kind of store.
    """
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError("fsspec is not installed: pip install 'rawllama[fsspec]'") from None
    try:
        store, path = url_to_fs(address)
    except ImportError as error:
        raise MissingExtraError(f"{address}: {error}") from None
    except ValueError as error:
        raise InvalidArgumentError(f"{address}: {error}") from None
    return store, path


def listed(store: Any, folder: str, pattern: str) -> list[str]:
    """Names in a folder of an fsspec store that fit a pattern; none where there is no folder. Its own name is none."""
    store.invalidate_cache()
    if not store.exists(folder):
        return []
    names = [path.rstrip("/").rpartition("/")[2] for path in store.ls(folder, detail=False)]
    return sorted(fnmatch.filter(names, pattern))


def _local(name: str, kind: str | None, leave_out: Path | None) -> Iterator[InputFile]:
    path = Path(name)
    if path.is_dir():
        inside = sorted(path.rglob("*"), key=lambda one: one.as_posix())
        names = [str(one) for one in inside if one.is_file() and _is_data(one.relative_to(path), kind)]
    else:
        names = [name] if path.exists() else [one for one in _globbed(name) if Path(one).is_file()]
    names = [one for one in names if leave_out is None or not Path(os.path.realpath(one)).is_relative_to(leave_out)]
    if not names:
        words = "No files of a known format in it" if path.is_dir() else os.strerror(errno.ENOENT)
        raise FileNotFoundError(errno.ENOENT, words, name)
    for one in names:
        yield _found(one, None, _kind(one, kind))


def _globbed(name: str) -> list[str]:
    if "\0" in name or not glob.has_magic(name):
        return []
    return sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)


def _remote(address: str, kind: str | None) -> Iterator[InputFile]:
    store, path = open_store(address)
    if glob.has_magic(path):
        names = sorted(one for one in store.glob(path) if store.isfile(one))
    elif store.isdir(path):
        inside = sorted(store.find(path))
        names = [one for one in inside if _is_data(Path(one.removeprefix(path).lstrip("/")), kind)]
    else:
        names = [path] if store.exists(path) else []
    if not names:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address)
    for one in names:
        full = store.unstrip_protocol(one)
        yield replace(_found(one, store, _kind(one, kind)), name=full)


def _is_data(path: Path, kind: str | None) -> bool:
    """Whether a file inside a folder is one to read."""
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    known = kind_of(path.name)
    return not hidden and known is not None and kind in (None, known)


def _kind(name: str, kind: str | None) -> str:
    kind = kind or kind_of(name)
    if kind is None:
        words = f"its name does not tell its format; name one with --input-format: {', '.join(KINDS)}"
        raise InvalidArgumentError(f"{name}: {words}")
    return kind


def _found(name: str, store: Any, kind: str) -> InputFile:
    if store is None:
        facts = Path(name).stat()
        if Path(name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        return InputFile(name, kind, facts.st_size, str(facts.st_mtime_ns))
    store.invalidate_cache()
    info = store.info(name)
    stamp = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")
    size = info.get("size")
    return InputFile(name, kind, -1 if size is None else int(size), stamp, store)


def _unpacked(stream: IO[bytes], ending: str) -> IO[bytes]:
    if ending == ".gz":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream))
    if ending == ".bz2":
        return bz2.BZ2File(stream)
    if ending == ".xz":
        return lzma.LZMAFile(stream)
    if ending == ".zst":
        import io

        import pyarrow as pa  # type: ignore[import-untyped]

        return cast("IO[bytes]", io.BufferedReader(pa.CompressedInputStream(stream, "zstd")))
    return stream
