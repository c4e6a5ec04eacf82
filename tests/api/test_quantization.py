"""rawllama.quantization: smaller files whose vectors are close; failures leave the old file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from rawllama import ffi
from rawllama.errors import InvalidArgumentError, LlamaError, ModelLoadError
from rawllama.model import Model
from rawllama.quantization import quantize

from ..models.tiny import LAYERS, MODELS
from ..tools import Rows, batch_of, context_of, run_python, some_tokens

Tiny = Callable[[str], Path]


def types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def rows_of(path: Path) -> Rows:
    with Model(path) as model, context_of(model, embeddings=True, pooling_type="none") as context:
        (context.encode if model.has_encoder else context.decode)(batch_of(some_tokens(model, 9)))
        return context.get_embeddings_ith()


def cosines(a: Rows, b: Rows) -> Any:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize(
    ("ftype", "kind", "least"),
    [("mostly_f16", "F16", 0.999), ("mostly_bf16", "BF16", 0.999), ("mostly_q8_0", "Q8_0", 0.999),
     ("mostly_q4_0", "Q4_0", 0.9), ("all_f32", "F32", 0.999999), (7, "Q8_0", 0.999)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["bert", "nomic-bert", "llama", "qwen3", "t5encoder"])
def test_types_and_vectors(name: str, ftype: str | int, kind: str, least: float, tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "small.gguf"
    quantize(tiny(name), target, ftype, nthread=1)
    assert types(target)["blk.1.ffn_up.weight" if name != "t5encoder" else "enc.blk.1.ffn_up.weight"] == kind
    assert cosines(rows_of(target), rows_of(tiny(name))).min() > least
    if kind != "F32":
        assert target.stat().st_size < tiny(name).stat().st_size
        with Model(target) as model:
            assert model.ftype == (ftype if isinstance(ftype, str) else "mostly_q8_0")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", MODELS)
def test_copy(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """`only_copy` keeps each tensor, of every architecture: what `Model.save` cannot do for all."""
    target = tmp_path / "copy.gguf"
    quantize(tiny(name), target, "mostly_q4_0", only_copy=True)
    assert types(target) == types(tiny(name))
    if name != "t5":
        assert np.array_equal(rows_of(target), rows_of(tiny(name)))


def test_minilm(minilm: str, tmp_path: Path) -> None:
    target = tmp_path / "minilm.gguf"
    quantize(minilm, target, "mostly_q8_0")
    expected = rows_of(Path(minilm))
    assert cosines(rows_of(target), expected).min() > 0.99
    assert target.stat().st_size < 0.4 * Path(minilm).stat().st_size


# ---- parameters


def test_every_parameter_is_a_keyword() -> None:
    """Those of the C struct, but for the two that do not write one file."""
    fields = {name for name, _ in ffi.typeof("llama_model_quantize_params").fields}
    parameters = inspect.signature(quantize).parameters
    assert set(parameters) - {"source", "target"} == fields - {"keep_split", "dry_run"}
    assert {parameters[name].default for name in set(parameters) - {"source", "target", "ftype"}} == {None}


def test_types_of_single_tensors(tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "small.gguf"

    def run(**settings: Any) -> dict[str, str]:
        quantize(tiny("llama"), target, "mostly_q8_0", **settings)
        return types(target)

    plain = run()
    assert plain["output.weight"] == plain["token_embd.weight"] == "Q8_0"
    assert run(output_tensor_type="f16")["output.weight"] == "F16"
    assert run(token_embedding_type="q4_0")["token_embd.weight"] == "Q4_0"
    assert run(quantize_output_tensor=False)["output.weight"] == "F32"
    found = run(tt_overrides={"blk.0.ffn_up": "f16", "attn_q": "q5_0"})
    assert found["blk.0.ffn_up.weight"] == "F16"
    assert found["blk.1.ffn_up.weight"] == "Q8_0"
    assert found["blk.1.attn_q.weight"] == "Q5_0"
    assert run(tt_overrides={}, imatrix={}) == plain
    assert run(max_buf_size=1) == run(nthread=2) == plain


def test_pure(tiny: Tiny, tmp_path: Path) -> None:
    """Without it, mixtures give some tensors more bits."""
    mixed, pure = tmp_path / "mixed.gguf", tmp_path / "pure.gguf"
    quantize(tiny("llama"), mixed, "mostly_q5_0")
    quantize(tiny("llama"), pure, "mostly_q5_0", pure=True)
    assert set(types(pure).values()) == {"F32", "Q5_0"}
    assert types(mixed)["output.weight"] != types(pure)["output.weight"]


def test_requantize(tiny: Tiny, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    quantize(tiny("llama"), first, "mostly_q8_0")
    with pytest.raises(LlamaError, match="requantiz"):
        quantize(first, second, "mostly_q4_0")
    assert not second.exists()
    quantize(first, second, "mostly_q4_0", allow_requantize=True)
    assert types(second)["blk.0.ffn_up.weight"] == "Q4_0"


def test_importance(tiny: Tiny, tmp_path: Path) -> None:
    """Columns that matter more are rounded better."""
    plain, weighed = tmp_path / "plain.gguf", tmp_path / "weighed.gguf"
    name = "blk.0.ffn_up.weight"
    quantize(tiny("llama"), plain, "mostly_q4_0")
    importance = np.ones(32, np.float32)
    importance[3] = 1e4
    quantize(tiny("llama"), weighed, "mostly_q4_0", imatrix={name: importance})

    def column(path: Path) -> Any:
        tensor = next(one for one in gguf.GGUFReader(path).tensors if one.name == name)
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(-1, 32)[:, 3]

    exact = column(tiny("llama"))
    assert np.abs(column(weighed) - exact).mean() < np.abs(column(plain) - exact).mean()


def test_kv_overrides(tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "small.gguf"
    overrides = {"general.name": "another", "my.int": 2**32 - 1, "my.float": 0.5, "my.flag": True}
    quantize(tiny("llama"), target, "mostly_q8_0", kv_overrides=overrides)
    with Model(target) as model:
        assert model.metadata["general.name"] == "another"
        assert (int(model.metadata["my.int"]), float(model.metadata["my.float"])) == (2**32 - 1, 0.5)
        assert model.metadata["my.flag"] == "true"


def test_prune_layers(tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "small.gguf"
    quantize(tiny("llama"), target, "mostly_f16", prune_layers=[1])
    assert not any(name.startswith("blk.1.") for name in types(target))
    with Model(target) as model:
        assert model.n_layer == LAYERS - 1


# ---- failures


@pytest.mark.parametrize(
    "settings",
    [
        {"ftype": "q8"}, {"ftype": 9999}, {"ftype": ""}, {"nthread": 0}, {"nthread": 1000}, {"nthread": 1.5},
        {"output_tensor_type": "q9"}, {"token_embedding_type": -7}, {"pure": "yes"}, {"max_buf_size": -1},
        {"max_buf_size": 2**64}, {"imatrix": {"blk.0.ffn_up.weight": []}}, {"imatrix": {"a\0b": [1.0]}},
        {"imatrix": {"output.weight": [float("nan")]}}, {"kv_overrides": {"": 1}}, {"tt_overrides": {"x": "q9"}},
        {"tt_overrides": {"a\0b": "q8_0"}}, {"prune_layers": [2**31]}, {"prune_layers": ["one"]},
        {"prune_layers": [-1]}, {"imatrix": {"output.weight": ["many"]}}, {"kv_overrides": {"key": -1}},
        {"kv_overrides": {"key": 2**32}},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_parameters_are_named(settings: dict[str, Any], tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "small.gguf"
    target.write_bytes(b"old")
    with pytest.raises(InvalidArgumentError, match=next(iter(settings))):
        quantize(tiny("llama"), target, **({"ftype": "mostly_q8_0"} | settings))
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_pattern_that_is_none(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(LlamaError, match="regular expression"):
        quantize(tiny("llama"), tmp_path / "small.gguf", "mostly_q8_0", tt_overrides={"[": "q8_0"})


@pytest.mark.parametrize("wrong", [np.ones(31), np.ones(64), -np.ones(32)], ids=["short", "long", "negative"])
def test_importance_of_another_shape(wrong: Any, tiny: Tiny, tmp_path: Path) -> None:
    """libllama says so, or ignores it; the process lives."""
    target = tmp_path / "small.gguf"
    target.write_bytes(b"old")
    try:
        quantize(tiny("llama"), target, "mostly_q4_0", imatrix={"blk.0.ffn_up.weight": wrong})
    except LlamaError:
        assert target.read_bytes() == b"old"
    else:
        assert np.isfinite(rows_of(target)).all()
    assert list(tmp_path.iterdir()) == [target]


def test_sources_that_are_none(tiny: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "small.gguf"
    target.write_bytes(b"old")
    bad = tmp_path / "bad.gguf"
    content = tiny("llama").read_bytes()
    for data in (b"", b"GGUF", b"text" * 50, content[: len(content) // 2], content[:-1]):
        bad.write_bytes(data)
        with pytest.raises(LlamaError):
            quantize(bad, target, "mostly_q8_0")
    with pytest.raises(FileNotFoundError):
        quantize(tmp_path / "missing.gguf", target, "mostly_q8_0")
    with pytest.raises(IsADirectoryError):
        quantize(tmp_path, target, "mostly_q8_0")
    with pytest.raises(FileNotFoundError):
        quantize(tiny("llama"), tmp_path / "missing" / "small.gguf", "mostly_q8_0")
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.gguf", "small.gguf"]


def test_a_damaged_source(tiny: Tiny, tmp_path: Path) -> None:
    """modelfile.py's refusal holds here too."""
    content = bytearray(tiny("llama").read_bytes())
    name = b"blk.0.attn_norm.weight"
    at = content.index(name) + len(name) + 4 + 8
    content[at : at + 4] = (26).to_bytes(4, "little")  # GGML_TYPE_I32
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(ModelLoadError, match="damaged"):
        quantize(tmp_path / "bad.gguf", tmp_path / "small.gguf", "mostly_q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.gguf"]


def test_over_its_own_source(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(tiny("llama").read_bytes())
    quantize(file, file, "mostly_q8_0")
    assert cosines(rows_of(file), rows_of(tiny("llama"))).min() > 0.999


def test_a_full_disk(tiny: Tiny, tmp_path: Path) -> None:
    """A file size limit stands for it: there is an error, and the old file is as it was."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from rawllama import LlamaError\n"
        "from rawllama.quantization import quantize\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "source, target = map(Path, sys.argv[1:])\n"
        "target.write_bytes(b'old')\n"
        "for limit in (100, 20_000, 50_000):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        quantize(source, target, 'mostly_f16', nthread=1)\n"
        "    except (LlamaError, OSError) as error:\n"
        "        print('refused', type(error).__name__, error)\n"
        "    assert target.read_bytes() == b'old', target.stat()\n"
        "    assert list(target.parent.iterdir()) == [target]\n"
    )
    assert run_python(code, tiny("llama"), tmp_path / "small.gguf").stdout.count("refused") == 3
