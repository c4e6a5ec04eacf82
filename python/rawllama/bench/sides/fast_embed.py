# mypy: ignore-errors
"""fastembed's `TextEmbedding` of its model all-MiniLM-L6-v2. Needs fastembed and the files of export_onnx.py.

Its own file of the model is on the Hugging Face Hub; the one here is exported from the same weights and fused alike,
with the same tokenizer beside it. Batches are of as many texts as the fastest of several; 256 is its default.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from worker import Missing, Rows, Side, serve

NAME = "sentence-transformers/all-MiniLM-L6-v2"


class FastEmbed(Side):
    needs = ("fastembed",)
    shown = ("fastembed", "onnxruntime", "tokenizers")
    batch_sizes = ("4 texts", "8 texts", "16 texts", "64 texts", "256 texts")

    def __init__(self, settings: dict[str, Any]) -> None:
        from fastembed import TextEmbedding

        super().__init__(settings)
        folder = Path(sys.prefix, "minilm-onnx", "fastembed")
        if not folder.is_dir():
            raise Missing("no folder fastembed: run export_onnx.py")
        self.model = TextEmbedding(NAME, threads=self.threads, specific_model_path=str(folder))

    def about(self) -> str:
        return f"{super().about()}, its own attention, threads {self.threads}"

    def encode(self, texts: Sequence[str]) -> Rows:
        size = int(self.batch_size.split()[0])
        return np.array(list(self.model.embed(list(texts), batch_size=size)), np.float32)


if __name__ == "__main__":
    serve(FastEmbed)
