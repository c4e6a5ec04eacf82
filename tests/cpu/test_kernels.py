"""rawllama's own kernels against numpy, in graphs of ggml's; this whole file runs once for each instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from rawllama import ffi, lib
from rawllama.model import own_kernels

from .graph import Floats, graph

TYPES = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
         "bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}  # fmt: skip


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_there_are_kernels_on_this_machine() -> None:
    assert own_kernels() == (os.environ.get("RAWLLAMA_KERNELS") or own_kernels())
    assert own_kernels() in ("avx512", "avx2", "neon")


@pytest.mark.skipif("RAWLLAMA_KERNELS" in os.environ, reason="it is this test that sets it")
def test_the_other_instruction_sets() -> None:
    for name in {"avx512": ["avx2"], "avx2": [], "neon": []}[own_kernels() or ""]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
        done = subprocess.run(
            command, env={**os.environ, "RAWLLAMA_KERNELS": name}, capture_output=True, text=True, check=False,
            cwd=Path(__file__).parent.parent.parent,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert "1 skipped" in done.stdout


# ---- matrix products


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("rows", "depth", "count"),
    [(1, 32, 1), (31, 64, 2), (32, 32, 12), (33, 96, 13), (100, 352, 25), (64, 64, 40), (7, 1024, 300)],
)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_products(kind: str, rows: int, depth: int, count: int, n_threads: int) -> None:
    weight, inputs = quantize(random(rows, depth), TYPES[kind]), random(count, depth, seed=1)
    with graph() as made:
        packed = made.weight(weight.tobytes(), int(TYPES[kind]), rows, depth)
        found = made.compute(lib.ggml_mul_mat(made.context, packed, made.input(inputs)), n_threads)
    wanted = inputs.astype(np.float64) @ dequantize(weight, TYPES[kind]).astype(np.float64).T
    assert np.abs(found.reshape(count, rows) - wanted).max() <= 1e-6 * depth


def test_a_depth_that_is_no_multiple_of_anything() -> None:
    weight, inputs = random(45, 37), random(5, 37, seed=1)
    with graph() as made:
        packed = made.weight(weight.tobytes(), lib.GGML_TYPE_F32, 45, 37)
        found = made.compute(lib.ggml_mul_mat(made.context, packed, made.input(inputs)))
    assert np.abs(found - inputs @ weight.T).max() <= 1e-4


def test_several_matrices_of_inputs_and_gaps_between_rows() -> None:
    weight, inputs = random(40, 32), random(3, 7, 64, seed=1)
    with graph() as made:
        whole = made.input(inputs)
        part = lib.ggml_view_3d(made.context, whole, 32, 7, 3, whole.nb[1], whole.nb[2], 32 * 4)
        packed = made.weight(weight.tobytes(), lib.GGML_TYPE_F32, 40, 32)
        found = made.compute(lib.ggml_mul_mat(made.context, packed, part), 2)
    assert np.abs(found - inputs[:, :, 32:] @ weight.T).max() <= 1e-4


@pytest.mark.parametrize("kind", TYPES)
def test_a_row_is_the_same_bits_in_any_company(kind: str) -> None:
    weight, inputs = quantize(random(50, 128), TYPES[kind]), random(64, 128, seed=1)
    results = []
    for count, n_threads in ((64, 1), (64, 4), (1, 1), (25, 2)):
        with graph() as made:
            packed = made.weight(weight.tobytes(), int(TYPES[kind]), 50, 128)
            product = lib.ggml_mul_mat(made.context, packed, made.input(inputs[:count]))
            results.append(made.compute(product, n_threads).reshape(count, 50)[0])
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("kind", TYPES)
def test_what_was_packed_comes_back(kind: str) -> None:
    weight = quantize(random(45, 64), TYPES[kind]).tobytes()
    with graph() as made:
        tensor = made.weight(weight, int(TYPES[kind]), 45, 64)
        back = bytearray(len(weight))
        lib.ggml_backend_tensor_get(tensor, ffi.from_buffer(back), 0, len(back))
    assert bytes(back) == weight


# ---- what follows from a product


def test_gelu() -> None:
    inputs = np.linspace(-12, 12, 32 * 19, dtype=np.float32).reshape(19, 32)
    with graph() as made:
        same = made.weight(np.eye(32, dtype=np.float32).tobytes(), lib.GGML_TYPE_F32, 32, 32)
        product = lib.ggml_mul_mat(made.context, same, made.input(inputs))
        found = made.compute(lib.ggml_gelu(made.context, product), 2)
    x = inputs.astype(np.float64)
    wanted = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    # ggml's own table gives 2e-3 here: it rounds x and the result to float16.
    assert np.abs(found - wanted).max() <= 1e-6


def attention(q: Floats, k: Floats, v: Floats, mask: Floats | None, scale: float, max_bias: float) -> Floats:
    """The formula: softmax(q k' * scale + slope * mask) v. q (heads, n, d), k and v (heads of keys, m, d)."""
    heads = q.shape[0]
    slopes = 2.0 ** (-max_bias * np.arange(1, heads + 1) / heads) if max_bias else np.ones(heads)
    results = []
    for head in range(heads):
        keys, values = k[head * k.shape[0] // heads], v[head * v.shape[0] // heads]
        scores = q[head].astype(np.float64) @ keys.astype(np.float64).T * scale
        if mask is not None:
            scores = scores + slopes[head] * mask
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        results.append(weights / weights.sum(axis=1, keepdims=True) @ values)
    return np.stack(results, axis=1)


def blocks(lengths: list[int], *, causal: bool = False, distances: bool = False) -> Floats:
    """The mask of sequences in one batch: each sees itself alone."""
    ids = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(ids.size)
    seen = ids[:, None] == ids[None, :]
    if causal:
        seen &= places[:, None] >= places[None, :]
    inside = -np.abs(places[:, None] - places[None, :]) if distances else np.zeros(seen.shape)
    return np.where(seen, inside, -np.inf).astype(np.float32)


def computed(q: Floats, k: Floats, v: Floats, mask: Floats | None, max_bias: float, n_threads: int) -> Floats:
    """The same by our kernel: the queries come out of a product with packed weights, the identity."""
    heads, count, depth = q.shape
    with graph() as made:
        same = made.weight(np.eye(heads * depth, dtype=np.float32).tobytes(), 0, heads * depth, heads * depth)
        rows = made.input(q.transpose(1, 0, 2).reshape(count, heads * depth))
        product = lib.ggml_mul_mat(made.context, same, rows)
        query = lib.ggml_reshape_3d(made.context, product, depth, heads, count)
        query = lib.ggml_permute(made.context, query, 0, 2, 1, 3)
        inputs = [made.input(each.astype(np.float16)) for each in (k, v)]
        masked = made.input(mask.astype(np.float16)) if mask is not None else ffi.NULL
        result = lib.ggml_flash_attn_ext(made.context, query, *inputs, masked, depth**-0.5, max_bias, 0.0)
        lib.ggml_prec_set_acc(result, lib.GGML_PREC_F32)
        return made.compute(result, n_threads).reshape(count, heads, v.shape[2])


LENGTHS = [5, 1, 40, 3, 17, 200, 2]
MASKS = {
    "none": None, "sequences": blocks(LENGTHS), "causal": blocks(LENGTHS, causal=True),
    "distances": blocks(LENGTHS, distances=True),
}  # fmt: skip


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("heads", "shared", "depth"), [(4, 1, 32), (4, 2, 64), (2, 1, 40), (3, 1, 8)])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_attention(mask: str, heads: int, shared: int, depth: int, n_threads: int) -> None:
    count = sum(LENGTHS)
    q = random(heads, count, depth)
    k, v = (random(heads // shared, count, depth, seed=seed).astype(np.float16).astype(np.float32) for seed in (1, 2))
    max_bias = 8.0 if mask == "distances" and heads == 4 else 0.0
    found = computed(q, k, v, MASKS[mask], max_bias, n_threads)
    assert np.abs(found - attention(q, k, v, MASKS[mask], depth**-0.5, max_bias)).max() <= 5e-6


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_a_sequence_is_the_same_bits_in_any_company(causal: bool) -> None:
    q, k, v = (random(2, 60, 32, seed=seed) for seed in range(3))
    alone = computed(q, k, v, blocks([60], causal=causal), 0.0, 1)
    before, after = 33, 7
    wide = [np.concatenate([random(2, before, 32), each, random(2, after, 32)], axis=1) for each in (q, k, v)]
    company = computed(*wide, blocks([before, 60, after], causal=causal), 0.0, 3)
    assert np.array_equal(company[before : before + 60], alone)


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    q, k, v = (random(2, 20, 32, seed=seed) for seed in range(3))
    mask = blocks([10, 10])
    mask[3] = -np.inf
    found = computed(q, k, v, mask, 0.0, 1)
    assert not found[3].any()
    assert np.isfinite(found).all()
