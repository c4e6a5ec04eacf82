"""The formulas that need no model, against single operations of ggml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawllama.layers.alibi import alibi_bias, alibi_slopes
from rawllama.layers.norm import layer_norm, rms_norm
from rawllama.layers.positions import sinusoidal_positions
from rawllama.layers.rope import PAIRINGS, rope, rope_frequencies
from rawllama.layers.scaling import NTK, Linear, Scaling, YaRN

from . import operations
from .comparison import EPS, Bound, Comparison, compared, summed, turned

_HEAD, _HEADS = 64, 6
_POSITIONS = np.array([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 511], np.int32)
_ORIGINAL = 128  # positions of the training that YaRN extends
_SCALINGS: dict[str, tuple[str, Scaling | None]] = {
    "": ("w = base^(-2i/d) (Su 2021)", None),
    ", linear": ("w / factor (Chen 2023)", Linear(4)),
    ", NTK": ("base factor^(d/(d-2)) (bloc97 2023)", NTK(4)),
    ", YaRN": ("w and w / factor, by a ramp (Peng 2023)", YaRN(4, _ORIGINAL)),
}


def comparisons() -> Iterator[Comparison]:
    """Each formula on random numbers."""
    yield _waves()
    for pairing in PAIRINGS:
        for name, (formula, scaling) in _SCALINGS.items():
            yield rotation(f"RoPE, {pairing}{name}", formula, pairing, _HEAD, scaling)
        yield rotation(f"RoPE, {pairing}, half of the columns", "w = base^(-2i/n) (Su 2021)", pairing, _HEAD // 2)
    yield _distances()
    yield from _norms()


def rotation(stage: str, formula: str, pairing: str, n_rot: int, scaling: Scaling | None = None) -> Comparison:
    """RoPE against ggml_rope_ext."""
    x = random(_POSITIONS.size, _HEADS, _HEAD)
    frequencies = rope_frequencies(n_rot, scaling=scaling)
    magnitude = scaling.magnitude if isinstance(scaling, YaRN) else 1.0
    ours = rope(x, _POSITIONS, frequencies, pairing, magnitude=magnitude)
    theirs = operations.rope(x, _POSITIONS, n_rot, pairing, scaling=scaling)
    return compared(stage, formula, "ggml_rope_ext", ours, theirs, turned(x, _POSITIONS, frequencies, magnitude))


def random(*shape: int) -> NDArray[np.float32]:
    """Numbers of the normal distribution, always the same."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Over the last dimension."""
    grown = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    weights: NDArray[np.float64] = grown / grown.sum(axis=-1, keepdims=True)
    return weights


def weighed(scores: NDArray[Any]) -> Bound:
    """For a softmax: a rounded score changes its weight by that much."""
    largest = float(np.abs(scores[np.isfinite(scores)]).max(initial=1))
    return Bound(2 * EPS * (largest + 2), f"scores up to {largest:.3g} in float32, and exp of them")


def _waves() -> Comparison:
    """Sinusoidal positions, which ggml has for the time steps of diffusion."""
    d, base = 384, 10000.0
    ours = sinusoidal_positions(_POSITIONS, d, base)
    theirs = operations.sinusoidal(_POSITIONS.astype(np.float32), d, base)
    exponents = 2 * np.arange(d // 2) / d * np.log(base)
    unsure = float((_POSITIONS.max() * np.exp(-exponents) * (exponents + 2)).max())
    bound = Bound(EPS * unsure, f"angles up to {_POSITIONS.max()}, of exp and products in float32")
    formula = "sin(p w), cos(p w), w = base^(-2i/d) (Vaswani 2017)"
    return compared("sinusoidal positions", formula, "ggml_timestep_embedding", ours, theirs, bound)


def _distances() -> Comparison:
    """ALiBi: 6 heads, so that some slopes lie between those of the power of two."""
    scores, scale, at = random(_HEADS, 32, 32), 0.125, np.arange(32)
    mask = -np.abs(at - at[:, None]).astype(np.float32)
    biased = scores * scale + alibi_bias(alibi_slopes(_HEADS), at, at)
    formula, against = "softmax(s - m_h |i - j|) (Press 2022)", "ggml_soft_max_ext"
    return compared("ALiBi, 6 heads", formula, against, softmax(biased), operations.soft_max(scores, mask, scale, 8.0),
                    weighed(biased))  # fmt: skip


def _norms() -> Iterator[Comparison]:
    x, weight, bias = 3 * random(16, 384) + 1, random(384), random(2, 384)[0]
    ours, theirs = layer_norm(x, weight, bias, 1e-12), operations.layer_norm(x, weight, bias, 1e-12)
    against, bound = "ggml_norm, ggml_mul, ggml_add", summed(384, float(np.abs(ours).max()))
    yield compared("layer norm", "(x - mean) / sqrt(var + eps) w + b (Ba 2016)", against, ours, theirs, bound)
    ours, theirs = rms_norm(x, weight, 1e-6), operations.rms_norm(x, weight, 1e-6)
    against, bound = "ggml_rms_norm, ggml_mul", summed(384, float(np.abs(ours).max()))
    yield compared("RMS norm", "x / sqrt(mean(x^2) + eps) w (Zhang 2019)", against, ours, theirs, bound)
