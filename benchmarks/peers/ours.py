"""rawllama's Embedder. Needs rawllama."""

from __future__ import annotations

from collections.abc import Sequence

from worker import Rows, Side, serve


class Ours(Side):
    needs = ("rawllama",)
    shown = ("rawllama",)

    def __init__(self, model: str, threads: int, variant: str) -> None:
        from rawllama import Embedder

        super().__init__(model, threads, variant)
        self.embedder = Embedder(model, n_threads=threads, kernels=variant or None)

    def about(self) -> str:
        from rawllama import backend

        options = backend.build()
        built = f"libllama {options['commit']} ({options['ggml_options']})"
        return f"{super().about()}, kernels {self.embedder.model.kernels}, {built}, flash attention auto"

    def encode(self, texts: Sequence[str]) -> Rows:
        return self.embedder.encode(texts)


if __name__ == "__main__":
    serve(Ours)
