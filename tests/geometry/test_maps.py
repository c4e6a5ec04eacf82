"""Clusters and maps with fixed seeds; what a table takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import InvalidArgumentError, Model, quantize
from rawllama.geometry import METHODS, clusters, project, table_bytes, table_sizes


def groups(each: int = 12, width: int = 16) -> NDArray[np.float64]:
    """Rows around three far corners, in turns: 0, 1, 2, 0, 1, 2, ..."""
    noise = np.random.default_rng(0).standard_normal((3 * each, width)) * 0.05
    return np.tile(np.eye(3, width), (each, 1)) + noise


@pytest.mark.parametrize("method", METHODS)
def test_groups_stay_groups(method: str) -> None:
    points = project(groups(), method)
    assert points.shape == (36, 2)
    middles = np.array([points[i::3].mean(axis=0) for i in range(3)])
    nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(axis=1)
    assert nearest.tolist() == [0, 1, 2] * 12
    assert np.array_equal(points, project(groups(), method))


def test_pca_is_the_singular_value_decomposition() -> None:
    rows = np.random.default_rng(1).standard_normal((20, 5))
    centred = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    expected = u[:, :2] * s[:2]
    points = project(rows)
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)


@pytest.mark.parametrize("n", [4, 5, 15, 16, 17, 40])
def test_umap_of_few(n: int) -> None:
    assert np.isfinite(project(np.random.default_rng(n).standard_normal((n, 8)), "umap")).all()


def test_rows_without_differences() -> None:
    assert project(np.ones((5, 3))).tolist() == [[0, 0]] * 5
    np.testing.assert_allclose(np.abs(project([[1.0], [3.0]])), [[1, 0], [1, 0]], atol=1e-9)  # one column is a line


def test_clusters() -> None:
    """Numbered in the order in which they appear."""
    assert clusters(groups(), 3).tolist() == [0, 1, 2] * 12
    assert clusters(groups(), 1).tolist() == [0] * 36
    assert sorted(clusters(groups(2), 6).tolist()) == [0, 1, 2, 3, 4, 5]
    assert set(clusters(np.ones((4, 2)), 3).tolist()) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: project(groups(), "tsne"), "method: 'tsne' is none of pca, umap"),
        (lambda: project(np.ones(3)), r"rows: shape \(3,\); \(n, d\) is wanted"),
        (lambda: project(np.ones((1, 3))), "rows: 1 of them; at least 2 are needed"),
        (lambda: project(np.ones((3, 3)), "umap"), "rows: 3 of them; at least 4 are needed"),
        (lambda: project([[1.0, np.nan], [0, 1]]), "rows: some numbers are not finite"),
        (lambda: clusters(groups(), 0), "n: 0 clusters; ask for at least 1"),
        (lambda: clusters(np.ones((2, 2)), 3), "rows: 2 of them; at least 3 are needed"),
        (lambda: table_bytes(10, 32, "q7_1"), "type: 'q7_1' is none of bf16, f16"),
        (lambda: table_bytes(10, 32, "i32"), "type: no weights are of the type 'i32'"),
        (lambda: table_bytes(10, 33, "q8_0"), "n_embd: 33 is no multiple of 32, the columns that 'q8_0' packs at once"),
        (lambda: table_bytes(10, 384, "q4_k"), "n_embd: 384 is no multiple of 256"),
        (lambda: table_bytes(0, 32), "n_vocab: 0 is less than 1"),
        (lambda: table_bytes(10, -32), "n_embd: -32 is less than 1"),
    ],
)
def test_refused(call: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        call()


@pytest.mark.parametrize("package", ["sklearn", "umap"])
def test_without_the_extra(package: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None
import numpy as np
from rawllama.errors import MissingExtraError
from rawllama.geometry import clusters, project
calls = [lambda: project(np.eye(5)), lambda: clusters(np.eye(5), 2)]
for call in calls if {package!r} == "sklearn" else [lambda: project(np.eye(5), "umap")]:
    try:
        call()
    except MissingExtraError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    name = {"sklearn": "scikit-learn", "umap": "umap-learn"}[package]
    expected = f"{name} is not installed: pip install 'rawllama[plots]'\n"
    assert done.stdout == expected * (2 if package == "sklearn" else 1)


# ---- what a table takes


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k", "iq4_nl", "mxfp4"])
def test_bytes_are_gguf_pys(kind: str) -> None:
    """Another library's sizes of blocks."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.upper()]]
    assert table_bytes(1000, 768, kind) == 1000 * 768 // block * size


def test_bytes_of_a_file(minilm: str, tmp_path: Path) -> None:
    """As large as the table of a real file, before and after it is quantised."""
    with Model(minilm) as model:
        n_vocab, n_embd = len(model.vocab), model.n_embd
    small = tmp_path / "small.gguf"
    quantize(minilm, small, "mostly_q8_0", token_embedding_type="q8_0")
    for path, kind in ((minilm, "f32"), (small, "q8_0")):
        table = next(one for one in gguf.GGUFReader(path).tensors if one.name == "token_embd.weight")
        assert table.tensor_type.name.lower() == kind
        assert int(table.n_bytes) == table_bytes(n_vocab, n_embd, kind)


def test_sizes() -> None:
    sizes = table_sizes(30522, 384)
    assert sizes["f32"] == 30522 * 384 * 4 == 2 * sizes["f16"]
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert "q8_0" in sizes
    assert "q4_k" not in sizes  # it packs 256 columns at once
    assert "q4_k" in table_sizes(10, 512)
    assert "i8" not in sizes
