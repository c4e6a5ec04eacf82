"""A C program that packs the Embedder's batches by hand gets its rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rawllama import Embedder
from rawllama.bench.loop import Loop, write_batches

FILE = Path(__file__).parent.parent / "data" / "minilm" / "texts.json"
TEXTS = [one["text"] for one in json.loads(FILE.read_text(encoding="utf-8"))]


def test_the_rows_are_those_of_the_c_loop(minilm: str, tmp_path: Path) -> None:
    with Embedder(minilm, n_threads=1, kernels="ggml") as embedder:
        short = [text for text in TEXTS if embedder.tokenize(text).size <= embedder.max_tokens]
        texts = list(dict.fromkeys(short))
        rows = embedder.encode(texts)
        order = write_batches(embedder.model, texts, tmp_path / "batches")
    with Loop(minilm, tmp_path, n_threads=1) as loop:
        loop.run(tmp_path / "batches", tmp_path / "rows")
    of_c = np.fromfile(tmp_path / "rows", np.float32).reshape(-1, rows.shape[1])
    assert len(texts) > 150
    np.testing.assert_allclose(rows[order], of_c, rtol=0, atol=1e-7)
