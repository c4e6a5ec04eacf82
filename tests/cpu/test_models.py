"""Whole models with rawllama's own kernels: against ggml's, and against themselves in other company."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rawllama import InvalidArgumentError, LoraAdapter, quantize
from rawllama.context import Context
from rawllama.model import Model

from ..models.tiny import MODELS
from ..tools import Rows, batch_of, context_of, run_python, some_tokens

Tiny = Callable[[str], Path]
LENGTHS = (7, 40, 1, 23)


def sequences(model: Model) -> list[list[int]]:
    return [some_tokens(model, length, seed).tolist() for seed, length in enumerate(LENGTHS)]


def token_rows(context: Context, *chosen: list[int]) -> Rows:
    """A row for each token, from one batch."""
    context.process(batch_of(*chosen))
    return context.get_embeddings_ith()


def embedding_context(model: Model, n_threads: int = 1) -> Context:
    settings = {"embeddings": True, "pooling_type": "none", "flash_attn_type": "enabled"}
    return context_of(model, n_threads=n_threads, n_threads_batch=n_threads, **settings)


def rows_of(path: Path, kernels: str, n_threads: int = 1) -> Rows:
    with Model(path, kernels=kernels) as model, embedding_context(model, n_threads) as context:
        return token_rows(context, *sequences(model))


def likeness(a: Rows, b: Rows) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"t5"}))  # its encoder has t5encoder's graph
def test_the_same_vectors_as_with_ggml(name: str, tiny: Tiny) -> None:
    ours, theirs = rows_of(tiny(name), "rawllama", 2), rows_of(tiny(name), "ggml")
    assert likeness(ours, theirs) >= 0.99999
    assert not np.array_equal(ours, theirs), "none of our kernels ran"


@pytest.mark.parametrize("ftype", ["mostly_f16", "mostly_bf16", "mostly_q8_0"])
def test_smaller_weights(ftype: str, tiny: Tiny, tmp_path: Path) -> None:
    quantize(tiny("nomic-bert"), tmp_path / "small.gguf", ftype)
    whole, small = rows_of(tiny("nomic-bert"), "rawllama"), rows_of(tmp_path / "small.gguf", "rawllama")
    theirs = rows_of(tmp_path / "small.gguf", "ggml")
    assert likeness(small, whole) >= likeness(theirs, whole) - 1e-4, "ours must not lose more than ggml's"
    assert likeness(small, theirs) >= 0.999


@pytest.mark.parametrize("name", ["bert", "jina-bert-v2", "modern-bert", "nomic-bert"])
def test_a_sequence_has_the_same_bits_in_any_company(name: str, tiny: Tiny) -> None:
    with Model(tiny(name), kernels="rawllama") as model, embedding_context(model, 3) as context:
        chosen = sequences(model)
        together = np.split(token_rows(context, *chosen), np.cumsum(LENGTHS)[:-1])
        alone = [token_rows(context, one) for one in chosen]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_a_model_saved_is_the_file_it_came_from(tiny: Tiny, tmp_path: Path) -> None:
    with Model(tiny("llama"), kernels="rawllama") as model:
        assert model.kernels == "rawllama"
        model.save(tmp_path / "ours.gguf")
    with Model(tiny("llama")) as model:
        assert model.kernels == "ggml"
        model.save(tmp_path / "theirs.gguf")
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_lora(tiny: Tiny) -> None:
    rows = {}
    for kernels in ("rawllama", "ggml"):
        with (
            Model(tiny("llama"), kernels=kernels) as model,
            LoraAdapter(model, tiny("llama-lora")) as adapter,
            embedding_context(model) as context,
        ):
            plain = token_rows(context, *sequences(model))
            context.memory.clear()
            context.set_adapters({adapter: 1.0})
            rows[kernels] = token_rows(context, *sequences(model))
            assert likeness(plain, rows[kernels]) < 0.999
    assert likeness(rows["rawllama"], rows["ggml"]) >= 0.99999


def test_an_unknown_name(tiny: Tiny) -> None:
    with pytest.raises(InvalidArgumentError, match="kernels: 'fast' is none of ggml, rawllama"):
        Model(tiny("bert"), kernels="fast")


def test_where_there_are_none(tiny: Tiny) -> None:
    code = """
import sys
from rawllama import Embedder, InvalidArgumentError, Model
try:
    Model(sys.argv[1], kernels="rawllama")
except InvalidArgumentError as error:
    print(error)
with Embedder(sys.argv[1]) as embedder:
    print(embedder.model.kernels, embedder.encode(["w1 w2"]).shape)
"""
    done = run_python(code, tiny("bert"), RAWLLAMA_KERNELS="none")
    assert "no RAWLLAMA_KERNELS=none; use 'ggml'" in done.stdout
    assert "ggml (1, 32)" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the system's fresh pages are used on Linux only")
def test_logits_that_are_not_there_take_no_memory(minilm: str) -> None:
    """libllama reserves 512 * 30,522 floats for them, 62 MB, and fills them with zeros."""
    code = """
import sys
from pathlib import Path
import numpy as np
from rawllama import Batch, Context, Model

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

with Model(sys.argv[1]) as model, Context(model, embeddings=True, n_ctx=512, n_batch=512, n_ubatch=512) as context:
    before = resident()
    batch = Batch(512)
    batch.add_sequence(np.full(512, 2000, np.int32), 0)
    context.process(batch)
    print(resident() - before)
"""
    grown = int(run_python(code, minilm).stdout)
    assert grown < 40e6
