"""The same numbers as llama.cpp's own example `llama-embedding`, which runs the very same libraries.

The example is compiled when it is first wanted (one to four minutes) and kept in rawllama's cache.

It puts all texts into batches of up to 2048 tokens in the caller's order, rawllama into batches of up to 512, like
lengths together. libllama rounds to float16 on the way (see test_reference.py), so another packing gives other last
digits; texts that are one batch for both programs, in the same order, give the same.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawllama
from numpy.typing import NDArray
from rawllama import Embedder
from rawllama.bench import programs
from rawllama.embedder import MAX_SEQUENCES, TOKEN_BUDGET

# It prints seven decimals.
TOLERANCE = 1e-6
# It ends without waiting for the thread that prints, so the end of the output may be missing: it is asked again.
ATTEMPTS = 20

Matrix = NDArray[np.float32]
Program = Callable[..., NDArray[np.float64]]


@pytest.fixture(scope="module")
def executable() -> Path:
    if reason := programs.why_not():
        pytest.skip(reason)
    return programs.example("llama-embedding", "Debug")


@pytest.fixture(scope="module")
def llama_embedding(executable: Path, minilm: str, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Run the example on texts; options as on its command line. Returns what it printed, shape (rows, 384)."""
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"

    def run(texts: list[str], *options: str, form: str = "array") -> NDArray[np.float64]:
        prompts.write_bytes("\n".join(texts).encode() + b"\n")
        command = [executable, "-m", minilm, "-f", prompts, "--no-escape", "-t", "1", "--embd-output-format", form]
        for _ in range(ATTEMPTS):
            done = subprocess.run([*command, *options], env=programs.environment(), capture_output=True, check=True)
            try:
                printed = json.loads(done.stdout)
            except ValueError:
                continue
            return np.array([row["embedding"] for row in printed["data"]] if form == "json" else printed)
        raise AssertionError(f"no complete output in {ATTEMPTS} runs: {done.stdout[-200:]!r}\n{done.stderr[-2000:]!r}")

    return run


@pytest.fixture(scope="module")
def make(minilm: str) -> Callable[..., Embedder]:
    return lambda pooling="mean": Embedder(minilm, pooling=pooling, n_threads=1, kernels="ggml")


@pytest.fixture(scope="module")
def texts(make: Callable[..., Embedder]) -> Iterator[list[str]]:
    """Those of one line, without names of special tokens (the example takes them for tokens), within 512 tokens."""
    entries = json.loads((Path(__file__).parent.parent / "data" / "minilm" / "texts.json").read_text(encoding="utf-8"))
    lines = [entry["text"] for entry in entries if entry["kind"] != "special_tokens" and "\n" not in entry["text"]]
    with make() as embedder:
        yield [text for text in lines if embedder.tokenize(text).size <= embedder.max_tokens]


@pytest.fixture(scope="module")
def batch(texts: list[str], make: Callable[..., Embedder]) -> list[str]:
    """Texts of many kinds that are one batch for both programs: longest first, within the token budget."""
    with make() as embedder:
        sizes = {text: embedder.tokenize(text).size for text in texts[::3]}
    chosen: list[str] = []
    for text in sorted(sizes, key=sizes.__getitem__):
        if sum(map(sizes.__getitem__, chosen)) + sizes[text] > TOKEN_BUDGET or len(chosen) == MAX_SEQUENCES:
            break
        chosen.append(text)
    assert len(chosen) >= 30
    return sorted(chosen, key=sizes.__getitem__, reverse=True)


def difference(ours: Matrix, theirs: NDArray[np.float64]) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())


# ---- the comparison is a fair one


def test_it_runs_our_libraries(executable: Path) -> None:
    env = {**programs.environment(), "LD_TRACE_LOADED_OBJECTS": "1"}  # what ldd does
    listed = subprocess.run([executable], env=env, capture_output=True, text=True, check=True).stdout
    used = {line.split(" => ")[1].split(" (")[0] for line in listed.splitlines() if "ggml" in line or "llama" in line}
    assert used == {str(path) for path in rawllama.LIBRARIES.iterdir()}


def test_flash_attention_is_the_same() -> None:
    """Both leave it to libllama; the example's default is `auto`, common.h says."""
    params = rawllama.lib.llama_context_default_params()
    assert params.flash_attn_type == rawllama.lib.LLAMA_FLASH_ATTN_TYPE_AUTO
    common = (programs.source() / "common" / "common.h").read_text(encoding="utf-8")
    assert "flash_attn_type   = LLAMA_FLASH_ATTN_TYPE_AUTO" in common


# ---- the same numbers


def test_one_text_at_a_time(texts: list[str], make: Callable[..., Embedder], llama_embedding: Program) -> None:
    chosen = texts[::4]
    assert len(chosen) >= 40
    theirs = np.concatenate([llama_embedding([text]) for text in chosen])
    with make() as embedder:
        ours = np.concatenate([embedder.encode([text]) for text in chosen])
    assert difference(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("form", ["array", "json"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_one_batch(
    pooling: str, form: str, batch: list[str], make: Callable[..., Embedder], llama_embedding: Program
) -> None:
    theirs = llama_embedding(batch, "--pooling", pooling, form=form)
    with make(pooling) as embedder:
        assert difference(embedder.encode(batch), theirs) <= TOLERANCE


@pytest.mark.parametrize(("normalize", "option"), [("l2", "2"), ("none", "-1")])
def test_a_row_a_token(
    normalize: Any, option: str, batch: list[str], make: Callable[..., Embedder], llama_embedding: Program
) -> None:
    theirs = llama_embedding(batch, "--pooling", "none", "--embd-normalize", option)
    with make("none") as embedder:
        assert difference(embedder.encode_tokens(batch, normalize=normalize)[0], theirs) <= TOLERANCE


@pytest.mark.parametrize(("normalize", "option"), [("none", "-1"), ("l1", "1"), ("l2", "2"), (3, "3"), (7, "7")])
def test_normalize(
    normalize: Any, option: str, batch: list[str], make: Callable[..., Embedder], llama_embedding: Program
) -> None:
    theirs = llama_embedding(batch, "--embd-normalize", option)
    with make() as embedder:
        assert difference(embedder.encode(batch, normalize=normalize), theirs) <= TOLERANCE


def test_normalize_max_abs(batch: list[str], make: Callable[..., Embedder], llama_embedding: Program) -> None:
    theirs = llama_embedding(batch, "--embd-normalize", "0")
    with make() as embedder:
        ours = embedder.encode(batch, normalize="max-abs")
    # Whole numbers up to 32760 are printed.
    assert difference(ours, theirs) <= 0.5 + TOLERANCE * 32760
    assert np.array_equal(np.abs(theirs).max(axis=1), np.full(len(batch), 32760))


def test_packed_as_each_does(texts: list[str], make: Callable[..., Embedder], llama_embedding: Program) -> None:
    theirs = llama_embedding(texts)
    with make() as embedder:
        ours = embedder.encode(texts)
    assert difference(ours, theirs) <= 5e-4
    assert (ours * theirs).sum(axis=1).min() >= 0.999999
