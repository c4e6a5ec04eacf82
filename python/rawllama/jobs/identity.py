"""What a job is: its inputs, model and settings. A later run goes on with it only if none of them has changed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rawllama._splits import files_of
from rawllama.errors import InvalidArgumentError

from .inputs import InputFile
from .log import Entry
from .sources import Source

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

    from rawllama.embedder import Embedder

# What may change between runs, where it has refused no row yet, and what it must have been.
_MAY_CHANGE = (("bad_rows", "error"), ("bad_rows", "null"), ("bad_rows", "skip"), ("overlong", "error"))
_ADVICE = "to go on, let it be as it was; to replace what was made, pass --restart (restart=True)"


def header(source: Source, model: Entry, settings: Entry) -> Entry:
    """The first entry of a job's log."""
    return {
        "version": version("rawllama"),
        "inputs": _inputs(source.files),
        "rows": list(source.rows),
        "schema": base64.b64encode(source.schema.serialize().to_pybytes()).decode(),
        "model": model,
        "settings": settings,
    }


def source_of(known: Entry, files: Sequence[InputFile], column: str, lenient: bool) -> Source:
    """The source that a job was started with, which need not be read again."""
    import pyarrow as pa

    schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(known["schema"])))
    return Source(files, known["rows"], schema, column, lenient)


def require_same_inputs(known: Entry, files: Sequence[InputFile], name: str) -> None:
    """Raise InvalidArgumentError if the inputs are not those that the job was started with."""
    before = {one[0]: one for one in known["inputs"]}
    now = {one[0]: one for one in _inputs(files)}
    gone = [one for one in before if one not in now]
    new = [one for one in now if one not in before]
    changed = [one for one in now if one in before and now[one] != before[one]]
    for words, names in (("is gone", gone), ("is new", new), ("has changed", changed)):
        if names:
            raise _different(name, f"the input {names[0]} {words}")
    if list(before) != list(now):
        raise _different(name, "the inputs have another order")


def changes(known: Entry, settings: Entry, name: str, *, had_bad_rows: bool) -> Entry:
    """The settings that are others now, of those that may be: what becomes of bad rows, before there was one.

    Raises
    ------
    InvalidArgumentError
        Another setting, or the version of rawllama, is not as it was.
    """
    before = {**known["settings"], "rawllama's version": known["version"]}
    now = {**settings, "rawllama's version": version("rawllama")}
    changed = {setting: now[setting] for setting in now if before.get(setting) != now[setting]}
    for setting, value in changed.items():
        if had_bad_rows or (setting, before.get(setting)) not in _MAY_CHANGE:
            raise _different(name, f"{setting} was {before.get(setting)!r} and is {value!r}")
    return changed


def model_entry(paths: Sequence[str], known: Entry | None, name: str) -> Entry:
    """What tells a model from others: the hash of its files.

    Parameters
    ----------
    paths
        The files.
    known
        What the job was started with. Files of the same path, size and time are not read again.
    name
        The output, for messages.

    Raises
    ------
    InvalidArgumentError
        It is another model.
    """
    files = [[str(path.resolve()), (facts := path.stat()).st_size, facts.st_mtime_ns] for path in files_of(paths)]
    if known is not None and known["files"] == files:
        return known
    entry: Entry = {"sha256": sha256(paths), "files": files}
    if known is not None and known["sha256"] != entry["sha256"]:
        raise _different(name, f"the model was {known['files'][0][0]}, with other content than {files[0][0]} has now")
    return entry


def settings_of(embedder: Embedder, prompt: str | None, **others: Any) -> Entry:
    """All that the vectors depend on, as it is in force; `others` are the job's own settings."""
    return {
        **others,
        "prompt": embedder._profile.options(prompt).prefix.decode(),
        "pooling": embedder.pooling,
        "normalize": embedder.normalize,
        "dims": embedder.dims,
        "dtype": embedder.dtype,
        "max_tokens": embedder.max_tokens,
        "overlong": embedder.overlong,
        "overlap": embedder.overlap,
        "kernels": embedder.model.kernels,
        "token_budget": embedder._settings.token_budget,
        "flash_attn": embedder._settings.flash_attn,
    }


def sha256(paths: Sequence[str]) -> str:
    """One hash for the bytes of all these files, hexadecimal."""
    whole = hashlib.sha256()
    for path in files_of(paths):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _inputs(files: Sequence[InputFile]) -> list[list[Any]]:
    return [[file.name, file.kind, file.size, file.stamp] for file in files]


def _different(name: str, words: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{name}: it was begun with something else: {words}; {_ADVICE}")
