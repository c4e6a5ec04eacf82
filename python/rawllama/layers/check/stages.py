"""A model's own stages, from token ids to a text's row, against what libllama computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawllama.layers.alibi import alibi_bias, alibi_slopes
from rawllama.layers.buckets import relative_buckets
from rawllama.layers.embedding import embedding_layer
from rawllama.layers.pool import ClassificationHead, pool
from rawllama.layers.recipes import Recipe
from rawllama.layers.rope import rope
from rawllama.layers.table import POSITIONS, SEGMENTS, TOKENS, EmbeddingTable, learned_positions, learned_segments

from . import rotation
from .comparison import EPS, EXACT, Bound, Comparison, compared, summed, turned
from .formulas import softmax, weighed
from .run import Run, context, filled, process

_ALIBI = ("jina-bert-v2",)
_MAX_BIAS = 8.0  # which libllama takes for it
# What a product of numbers of these types may be off by, relative to them; others are quantized to 8 bits.
_ROUNDING = {"f32": EPS, "f16": 2.0**-10, "bf16": 2.0**-7}
_QUANTIZED = 2.0**-6
_FACTORS: dict[float | str | None, str] = {None: "", "sqrt": "sqrt(d) ", "key": "embedding_scale "}


def comparisons(run: Run) -> Iterator[Comparison]:
    """All stages that the model has."""
    for stage in _STAGES:
        yield from stage(run)


def _token_rows(run: Run) -> Iterator[Comparison]:
    table = EmbeddingTable(run.tensors)
    formula = f"rows of {TOKENS}, {table.type} (Devlin 2019)"
    theirs = run.tap[f"GET_ROWS@{TOKENS}"]
    yield compared("token rows", formula, f"tapped @{TOKENS}", table.rows(run.tokens), theirs, EXACT)


def _position_rows(run: Run) -> Iterator[Comparison]:
    if run.recipe and run.recipe.has_positions:
        ours, theirs = learned_positions(run.tensors, run.positions), run.tap[f"GET_ROWS@{POSITIONS}"]
        formula = f"rows of {POSITIONS} (Devlin 2019)"
        yield compared("position rows", formula, f"tapped @{POSITIONS}", ours, theirs, EXACT)


def _segment_rows(run: Run) -> Iterator[Comparison]:
    """The first row, which libllama adds to all: what its sum has beside the other rows."""
    parts = run.recipe
    if not parts or not parts.has_segments or SEGMENTS not in run.tensors:
        return
    rows = learned_segments(run.tensors, np.zeros(run.tokens.size, np.int64))
    others = EmbeddingTable(run.tensors).rows(run.tokens)
    if parts.has_positions:
        others = others + learned_positions(run.tensors, run.positions)
    summed_up = run.tap["inp_embd"]
    largest = float(np.abs(summed_up).max())
    bound = Bound(2 * EPS * largest, f"a difference of float32 sums up to {largest:.3g}")
    formula, against = f"row 0 of {SEGMENTS} (Devlin 2019)", "tapped inp_embd less the other rows"
    yield compared("segment rows", formula, against, rows, summed_up - others, bound)


def _layer(run: Run) -> Iterator[Comparison]:
    parts = run.recipe
    if parts is None:
        return
    ours = embedding_layer(run.tensors, run.tokens, run.positions)
    largest = float(np.abs(ours).max())
    bound = summed(ours.shape[1], largest) if parts.norm else Bound(EPS * largest, "one float32 operation")
    if parts == Recipe(parts.tensor):
        bound = EXACT
    yield compared("embedding layer", _sum(parts), f"tapped {parts.tensor}", ours, run.tap[parts.tensor], bound)


def _sum(parts: Recipe) -> str:
    """The formula of the whole layer."""
    terms = ["token", *["segment"] * parts.has_segments, *["position"] * parts.has_positions]
    whole = _FACTORS.get(parts.scale, f"{parts.scale} ") + " + ".join(terms)
    return f"{parts.norm} norm({whole})" if parts.norm else whole


def _rotations(run: Run) -> Iterator[Comparison]:
    for name, what in (("Qcur", "queries"), ("Kcur", "keys")):
        found = run.rotated(name)
        how = rotation.of(run.model, run.tensors, found[0].shape[-1]) if found else None
        if found is None or how is None:
            continue
        ours = rope(found[0], run.positions, how.frequencies, how.pairing, magnitude=how.magnitude)
        bound = turned(found[0], run.positions, how.frequencies, how.magnitude)
        stage, against = f"RoPE of {what}, layer 0, {how.pairing}", f"tapped {name}-0, before and after"
        yield compared(stage, "x_a cos - x_b sin, x_a sin + x_b cos (Su 2021)", against, ours, found[1], bound)


def _alibi(run: Run) -> Iterator[Comparison]:
    if run.model.architecture not in _ALIBI:
        return
    scores, weights, width = run.tap["kq-0"], run.tap["kq_soft_max-0"], run.tap["Qcur-0"].shape[-1]
    is_foreign = run.sequences[:, None] != run.sequences
    distances = -np.abs(run.positions[:, None] - run.positions).astype(np.float32)
    mask = np.where(is_foreign, -np.inf, distances)
    yield compared("ALiBi distances", "-|i - j| (Press 2022)", "tapped self_kq_mask", mask, run.tap["self_kq_mask"],
                   EXACT)  # fmt: skip
    bias = alibi_bias(alibi_slopes(len(scores), _MAX_BIAS), run.positions, run.positions)
    biased = np.where(is_foreign, -np.inf, scores / np.sqrt(width) + bias)
    formula, against = "softmax(q k / sqrt(d) - m_h |i - j|) (Press 2022)", "tapped kq_soft_max-0"
    yield compared("ALiBi attention, layer 0", formula, against, softmax(biased), weights, weighed(biased))


def _buckets(run: Run) -> Iterator[Comparison]:
    if "pos_bucket_enc" in run.tap:
        n = int(run.tensors.number("attention.relative_buckets_count", 32))
        ours = relative_buckets(run.positions, run.positions, n)
        formula = f"{n} buckets of key - query (Raffel 2020)"
        yield compared("T5 buckets", formula, "tapped pos_bucket_enc", ours, run.tap["pos_bucket_enc"], EXACT)


def _poolings(run: Run) -> Iterator[Comparison]:
    if run.rows is None:
        return
    for pooling, formula in (("mean", "mean of the rows (Reimers 2019)"), ("cls", "first row (Devlin 2019)"),
                             ("last", "last row")):  # fmt: skip
        ours = pool(run.rows, run.offsets, pooling)
        longest = int(np.diff(run.offsets).max())
        bound = summed(longest, float(np.abs(run.rows).max())) if pooling == "mean" else EXACT
        yield compared(f"pooling {pooling}", formula, "llama_get_embeddings_seq", ours, _pooled(run, pooling), bound)
    if run.model.has_scores and ("cls.weight" in run.tensors or "cls.output.weight" in run.tensors):
        yield _scores(run, run.rows)


def _scores(run: Run, rows: NDArray[np.float32]) -> Comparison:
    head = ClassificationHead.read(run.tensors)
    formula = "linear(tanh(dense(row))) (Devlin 2019)" if head.dense is not None else "linear(row)"
    ours = pool(rows, run.offsets, "rank", head)
    return compared("pooling rank", formula, "llama_get_embeddings_seq", ours, _pooled(run, "rank"), _scored(run, rows))


def _scored(run: Run, rows: NDArray[np.float32]) -> Bound:
    kinds = {run.tensors[name].type for name in ("cls.weight", "cls.output.weight") if name in run.tensors}
    rounding = max(_ROUNDING.get(kind, _QUANTIZED) for kind in kinds)
    if run.model.architecture == "modern-bert":
        rounding = max(rounding, _ROUNDING["f16"])  # its GELU is a table of float16
    largest = 2 * float(np.sqrt(rows.shape[1])) * max(1.0, float(np.abs(rows).max()))
    return Bound(rounding * largest, f"products with weights of {', '.join(sorted(kinds))}, {rounding:.2g} each")


def _pooled(run: Run, pooling: str) -> NDArray[Any]:
    """What libllama itself pools."""
    with context(run.model, run.tokens.size, run.offsets.size - 1, pooling) as pooled:
        process(pooled, filled(run.tokens, run.offsets))
        return pooled.get_embeddings_seq()


_STAGES: tuple[Callable[[Run], Iterator[Comparison]], ...] = (
    _token_rows,
    _segment_rows,
    _position_rows,
    _layer,
    _rotations,
    _alibi,
    _buckets,
    _poolings,
)
