"""What a GGUF file says, small enough to store: keys with types, tensors with digests of their bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

OUTTYPES = ("f32", "f16", "q8_0")
LONGEST = 16


def digest(data: bytes) -> str:
    """The first 128 bits of the SHA-256 of `data`, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:32]


def brief(value: Any) -> Any:
    """The value itself, or length and digest of a list with more than 16 elements."""
    if not isinstance(value, list) or len(value) <= LONGEST:
        return value
    return {"length": len(value), "sha256": digest(json.dumps(value).encode())}


def fingerprint(path: Path) -> dict[str, dict[str, Any]]:
    """Keys as ``{name: [type, value]}``, tensors as ``{name: [type, shape, digest]}``, in file order."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    keys = {
        name: [":".join(kind.name for kind in field.types), brief(field.contents())]
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors = {
        tensor.name: [tensor.tensor_type.name, [int(n) for n in tensor.shape], digest(tensor.data.tobytes())]
        for tensor in reader.tensors
    }
    return {"keys": keys, "tensors": tensors}


def merge(prints: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """One record for all output types: keys once (only general.file_type may differ), digests for each."""
    first = prints[OUTTYPES[0]]
    common = {name: value for name, value in first["keys"].items() if name != "general.file_type"}
    for other in prints.values():
        assert {n: v for n, v in other["keys"].items() if n != "general.file_type"} == common
        assert list(other["tensors"]) == list(first["tensors"])
    return {
        "file_type": {outtype: prints[outtype]["keys"]["general.file_type"] for outtype in OUTTYPES},
        "keys": common,
        "tensors": {
            name: {
                "shape": first["tensors"][name][1],
                **{outtype: [prints[outtype]["tensors"][name][i] for i in (0, 2)] for outtype in OUTTYPES},
            }
            for name in first["tensors"]
        },
    }


def dump(record: dict[str, Any]) -> str:
    """The record as JSON with one key or tensor a line, so that a changed one is a one-line diff."""
    sections = []
    for title, section in record.items():
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in section.items()]
        sections.append(f"{json.dumps(title)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(sections) + "\n}\n"
