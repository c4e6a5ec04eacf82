"""embed_loop.c as a process, and its input from an Embedder's own plan: the same texts in the same batches."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rawllama import Model
from rawllama.embedder import MAX_SEQUENCES, TOKEN_BUDGET, plan

from .programs import FOLDER, compile_c


def write_batches(model: Model, texts: Sequence[str], path: Path) -> NDArray[np.int64]:
    """Write the batches; return the texts in the order in which they are in there."""
    tokens, offsets = model.vocab.tokenize_many(list(texts))
    lengths = np.diff(offsets)
    order, bounds = plan(lengths)
    parts: list[NDArray[np.int32]] = [np.array([bounds.size - 1], np.int32)]
    for start, end in pairwise(bounds):
        chosen = order[start:end]
        parts += [np.array([chosen.size], np.int32), lengths[chosen].astype(np.int32)]
        parts += [tokens[offsets[text] : offsets[text + 1]] for text in chosen]
    np.concatenate(parts).tofile(path)
    return order


class Loop:
    """The C program, compiled into a folder and running, with a context of the Embedder's size."""

    def __init__(self, model: str, folder: Path, *, n_threads: int) -> None:
        program = compile_c(FOLDER / "embed_loop.c", folder)
        command = [str(program), model, *map(str, (TOKEN_BUDGET, MAX_SEQUENCES, n_threads))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, batches: Path, rows: Path, *, rounds: int = 1) -> list[float]:
        """Compute the batches in this file; return the seconds of each round. The rows come into the other file."""
        assert self.process.stdin and self.process.stdout
        print(batches, rounds, rows, file=self.process.stdin, flush=True)
        return [float(self.process.stdout.readline()) for _ in range(rounds)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()  # the end of its input ends it
