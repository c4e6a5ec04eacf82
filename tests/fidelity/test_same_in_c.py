"""The same program in C, against the same libllama, with one thread: the same numbers, bit for bit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rawllama import lib
from rawllama.batch import Batch
from rawllama.bench.programs import compile_c
from rawllama.context import Context
from rawllama.model import Model

TEXTS = ["the cat sat on the mat", "we read books", "a", "hello, world! 42 naïve 東京"]
POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}

Rows = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(Path(__file__).with_name("same_in_c.c"), tmp_path_factory.mktemp("c"))


def of_c(program: Path, model: str, pooling: str) -> Rows:
    command = [program, model, str(POOLING[pooling]), *TEXTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = {}
    for line in done.stdout.splitlines():
        kind, index, *values = line.split()
        rows[f"{kind} {index}"] = tuple(int(value, 10 if kind == "tokens" else 16) for value in values)
    return rows


def of_python(path: str, pooling: str) -> Rows:
    with Model(path) as model, Context(
        model, n_ctx=512, n_batch=512, n_ubatch=512, n_seq_max=len(TEXTS), n_threads=1, n_threads_batch=1,
        pooling_type=pooling, embeddings=True, kv_unified=True,
    ) as context:  # fmt: skip
        return dict(_rows(model, context))


def _rows(model: Model, context: Context) -> Iterator[tuple[str, tuple[int, ...]]]:
    batch = Batch(512)
    for index, text in enumerate(TEXTS):
        tokens = model.vocab.tokenize(text, add_special=True, parse_special=False)
        batch.add_sequence(tokens, index)
        yield f"tokens {index}", tuple(int(token) for token in tokens)
    context.process(batch)
    if context.pooling_type != "none":
        results = {"pooled": context.get_embeddings_seq()}
    else:
        results = {"token": context.get_embeddings_ith()}
        if model.has_logits:
            results["logits"] = context.get_logits_ith()
    for kind, rows in results.items():
        for index, row in enumerate(rows):
            yield f"{kind} {index}", tuple(row.view(np.uint32).tolist())


@pytest.mark.parametrize("pooling", ["none", "mean", "cls"])
def test_minilm(pooling: str, program: Path, minilm: str) -> None:
    rows = of_python(minilm, pooling)
    assert rows == of_c(program, minilm, pooling)
    n_tokens = sum(len(rows[f"tokens {index}"]) for index in range(len(TEXTS)))
    assert len(rows) == len(TEXTS) + (n_tokens if pooling == "none" else len(TEXTS))
    assert {len(row) for name, row in rows.items() if not name.startswith("tokens")} == {384}


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("llama", "none"), ("llama", "mean"), ("qwen3", "none"), ("qwen3-embedding", "last"),
        ("qwen3-reranker", "rank"), ("bert", "mean"), ("bert-classifier", "rank"), ("modern-bert", "cls"),
        ("gemma-embedding", "mean"), ("nomic-bert", "none"), ("t5encoder", "none"), ("mamba", "none"), ("gpt2", "none"),
    ],
)  # fmt: skip
def test_tiny(name: str, pooling: str, program: Path, tiny: Callable[[str], Path]) -> None:
    rows = of_python(str(tiny(name)), pooling)
    assert rows == of_c(program, str(tiny(name)), pooling)
    with_logits = pooling == "none" and name in ("llama", "qwen3", "mamba", "gpt2")
    assert any(row.startswith("logits") for row in rows) == with_logits


def test_smollm2(program: Path, smollm2: Path) -> None:
    """A real decoder's logits, from quantised weights."""
    rows = of_python(str(smollm2), "none")
    assert rows == of_c(program, str(smollm2), "none")
    assert len(rows["logits 0"]) == 49152


def test_the_numbers_of_the_enum() -> None:
    for name, number in POOLING.items():
        assert getattr(lib, f"LLAMA_POOLING_TYPE_{name.upper()}") == number
