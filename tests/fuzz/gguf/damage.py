"""A GGUF file taken apart, changed in one place and written again: `read(path)`, change it, `write(file, path)`.

The package gguf would not write most of what is wanted here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf

ALIGNMENT = 32
FORMATS = dict(enumerate("BbHhIif?", 0)) | {10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


@dataclass
class Key:
    """One of the metadata: `value` is a number, bytes, or a list of either, whose type is `item`."""

    kind: int
    value: Any
    item: int = 0


@dataclass
class Tensor:
    """`shape` is as GGUF has it, columns first; `data` may have any size."""

    shape: list[int]
    kind: int
    data: bytes
    offset: int | None = None  # where it should be, if not None


@dataclass
class File:
    keys: dict[str, Key] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    version: int = 3


def read(path: Path) -> File:
    """What a well-formed file holds."""
    reader = gguf.GGUFReader(path)
    file = File()
    for name, one in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        kind = int(one.types[0])
        if kind == ARRAY:
            item = int(one.types[-1])
            values = [bytes(one.parts[i]) if item == STRING else one.parts[i][0].item() for i in one.data]
            file.keys[name] = Key(kind, values, item)
        else:
            last = one.parts[-1]
            file.keys[name] = Key(kind, bytes(last) if kind == STRING else last[0].item())
    for tensor in reader.tensors:
        shape = [int(size) for size in tensor.shape]
        file.tensors[tensor.name] = Tensor(shape, int(tensor.tensor_type), tensor.data.tobytes())
    return file


def write(file: File, path: Path) -> Path:
    """Write it, whatever it says."""
    head = b"GGUF" + struct.pack("<IQQ", file.version, len(file.tensors), len(file.keys))
    for name, key in file.keys.items():
        head += _string(name.encode()) + struct.pack("<I", key.kind) + _value(key)
    body = b""
    for name, tensor in file.tensors.items():
        offset = len(body) if tensor.offset is None else tensor.offset
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        head += _string(name.encode()) + shape + struct.pack("<IQ", tensor.kind, offset)
        body += _padded(tensor.data)
    path.write_bytes(_padded(head) + body)
    return path


def _value(key: Key) -> bytes:
    if key.kind != ARRAY:
        return _item(key.kind, key.value)
    items = b"".join(_item(key.item, value) for value in key.value)
    return struct.pack("<IQ", key.item, len(key.value)) + items


def _item(kind: int, value: Any) -> bytes:
    return _string(value) if kind == STRING else struct.pack(f"<{FORMATS[kind]}", value)


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % ALIGNMENT)
