"""The whole layer, and RoPE within a model, against what libllama computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Batch, Context, InvalidArgumentError, Model, quantize
from rawllama.layers import (
    EmbeddingTable,
    YaRN,
    embedding_layer,
    layer_norm,
    learned_positions,
    learned_segments,
    recipe,
    recipes,
    rope,
    rope_frequencies,
)
from rawllama.layers.check.comparison import turned
from rawllama.tap import Tap

from ..models import tiny as models

MODELS = Path(__file__).parent.parent.parent / "vendor" / "llama.cpp" / "src" / "models"
OFFSETS = np.array([0, 9, 16])
POSITIONS = np.r_[np.arange(9), np.arange(7)]


def tapped(path: str | Path, *patterns: str, tokens: NDArray[np.int32] | None = None, **settings: Any) -> Tap:
    """What libllama computes for two texts."""
    sizes = {"n_ctx": 128, "n_batch": 128, "n_ubatch": 128, "n_seq_max": 2, "kv_unified": True}
    with Model(path) as model, Context(model, embeddings=True, pooling_type="none", **(sizes | settings)) as context:
        batch = Batch(32)
        batch.add_sequences(np.arange(3, 19) if tokens is None else tokens, OFFSETS)
        with context.tap(*patterns) as tap:
            if model.has_encoder and model.has_decoder:
                context.encode(batch)
            else:
                context.process(batch)
    return tap


# ---- the sum


@pytest.mark.parametrize(
    "name",
    ["bert", "nomic-bert", "jina-bert-v2", "modern-bert", "gemma-embedding", "t5encoder", "t5", "llama", "qwen3",
     "qwen2vl", "gpt2"],
)  # fmt: skip
def test_as_libllama(tiny: Callable[[str], Path], name: str) -> None:
    path = tiny(name)
    parts = recipe(models.MODELS[name].architecture)
    theirs = tapped(path, parts.tensor)[parts.tensor]
    ours = embedding_layer(path, np.arange(3, 19), POSITIONS)
    assert ours.dtype == np.float32
    if parts.norm:
        assert np.abs(ours - theirs).max() < 2e-6
    else:
        assert np.array_equal(ours, theirs)
    with Model(path) as model:
        assert np.array_equal(embedding_layer(model, np.arange(3, 19), POSITIONS), ours)


@pytest.mark.parametrize("name", ["mamba", "lfm2"])
def test_models_with_a_state(tiny: Callable[[str], Path], name: str) -> None:
    tensor = recipe(name).tensor
    with Model(tiny(name)) as model, Context(model, embeddings=True, pooling_type="none") as context:
        batch = Batch(16)
        batch.add_sequence(np.arange(3, 12))
        with context.tap(tensor) as tap:
            context.process(batch)
    assert np.array_equal(embedding_layer(tiny(name), np.arange(3, 12)), tap[tensor])


def test_minilm_step_by_step(minilm: str) -> None:
    """Each part to the bit; the norm, whose sums differ in order, to rounding."""
    tokens = np.array([101, 1996, 4937, 7719, 2648, 102, 2010, 1000, 102, 101, 1037, 2158, 3248, 1996, 2858, 102])
    names = ("@token_embd.weight", "@position_embd.weight", "inp_embd", "inp_norm-0")
    tap = tapped(minilm, *names, tokens=tokens)
    rows, positions = EmbeddingTable(minilm).rows(tokens), learned_positions(minilm, POSITIONS)
    assert np.array_equal(rows, table_of(tap, names[0]))
    assert np.array_equal(positions, table_of(tap, names[1]))
    summed = rows + learned_segments(minilm, np.zeros(16, np.int64)) + positions
    assert np.array_equal(summed, tap["inp_embd"])
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(minilm).tensors}
    normed = layer_norm(summed, tensors["token_embd_norm.weight"], tensors["token_embd_norm.bias"], 1e-12)
    assert np.array_equal(normed, embedding_layer(minilm, tokens, POSITIONS))
    assert np.abs(normed - tap["inp_norm-0"]).max() < 2e-6


def table_of(tap: Tap, pattern: str) -> NDArray[np.float32]:
    (found,) = [tensor.values for tensor in tap.tensors if tensor.name == pattern]
    return found


@pytest.mark.parametrize("ftype", ["mostly_f16", "mostly_bf16", "mostly_q8_0"])
def test_other_types(minilm: str, tmp_path: Path, ftype: str) -> None:
    """ggml reads a model's quantized table as EmbeddingTable does."""
    path = tmp_path / "model.gguf"
    quantize(minilm, path, ftype)
    assert EmbeddingTable(path).type == ftype.removeprefix("mostly_")
    tap = tapped(path, "@token_embd.weight", "inp_norm-0")
    assert np.array_equal(EmbeddingTable(path).rows(np.arange(3, 19)), table_of(tap, "@token_embd.weight"))
    assert np.abs(embedding_layer(path, np.arange(3, 19), POSITIONS) - tap["inp_norm-0"]).max() < 2e-6


@pytest.mark.parametrize(
    ("architecture", "key"), [("granite", 12.5), ("granite", 0.0), ("minicpm", None), ("minicpm", 3.0)]
)
def test_scales_of_the_metadata(tmp_path: Path, architecture: str, key: float | None) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    shapes = models.MODELS["llama"].fill(writer)
    writer.add_logit_scale(1.0)
    if key is not None:
        writer.add_embedding_scale(key)
    models._save(writer, shapes, 0)
    ours = embedding_layer(path, np.arange(3, 19), POSITIONS)
    assert np.array_equal(ours, tapped(path, "embd")["embd"])
    factor = {None: 12.0, 0.0: 1.0}.get(key, key)
    assert np.allclose(ours, EmbeddingTable(path).rows(np.arange(3, 19)) * factor)


def test_segments(minilm: str) -> None:
    """Other segments than libllama's are BERT's own formula."""
    zero, one = embedding_layer(minilm, [101, 102]), embedding_layer(minilm, [101, 102], segments=[0, 1])
    assert np.array_equal(zero[0], one[0])
    assert np.abs(zero[1] - one[1]).max() > 0.01
    assert np.array_equal(embedding_layer(minilm, [101, 102], segments=[0, 0]), zero)


def test_no_tokens(minilm: str) -> None:
    assert embedding_layer(minilm, []).shape == (0, 384)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("bert", ([1], [0, 1]), "positions: 2 of them for 1 tokens"),
        ("bert", ([1, 2], None, [0]), "segments: 1 of them for 2 tokens"),
        ("bert", ([1], [64]), r"ids: 64 is no row of position_embd\.weight, which are 0 to 63"),
        ("bert", ([1], None, [2]), r"ids: 2 is no row of token_types\.weight"),
        ("bert", ([-1],), r"ids: -1 is no row of token_embd\.weight"),
        ("llama", ([1], None, [1]), r"segments: \S+llama\.gguf has none; leave them out"),
    ],
)
def test_refused(tiny: Callable[[str], Path], name: str, arguments: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        embedding_layer(tiny(name), *arguments)


def test_architectures_that_are_not_described(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "gemma3n")
    models._save(writer, models.MODELS["llama"].fill(writer), 0)
    with pytest.raises(InvalidArgumentError, match="of the architecture 'gemma3n' is not described; tap the input"):
        embedding_layer(path, [1])


# What may stand between a graph's token rows and its first layer: inputs of the graph, and the steps of a recipe.
_HARMLESS = ("build_inp_", "build_attn_inp_", "build_rs_inp", "ggml_build_forward_expand")
_FILES = {
    "gpt-oss": "openai-moe", "seed_oss": "seed-oss", "ernie4_5": "ernie4-5", "ernie4_5-moe": "ernie4-5-moe",
    "glm4moe": "glm4-moe", "granitemoe": "granite", "granitehybrid": "granite-hybrid", "lfm2moe": "lfm2",
    "t5encoder": "t5", "nomic-bert": "bert", "nomic-bert-moe": "bert", "jina-bert-v2": "bert", "jina-bert-v3": "bert",
    "hunyuan-dense": "hunyuan-vl", "phimoe": "phi3", "mamba2": "mamba", "minicpm": "granite", "llama-embed": "llama",
}  # fmt: skip


@pytest.mark.parametrize("architecture", recipes._RECIPES)
def test_the_table_says_what_the_source_does(architecture: str) -> None:
    """No operation before the first layer that the recipe does not have, and none of the recipe's missing."""
    source = (MODELS / f"{_FILES.get(architecture, architecture)}.cpp").read_text(encoding="utf-8")
    parts, found = recipe(architecture), []
    for start in re.finditer(r"= build_inp_embd\(", source):
        before = re.split(r"\n\s*for \(", source[start.end() :])[0]
        calls = re.findall(r"(?:ggml|build)_\w+(?=\()", before)
        found.append({call for call in calls if not call.startswith(_HARMLESS)})
    assert found
    expected = {"build_norm"} if parts.norm else set()
    expected |= {"ggml_add", "ggml_get_rows"} if parts.has_positions else set()
    if _FILES.get(architecture, architecture) == "bert":  # one graph for all of them
        expected |= {"ggml_add", "ggml_get_rows", "ggml_view_1d"}
    expected |= {"ggml_scale"} if parts.scale not in (None, "key") else set()
    assert all(calls == expected for calls in found)
    if parts.tensor != "embd":
        assert f'"{parts.tensor.removesuffix("-0")}"' in source


# ---- RoPE within a model


@pytest.mark.parametrize(
    ("name", "pairing", "base", "d"),
    [("llama", "adjacent", 10000, 8), ("qwen3", "half", 10000, 16), ("nomic-bert", "half", 1000, 8),
     ("modern-bert", "half", 160000, 8)],
)  # fmt: skip
@pytest.mark.parametrize("what", ["Qcur", "Kcur"])
def test_rotated_queries_and_keys(
    tiny: Callable[[str], Path], name: str, pairing: str, base: float, d: int, what: str
) -> None:
    before, after = rotated(tapped(tiny(name), f"{what}*-0"), what)
    frequencies = rope_frequencies(d, base)
    assert before.shape[-1] == d
    ours = rope(before, POSITIONS, frequencies, pairing)
    assert np.abs(ours - after).max() <= turned(before, POSITIONS, frequencies).value < 2e-5
    other = rope(before, POSITIONS, frequencies, {"half": "adjacent", "adjacent": "half"}[pairing])
    assert np.abs(other - after).max() > 0.1


def rotated(tap: Tap, what: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The last tensor before the rotation, and the rotated one."""
    index = [tensor.op for tensor in tap.tensors].index("ROPE")
    assert tap.tensors[index].name == f"{what}-0"
    return tap.tensors[index - 1].values, tap.tensors[index].values


@pytest.mark.parametrize("what", ["Qcur", "Kcur"])
def test_smollm2(smollm2: Path, what: str) -> None:
    before, after = rotated(tapped(smollm2, f"{what}-0"), what)
    frequencies = rope_frequencies(64, 100000.0)
    ours = rope(before, POSITIONS, frequencies)
    assert np.abs(ours - after).max() <= turned(before, POSITIONS, frequencies).value


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_yarn_as_a_context_does(tiny: Callable[[str], Path], factor: float) -> None:
    """With YaRN asked for, libllama gives ggml an attn_factor of 1."""
    settings = {"rope_scaling_type": "yarn", "rope_freq_scale": 1 / factor, "yarn_orig_ctx": 64}
    before, after = rotated(tapped(tiny("llama"), "Qcur-0", **settings), "Qcur")
    scaling = YaRN(factor, 64)
    frequencies = rope_frequencies(8, scaling=scaling)
    ours = rope(before, POSITIONS, frequencies, magnitude=scaling.magnitude)
    assert np.abs(ours - after).max() <= turned(before, POSITIONS, frequencies, scaling.magnitude).value
    plain = replace(scaling, attn_factor=1 / scaling.magnitude)
    assert plain.magnitude == pytest.approx(1)
    assert np.abs(rope(before, POSITIONS, frequencies) - after).max() > 0.01
