"""Embedding on a Ray cluster: Ray Data is the engine, one actor a device or a group of cores.

`embed` adds a column of vectors to a Ray dataset, and leaves reading and writing to Ray. `embed_files` reads and writes
Parquet on storage that all nodes share, and goes on where it was stopped; `rawllama embed --engine ray` calls it.
"""

from __future__ import annotations

from rawllama.ray.dataset import embed
from rawllama.ray.files import Report, embed_files

__all__ = ["Report", "embed", "embed_files"]
