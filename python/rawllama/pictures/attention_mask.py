"""Which token sees which in a batch that several texts share: the mask that libllama gives to attention."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rawllama import tap
from rawllama.errors import InvalidArgumentError

from .one_batch import SETTINGS, one_batch
from .style import COLOURS, GREY, axes_or_new, heat_map, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from rawllama.model import Model

_NAMES = re.compile(r".*kq_mask|leaf_\d+")
_TYPES = ("f16", "f32")
_LABELLED = 48  # tokens that have room for their words
_BORDERED = 16  # texts that have room for lines between them
_HIDDEN = "#F4F4F4"
_SPACE = "␣"


@dataclass(frozen=True)
class Mask:
    """What is added to the scores of attention, of each two tokens of a batch.

    Attributes
    ----------
    values
        float32, shape (n, n), query by key: -inf where the query does not see the key; else 0, or ALiBi's distance,
        negative, which each head multiplies with its slope.
    tokens
        The n tokens' texts.
    sequences
        int32, shape (n,): the text that each is of.
    causal
        Whether a token sees none behind it.
    windowed
        Whether it does not see all others of its text that it could.
    """

    values: NDArray[np.float32]
    tokens: tuple[str, ...]
    sequences: NDArray[np.int32]
    causal: bool
    windowed: bool

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Whether the query sees the key: shape (n, n)."""
        return np.isfinite(self.values)

    @property
    def title(self) -> str:
        """What one sees."""
        if self.windowed:
            return f"{'Causal s' if self.causal else 'S'}liding window: tokens near it in its own text"
        if self.causal:
            return "Causal: each token sees its own text up to itself"
        return "Bidirectional: each token sees all of its own text"


def masks_of(model: Model, texts: Sequence[str]) -> list[Mask]:
    """The masks that libllama makes for a batch of texts: one, or two where some layers see a window alone.

    Parameters
    ----------
    model
        The model, open.
    texts
        The texts; together they are one batch.

    Raises
    ------
    InvalidArgumentError
        No texts, or a model that has no attention, an encoder and a decoder, or a mask for each text alone.
    LlamaError
        As `Context.process`.

    Calls: as `Context.tap`
    """
    names = _names(model)
    with one_batch(model, texts) as one, one.context.tap(*names) as tapped:
        one.context.process(one.batch)
    n = one.tokens.size
    found = [tensor.values[..., :n] for tensor in tapped.tensors if tensor.shape[:-1] == (n,)]
    if len(found) < len(names):
        raise InvalidArgumentError(
            "texts: the model computes them one after the other, with a mask each; give one text"
        )
    pieces = tuple(piece.decode("utf-8", "replace") for piece in model.vocab.pieces(one.tokens))
    sequences = np.repeat(np.arange(len(texts), dtype=np.int32), np.diff(one.offsets))
    found.sort(key=lambda values: -np.isfinite(values).sum())
    return [_mask(values, pieces, sequences) for values in found]


def attention_mask(mask: Mask, *, axes: Axes | None = None) -> Axes:
    """Draw which token sees which: a row a query, a column a key, a colour a text; shades where distance counts.

    Parameters
    ----------
    mask
        One of those that `masks_of` gives.
    axes
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        The axes. The array of their image is `mask.values`, or the number of the text where all that is seen has 0;
        what is not seen is masked in it.

    Raises
    ------
    MissingExtraError
        matplotlib is not there.
    """
    axes = axes_or_new(axes, (6.0, 5.4))
    axes.set_facecolor(_HIDDEN)
    if mask.values[mask.visible].any():
        shown = np.ma.masked_where(~mask.visible, mask.values)
        heat_map(axes, shown, "ALiBi: minus the distance (tokens)", limits=(1.4 * float(shown.min()), 0.0), square=True)
    else:
        _colour_texts(axes, mask)
    _frame_texts(axes, mask)
    labels = [label(token.strip() or _SPACE) for token in mask.tokens] if len(mask.tokens) <= _LABELLED else []
    size = max(4.0, min(8.0, 160 / len(mask.tokens)))
    axes.set_xticks(np.arange(len(labels)), labels, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(np.arange(len(labels)), labels, fontsize=size, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_color("#CCCCCC")
    axes.set_xlabel("key: what is seen")
    axes.set_ylabel("query: what sees")
    axes.set_title(mask.title, fontsize="medium")
    return axes


def _names(model: Model) -> list[str]:
    """The graph's inputs that are masks; those of windows have no name of llama.cpp's, but a number of ggml's."""
    found = dict.fromkeys(
        info.name
        for info in tap.names(model, **SETTINGS)
        if info.op == "NONE" and info.type in _TYPES and _NAMES.fullmatch(info.name)
    )
    if not found:
        raise InvalidArgumentError(f"model: {model.description} has no attention, so no mask")
    return list(found)


def _mask(values: NDArray[np.float32], tokens: tuple[str, ...], sequences: NDArray[np.int32]) -> Mask:
    visible, could = np.isfinite(values), sequences[:, None] == sequences
    causal = not np.triu(visible, 1).any()
    if causal:
        could = np.tril(could)
    return Mask(values, tokens, sequences, causal, windowed=bool((could & ~visible).any()))


def _colour_texts(axes: Axes, mask: Mask) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    n = int(mask.sequences.max()) + 1
    colours = ListedColormap([COLOURS[number % len(COLOURS)] for number in range(n)])
    texts = np.broadcast_to(mask.sequences[:, None], mask.values.shape)
    axes.imshow(
        np.ma.masked_where(~mask.visible, texts),
        cmap=colours,
        norm=BoundaryNorm(np.arange(n + 1) - 0.5, max(n, 2)) if n > 1 else None,
        interpolation="nearest",
        alpha=0.85,
    )


def _frame_texts(axes: Axes, mask: Mask) -> None:
    """Lines between the texts, and thin ones between the tokens."""
    n = len(mask.tokens)
    if n <= _LABELLED:
        lines = np.arange(1, n) - 0.5
        axes.hlines(lines, -0.5, n - 0.5, color="w", linewidth=0.5)
        axes.vlines(lines, -0.5, n - 0.5, color="w", linewidth=0.5)
    if n > _LABELLED and mask.sequences.max() >= _BORDERED:
        return
    borders = np.flatnonzero(np.diff(mask.sequences)) + 0.5
    axes.hlines(borders, -0.5, n - 0.5, color=GREY, linewidth=0.8)
    axes.vlines(borders, -0.5, n - 0.5, color=GREY, linewidth=0.8)
