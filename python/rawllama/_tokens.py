"""A row a token, and rows of sequences that are tokens already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ._engine import Sequences, Work
from ._pipeline import Options, Pipeline, kept
from ._progress import Progress
from .errors import InvalidArgumentError
from .rows import RowError, RowFormat, Rows, TokenRows, arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._queue import Stop
    from .texts import Texts


def encode_tokens(pipeline: Pipeline, texts: Texts, options: Options, stop: Stop) -> TokenRows:
    """A row a token of all texts; equal texts are computed once."""
    everything = np.arange(len(texts))
    firsts = texts.firsts() if everything.size > 1 else everything
    prepared = pipeline.prepare(texts, everything, options)
    tokens, offsets = prepared.sequences.tokens, prepared.sequences.offsets
    rows = options.target.empty(tokens.size)
    work = Work(
        prepared.sequences, np.flatnonzero(firsts == everything), offsets[:-1], options.target, rows, per_token=True
    )
    progress = Progress(options.progress, work.chosen.size, pipeline.width)
    progress.add(prepared.sequences, work.chosen, work.chosen.size)
    result = TokenRows(rows, offsets, tokens)
    with kept(result, work.done):
        try:
            with pipeline.turn:
                pipeline.run(work, stop, progress.update)
        except RowError as error:
            raise error.named(f"texts[{error.index}]") from None
        finally:
            progress.close()
            for text in np.flatnonzero(firsts != everything):
                _copy(result, int(firsts[text]), int(text))
                work.done[text] = work.done[firsts[text]]
    return result


def _copy(result: TokenRows, source: int, target: int) -> None:
    """One text's rows to those of another that is equal."""
    start, end = result.offsets[source : source + 2]
    at = result.offsets[target]
    for array in arrays(result.rows):
        array[at : at + end - start] = array[start:end]


def encode_sequences(
    pipeline: Pipeline, sequences: Sequences, target: RowFormat, stop: Stop, name: Callable[[int], str], max_tokens: int
) -> Rows:
    """A row a sequence; `name` is what messages call the one with an index."""
    for index, length in enumerate(sequences.lengths.tolist()):
        if not 0 < length <= max_tokens:
            raise InvalidArgumentError(f"{name(index)}: {length} tokens, and it takes 1 to {max_tokens}")
    rows = target.empty(len(sequences))
    everything: NDArray[np.int64] = np.arange(len(sequences))
    work = Work(sequences, everything, everything, target, rows)
    with kept(rows, work.done), pipeline.turn:
        try:
            pipeline.run(work, stop, lambda _: None)
        except RowError as error:
            raise error.named(name(error.index)) from None
    return rows


def lengths(pipeline: Pipeline, texts: Texts, options: Options) -> NDArray[np.int64]:
    """Tokens of each sequence that the texts would be computed as: int64; those of windows come last."""
    everything = np.arange(len(texts))
    sequencer = pipeline.sequencer
    prepared = sequencer.prepare(texts, everything, prefix=options.prefix, overlong=options.overlong)
    whole = prepared.sequences.lengths[prepared.whole]
    return whole if prepared.windows is None else np.concatenate([whole, prepared.windows.sequences.lengths])
