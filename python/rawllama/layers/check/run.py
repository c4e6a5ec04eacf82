"""Some texts computed by libllama, with what the formulas are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawllama.batch import Batch
from rawllama.context import Context
from rawllama.errors import InvalidArgumentError
from rawllama.layers.recipes import Recipe, recipe
from rawllama.layers.table import POSITIONS, TOKENS
from rawllama.model import Model
from rawllama.tap import Tap, names
from rawllama.tensors import Tensors

_OPTIONAL = (
    "inp_embd", "Qcur-0", "Qcur_normed-0", "Kcur-0", "Kcur_normed-0", "kq-0", "kq_soft_max-0", "self_kq_mask",
    "pos_bucket_enc",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What libllama computed for some texts, each a sequence of its own."""

    model: Model
    tensors: Tensors
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    tap: Tap
    rows: NDArray[np.float32] | None
    """What the last layer gives for each token; None where dense layers follow, or a decoder."""

    @cached_property
    def positions(self) -> NDArray[np.int32]:
        """Of each token in its text."""
        return np.concatenate([np.arange(n, dtype=np.int32) for n in np.diff(self.offsets)])

    @cached_property
    def sequences(self) -> NDArray[np.int64]:
        """Which text each token belongs to."""
        return np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))

    @property
    def recipe(self) -> Recipe | None:
        """What the architecture makes of tokens; None if it is not described."""
        return known_recipe(self.tensors)

    def rotated(self, name: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """What goes into and comes out of RoPE, e.g. for `Qcur`; None without."""
        found = [one for one in self.tap.tensors if one.name in (f"{name}-0", f"{name}_normed-0")]
        for before, after in pairwise(found):
            if after.op == "ROPE":
                return before.values, after.values
        return None


def known_recipe(tensors: Tensors) -> Recipe | None:
    """What the architecture makes of tokens; None if it is not described."""
    with suppress(InvalidArgumentError):
        return recipe(tensors.architecture)
    return None


def compute(model: Model, texts: Sequence[str]) -> Run:
    """Compute texts without pooling, all tokens in one graph.

    Raises
    ------
    InvalidArgumentError
        No texts.
    """
    tensors = Tensors(model)
    tokens, offsets = tokenized(model, texts)
    with context(model, tokens.size, offsets.size - 1, "none") as run:
        batch = filled(tokens, offsets)
        with run.tap(*_patterns(model, tensors)) as tap:
            process(run, batch)
        is_pooled = "dense_2.weight" not in tensors and not (model.has_decoder and model.has_encoder)
        rows = run.get_embeddings_ith() if is_pooled else None
    return Run(model, tensors, tokens, offsets, tap, rows)


def tokenized(model: Model, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Tokens of the texts; of the first alone where the memory is a state, whose graphs mix texts."""
    chosen = list(texts)[:1] if model.is_recurrent or model.is_hybrid else list(texts)
    tokens, offsets = model.vocab.tokenize_many(chosen)
    if not chosen or (np.diff(offsets) < 1).any():
        raise InvalidArgumentError("texts: none, or one has no tokens; give some words")
    return tokens, offsets


def context(model: Model, n_tokens: int, n_texts: int, pooling: str) -> Context:
    """A context that computes all in one graph, with attention's weights as tensors."""
    size = n_texts * max(64, -(-n_tokens // n_texts))  # libllama plans pooling for a multiple of the texts
    return Context(
        model,
        n_ctx=size,
        n_batch=size,
        n_ubatch=size,
        n_seq_max=n_texts,
        kv_unified=True,
        embeddings=True,
        pooling_type=pooling,
        flash_attn_type="disabled",
        taps=True,
    )


def filled(tokens: NDArray[np.int32], offsets: NDArray[np.int64]) -> Batch:
    """A batch of all texts."""
    batch = Batch(tokens.size)
    batch.add_sequences(tokens, offsets)
    return batch


def process(run: Context, batch: Batch) -> None:
    """Compute it; an encoder-decoder's encoder."""
    if run.model.has_encoder and run.model.has_decoder:
        run.encode(batch)
    else:
        run.process(batch)


def _patterns(model: Model, tensors: Tensors) -> list[str]:
    """What the model has of all that is compared."""
    there = {one.name for one in names(model, flash_attn_type="disabled")}
    parts = known_recipe(tensors)
    wanted = (*_OPTIONAL, parts.tensor) if parts else _OPTIONAL
    patterns = [name for name in dict.fromkeys(wanted) if name in there]
    tables = (TOKENS, POSITIONS) if parts and parts.has_positions else (TOKENS,)
    return [*patterns, *(f"GET_ROWS@{table}" for table in tables)]
