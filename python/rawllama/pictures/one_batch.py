"""Texts as one batch, and a context that computes it at once, a row a token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from rawllama.batch import Batch
from rawllama.context import Context
from rawllama.errors import InvalidArgumentError

from .style import require_texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rawllama.model import Model

SETTINGS: dict[str, Any] = {"embeddings": True, "pooling_type": "none", "kv_unified": True, "taps": True}


class OneBatch(NamedTuple):
    """A context, and the batch for it: text i has `tokens[offsets[i]:offsets[i + 1]]`."""

    context: Context
    batch: Batch
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]


@contextmanager
def one_batch(model: Model, texts: Sequence[str]) -> Iterator[OneBatch]:
    """Texts tokenized as a batch in which each is a sequence, and a context as large as it.

    Raises
    ------
    InvalidArgumentError
        No texts, one that has no tokens, or a model with an encoder and a decoder.

    Calls: llama_tokenize, llama_init_from_model
    """
    if model.has_encoder and model.has_decoder:
        raise InvalidArgumentError(
            f"model: {model.description} has an encoder and a decoder; name one that has one part"
        )
    tokens, offsets = model.vocab.tokenize_many(require_texts(texts))
    for number in range(len(texts)):
        if offsets[number] == offsets[number + 1]:
            raise InvalidArgumentError(f"texts[{number}]: {texts[number]!r} has no tokens")
    batch = Batch(tokens.size)
    batch.add_sequences(tokens, offsets)
    sizes: dict[str, Any] = dict.fromkeys(("n_ctx", "n_batch", "n_ubatch"), tokens.size)
    with Context(model, n_seq_max=len(texts), **sizes, **SETTINGS) as context:
        yield OneBatch(context, batch, tokens, offsets)
