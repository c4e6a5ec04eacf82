"""What the parts in a folder were made of: a job goes on only where all of it is still the same."""

from __future__ import annotations

import inspect
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rawllama.embedder import Embedder
from rawllama.errors import InvalidArgumentError
from rawllama.hub import resolve
from rawllama.jobs.identity import model_entry
from rawllama.jobs.target import WORK as LOCAL

if TYPE_CHECKING:
    from rawllama.jobs.inputs import InputFile
    from rawllama.ray.actors import Task

FORMAT = 1
#: Readers of folders leave out names that begin so.
NAME = "_rawllama.json"


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


def begin(store: Any, folder: str, described: dict[str, Any], *, restart: bool) -> None:
    """Write the description into the folder, or compare it with the one that is there.

    Raises
    ------
    InvalidArgumentError
        They differ; or parts are there without a description.
    """
    path = f"{folder}/{NAME}"
    if store.exists(f"{folder}/{LOCAL}"):
        raise InvalidArgumentError(f"target: {folder} has what a job without Ray made; name another folder")
    if restart:
        for name in parts_there(store, folder):
            store.rm_file(f"{folder}/{name}")
    elif store.exists(path):
        _require_same(json.loads(store.cat_file(path)), described, folder)
        return
    elif there := parts_there(store, folder):
        remedy = "name an empty folder, or pass restart=True to remove them"
        raise InvalidArgumentError(
            f"target: {folder} has {len(there)} parts, and no {NAME} that tells of what; {remedy}"
        )
    store.makedirs(folder, exist_ok=True)
    unfinished = f"{folder}/.{NAME}.tmp"
    store.pipe_file(unfinished, json.dumps(described, indent=1).encode())
    store.mv(unfinished, path)


def parts_there(store: Any, folder: str) -> set[str]:
    """Names of the parts that are finished."""
    store.invalidate_cache()
    return {path.rpartition("/")[2] for path in store.glob(f"{folder}/part-*.parquet")}


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
