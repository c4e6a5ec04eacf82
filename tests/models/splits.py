"""A model of `tiny` in several files, under the names that libllama looks for."""

from __future__ import annotations

from pathlib import Path

import gguf

from . import tiny


def write(name: str, folder: Path, n_tensors: int = 15) -> list[Path]:
    """Write `name`-00001-of-0000N.gguf and its fellows, with so many tensors each; their paths, the first one first."""
    model = tiny.MODELS[name]
    writer = gguf.GGUFWriter(folder / f"{name}.gguf", model.architecture, split_max_tensors=n_tensors)
    writer.add_name(f"tiny {name}")
    tiny._save(writer, model.fill(writer), 0)
    return sorted(folder.glob(f"{name}-*.gguf"))
