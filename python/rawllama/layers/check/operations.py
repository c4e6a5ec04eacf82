"""What ggml computes for each formula, on numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawllama.layers.scaling import NTK, Linear, Scaling, YaRN
from rawllama.raw import ffi, lib

from .graph import compute

Floats = NDArray[np.float32]
MODES = {"adjacent": lib.GGML_ROPE_TYPE_NORMAL, "half": lib.GGML_ROPE_TYPE_NEOX}


def rope(
    x: Floats,
    positions: NDArray[np.int32],
    n_rot: int,
    pairing: str,
    base: float = 10000.0,
    scaling: Scaling | None = None,
    factors: Floats | None = None,
) -> Floats:
    """Shape (n_tokens, n_head, d) to the same. Calls: ggml_rope_ext."""
    yarn = scaling if isinstance(scaling, YaRN) else YaRN(1, 1, ext_factor=0)
    factor = scaling.factor if isinstance(scaling, (Linear, YaRN)) else 1
    if isinstance(scaling, NTK):
        base *= scaling.factor ** (n_rot / (n_rot - 2))

    def build(context: Any, rows: Any, at: Any, divisors: Any = ffi.NULL) -> Any:
        return lib.ggml_rope_ext(
            context, rows, at, divisors, n_rot, MODES[pairing], yarn.n_ctx_orig, base, 1 / factor,
            yarn.ext_factor, yarn.attn_factor, yarn.beta_fast, yarn.beta_slow,
        )  # fmt: skip

    turned: Floats = compute(build, x, positions, *(() if factors is None else (factors,)))[0]
    return turned


def soft_max(scores: Floats, mask: Floats, scale: float, max_bias: float) -> Floats:
    """Attention's softmax, with ALiBi's slopes; shapes (n_head, n_q, n_k) and (n_q, n_k). Calls: ggml_soft_max_ext."""

    def build(context: Any, rows: Any, added: Any) -> Any:
        return lib.ggml_soft_max_ext(context, rows, added, scale, max_bias)

    weights: Floats = compute(build, scores, mask)[0]
    return weights


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """Shape (n, d) to the same. Calls: ggml_norm, ggml_mul, ggml_add."""

    def build(context: Any, rows: Any, by: Any, plus: Any) -> Any:
        return lib.ggml_add(context, lib.ggml_mul(context, lib.ggml_norm(context, rows, eps), by), plus)

    normed: Floats = compute(build, x, weight, bias)[0, 0]
    return normed


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """Shape (n, d) to the same. Calls: ggml_rms_norm, ggml_mul."""

    def build(context: Any, rows: Any, by: Any) -> Any:
        return lib.ggml_mul(context, lib.ggml_rms_norm(context, rows, eps), by)

    normed: Floats = compute(build, x, weight)[0, 0]
    return normed


def sinusoidal(positions: Floats, d: int, base: float) -> Floats:
    """Sines and cosines, shape (n, d); ggml has all cosines first. Calls: ggml_timestep_embedding."""

    def build(context: Any, at: Any) -> Any:
        return lib.ggml_timestep_embedding(context, at, d, int(base))

    cosines_first = compute(build, positions)[0, 0]
    pairs: Floats = cosines_first.reshape(-1, 2, d // 2)[:, ::-1].swapaxes(1, 2).reshape(-1, d)
    return pairs


def yarn_ends(d: int, base: float, scaling: YaRN) -> tuple[int, int]:
    """The pairs between which YaRN's ramp lies. Calls: ggml_rope_yarn_corr_dims."""
    ends = ffi.new("float[2]")
    lib.ggml_rope_yarn_corr_dims(d, scaling.n_ctx_orig, base, scaling.beta_fast, scaling.beta_slow, ends)
    return int(ends[0]), int(ends[1])
