"""Tensors of a model folder, read one at a time from its safetensors files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ._errors import ConvertError
from ._folder import read_object

Floats = npt.NDArray[np.floating[Any]]

FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
    """A tensor that is not loaded yet: name, shape (rows first), and a function that loads it as floats."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], Floats]


def files(folder: Path) -> list[Path]:
    """The folder's safetensors files, sorted by name.

    Raises
    ------
    ConvertError
        There are none, or one that the index names is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(weight_map(index).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ConvertError(f"folder: {index} names missing files ({', '.join(missing)}); download them")
        return [folder / name for name in names]
    found = sorted(folder.glob("model*.safetensors"))
    if not found:
        raise ConvertError(
            f"folder: no model.safetensors in {folder}; where there is pytorch_model.bin, load it with "
            "transformers and save it again with save_pretrained(folder, safe_serialization=True)"
        )
    return found


def weight_map(index: Path) -> dict[str, str]:
    """Tensor names and their files, as model.safetensors.index.json has them.

    Raises
    ------
    ConvertError
        There is no such map in the file.
    """
    content = read_object(index).get("weight_map")
    if not isinstance(content, dict) or not content:
        raise ConvertError(f"folder: {index} has no weight_map; download it again")
    return content


def read(folder: Path) -> Iterator[Tensor]:
    """All tensors of the folder, file by file, sorted by name within each.

    Raises
    ------
    ConvertError
        A file is damaged or missing, or the files do not hold what the index promises.
    """
    seen: set[str] = set()
    for path in files(folder):
        for tensor in read_file(path):
            seen.add(tensor.name)
            yield tensor
    index = folder / "model.safetensors.index.json"
    if index.is_file() and (difference := seen ^ weight_map(index).keys()):
        raise ConvertError(f"folder: {index} and its files differ in {some(difference)}; download them again")


def read_file(path: Path) -> Iterator[Tensor]:
    """The tensors of one safetensors file, sorted by name.

    Raises
    ------
    ConvertError
        The file is cut short or not a safetensors file.
    """
    try:
        with safe_open(path, framework="np") as opened:
            slices = {name: opened.get_slice(name) for name in sorted(opened.keys())}
            layout = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise ConvertError(f"folder: {path} is damaged or cut short ({error}); download it again") from error
    for name, (dtype, shape) in layout.items():
        yield Tensor(name, shape, loader(path, name, dtype))


def loader(path: Path, name: str, dtype: str) -> Callable[[], Floats]:
    """A function that loads one tensor: float16 as it is, all other types as float32.

    Raises
    ------
    ConvertError
        When called: the tensor's type is not a float of 16, 32 or 64 bits.
    """

    def load() -> Floats:
        if dtype not in FLOATS:
            raise ConvertError(f"folder: {name} in {path} is {dtype}; supported are {', '.join(FLOATS)}")
        if dtype == "BF16":
            return load_bfloat16(path, name)
        with safe_open(path, framework="np") as opened:
            array: Floats = opened.get_tensor(name)
        return array if dtype == "F16" else array.astype(np.float32, copy=False)

    return load


def load_bfloat16(path: Path, name: str) -> Floats:
    """A bfloat16 tensor as float32; numpy has no such type: its bytes become the upper halves of floats."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        halves = np.frombuffer(file.read(end - begin), "<u2")
    return (halves.astype("<u4") << 16).view("<f4").reshape(entry["shape"])


def some(names: set[str] | list[str]) -> str:
    """Up to five of the names, sorted, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return ", ".join(ordered[:5]) + more
