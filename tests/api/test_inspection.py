"""What a file holds and will take, against gguf's own reader and real contexts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from rawllama import Context, InvalidArgumentError, Model, ModelLoadError
from rawllama.inspection import estimate, metadata
from rawllama.tensors import Tensors

from tests.memory import forget_peak, peak_kb
from tests.models import tiny as tiny_models

Tiny = Callable[[str], Path]
SIZES = {"n_ctx": 256, "n_batch": 128, "n_ubatch": 64, "n_seq_max": 4, "embeddings": True, "kv_unified": True}


@pytest.mark.parametrize("name", ["bert-classifier", "llama", "gemma-embedding", "mamba"])
def test_metadata_is_what_the_writers_library_reads(name: str, tiny: Tiny) -> None:
    reader = gguf.GGUFReader(tiny(name))
    expected = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    found = metadata(tiny(name))
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(expected[key]) for key in expected)


def test_numbers_of_all_types(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "all.gguf", "none")
    values: dict[str, tuple[Any, gguf.GGUFValueType]] = {
        "u8": (255, gguf.GGUFValueType.UINT8),
        "i8": (-128, gguf.GGUFValueType.INT8),
        "u16": (65535, gguf.GGUFValueType.UINT16),
        "i16": (-32768, gguf.GGUFValueType.INT16),
        "u32": (2**32 - 1, gguf.GGUFValueType.UINT32),
        "i32": (-(2**31), gguf.GGUFValueType.INT32),
        "u64": (2**64 - 1, gguf.GGUFValueType.UINT64),
        "i64": (-(2**63), gguf.GGUFValueType.INT64),
        "f32": (0.5, gguf.GGUFValueType.FLOAT32),
        "f64": (1e300, gguf.GGUFValueType.FLOAT64),
        "yes": (True, gguf.GGUFValueType.BOOL),
    }
    for key, (value, kind) in values.items():
        writer.add_key_value(key, value, kind)
    writer.add_array("list", [1.5, -2.0])
    writer.add_array("words", ["a", "", "é"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    found = metadata(tmp_path / "all.gguf")
    assert {key: found[key] for key in values} == {key: value for key, (value, _) in values.items()}
    assert (found["list"], found["words"], found["yes"]) == ([1.5, -2.0], ["a", "", "é"], True)


@pytest.mark.parametrize("name", ["bert", "llama", "mamba"])
def test_tensors_have_numpys_shapes(name: str, tiny: Tiny) -> None:
    expected = {tensor.name: tensor for tensor in gguf.GGUFReader(tiny(name)).tensors}
    found = {tensor.name: tensor for tensor in Tensors(tiny(name)).values()}
    assert list(found) == list(expected)
    for key, tensor in found.items():
        assert tensor.n_bytes == expected[key].n_bytes
        assert tensor.shape == tuple(expected[key].data.shape) or np.prod(tensor.shape) == expected[key].data.size


@pytest.mark.parametrize("name", list(tiny_models.MODELS))
def test_the_estimate_is_what_a_context_takes(name: str, tiny: Tiny) -> None:
    found = estimate(tiny(name), **SIZES)
    with Model(tiny(name)) as model, Context(model, **SIZES) as context:
        taken = context.footprints
    # A file that is mapped into memory begins each tensor where the file does.
    assert sum(one.model for one in found) == pytest.approx(sum(one.model for one in taken), rel=0.001)
    assert sum(one.context for one in found) == sum(one.context for one in taken)
    assert sum(one.compute for one in found) == pytest.approx(sum(one.compute for one in taken), rel=0.02)
    assert all(one.is_host and one.total == one.model + one.context + one.compute for one in found)


def test_the_cache_grows_with_its_settings(tiny: Tiny) -> None:
    def cache(**settings: Any) -> int:
        return sum(one.context for one in estimate(tiny("llama"), n_seq_max=1, **settings))

    # Two layers; keys and values of two heads of 8 columns; float16.
    assert cache(n_ctx=512) == 2 * 2 * 2 * 8 * 2 * 512
    assert cache(n_ctx=1024, type_k="f32", type_v="f32") == 4 * cache(n_ctx=512)


def test_the_weights_are_not_read(minilm: str) -> None:
    """The estimate is there before a model could be: its pages stay on the disk."""
    forget_peak()
    before = peak_kb()
    found = estimate(minilm, n_ctx=512)
    grown = peak_kb() - before
    assert sum(one.model for one in found) == 90261504
    assert grown < 40_000, "kB; the weights are 88,000"


def test_mistakes(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(InvalidArgumentError, match=r"path: .*no\.gguf is no GGUF file, or it is damaged"):
        metadata(tmp_path / "no.gguf")
    with pytest.raises(ModelLoadError):
        estimate(tmp_path / "no.gguf")
    for function in (metadata, estimate):
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "missing.gguf")
        with pytest.raises(IsADirectoryError):
            function(tmp_path)
    with pytest.raises(InvalidArgumentError, match="type_k: 'q9' is none of"):
        estimate(tiny("llama"), type_k="q9")
