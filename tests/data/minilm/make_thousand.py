"""Make the reference vectors of a thousand English texts: sentence-transformers, all-MiniLM-L6-v2, fp32, one at a time.

Reads the texts, which rawllama.bench.corpus printed, from the file that is named; writes thousand.npz and thousand.json
beside itself. The commands are in README.md.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from make_reference import (
    HERE,
    MAX_TOKENS,
    PACKAGES,
    Float32,
    full_length,
    load_model,
    load_plain_tokenizer,
    model_folder,
    sha256,
)
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer


def tokens_of(model: SentenceTransformer, text: str) -> NDArray[np.int32]:
    """Token ids, special ones included, as the model gets them."""
    return model.preprocess([text])["input_ids"][0].numpy().astype(np.int32)


def pack(rows: Float32) -> tuple[NDArray[np.int16], Float32]:
    """Rows as int16 and a scale each: row = integers * scale."""
    scales = np.abs(rows).max(axis=1) / np.float32(32767)
    return np.rint(rows / scales[:, None]).astype(np.int16), scales


def worst_cosine(rows: Float32, integers: NDArray[np.int16], scales: Float32) -> float:
    """Between the rows and what is stored of them."""
    stored, exact = integers.astype(np.float64) * scales[:, None], rows.astype(np.float64)
    norms = np.linalg.norm(stored, axis=1) * np.linalg.norm(exact, axis=1)
    return float(((stored * exact).sum(axis=1) / norms).min())


def main() -> None:
    """Embed the texts and write the two files."""
    torch.set_num_threads(1)  # as in make_reference.py
    texts: list[str] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = model_folder()
    model, plain = load_model(folder), load_plain_tokenizer(folder)
    lengths = [full_length(model, plain, text) for text in texts]
    if len(set(texts)) != 1000 or max(lengths) > MAX_TOKENS:
        raise SystemExit(f"{len(set(texts))} different texts of up to {max(lengths)} tokens")
    rows = np.concatenate([model.encode([text], show_progress_bar=False) for text in texts])
    integers, scales = pack(rows)
    checksums = np.array([zlib.crc32(tokens_of(model, text).tobytes()) for text in texts], np.uint32)
    np.savez_compressed(HERE / "thousand.npz", integers=integers, scales=scales, token_checksums=checksums)
    record = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "texts_sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "model_sha256": sha256(folder / "model.safetensors"),
        "tokens": {"least": min(lengths), "median": int(np.median(lengths)), "most": max(lengths), "all": sum(lengths)},
        "1 - cosine of the stored rows, at most": 1 - worst_cosine(rows, integers, scales),
    }
    (HERE / "thousand.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
