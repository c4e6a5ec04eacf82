# mypy: ignore-errors
"""Make the ONNX files of all-MiniLM-L6-v2 that the sides run: fp32, fused, and int8.

    PEERS/bin/python export_onnx.py        # writes PEERS/minilm-onnx/*.onnx

torch.onnx exports transformers' BertModel with mean pooling and L2 norm inside the graph: inputs input_ids and
attention_mask, batch and length free, output the unit vectors. onnxruntime's transformers optimizer fuses attention,
GELU and layer norms, as in the files that fastembed loads. int8 is onnxruntime's dynamic quantisation of the fused
file's weights, a scale a column. fastembed pools by itself: its folder has a fused file without that, and the
tokenizer.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import onnx
import onnxruntime
import torch
from minilm import model_folder
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from transformers import AutoModel

FOLDER = Path(sys.prefix) / "minilm-onnx"
PLAIN, FUSED, INT8 = (FOLDER / f"{name}.onnx" for name in ("plain", "fused", "int8"))
FASTEMBED = FOLDER / "fastembed"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")


class Hidden(torch.nn.Module):
    """BertModel: a row a token."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        # Eager attention is plain matrix products, which the optimizer knows.
        self.bert = AutoModel.from_pretrained(str(folder), attn_implementation="eager", dtype=torch.float32).eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class Vectors(Hidden):
    """The same with mean over the tokens, and norm."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = super().forward(input_ids, attention_mask)
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return torch.nn.functional.normalize(pooled, dim=-1)


def sample(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids and a mask of these lengths."""
    ids = torch.randint(1000, 20000, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


def export(model: Hidden, path: Path) -> None:
    """The graph as torch writes it."""
    torch.onnx.export(
        model, sample([9, 5]), str(path), input_names=["input_ids", "attention_mask"], output_names=["vectors"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
        | {"vectors": {0: "batch"} | ({} if isinstance(model, Vectors) else {1: "length"})},
        opset_version=17, dynamo=False,
    )  # fmt: skip


def fuse(plain: Path, fused: Path) -> dict[str, int]:
    """Fuse what the optimizer knows of BERT; return how often it did."""
    optimized = optimize_model(
        str(plain), model_type="bert", num_heads=12, hidden_size=384, optimization_options=FusionOptions("bert")
    )
    optimized.save_model_to_file(str(fused))
    return {name: count for name, count in optimized.get_fused_operator_statistics().items() if count}


def largest_difference(model: Vectors, path: Path) -> float:
    """Of the file's vectors to torch's, on padded texts."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ids, mask = sample([3, 18, 200, 512])
    with torch.no_grad():
        expected = model(ids, mask).numpy()
    (vectors,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    return float(np.abs(vectors - expected).max())


def export_for_fastembed() -> None:
    """A folder as fastembed's cache has it."""
    FASTEMBED.mkdir(exist_ok=True)
    with torch.no_grad():
        export(Hidden(model_folder()).eval(), FASTEMBED / "plain.onnx")
    fuse(FASTEMBED / "plain.onnx", FASTEMBED / "model.onnx")
    (FASTEMBED / "plain.onnx").unlink()
    for name in TOKENIZER:
        shutil.copy(model_folder() / name, FASTEMBED)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    export_for_fastembed()
    model = Vectors(model_folder()).eval()  # export puts back the mode that it found
    with torch.no_grad():
        export(model, PLAIN)
    print("fused:", fuse(PLAIN, FUSED))
    quantize_dynamic(
        FUSED, INT8, weight_type=QuantType.QInt8, per_channel=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # shapes are not inferred through fused operators
    )  # fmt: skip
    for path in (PLAIN, FUSED, INT8):
        megabytes, difference = path.stat().st_size / 1e6, largest_difference(model, path)
        print(f"{path.name}: {megabytes:.1f} MB, differs from torch by {difference:.2g}")


if __name__ == "__main__":
    main()
