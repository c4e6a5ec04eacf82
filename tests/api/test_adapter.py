"""rawllama.adapter, and what contexts add to the model: LoRA adapters and control vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from rawllama._handle import live
from rawllama.adapter import LoraAdapter
from rawllama.context import Context
from rawllama.errors import ClosedError, InvalidArgumentError, ModelLoadError
from rawllama.model import Model

from ..models import tiny as tiny_models
from ..models.tiny import LAYERS, LORA_RANK, MODELS, WIDTH
from ..tools import Rows, batch_of, context_of, some_tokens

Tiny = Callable[[str], Path]


@pytest.fixture
def model(tiny: Tiny) -> Iterator[Model]:
    with Model(tiny("llama")) as one:
        yield one


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    with context_of(model) as one:
        yield one


def rows(context: Context) -> Rows:
    assert context.memory is not None
    context.memory.clear()
    context.decode(batch_of(some_tokens(context.model, 9)))
    return context.get_logits_ith()


# ---- LoRA


def test_scales(tiny: Tiny, model: Model, context: Context) -> None:
    plain = rows(context)
    with LoraAdapter(model, tiny("llama-lora")) as adapter:
        assert adapter.path == str(tiny("llama-lora"))
        assert adapter.model is model
        context.set_adapters({adapter: 0.0})
        np.testing.assert_allclose(rows(context), plain, atol=1e-6)
        context.set_adapters({adapter: 1.0})
        full = rows(context)
        assert np.abs(full - plain).max() > 0.1
        context.set_adapters({adapter: 0.5})
        half = rows(context)
        assert np.abs(half - plain).max() > 0.05
        assert np.abs(half - full).max() > 0.05
        context.set_adapters({})
        assert np.array_equal(rows(context), plain)
        adapter.close()
    with pytest.raises(ClosedError):
        context.set_adapters({adapter: 1.0})
    assert np.array_equal(rows(context), plain)


def test_the_adapter_is_its_sum(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    """An adapter at a scale is a model whose weights have it added."""
    lora = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tiny("llama-lora")).tensors}
    writer = gguf.GGUFWriter(tmp_path / "merged.gguf", "llama")
    for name, shape in MODELS["llama"].fill(writer).items():
        weight = tiny_models.values(name, shape)
        if f"{name}.lora_a" in lora:
            a, b = lora[f"{name}.lora_a"], lora[f"{name}.lora_b"]
            weight = weight + 0.5 * 2 * LORA_RANK / LORA_RANK * (b @ a)  # alpha is twice the rank
        writer.add_tensor(name, weight.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    settings: dict[str, Any] = {"type_k": "f32", "type_v": "f32", "flash_attn_type": "disabled"}
    with Model(tmp_path / "merged.gguf") as merged, context_of(merged, **settings) as context:
        expected = rows(context)
    with LoraAdapter(model, tiny("llama-lora")) as adapter, context_of(model, **settings) as context:
        context.set_adapters({adapter: 0.5})
        np.testing.assert_allclose(rows(context), expected, atol=1e-3)


def test_several(tiny: Tiny, model: Model, context: Context, tmp_path: Path) -> None:
    other_file = tiny_models.write_lora(tmp_path / "other.gguf", seed=1)
    with LoraAdapter(model, tiny("llama-lora")) as one, LoraAdapter(model, other_file) as other:
        context.set_adapters({one: 1.0})
        first = rows(context)
        context.set_adapters({one: 1.0, other: 1.0})
        assert np.abs(rows(context) - first).max() > 0.1
        context.set_adapters({one: 1.0, other: 0.0})
        np.testing.assert_allclose(rows(context), first, atol=1e-5)
        context.set_adapters({other: 1.0})
        one.close()
        rows(context)
    assert +live == {"Model": 1, "Context": 1, "LoraAdapter": 1}  # `other` waits for the context
    with pytest.raises(ClosedError, match=r"set_adapters\(\) without it"):
        rows(context)
    context.set_adapters({})
    assert +live == {"Model": 1, "Context": 1}
    rows(context)


def test_two_contexts_share_one(tiny: Tiny, model: Model, context: Context) -> None:
    with LoraAdapter(model, tiny("llama-lora")) as adapter, context_of(model) as other:
        context.set_adapters({adapter: 1.0})
        other.set_adapters({adapter: 0.5})
        assert np.abs(rows(context) - rows(other)).max() > 0.05
        other.close()
        rows(context)
        context.set_adapters({})


def test_closing(tiny: Tiny, model: Model) -> None:
    """An adapter in use lives until the context is closed; a model takes all with it, contexts first."""
    context = context_of(model)
    adapter = LoraAdapter(model, tiny("llama-lora"))
    context.set_adapters({adapter: 1.0})
    adapter.close()
    assert adapter.closed
    assert live["LoraAdapter"] == 1
    context.close()
    assert live["LoraAdapter"] == 0
    for order in (0, 1):
        context = context_of(model)
        made = [LoraAdapter(model, tiny("llama-lora")) for _ in range(2)]
        context.set_adapters({made[order]: 1.0})
    model.close()
    assert context.closed
    assert all(one.closed for one in made)
    assert +live == {}


def test_metadata(tiny: Tiny, model: Model) -> None:
    with LoraAdapter(model, tiny("llama-lora")) as adapter:
        assert adapter.metadata["general.architecture"] == "llama"
        assert adapter.metadata["adapter.type"] == "lora"
        assert float(adapter.metadata["adapter.lora.alpha"]) == 2 * LORA_RANK
        assert adapter.alora_invocation_tokens == ()
    with pytest.raises(ClosedError):
        _ = adapter.alora_invocation_tokens


def test_activation_tokens(model: Model, tmp_path: Path) -> None:
    """An activated adapter names the tokens that switch it on."""
    writer = gguf.GGUFWriter(tmp_path / "alora.gguf", "llama")
    writer.add_type("adapter")
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 8.0)
    kinds = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32
    writer.add_key_value("adapter.alora.invocation_tokens", [7, 300, 12], *kinds)
    shapes = {"blk.0.attn_q.weight.lora_a": (4, WIDTH), "blk.0.attn_q.weight.lora_b": (WIDTH, 4)}
    tiny_models._save(writer, shapes, 0)
    with LoraAdapter(model, tmp_path / "alora.gguf") as adapter:
        assert adapter.alora_invocation_tokens == (7, 300, 12)


def test_files_that_are_none(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LoraAdapter(model, tmp_path / "missing.gguf")
    with pytest.raises(IsADirectoryError):
        LoraAdapter(model, tmp_path)
    bad = tmp_path / "bad.gguf"
    content = tiny("llama-lora").read_bytes()
    for data in (b"", b"GGUF", b"text" * 100, content[: len(content) // 2], content[:-1]):
        bad.write_bytes(data)
        with pytest.raises(ModelLoadError, match=r"bad\.gguf"):
            LoraAdapter(model, bad)
    with pytest.raises(ModelLoadError):
        LoraAdapter(model, tiny("llama"))
    with Model(tiny("bert")) as other, pytest.raises(ModelLoadError):
        LoraAdapter(other, tiny("llama-lora"))
    assert live["LoraAdapter"] == 0


def test_of_another_model(tiny: Tiny, context: Context) -> None:
    with Model(tiny("llama")) as other, LoraAdapter(other, tiny("llama-lora")) as adapter:
        with pytest.raises(InvalidArgumentError, match="another Model"):
            context.set_adapters({adapter: 1.0})
        other.close()
        assert adapter.closed


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "1", None], ids=repr)
def test_wrong_scales(scale: Any, tiny: Tiny, model: Model, context: Context) -> None:
    with LoraAdapter(model, tiny("llama-lora")) as adapter, pytest.raises(InvalidArgumentError, match="adapters"):
        context.set_adapters({adapter: scale})


def test_wide_scales_do_no_harm(tiny: Tiny, model: Model, context: Context) -> None:
    """A float that C's float cannot hold."""
    with LoraAdapter(model, tiny("llama-lora")) as adapter:
        for scale in (1e300, -1e300):
            with pytest.raises(InvalidArgumentError, match="adapters"):
                context.set_adapters({adapter: scale})
        context.set_adapters({adapter: -1.0})
        assert np.isfinite(rows(context)).all()
        context.set_adapters({})


# ---- control vectors


def test_control_vector(model: Model, context: Context) -> None:
    plain = rows(context)
    data = np.random.default_rng(0).standard_normal((LAYERS - 1, WIDTH)).astype(np.float32)
    context.set_control_vector(data)
    pushed = rows(context)
    assert np.abs(pushed - plain).max() > 0.1
    context.set_control_vector(2 * data, 1, LAYERS - 1)
    assert np.abs(rows(context) - pushed).max() > 0.1
    context.set_control_vector(np.zeros_like(data))
    np.testing.assert_allclose(rows(context), plain, atol=1e-6)
    context.set_control_vector(data.tolist())
    assert np.array_equal(rows(context), pushed)
    context.set_control_vector(None)
    assert np.array_equal(rows(context), plain)


def test_control_vectors_of_layers(smollm2: Path) -> None:
    """Only layers of the range are pushed: an empty range elsewhere is another sum."""
    with Model(smollm2) as model, context_of(model) as context:
        n_embd, n_layer = model.n_embd, model.n_layer
        plain = rows(context)
        data = 0.01 * np.random.default_rng(0).standard_normal((n_layer - 1, n_embd)).astype(np.float32)
        context.set_control_vector(data)
        everywhere = rows(context)
        only = np.zeros_like(data)
        only[4:9] = data[4:9]  # row 4 is layer 5
        context.set_control_vector(only)
        expected = rows(context)
        context.set_control_vector(data, 5, 9)
        np.testing.assert_allclose(rows(context), expected, atol=1e-5)
        assert np.abs(expected - plain).max() > 1e-3
        assert np.abs(expected - everywhere).max() > 1e-3


@pytest.mark.parametrize(
    ("data", "layers"),
    [
        (np.zeros((LAYERS, WIDTH)), ()), (np.zeros((LAYERS - 1, WIDTH + 1)), ()), (np.zeros(WIDTH), ()), (3.0, ()),
        (np.full((LAYERS - 1, WIDTH), np.nan), ()), (np.full((LAYERS - 1, WIDTH), 1e300), ()), ("text", ()),
        ([[1.0], [1.0, 2.0]], ()), (np.zeros((LAYERS - 1, WIDTH)), (0, 1)), (np.zeros((LAYERS - 1, WIDTH)), (1, 2)),
        (np.zeros((LAYERS - 1, WIDTH)), (2, 1)), (np.zeros((LAYERS - 1, WIDTH)), (-1, 1)),
    ],
    ids=lambda value: str(getattr(value, "shape", value)),
)  # fmt: skip
def test_wrong_control_vectors(data: Any, layers: tuple[int, ...], context: Context) -> None:
    plain = rows(context)
    with pytest.raises(InvalidArgumentError, match="il_start" if layers else "data"):
        context.set_control_vector(data, *layers)
    assert np.array_equal(rows(context), plain)
