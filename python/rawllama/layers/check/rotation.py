"""How a model's first layer turns queries and keys, read from its metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rawllama.layers.rope import rope_frequencies
from rawllama.layers.scaling import Linear, Scaling, YaRN
from rawllama.tensors import Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rawllama.model import Model

_PAIRING = {"norm": "adjacent", "neox": "half"}  # others have several positions a token
_LOCAL_FIRST = ("gemma3", "gemma-embedding")  # the first layer has a window, and a base of its own
_GLOBAL_FIRST = ("modern-bert",)
_READS_BETAS = ("mistral3",)  # all others take libllama's defaults, whatever the file says
_OWN_RULES = ("grok", "deepseek4")


@dataclass(frozen=True)
class Rotation:
    """The arguments of `rope`."""

    pairing: str
    frequencies: NDArray[np.float64]
    magnitude: float


def of(model: Model, tensors: Tensors, width: int) -> Rotation | None:
    """The first layer's, for heads of that width; None without RoPE, or where the metadata do not tell."""
    pairing = _PAIRING.get(model.rope_type)
    scaling = _scaling(model, tensors)
    if pairing is None or scaling is None or not _is_told(tensors):
        return None
    base, factors = tensors.number("rope.freq_base", 10000.0), tensors.vector("rope_freqs.weight")
    if tensors.architecture in _LOCAL_FIRST:
        base, scaling = tensors.number("rope.freq_base_swa", 10000.0), Linear(1)
    frequencies = rope_frequencies(int(tensors.number("rope.dimension_count", width)), base, scaling, factors)
    own = scaling.magnitude if isinstance(scaling, YaRN) else 1.0
    return Rotation(pairing, frequencies, own * tensors.number("rope.scaling.attn_factor", 1.0))


def _is_told(tensors: Tensors) -> bool:
    """Whether nothing else decides: other bases in windows, factors by length, DeepSeek's magnitudes."""
    has_window = tensors.number("attention.sliding_window", 0) > 0
    is_known = tensors.architecture in (*_LOCAL_FIRST, *_GLOBAL_FIRST)
    by_length = any(name.startswith(("rope_factors", "blk.0.rope_factors")) for name in tensors)
    return (is_known or not has_window) and not by_length and tensors.architecture not in _OWN_RULES


def _scaling(model: Model, tensors: Tensors) -> Scaling | None:
    """As libllama takes it from the metadata; None for what it computes by rules of its own."""
    kind = model.metadata.get(f"{model.architecture}.rope.scaling.type", "linear")
    factor = tensors.number("rope.scaling.factor", tensors.number("rope.scale_linear", 0)) or 1.0
    if kind == "none":
        return Linear(1)
    if kind == "linear":
        return Linear(factor)
    if kind != "yarn" or tensors.number("rope.scaling.yarn_log_multiplier", 0):
        return None
    original = int(tensors.number("rope.scaling.original_context_length", model.n_ctx_train))
    if tensors.architecture not in _READS_BETAS:
        return YaRN(factor, original)
    betas = tensors.number("rope.scaling.yarn_beta_fast", 32.0), tensors.number("rope.scaling.yarn_beta_slow", 1.0)
    return YaRN(factor, original, *betas)
