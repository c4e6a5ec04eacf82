"""embed_loop.c's input, from an Embedder's own plan: the same texts in the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rawllama import Embedder
from rawllama.embedder import MAX_SEQUENCES, TOKEN_BUDGET, plan


def write_batches(embedder: Embedder, texts: Sequence[str], path: Path) -> NDArray[np.int64]:
    """Write the batches; return the texts in the order in which they are in there."""
    tokens, offsets = embedder.model.vocab.tokenize_many(texts)
    lengths = np.diff(offsets)
    order, bounds = plan(lengths)
    parts: list[NDArray[np.int32]] = [np.array([bounds.size - 1], np.int32)]
    for start, end in pairwise(bounds):
        chosen = order[start:end]
        parts += [np.array([chosen.size], np.int32), lengths[chosen].astype(np.int32)]
        parts += [tokens[offsets[text] : offsets[text + 1]] for text in chosen]
    np.concatenate(parts).tofile(path)
    return order


def command(program: Path, model: str, batches: Path, rows: Path, *, n_threads: int, rounds: int) -> list[str]:
    """The call of the C program, with the context that the Embedder makes."""
    sizes = (TOKEN_BUDGET, MAX_SEQUENCES, n_threads, rounds)
    return [str(program), model, str(batches), *map(str, sizes), str(rows)]
