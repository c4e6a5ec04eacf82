"""Rows of tables: every type that ggml reads, split and large files, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import InvalidArgumentError, Model, ModelLoadError, ffi, lib
from rawllama.layers import EmbeddingTable, learned_positions, learned_segments, scaled

from ..memory import forget_peak, peak_kb
from ..models import tiny as models

ROWS, WIDTH = 24, 256
TYPES = [
    kind for kind in gguf.GGMLQuantizationType
    if lib.ggml_get_type_traits(kind).to_float and (kind in gguf.quants._type_traits or kind.name == "F16")
]  # fmt: skip


def numbers() -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((ROWS, WIDTH)).astype(np.float32)


def quantized(kind: gguf.GGMLQuantizationType) -> NDArray[np.uint8]:
    """The rows in ggml's own blocks; random ones of the types whose tables take seconds to make."""
    stored = np.random.default_rng(6).integers(0, 0x3C, (ROWS, lib.ggml_row_size(kind, WIDTH)), np.uint8)
    if kind.name.startswith(("IQ1", "IQ2")):
        return stored  # no scale is as large as 1, infinite or NaN
    rows, weights = numbers(), np.ones(WIDTH, np.float32)
    size = lib.ggml_quantize_chunk(
        kind, ffi.from_buffer("float[]", rows), ffi.from_buffer(stored), 0, ROWS, WIDTH,
        ffi.from_buffer("float[]", weights),
    )  # fmt: skip
    assert size == stored.nbytes
    return stored


def written(path: Path, stored: NDArray[Any], kind: gguf.GGMLQuantizationType) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", stored, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.arange(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_there_are_many_types() -> None:
    assert {"Q4_K", "Q6_K", "Q8_0", "BF16", "F16", "IQ2_XS"} <= {kind.name for kind in TYPES}


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_types(kind: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    """Against the formulas of the package gguf, which are numpy."""
    stored = quantized(kind)
    table = EmbeddingTable(written(tmp_path / "model.gguf", stored, kind))
    assert table.shape == (ROWS, WIDTH)
    assert table.type == kind.name.lower().replace("_k", "_K")
    assert table.n_bytes == stored.nbytes
    ids = [23, 0, 7, 7]
    found, expected = table.rows(ids), gguf.quants.dequantize(stored, kind)[ids]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_float32(tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf", numbers(), gguf.GGMLQuantizationType.F32)
    table = EmbeddingTable(path)
    assert np.array_equal(table.rows(range(ROWS)), numbers())
    assert table.rows([]).shape == (0, WIDTH)
    assert len(table) == ROWS
    assert repr(table) == "<EmbeddingTable token_embd.weight, 24 x 256 f32>"
    vector = EmbeddingTable(path, "output_norm.weight")
    assert vector.shape == (1, 8)
    assert vector.rows([0]).tolist() == [list(range(8))]


def test_rows_are_the_callers_own(tmp_path: Path) -> None:
    table = EmbeddingTable(written(tmp_path / "model.gguf", numbers(), gguf.GGMLQuantizationType.F32))
    rows = table.rows([3])
    rows[:] = 0
    assert np.array_equal(table.rows([3]), numbers()[[3]])


def test_beyond_two_gib(tmp_path: Path) -> None:
    """A file with a hole of 5 GB, of which a table of 4 GB is a part."""
    path, rows, width = tmp_path / "large.gguf", 1 << 22, WIDTH
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor_info("first.weight", (1 << 18, 1024), np.dtype(np.float32), 1 << 30)
    writer.add_tensor_info("token_embd.weight", (rows, width), np.dtype(np.float32), rows * width * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = path.stat().st_size + -path.stat().st_size % 32 + (1 << 30)
    row = numbers()[0]
    with path.open("r+b") as file:
        file.seek(start + (rows - 1) * width * 4)
        file.write(row.tobytes())
    table = EmbeddingTable(path)
    forget_peak()
    before = peak_kb()
    assert np.array_equal(table.rows([rows - 1, 5]), [row, np.zeros(width)])
    assert table.n_bytes == 1 << 32
    assert peak_kb() - before < 50_000  # kB: the file is not read


def test_split_models(tmp_path: Path) -> None:
    """The table may be in any of the files; a path, a Model and the paths of all are the same."""
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama", split_max_tensors=8)
    shapes = models.MODELS["llama"].fill(writer)
    models._save(writer, dict(reversed(shapes.items())), 0)
    paths = sorted(tmp_path.glob("model-*.gguf"))
    assert len(paths) > 2
    expected = models.values("token_embd.weight", shapes["token_embd.weight"])[[1, 2]]
    assert "token_embd.weight" not in {tensor.name for tensor in gguf.GGUFReader(paths[0]).tensors}
    assert np.array_equal(EmbeddingTable(paths[0]).rows([1, 2]), expected)
    for source in (paths[0], paths):
        with Model(source) as model:
            assert np.array_equal(EmbeddingTable(model).rows([1, 2]), expected)


def test_nothing_stays_open(minilm: str) -> None:
    table = EmbeddingTable(minilm)
    before = len(list(Path("/proc/self/fd").iterdir()))
    maps = Path("/proc/self/maps").read_text().count(Path(minilm).name)
    for _ in range(20):
        EmbeddingTable(minilm).rows([1])
        table.rows([1, 2])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Path("/proc/self/maps").read_text().count(Path(minilm).name) == maps


def test_the_other_tables(minilm: str) -> None:
    reader = {tensor.name: tensor.data for tensor in gguf.GGUFReader(minilm).tensors}
    assert np.array_equal(learned_positions(minilm, [0, 511]), reader["position_embd.weight"][[0, 511]])
    assert np.array_equal(learned_segments(minilm, [0, 1, 0]), reader["token_types.weight"][[0, 1, 0]])
    rows = EmbeddingTable(minilm).rows([7])
    assert np.array_equal(scaled(rows), rows * np.float32(np.sqrt(384)))
    assert scaled(rows).dtype == np.float32


# ---- refused


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([30522], "ids: 30522 is no row of token_embd.weight, which are 0 to 30521"),
        ([0, -1], "ids: -1 is no row"),
        ([1 << 40], "ids: 1099511627776 is no row"),
        ([1.0], "ids: float64"),
        ([[1]], r"ids: int64, shape \(1, 1\) is no list of integers"),
        (1, r"ids: int64, shape \(\) is no list"),
        (["cat"], "ids: <U3"),
    ],
)
def test_ids_refused(minilm: str, ids: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        EmbeddingTable(minilm).rows(ids)


def test_files_refused(minilm: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no tensor 'tok_embd\.weight'; the closest is token_embd\.weight"):
        EmbeddingTable(minilm, "tok_embd.weight")
    with pytest.raises(FileNotFoundError, match=r"missing\.gguf"):
        EmbeddingTable(tmp_path / "missing.gguf")
    with pytest.raises(IsADirectoryError):
        EmbeddingTable(tmp_path)
    text = tmp_path / "text.gguf"
    text.write_text("no model")
    with pytest.raises(ModelLoadError, match=r"text\.gguf is no GGUF file, or it is damaged"):
        EmbeddingTable(text)
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelLoadError, match="is no GGUF file"):
        EmbeddingTable(tmp_path / "empty.gguf")
    source: Any = 3
    with pytest.raises(InvalidArgumentError, match="source: int is no path of a GGUF file and no Model"):
        EmbeddingTable(source)


def test_a_file_without_tensors(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InvalidArgumentError, match=r"has no tensor 'token_embd\.weight'; it has none at all"):
        EmbeddingTable(tmp_path / "vocabulary.gguf")


def test_a_file_that_was_cut(minilm: str, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with Path(minilm).open("rb") as file:
        cut.write_bytes(file.read(10_000_000))
    with pytest.raises(ModelLoadError, match=r"cut\.gguf is damaged: it ends before the tensor \S+ does"):
        EmbeddingTable(cut)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InvalidArgumentError, match=r"tensor token_embd\.weight is i32, which is no type of weights"):
        EmbeddingTable(tmp_path / "model.gguf").rows([0])


def test_a_model_from_an_open_file(tiny: Callable[[str], Path]) -> None:
    words = "loaded from an open file; give the file's path"
    with tiny("bert").open("rb") as file, Model(file) as model, pytest.raises(InvalidArgumentError, match=words):
        EmbeddingTable(model)
