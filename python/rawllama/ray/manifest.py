"""What the parts in a folder were made of: a job goes on only where all of it is still the same."""

from __future__ import annotations

import inspect
import json
import platform
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama.embedder import Embedder
from rawllama.errors import ConcurrentUseError, InvalidArgumentError
from rawllama.hub import resolve
from rawllama.jobs.identity import model_entry
from rawllama.jobs.inputs import listed
from rawllama.jobs.lock import locked
from rawllama.jobs.target import WORK as LOCAL

if TYPE_CHECKING:
    from rawllama.jobs.inputs import InputFile
    from rawllama.ray.actors import Task

FORMAT = 1
#: Readers of folders leave out names that begin so.
NAME = "_rawllama.json"
_LOCK = ".rawllama.lock"


def digest(model: str) -> str:
    """What tells the content of the model's file from that of others: hexadecimal digits."""
    return str(model_entry([str(resolve(model))], None, model)["sha256"])


def require_same_model(model: str, expected: str) -> None:
    """Raise InvalidArgumentError if this node has another file of the model's name."""
    if digest(model) != expected:
        words = f"on {platform.node()} it is another file than where the job was started; copy that one to each node"
        raise InvalidArgumentError(f"model: {model}: {words}")


def describe(task: Task, files: Sequence[InputFile], part_rows: int, model_digest: str) -> dict[str, Any]:
    """All that the bytes of the parts depend on."""
    defaults = inspect.signature(Embedder).parameters
    settings = {
        name: value
        for name, value in task.settings.items()
        if name not in ("n_threads", "progress") and value != defaults[name].default
    }
    return {
        "format": FORMAT,
        "version": version("rawllama"),
        "model": model_digest,
        "column": task.column,
        "into": task.into,
        "prompt": task.prompt,
        "bad_rows": task.bad_rows,
        "settings": settings,
        "part_rows": part_rows,
        "files": [[file.name, file.size, file.stamp] for file in files],
    }


@contextmanager
def only_one(store: Any, folder: str) -> Iterator[None]:
    """Let no other driver write to the folder meanwhile, where the store is one of files.

    Raises
    ------
    ConcurrentUseError
        Another one does.
    """
    if not getattr(store, "local_file", False):
        yield
        return
    place = Path(folder)
    made = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    lock = place / _LOCK
    try:
        with locked(lock, folder):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    finally:
        if made and not any(place.iterdir()):
            place.rmdir()


def begin(store: Any, folder: str, described: dict[str, Any], *, restart: bool) -> str:
    """Write the description into the folder, or compare it with the one that is there; the name of the job.

    Raises
    ------
    InvalidArgumentError
        They differ, and there are parts; or parts are there without a description.
    """
    path = f"{folder}/{NAME}"
    if store.exists(f"{folder}/{LOCAL}"):
        raise InvalidArgumentError(f"target: {folder} has what a job without Ray made; name another folder")
    there = parts_there(store, folder)
    if restart:
        for name in there:
            store.rm_file(f"{folder}/{name}")
    elif there and store.exists(path):
        known = json.loads(store.cat_file(path))
        _require_same(known, described, folder)
        return str(known["job"])
    elif there:
        remedy = "name an empty folder, or pass restart=True to remove them"
        raise InvalidArgumentError(
            f"target: {folder} has {len(there)} parts, and no {NAME} that tells of what; {remedy}"
        )
    store.makedirs(folder, exist_ok=True)
    job = uuid.uuid4().hex
    unfinished = f"{folder}/.{NAME}.tmp"
    store.pipe_file(unfinished, json.dumps({**described, "job": job}, indent=1).encode())
    store.mv(unfinished, path)
    return job


def require_current(store: Any, folder: str, job: str) -> None:
    """Raise ConcurrentUseError if another job has begun in the folder; OSError if none has where this process looks."""
    if not store.exists(f"{folder}/{NAME}"):
        words = f"on {platform.node()} there is no {NAME} of the driver's in it; name a folder that all share"
        raise OSError(f"target: {folder}: {words}")
    if json.loads(store.cat_file(f"{folder}/{NAME}"))["job"] != job:
        raise ConcurrentUseError(f"target: another job has begun in {folder}; let one end, or name another folder")


def parts_there(store: Any, folder: str) -> set[str]:
    """Names of the parts that are finished."""
    return set(listed(store, folder, "part-*.parquet"))


def _require_same(before: dict[str, Any], now: dict[str, Any], folder: str) -> None:
    now = json.loads(json.dumps(now))
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        what = "; ".join(_difference(name, before.get(name), now[name]) for name in changed)
        remedy = "call it as before to go on, name another folder, or pass restart=True to remove them and begin anew"
        raise InvalidArgumentError(f"target: the parts in {folder} were made otherwise: {what}; {remedy}")


def _difference(name: str, before: Any, now: Any) -> str:
    if name == "files":
        return f"the files of the source have changed, or are others ({len(before or ())} then, {len(now)} now)"
    if name == "model":
        return "with another model"
    return f"{name} was {json.dumps(before)}, is {json.dumps(now)}"
