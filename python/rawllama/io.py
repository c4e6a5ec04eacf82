"""Readers of texts and writers of embeddings."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# More texts than this make no readable similarity matrix.
_MATRIX_TEXTS = 16
_TEXT_WIDTH = 60
# To open the last one anew would write from the start of a file that others have written to.
_STANDARD_OUTPUT = ("-", "/dev/stdout")


@dataclass(frozen=True)
class Embeddings:
    """Texts with their rows; `offsets` and `tokens` are there if there is a row a token.

    `rows` is float32, shape (n, d). Text i has row i, or the rows `offsets[i]` to `offsets[i + 1]`.
    """

    texts: Sequence[str]
    rows: NDArray[np.float32]
    offsets: NDArray[np.int64] | None = None
    tokens: Sequence[NDArray[np.int32]] | None = None


def read_texts(source: str, kind: str | None, field: str) -> list[str]:
    """Read texts from a file, or from standard input if `source` is `-`.

    Parameters
    ----------
    kind
        `lines`: each line is a text, ended by LF or CRLF. `jsonl`: each line is a JSON string, or an object whose
        `field` is one. None: by the name's ending.

    Raises
    ------
    ValueError
        A line that is not UTF-8 or not such JSON; the message has its number.
    OSError
        The file cannot be read.
    """
    name = "standard input" if source == "-" else source
    data = _standard("input", sys.stdin).read() if source == "-" else Path(source).read_bytes()
    lines = [line.removesuffix(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    if lines[-1] == b"":
        lines.pop()  # the last newline ends the last line and begins none
    if kind is None:
        kind = "jsonl" if source.lower().endswith((".jsonl", ".ndjson")) else "lines"
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{name}, line {number}: not UTF-8; convert it, e.g. with iconv -t UTF-8") from None
        texts.append(_json_text(text, field, f"{name}, line {number}") if kind == "jsonl" else text)
    return texts


def _json_text(line: str, field: str, where: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error}); plain lines are read with --input-format lines") from None
    if isinstance(value, dict):
        if field not in value:
            raise ValueError(f"{where}: no key {field!r}; name the right one with --field")
        value = value[field]
    if not isinstance(value, str):
        raise ValueError(f"{where}: a string, or an object with a string under {field!r}, is wanted")
    return value


def format_of(wanted: str | None, output: str | None) -> str:
    """The output format: the one wanted, else by the file's ending, and `table` where there is none.

    Raises
    ------
    ValueError
        No format has this ending.
    """
    ending = Path(output or "-").suffix.lower()
    if wanted or not ending:
        return wanted or "table"
    if ending not in ENDINGS:
        raise ValueError(f"{output}: {ending} is no format's ending; name one with --format: {', '.join(FORMATS)}")
    return ENDINGS[ending]


def require_writable(output: str | None, target: str) -> None:
    """Refuse an output that cannot be written, before there is anything to lose.

    Raises
    ------
    ValueError, OSError
        It cannot be; the message says why.
    """
    if output is None or output in _STANDARD_OUTPUT:
        _standard("output", sys.stdout)
        if target == "npy" and sys.stdout.isatty():
            raise ValueError("npy is binary: send it to a file with -o, or into a pipe")
        return
    path = _place(output)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), output)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), output)
    if not os.access(path if _is_special(path) else path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), output)


def write(result: Embeddings, target: str, output: str | None) -> None:
    """Write to a file, which appears whole or not at all, or to standard output."""
    if output is None or output in _STANDARD_OUTPUT:
        stream = _standard("output", sys.stdout)
        FORMATS[target](result, stream)
        stream.flush()
        return
    path = _place(output)
    with path.open("wb") if _is_special(path) else _atomic(path) as stream:
        FORMATS[target](result, stream)


def _standard(name: str, stream: TextIO | None) -> IO[bytes]:
    """The bytes of a standard stream, which the caller may have closed."""
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), f"standard {name}")
    return stream.buffer


def _place(output: str) -> Path:
    """Where a name leads: what is written replaces a file, not a symbolic link to it."""
    path = Path(output)
    return path if _is_special(path) else Path(os.path.realpath(path))


def _is_special(path: Path) -> bool:
    """Whether it is a device, a pipe or a name of an open file (/dev/fd/3): to be written to, not to be replaced."""
    return path.parts[:2] in (("/", "dev"), ("/", "proc")) or (path.exists() and not path.is_file())


@contextmanager
def _atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only when it is complete."""
    descriptor, name = tempfile.mkstemp(prefix=".rawllama-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(_mode(path))  # mkstemp is stricter than open()
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _mode(path: Path) -> int:
    """The permissions of the file, or of a new one."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _write_npy(result: Embeddings, stream: IO[bytes]) -> None:
    np.save(stream, result.rows)


def _write_jsonl(result: Embeddings, stream: IO[bytes]) -> None:
    for index, text in enumerate(result.texts):
        head = {"index": index, "text": text}
        if result.offsets is None or result.tokens is None:
            body = f'"embedding": {_numbers(result.rows[index])}'
        else:
            rows = result.rows[result.offsets[index]:result.offsets[index + 1]]
            body = f'"tokens": {result.tokens[index].tolist()}, "embedding": [{", ".join(map(_numbers, rows))}]'
        stream.write(f"{json.dumps(head, ensure_ascii=False)[:-1]}, {body}}}\n".encode())


def _numbers(row: NDArray[np.float32]) -> str:
    """A JSON array with as many digits as float32 needs, no more."""
    return f"[{', '.join(map(str, row))}]"


def _write_csv(result: Embeddings, stream: IO[bytes]) -> None:
    text_stream = io.TextIOWrapper(stream, "utf-8", newline="", write_through=True)
    writer = csv.writer(text_stream)
    columns = [f"e{i}" for i in range(result.rows.shape[1])]
    if result.offsets is None or result.tokens is None:
        writer.writerow(["index", "text", *columns])
        for index, (text, row) in enumerate(zip(result.texts, result.rows, strict=True)):
            writer.writerow([index, text, *map(str, row)])
    else:
        writer.writerow(["index", "token", *columns])
        owners = np.repeat(np.arange(len(result.texts)), np.diff(result.offsets))
        for owner, token, row in zip(owners, (t for one in result.tokens for t in one), result.rows, strict=True):
            writer.writerow([owner, token, *map(str, row)])
    text_stream.detach()


def _write_table(result: Embeddings, stream: IO[bytes]) -> None:
    """For people: vectors in short, and for a few texts how similar they are."""
    labels = [_label(text) for text in result.texts]
    lines = []
    if result.offsets is not None:
        labels = [labels[i] for i, count in enumerate(np.diff(result.offsets)) for _ in range(count)]
    lines.append(f"{len(result.rows)} x {result.rows.shape[1]}")
    lines += [f"{i:>4} {_short(row)}  {label}" for i, (row, label) in enumerate(zip(result.rows, labels, strict=True))]
    if result.offsets is None and result.rows.shape[1] > 1 and 1 < len(labels) <= _MATRIX_TEXTS:
        norms = np.linalg.norm(result.rows, axis=1, keepdims=True)
        unit = result.rows / np.where(norms > 0, norms, 1)
        lines += ["", "cosine similarity", "     " + "".join(f"{i:>7}" for i in range(len(labels)))]
        lines += [f"{i:>4} {''.join(f'{x:>7.3f}' for x in row)}  {label}"
                  for i, (row, label) in enumerate(zip(unit @ unit.T, labels, strict=True))]
    stream.write(("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))


def _short(row: NDArray[np.float32]) -> str:
    if row.size <= 6:
        return " ".join(f"{x:>9.5f}" for x in row)
    return " ".join(f"{x:>9.5f}" for x in row[:3]) + "  ... " + " ".join(f"{x:>9.5f}" for x in row[-2:])


def _label(text: str) -> str:
    """A text on one line: what does not print is escaped, what is long is shortened (here only, for the eye)."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_TEXT_WIDTH])
    return shown + ("..." if len(text) > _TEXT_WIDTH else "")


FORMATS: dict[str, Callable[[Embeddings, IO[bytes]], None]] = {
    "table": _write_table,
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "npy": _write_npy,
}
# By a file's name; no ending at all is a table too.
ENDINGS = {".txt": "table", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".npy": "npy"}
