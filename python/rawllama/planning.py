"""What an Embedder would compute for texts, and what each part of it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._engine import plan
from ._pipeline import Encoding, Options
from ._queue import Stop
from .texts import read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._engine import Settings
    from .embedder import Embedder
    from .model import Model
    from .texts import Texts

# Rows and columns of the tiles in which ggml's CPU backend computes flash attention; GGML_FA_TILE_Q and _KV.
_TILE = 64
# Batches that a printed plan shows.
_SHOWN = 12


@dataclass(frozen=True)
class Plan:
    """Batches in the order in which they are computed; printed, a table.

    A batch is one row of tokens: sequences of any length stand side by side without padding. Attention looks at all
    pairs of its tokens, but those of different sequences are masked. rawllama's kernels leave them out; ggml's leave
    out whole tiles of 64 by 64 pairs. What is masked and not left out is waste.

    Attributes
    ----------
    n_texts
        Texts that were given.
    n_equal
        Of these, how many equal one before: they are not computed.
    tokens, sequences, longest, shortest
        int64, shape (batches,): tokens and sequences of each batch, and the tokens of its longest and shortest one.
        Where overlong texts are cut into windows, each of these is a sequence.
    pairs, pairs_needed
        int64, shape (batches,): pairs of tokens that attention computes a head, and those that are not masked. An
        estimate: of flash attention on the CPU, ggml's in tiles that begin with the batch; without flash attention all
        pairs are computed.
    flops
        float64, shape (batches,): additions and multiplications. An estimate: two for each weight and token, those of
        all experts and of the output layer included, and those of attention.
    seconds
        float64, shape (batches,): how long each takes, by the rate that `Embedder.tune` measured; None if it has not.
    """

    n_texts: int
    n_equal: int
    tokens: NDArray[np.int64]
    sequences: NDArray[np.int64]
    longest: NDArray[np.int64]
    shortest: NDArray[np.int64]
    pairs: NDArray[np.int64]
    pairs_needed: NDArray[np.int64]
    flops: NDArray[np.float64]
    seconds: NDArray[np.float64] | None

    def __len__(self) -> int:
        return self.tokens.size

    @property
    def padding(self) -> NDArray[np.float64]:
        """The share of a rectangular batch of the same sequences that would be padding; here there is none.

        float64, shape (batches,).
        """
        return 1 - self.tokens / (self.sequences * self.longest)

    @property
    def attention_waste(self) -> NDArray[np.float64]:
        """The share of the pairs computed that are masked: float64, shape (batches,)."""
        waste: NDArray[np.float64] = 1 - self.pairs_needed / np.maximum(self.pairs, 1)
        return np.where(self.pairs > 0, waste, 0)

    def __str__(self) -> str:
        lines = [f"{self.n_texts} texts, of which {self.n_equal} equal one before: {self.tokens.sum()} tokens in "
                 f"{self.sequences.sum()} sequences in {len(self)} batches"]  # fmt: skip
        if len(self):
            lines += ["", *self._table(), "", *_NOTES]
        return "\n".join(lines)

    def _table(self) -> Iterator[str]:
        titles = ("batch", "sequences", "tokens", "longest", "shortest", "padding*", "masked**", "GFLOP")
        yield "".join(f"{title:>11}" for title in (*titles, *(("ms",) if self.seconds is not None else ())))
        half = _SHOWN // 2
        for batch in range(len(self)):
            if len(self) <= _SHOWN or batch < half or batch >= len(self) - half:
                yield self._line(str(batch), slice(batch, batch + 1))
            elif batch == half:
                yield f"{'...':>11}"
        yield self._line("all", slice(None))

    def _line(self, name: str, part: slice) -> str:
        rectangle = (self.sequences * self.longest)[part].sum()
        pairs = self.pairs[part].sum()
        cells = [
            name,
            f"{self.sequences[part].sum()}",
            f"{self.tokens[part].sum()}",
            f"{self.longest[part].max()}",
            f"{self.shortest[part].min()}",
            f"{1 - self.tokens[part].sum() / rectangle:.0%}",
            f"{1 - self.pairs_needed[part].sum() / pairs if pairs else 0:.0%}",
            f"{self.flops[part].sum() / 1e9:.3g}",
        ]
        if self.seconds is not None:
            cells.append(f"{self.seconds[part].sum() * 1e3:.1f}")
        return "".join(f"{cell:>11}" for cell in cells)


_NOTES = (
    "*  of a rectangular batch of the same sequences; these have none",
    "** of the pairs of tokens that attention computes: the waste",
)


def plan_texts(
    embedder: Embedder, texts: str | Iterable[str], *, prompt: str | None = None, overlong: str | None = None
) -> Plan:
    """The batches that `Embedder.encode` would compute, tokenized and not computed.

    Parameters
    ----------
    embedder
        Who would compute.
    texts, prompt, overlong
        As in `Embedder.encode`.

    Raises
    ------
    InvalidArgumentError
        As `Embedder.encode`.

    Calls: llama_tokenize
    """
    source = read([texts] if isinstance(texts, str) else texts)
    options = embedder._profile.options(prompt=prompt, overlong=overlong)
    embedder._pipeline.require_open()
    encoding = Encoding(embedder._pipeline, source, options, Stop())
    rate = embedder.tuning.flops_per_second if embedder.tuning is not None else None
    jobs = _jobs(embedder, encoding, source, options)
    return plan_lengths(embedder, jobs, embedder._settings, len(source), len(source) - encoding.chosen.size, rate)


def plan_lengths(
    embedder: Embedder,
    jobs: Iterable[NDArray[np.int64]],
    settings: Settings,
    n_texts: int = 0,
    n_equal: int = 0,
    rate: float | None = None,
) -> Plan:
    """The batches of one job after the other, each the lengths of its sequences; `rate` is in FLOP a second."""
    batches = _Batches.of(jobs, settings.token_budget)
    tokens = batches.reduced(np.add)
    causal = embedder._pipeline.engine._contexts[0].causal_attn
    needed = batches.needed(causal=causal)
    if settings.flash_attn is False:
        pairs = tokens**2
    else:
        pairs = needed if embedder.model.kernels == "rawllama" else batches.tiled(needed, causal=causal)
    if embedder.model.is_recurrent:  # no attention
        pairs, needed = np.zeros_like(pairs), np.zeros_like(needed)
    flops = flops_of(embedder.model, tokens, pairs)
    return Plan(
        n_texts=n_texts,
        n_equal=n_equal,
        tokens=tokens,
        sequences=np.diff(batches.bounds),
        longest=batches.reduced(np.maximum),
        shortest=batches.reduced(np.minimum),
        pairs=pairs,
        pairs_needed=needed,
        flops=flops,
        seconds=None if rate is None else flops / rate,
    )


def _jobs(embedder: Embedder, encoding: Encoding, texts: Texts, options: Options) -> Iterator[NDArray[np.int64]]:
    """Tokens of the sequences that are sorted and cut into batches together."""
    groups = iter((encoding.chosen,)) if embedder.pooling == "none" else encoding._windows()
    for indices in groups:
        prepared = embedder._pipeline.sequencer.prepare(
            texts, indices, prefix=options.prefix, overlong=options.overlong
        )
        if prepared.windows is not None:
            yield prepared.windows.sequences.lengths
        yield prepared.sequences.lengths[prepared.whole]


def flops_of(model: Model, tokens: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Additions and multiplications for so many tokens and, in each head, pairs of them: float64, shape of `tokens`."""
    looked_up = model.n_positions * model.n_embd
    if not model.has_logits:  # else the table of tokens is the output layer too, or as large as that
        looked_up += model.vocab.n_tokens * model.n_embd
    key = f"{model.architecture}.attention."
    head = model.n_embd // max(model.n_head, 1)
    widths = [int(model.metadata.get(f"{key}{name}_length", head)) for name in ("key", "value")]
    per_token = 2.0 * (model.n_params - looked_up)
    per_pair = 2.0 * model.n_layer * model.n_head * sum(widths)
    return per_token * tokens + per_pair * pairs


@dataclass(frozen=True)
class _Batches:
    """Sequences in the order in which they are computed: batch i has the lengths from bounds[i] to bounds[i + 1]."""

    lengths: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, jobs: Iterable[NDArray[np.int64]], token_budget: int) -> _Batches:
        lengths = [np.empty(0, np.int64)]
        bounds = [np.zeros(1, np.int64)]
        for job in jobs:
            order, ends = plan(job, token_budget)
            lengths.append(job[order])
            bounds.append(bounds[-1][-1] + ends[1:])
        return cls(np.concatenate(lengths), np.concatenate(bounds))

    def reduced(self, ufunc: np.ufunc, values: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """`ufunc` over each batch's lengths, or over what is given for each of them."""
        values = self.lengths if values is None else values
        starts = self.bounds[:-1]
        result: NDArray[np.int64] = ufunc.reduceat(values, starts) if starts.size else np.empty(0, np.int64)
        return result

    def needed(self, *, causal: bool) -> NDArray[np.int64]:
        """Pairs of tokens in each batch that are not masked."""
        return self.reduced(np.add, self.lengths * (self.lengths + 1) // 2 if causal else self.lengths**2)

    def tiled(self, needed: NDArray[np.int64], *, causal: bool) -> NDArray[np.int64]:
        """Pairs that ggml's flash attention computes in each batch."""
        tokens = self.reduced(np.add)
        n_tiles = -(-tokens // _TILE)
        # Of each tile of rows: its batch, the tokens in the batches before, its first and its last row.
        batch = np.repeat(np.arange(tokens.size), n_tiles)
        base = (np.cumsum(tokens) - tokens)[batch]
        first = _TILE * (np.arange(batch.size) - (np.cumsum(n_tiles) - n_tiles)[batch])
        last = np.minimum(first + _TILE, tokens[batch]) - 1
        # They see the tokens from the first row's sequence to the last row's.
        starts = np.concatenate(([0], np.cumsum(self.lengths)))
        left = starts[np.searchsorted(starts, base + first, side="right") - 1] - base
        right = last + 1 if causal else starts[np.searchsorted(starts, base + last, side="right")] - base
        columns = -(-right // _TILE) - left // _TILE
        computed = np.zeros(tokens.size, np.int64)
        np.add.at(computed, batch, columns * _TILE**2)
        # Batches of fewer rows than a tile has are computed row by row, without what is masked.
        return np.where(tokens < _TILE, needed, computed)
