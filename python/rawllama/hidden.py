"""Hidden states: what each layer hands to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import InvalidArgumentError
from .tap import LAYER_OUTPUT, Tap, Tensor, chosen_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .batch import Batch
    from .context import Context

# What enters the first layer, under all names that graphs give it on the way; the last one computed is meant.
_EMBEDDED = (
    "GET_ROWS@token_embd.weight", "model.embed_tokens", "embd", "inp_embd", "inpL", "inp_scaled", "inp_embd_scaled",
    "embedding_output", "embd_norm", "inp_norm", "inp_norm-0",
)  # fmt: skip
# What leaves the last one, in the same way; without pooling, libllama gives it the name of what pooling would make.
_FINAL = ("result_embd", "result_norm", "final_norm_out")
_UNPOOLED = "result_embd_pooled"
POOLINGS = ("mean", "cls", "last")


def hidden_states(
    context: Context, batch: Batch, layers: Sequence[int] | None = None, pooling: str | None = None
) -> NDArray[np.float32]:
    """Compute a batch; see `Context.hidden_states`."""
    n_layer = context.model.n_layer
    if pooling is not None and pooling not in POOLINGS:
        raise InvalidArgumentError(f"pooling: {pooling!r} is none of {', '.join(POOLINGS)}")
    chosen = list(range(n_layer + 1)) if layers is None else chosen_layers(layers, n_layer + 1)
    final = (*_FINAL, _UNPOOLED) if context.pooling_type == "none" else _FINAL
    names = {layer: (f"{LAYER_OUTPUT}-{layer - 1}",) for layer in range(1, n_layer)} | {0: _EMBEDDED, n_layer: final}
    patterns = [name for layer in dict.fromkeys(chosen) for name in names[layer]]
    tap = Tap(context, [*patterns, "inp_tokens", "inp_pos"])
    context._plug(tap)
    try:
        context._compute_all(batch)
    finally:
        context._unplug(tap)
    _require_order(tap, batch)
    states = np.stack([_rows(tap, names[layer], batch) for layer in chosen])
    return states if pooling is None else np.stack([_pooled(state, batch, pooling) for state in states])


def _rows(tap: Tap, names: tuple[str, ...], batch: Batch) -> NDArray[np.float32]:
    """What the last of these tensors has in each graph, one graph's rows after the other's."""
    last: dict[int, Tensor] = {}
    for tensor in tap.tensors:
        if tensor.name in names and (tensor.op != "NONE" or batch.n_embd):  # vectors are an input, not computed
            last[tensor.graph] = tensor
    found = [tensor.values.reshape(-1, tensor.shape[-1]) for tensor in last.values()]
    rows: NDArray[np.float32] = np.concatenate(found) if found else np.empty((0, 0), np.float32)
    if len(rows) != batch.n_tokens:
        architecture = tap._context.model.architecture
        words = f"{architecture} computes no {names[0]} for each token; tap() what tap.names(model) lists"
        raise InvalidArgumentError(f"layers: {words}")
    return rows


def _require_order(tap: Tap, batch: Batch) -> None:
    """Raise if ubatches have the tokens in another order than the batch."""
    n, n_pos = batch.n_tokens, tap._context.model.n_pos  # M-RoPE's positions stand in rows, of which the first is time
    tokens = None if batch.n_embd else batch.token[:n]
    positions = batch.pos.reshape(-1)[:n]
    for name, wanted, n_rows in (("inp_tokens", tokens, 1), ("inp_pos", positions, n_pos)):
        parts = [tensor.values.reshape(n_rows, -1)[0] for tensor in tap.tensors if tensor.name == name]
        if not parts or wanted is None:
            continue
        if not np.array_equal(np.concatenate(parts), wanted):
            raise InvalidArgumentError(
                "batch: libllama computed its tokens in another order, so that their rows cannot be told apart; make"
                " the Context with kv_unified=True, or compute one sequence a batch"
            )


def _pooled(rows: NDArray[np.float32], batch: Batch, pooling: str) -> NDArray[np.float32]:
    """A row a sequence, in the order of the ids; a token counts for the first of its sequences."""
    n = batch.n_tokens
    seq_id, pos = batch.seq_id[:n, 0], batch.pos.reshape(-1)[:n]
    pooled = []
    for one in np.unique(seq_id):
        tokens = np.flatnonzero(seq_id == one)
        tokens = tokens[np.argsort(pos[tokens], kind="stable")]
        picked = {"mean": tokens, "cls": tokens[:1], "last": tokens[-1:]}[pooling]
        pooled.append(rows[picked].mean(0, dtype=np.float32))
    return np.stack(pooled)
