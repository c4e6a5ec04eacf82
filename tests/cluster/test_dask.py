"""The same Arrow function on Dask: examples/dask_embed.py, by processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "dask_embed.py"


def require_right(table: pa.Table, texts: list[str], vectors: np.ndarray) -> None:
    table = table.sort_by("id")
    assert table["id"].to_pylist() == list(range(len(texts)))
    assert table["text"].to_pylist() == texts
    assert np.abs(np.stack(table["embedding"].to_numpy()) - vectors).max() <= 1e-6


def test_the_program(corpus: Path, minilm: str, texts: list[str], vectors: np.ndarray, tmp_path: Path) -> None:
    subprocess.run([sys.executable, PROGRAM, corpus, tmp_path / "out", "--model", minilm], check=True)
    require_right(pq.read_table(tmp_path / "out"), texts, vectors)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 2


def test_partitions_in_processes(
    minilm: str, texts: list[str], vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors keep their type on the way between them, and each partition its index."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    import dask_embed

    frame = pd.DataFrame({"id": range(len(texts)), "text": texts})
    made = dask_embed.embed(dd.from_pandas(frame, npartitions=3), minilm)
    assert str(made.dtypes["embedding"]) == str(pd.ArrowDtype(pa.list_(pa.float32(), 384)))
    found = made.compute(scheduler="processes", num_workers=2)
    assert list(found.index) == list(range(len(texts)))
    require_right(pa.Table.from_pandas(found), texts, vectors)
