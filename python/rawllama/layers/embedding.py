"""The embedding layer: from token ids to the rows that the first layer reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rawllama.errors import InvalidArgumentError
from rawllama.tensors import Source, Tensors

from ._arguments import integers
from .norm import layer_norm, rms_norm
from .recipes import Recipe, recipe
from .table import POSITIONS, SEGMENTS, TOKENS, EmbeddingTable, learned_positions, learned_segments, scaled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def embedding_layer(
    model: Source, tokens: ArrayLike, positions: ArrayLike | None = None, segments: ArrayLike | None = None
) -> NDArray[np.float32]:
    """What libllama's first layer reads: the sum of what the model has for each token, scaled or normalised as it does.

    norm(token + segment + position) in BERT (Devlin 2019, figure 2); token + position in GPT-2; sqrt(d) token in Gemma;
    the token's row alone where positions are in the attention (RoPE, ALiBi, T5).

    Parameters
    ----------
    model
        A Model that was loaded from paths; or the path of its GGUF file, which is then not loaded.
    tokens
        Integers, shape (n,).
    positions
        Integers, shape (n,): those of the batch. None counts from 0, as for one text.
    segments
        Integers, shape (n,). None is 0, which libllama takes for all tokens.

    Returns
    -------
    ndarray
        float32, shape (n, d). It equals `context.tap` of the tensor `recipe(model.architecture).tensor`.

    Raises
    ------
    InvalidArgumentError
        Tokens, positions or segments that the model does not have, of different lengths, or an architecture that is
        not described.

    Notes
    -----
    It is what the file says: `kv_overrides` and adapters that change the token table have no effect.
    """
    tensors = Tensors.of(model)
    parts = recipe(tensors.architecture)
    ids = integers(tokens, "tokens")
    rows = _scaled(EmbeddingTable(tensors, TOKENS).rows(ids), parts, tensors)
    kinds = _as_long("segments", segments, np.zeros(ids.size, np.int64))
    at = _as_long("positions", positions, np.arange(ids.size))
    if parts.has_segments and SEGMENTS in tensors:
        rows = rows + learned_segments(tensors, kinds)
    elif kinds.any():
        raise InvalidArgumentError(f"segments: {tensors.paths[0]} has none; leave them out")
    if parts.has_positions:
        rows = rows + learned_positions(tensors, at)
    elif POSITIONS in tensors:
        raise InvalidArgumentError(f"model: {tensors.paths[0]} has learned positions, which libllama does not use")
    return _normed(rows, parts, tensors)


def _as_long(name: str, values: ArrayLike | None, default: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each token."""
    found = default if values is None else integers(values, name)
    if found.size != default.size:
        raise InvalidArgumentError(f"{name}: {found.size} of them for {default.size} tokens")
    return found


def _scaled(rows: NDArray[np.float32], parts: Recipe, tensors: Tensors) -> NDArray[np.float32]:
    if parts.scale is None:
        return rows
    if parts.scale == "sqrt":
        return scaled(rows)
    factor = tensors.number("embedding_scale", parts.default_scale) if parts.scale == "key" else parts.scale
    return rows * np.float32(factor or 1)  # libllama takes 0 for no scaling


def _normed(rows: NDArray[np.float32], parts: Recipe, tensors: Tensors) -> NDArray[np.float32]:
    weight, bias = (tensors.vector(f"token_embd_norm.{name}") for name in ("weight", "bias"))
    if parts.norm == "layer":
        return layer_norm(rows, weight, bias, tensors.number("attention.layer_norm_epsilon", 0))
    if parts.norm == "rms":
        return rms_norm(rows, weight, tensors.number("attention.layer_norm_rms_epsilon", 0))
    return rows
