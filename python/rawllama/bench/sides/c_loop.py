# mypy: ignore-errors
"""A C program that calls llama.h itself, given the tokens and the batches of rawllama's plan. Needs rawllama and cc.

../c/embed_loop.c, on rawllama's own libllama; a test holds its rows against the Embedder's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from worker import Rows, Side, peak_of, serve


class CLoop(Side):
    needs = ("rawllama",)

    def __init__(self, settings: dict[str, Any]) -> None:
        from rawllama import Model
        from rawllama.bench.loop import Loop

        super().__init__(settings)
        self.model = Model(settings["model"], vocab_only=True)
        self.folder = tempfile.TemporaryDirectory()
        self.loop = Loop(settings["model"], Path(self.folder.name), n_threads=self.threads)
        self.known: dict[tuple[str, ...], tuple[Path, NDArray[np.int64]]] = {}

    def about(self) -> str:
        return f"the same libllama, kernels ggml, flash attention auto, threads {self.threads}"

    def batches(self, texts: Sequence[str]) -> tuple[Path, NDArray[np.int64]]:
        """The file with the batches of these texts, and their order in it; written the first time."""
        from rawllama.bench.loop import write_batches

        key = tuple(texts)
        if key not in self.known:
            file = Path(self.folder.name, f"batches{len(self.known)}")
            self.known[key] = file, write_batches(self.model, texts, file)
        return self.known[key]

    def encode(self, texts: Sequence[str]) -> Rows:
        self.seconds(texts)
        in_order = np.fromfile(Path(self.folder.name, "rows"), np.float32).reshape(len(texts), -1)
        rows = np.empty_like(in_order)
        rows[self.batches(texts)[1]] = in_order
        return rows

    def seconds(self, texts: Sequence[str]) -> float:
        return self.loop.run(self.batches(texts)[0], Path(self.folder.name, "rows"))[0]

    def peak(self) -> int:
        return peak_of(self.loop.process.pid)


if __name__ == "__main__":
    serve(CLoop)
