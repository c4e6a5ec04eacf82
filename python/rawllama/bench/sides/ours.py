# mypy: ignore-errors
"""rawllama's Embedder. Needs rawllama.

The variant is the name of its kernels; "" for the default ones. With the setting `slower`, a share of its time, it is
slow on purpose: what `rawllama bench check` must find.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from worker import Rows, Side, serve


class Ours(Side):
    needs = ("rawllama",)
    shown = ("rawllama",)

    def __init__(self, settings: dict[str, Any]) -> None:
        from rawllama import Embedder

        super().__init__(settings)
        self.slower: float = settings.get("slower", 0.0)
        self.embedder = Embedder(settings["model"], n_threads=self.threads, kernels=settings["variant"] or None)

    def about(self) -> str:
        kernels = self.embedder.model.kernels
        return f"{super().about()}, kernels {kernels}, flash attention auto, threads {self.threads}"

    def encode(self, texts: Sequence[str]) -> Rows:
        start = time.perf_counter()
        rows: Rows = self.embedder.encode(texts[0] if len(texts) == 1 else texts).reshape(len(texts), -1)
        end = time.perf_counter()
        while time.perf_counter() < end + self.slower * (end - start):
            pass
        return rows


if __name__ == "__main__":
    serve(Ours)
