"""What vectors were made with, kept in the metadata of the table that has them."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

    from rawllama.embedder import Embedder

#: The key of a schema's metadata; its value is JSON.
KEY = b"rawllama"


def described(schema: pa.Schema, embedder: Embedder, sha256: str, column: str, into: str, prompt: str | None) -> Any:
    """The schema with all that a reader must know to make vectors that compare with its own."""
    origin = {
        "version": version("rawllama"),
        "model": Path(embedder.model.paths[0]).name if embedder.model.paths else None,
        "sha256": sha256,
        "column": column,
        "into": into,
        "prompt": embedder._profile.options(prompt).prefix.decode(),
        "pooling": embedder.pooling,
        "normalize": embedder.normalize,
        "dims": embedder.dims,
        "dtype": embedder.dtype,
    }
    return schema.with_metadata({**(schema.metadata or {}), KEY: json.dumps(origin).encode()})


def of(schema: pa.Schema) -> dict[str, Any]:
    """What `described` said of a schema; empty where it did not."""
    return read((schema.metadata or {}).get(KEY))


def read(said: str | bytes | None) -> dict[str, Any]:
    """What it said, from the JSON."""
    found: dict[str, Any] = json.loads(said) if said else {}
    return found
