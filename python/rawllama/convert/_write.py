"""Writes a GGUF file: type of each tensor, quantisation, and a name that only complete files get."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from ._errors import ConvertError
from ._keys import Keys
from ._safetensors import Tensor

TYPES = {"f32": Type.F32, "f16": Type.F16, "q8_0": Type.Q8_0}
BLOCK, BLOCK_BYTES = 32, 34

# libllama's operations on these take F32 only.
ALWAYS_F32 = ("position_embd.weight", "token_types.weight", ".ffn_gate_inp.weight", "_norm.weight")


def tensor_type(tensor: Tensor, outtype: str) -> Type:
    """The type in which `tensor` is stored."""
    fixed = tensor.name.endswith(ALWAYS_F32) or not tensor.name.endswith(".weight")
    if len(tensor.shape) < 2 or fixed:
        return Type.F32
    wanted = TYPES[outtype]
    return Type.F16 if wanted == Type.Q8_0 and tensor.shape[-1] % BLOCK else wanted


def size_in_bytes(tensor: Tensor, kind: Type) -> int:
    """Bytes of `tensor` when it is stored as `kind`."""
    count = int(np.prod(tensor.shape, dtype=np.int64))
    if kind == Type.Q8_0:
        return count // BLOCK * BLOCK_BYTES
    return count * (2 if kind == Type.F16 else 4)


def load_as(tensor: Tensor, kind: Type) -> npt.NDArray[np.generic]:
    """The values of `tensor`, converted to `kind`.

    Raises
    ------
    ConvertError
        The folder changed while it was read.
    """
    values = tensor.load()
    if values.shape != tensor.shape:
        raise ConvertError(f"folder: {tensor.name} has shape {values.shape}, not {tensor.shape}")
    converted: npt.NDArray[np.generic] = gguf.quants.quantize(np.ascontiguousarray(values), kind)
    return converted


def fill(path: Path, arch: str, keys: Keys, tensors: list[Tensor], outtype: str) -> None:
    """Write the whole file to `path` and have it on the disk; one tensor is in memory at a time."""
    writer = gguf.GGUFWriter(path, arch)
    try:
        for key, (value_type, value) in keys.values.items():
            getattr(writer, f"add_{value_type}")(key, value)
        types = {tensor.name: tensor_type(tensor, outtype) for tensor in tensors}
        for tensor in tensors:
            kind = types[tensor.name]
            size = size_in_bytes(tensor, kind)
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(load_as(tensor, types[tensor.name]))
        writer.flush()
        for file in writer.fout or []:
            os.fsync(file.fileno())
    finally:
        writer.close()


def write(out: Path, arch: str, keys: Keys, tensors: list[Tensor], outtype: str) -> None:
    """Write a model to `out`, which is either the file it was before or the complete new one.

    Raises
    ------
    ConvertError
        A tensor cannot be read.
    OSError
        `out` cannot be written.
    """
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        fill(unfinished, arch, keys, tensors, outtype)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
