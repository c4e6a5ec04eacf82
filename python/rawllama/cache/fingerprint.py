"""What rows depend on: the bytes of the model's files, what the Embedder was asked for, and who computes."""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import backend
from .._splits import files_of
from ..errors import InvalidArgumentError
from ..files import replacing
from ..raw import ffi

if TYPE_CHECKING:
    from .._pipeline import Options
    from ..embedder import Embedder
    from ..model import Model

#: Raise it when rawllama computes other vectors than before, by more than rounding.
NUMERICS = 1
# A file that was written a moment ago may be written again with the same time.
_SETTLED_NS = 2_000_000_000


def settings_hash(embedder: Embedder, options: Options, memory: Path) -> bytes:
    """32 bytes that differ where vectors do, by more than rounding.

    Not in them is what only changes the last digits: threads, contexts, the token budget, the processor.
    """
    model, profile, target = embedder.model, embedder._profile, options.target
    build = backend.build()
    facts = {
        "numerics": [NUMERICS, *(build.get(name) for name in ("llama_version", "ggml_version", "ggml_commit"))],
        "model": model_hash(model, memory),
        "computed by": [model.kernels, embedder._settings.flash_attn, _devices(model)],
        "pooling": profile.pooling,
        "row": [target.dims, target.dtype, target.normalize],
        "text": [options.prefix.hex(), options.overlong, profile.max_tokens],
        "overlap": profile.overlap if options.overlong == "chunk" else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


def model_hash(model: Model, memory: Path) -> str:
    """SHA-256 of the bytes of a model's files, and of what was given in place of its metadata; hexadecimal.

    Parameters
    ----------
    model
        The model; its files are taken to be those that it was loaded from.
    memory
        A folder, where hashes are remembered by the file's path, number, size and times.

    Raises
    ------
    InvalidArgumentError
        It was read from an open file.
    OSError
        A file cannot be read.
    """
    if not model.paths:
        raise InvalidArgumentError("cache: the model was read from an open file, so nothing says which; give its path")
    total = hashlib.sha256()
    for path in files_of(model.paths):
        total.update(bytes.fromhex(_file_hash(path, memory)))
    overrides = model._loaded_with[1]["kv_overrides"]
    if overrides is not None:
        total.update(bytes(ffi.buffer(overrides)))
    return total.hexdigest()


def _file_hash(path: Path, memory: Path) -> str:
    state = path.stat()
    identity = [
        str(path.resolve()), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
    ]  # fmt: skip
    note = memory / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError):
        return _known(json.loads(note.read_text(encoding="utf-8")), identity)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > _SETTLED_NS:
        with suppress(OSError):  # then it is computed again
            memory.mkdir(exist_ok=True)
            with replacing(note) as temporary:
                temporary.write_text(json.dumps({"file": identity, "sha256": found}) + "\n", encoding="utf-8")
    return found


def _known(note: dict[str, Any], identity: list[Any]) -> str:
    if note["file"] != identity or not re.fullmatch("[0-9a-f]{64}", note["sha256"]):
        raise ValueError("the note is damaged")
    return str(note["sha256"])


def _devices(model: Model) -> list[tuple[str, str]]:
    """The GPUs that may compute."""
    if model._loaded_with[0].n_gpu_layers == 0:
        return []
    return [(device.name, device.description) for device in backend.devices() if device.kind != "cpu"]
