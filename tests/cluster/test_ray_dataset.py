"""A column of vectors for a Ray dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data
from rawllama import Embedder
from rawllama.errors import InvalidArgumentError
from rawllama.ray import embed

from .conftest import Nodes


@pytest.fixture
def dataset(nodes: Nodes, texts: list[str]) -> ray.data.Dataset:
    table = pa.table({"id": range(len(texts)), "text": texts})
    return ray.data.from_arrow([table[start : start + 100] for start in range(0, len(texts), 100)])


def table_of(dataset: ray.data.Dataset) -> pa.Table:
    return pa.concat_tables(ray.get(dataset.to_arrow_refs())).sort_by("id")


def test_vectors_are_the_embedders(
    dataset: ray.data.Dataset, minilm: str, texts: list[str], vectors: np.ndarray
) -> None:
    table = table_of(embed(dataset, model=minilm, actors=2, batch_rows=64))
    assert table["id"].to_pylist() == list(range(len(texts)))
    assert table["text"].to_pylist() == texts
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 384)
    assert np.abs(np.stack(table["embedding"].to_numpy()) - vectors).max() <= 1e-6


def test_settings_reach_the_actors(dataset: ray.data.Dataset, minilm: str, texts: list[str]) -> None:
    """And the number of actors may be left to Ray."""
    table = table_of(embed(dataset.limit(90), model=minilm, into="row", dtype="int8", dims=96, prompts={"q": "query: "},
                           prompt="q"))  # fmt: skip
    with Embedder(minilm, dtype="int8", dims=96, prompts={"q": "query: "}) as embedder:
        rows = embedder.encode(texts[:90], prompt="q")
    assert table.num_rows == 90
    assert table.schema.field("row").type == pa.list_(pa.int8(), 96)
    assert np.abs(np.stack(table["row"].to_numpy()).astype(int) - rows.values).max() <= 1  # at the edge of rounding
    np.testing.assert_allclose(table["row_scale"].to_numpy(), rows.scales, rtol=1e-5)


def test_a_row_that_is_no_text(nodes: Nodes, minilm: str) -> None:
    rows = ray.data.from_arrow(pa.table({"id": [0, 1, 2], "text": ["one", None, "three"]}))
    table = table_of(embed(rows, model=minilm, bad_rows="null"))
    assert table["embedding"].is_null().to_pylist() == [False, True, False]
    with pytest.raises(ray.exceptions.RayTaskError, match="'text' is null in row 1; fill it, or pass bad_rows='null'"):
        embed(rows, model=minilm).materialize()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"actors": 0}, "actors: 0; pass a number from 1, or two: least and most"),
        ({"actors": (3, 2)}, r"actors: \(3, 2\); pass"),
        ({"cpus_per_actor": -1}, "cpus_per_actor: -1 is negative"),
        ({"gpus_per_actor": float("nan")}, "gpus_per_actor: nan"),
        ({"batch_rows": 0}, "batch_rows: 0 is not between 1"),
        ({"bad_rows": "skip"}, "bad_rows: 'skip' is none of error, null"),
        ({"into": "text"}, "into: 'text' takes the name of the column of texts"),
        ({"ray_options": {"num_cpus": 2}}, "ray_options: num_cpus follows from the other arguments"),
        ({"pool": "mean"}, "pool: no keyword of Embedder; it has pooling, n_threads"),
    ],
)
def test_refused_before_there_are_actors(dataset: ray.data.Dataset, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        embed(dataset, **{"model": "minilm", **arguments})


def test_a_model_that_is_open_cannot_travel(dataset: ray.data.Dataset, minilm: str) -> None:
    with Embedder(minilm) as embedder, pytest.raises(InvalidArgumentError, match="model: a Embedder stays in its pro"):
        embed(dataset, model=embedder)  # type: ignore[arg-type]
