"""`rawllama layers`: its table, and its exit status."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from rawllama import Model
from rawllama.cli import layers as command
from rawllama.layers import check
from rawllama.layers.check import formulas, stages
from rawllama.layers.check.comparison import EXACT, Bound, Comparison, compared

from ..models import tiny as models

TEXTS = ("The cat sits", "a dog")


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["layers", *arguments])
    return int(options.run(options))


@pytest.fixture(scope="module")
def found(minilm: str) -> list[Comparison]:
    with Model(minilm) as model:
        return check.compare(model, command.TEXTS)


def test_minilm(found: list[Comparison]) -> None:
    assert [one.stage for one in found if not one.is_within] == []
    largest = {one.stage: one.difference for one in found}
    for stage in ("token rows", "position rows", "pooling cls", "pooling last"):
        assert largest[stage] == 0
    assert largest["segment rows"] < 1e-6
    assert largest["embedding layer"] < 2e-6
    assert largest["pooling mean"] < 1e-6
    assert largest["ALiBi, 6 heads"] < 1e-6
    assert largest["layer norm"] < 3e-6
    assert max(one.difference for one in found if one.stage.startswith("RoPE")) < 2e-4
    assert all(one.n > 1000 for one in found)
    assert all(one.bound.reason for one in found)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("bert-reranker", "pooling rank"),
        ("jina-bert-v2", "ALiBi attention, layer 0"),
        ("nomic-bert", "RoPE of keys, layer 0, half"),
        ("modern-bert", "RoPE of queries, layer 0, half"),
        ("gemma-embedding", "RoPE of queries, layer 0, half"),
        ("t5encoder", "T5 buckets"),
        ("t5", "T5 buckets"),
        ("llama", "RoPE of queries, layer 0, adjacent"),
        ("qwen3-reranker", "pooling rank"),
        ("gpt2", "position rows"),
        ("mamba", "embedding layer"),
        ("lfm2", "embedding layer"),
        ("qwen2vl", "token rows"),
    ],
)
def test_stages_of_other_models(
    tiny: Callable[[str], Path], name: str, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word for text in TEXTS for word in ("--text", text)]
    assert run(str(tiny(name)), *arguments, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert stage in {one["stage"] for one in said["comparisons"]}
    assert all(one["is_within"] for one in said["comparisons"])


def rotations(path: Path, capsys: pytest.CaptureFixture[str]) -> list[bool]:
    """Whether RoPE of queries and keys is within its bounds, where it is compared."""
    run(str(path), "--text", "The cat sits outside", "--json")
    rows = json.loads(capsys.readouterr().out)["comparisons"]
    return [one["is_within"] for one in rows if one["stage"].startswith("RoPE of")]


SCALINGS: dict[str, Callable[[gguf.GGUFWriter], object]] = {
    "base": lambda writer: writer.add_float32("llama.rope.freq_base", 500.0),
    "linear": lambda writer: writer.add_rope_scaling_factor(4.0),
    "linear, old key": lambda writer: writer.add_float32("llama.rope.scale_linear", 4.0),
    "none": lambda writer: (
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE),
        writer.add_rope_scaling_factor(4.0),
    ),
    "yarn": lambda writer: (
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN),
        writer.add_rope_scaling_factor(4.0),
        writer.add_rope_scaling_orig_ctx_len(16),
        writer.add_rope_scaling_attn_factors(1.2),
    ),
    "linear, with a factor for the rows": lambda writer: (
        writer.add_rope_scaling_factor(4.0),
        writer.add_rope_scaling_attn_factors(1.2),
    ),
    "yarn, with betas that libllama does not read": lambda writer: (
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN),
        writer.add_rope_scaling_factor(4.0),
        writer.add_rope_scaling_orig_ctx_len(4096),  # so that each of the two would move the ramp
        writer.add_float32("llama.rope.scaling.yarn_beta_fast", 4.0),
        writer.add_float32("llama.rope.scaling.yarn_beta_slow", 0.5),
    ),
    "factors": lambda writer: writer.add_tensor("rope_freqs.weight", np.array([1, 2, 4, 8], np.float32)),
}


@pytest.mark.parametrize("name", SCALINGS)
def test_rotations_of_the_metadata(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    shapes = models.MODELS["llama"].fill(writer)
    if name == "base":
        writer.kv_data[0].pop("llama.rope.freq_base")
    SCALINGS[name](writer)
    models._save(writer, shapes, 0)
    assert rotations(tmp_path / "model.gguf", capsys) == [True, True]


def test_a_first_layer_with_a_base_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "gemma-embedding")
    shapes = models.MODELS["gemma-embedding"].fill(writer)
    writer.kv_data[0].pop("gemma-embedding.rope.freq_base_swa")
    writer.add_rope_freq_base_swa(500.0)
    writer.add_rope_freq_base(1e6)
    models._save(writer, shapes, 0)
    assert rotations(tmp_path / "model.gguf", capsys) == [True, True]


@pytest.mark.parametrize("key", ["rope.scaling.yarn_log_multiplier", "attention.sliding_window"])
def test_rotations_that_the_metadata_do_not_tell(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are left out, and not compared with a guess."""
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    shapes = models.MODELS["llama"].fill(writer)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(2.0)
    writer.add_uint32(f"llama.{key}", 8) if key.endswith("window") else writer.add_float32(f"llama.{key}", 0.1)
    models._save(writer, shapes, 0)
    assert rotations(tmp_path / "model.gguf", capsys) == []


def test_q8_0(tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights of 8 bits: the rows are the same bits all the same, and a head's bound says why it is wider."""
    from rawllama import quantize

    quantize(tiny("bert-reranker"), tmp_path / "model.gguf", "mostly_q8_0")
    assert run(str(tmp_path / "model.gguf"), "--text", "The cat", "--json") == 0
    rows = {one["stage"]: one for one in json.loads(capsys.readouterr().out)["comparisons"]}
    assert rows["token rows"]["difference"] == 0
    assert "q8_0" in rows["token rows"]["formula"]


def test_the_table(tiny: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tiny("llama")), "--text", "a cat") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("llama")
    assert lines[2].split("  ")[0] == "stage"
    assert lines[2].endswith("bound")
    assert lines[3].startswith("token rows")
    assert lines[-1] == "all 21 are within their bounds"
    assert run(str(tiny("llama")), "--text", "a cat", "-v") == 0
    assert "RoPE, half: angles up to 511, multiplied up from pair to pair in float32" in capsys.readouterr().out


def test_what_is_beyond_its_bound(
    tiny: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A formula with a mistake: the pairing of another model."""
    monkeypatch.setattr(stages, "rope", lambda x, at, w, pairing, magnitude: formulas.rope(x, at, w, "half"))
    assert run(str(tiny("llama")), "--text", "a cat") == 1
    out = capsys.readouterr().out
    words = "beyond their bounds: RoPE of queries, layer 0, adjacent, RoPE of keys, layer 0, adjacent"
    assert out.splitlines()[-1] == words
    assert out.count("<- beyond") == 2


def test_what_is_not_finite_is_beyond() -> None:
    near, far = np.array([1.0, -np.inf, 2.0]), np.array([1.0, -np.inf, 2.5])
    assert compared("", "", "", near, near, EXACT).is_within
    assert compared("", "", "", near, far, Bound(0.5, "")).is_within
    assert not compared("", "", "", near, far, Bound(0.4, "")).is_within
    for other in (np.nan, np.inf, 0.0):
        assert not compared("", "", "", near, np.array([1.0, other, 2.0]), Bound(1e30, "")).is_within


def test_no_texts(tiny: Callable[[str], Path]) -> None:
    from rawllama import InvalidArgumentError

    with Model(tiny("llama")) as model, pytest.raises(InvalidArgumentError, match="texts: none, or one has no tokens"):
        check.compare(model, [])
