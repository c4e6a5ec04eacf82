"""How the vectors of texts change from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rawllama.errors import InvalidArgumentError

from .one_batch import one_batch
from .style import COLOURS, MARKERS, axes_or_new, count_on, label, open_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from rawllama.model import Model

_STYLES = ("-", "--", ":", "-.")
_NAMED = 16  # texts that have room in a legend


def layer_states(model: Model, texts: Sequence[str], pooling: str = "mean") -> NDArray[np.float32]:
    """The pooled hidden states of texts, before the first layer and after each one.

    Parameters
    ----------
    model
        The model, open.
    texts
        The texts; together they are one batch.
    pooling
        How a text's tokens become one row: `mean`, `cls` or `last`.

    Returns
    -------
    ndarray
        float32, shape (n_layer + 1, texts, n_embd).

    Raises
    ------
    InvalidArgumentError
        No texts, an unknown pooling, a text that is too long for the model, or a model with an encoder and a decoder.

    Calls: as `Context.hidden_states`
    """
    with one_batch(model, texts) as one:
        return one.context.hidden_states(one.batch, pooling=pooling)


def layers(states: NDArray[np.float32], texts: Sequence[str], *, legend: bool = True, axes: Axes | None = None) -> Axes:
    """Draw how like its last one each layer's pooled state is, a line a text.

    Parameters
    ----------
    states
        What `layer_states` gives: shape (n_layer + 1, texts, n_embd).
    texts
        Their texts.
    legend
        Whether to name the lines beside the axes; more than 16 have no names.
    axes
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        The axes: a line for each text.

    Raises
    ------
    InvalidArgumentError
        States and texts do not match.
    MissingExtraError
        matplotlib is not there.
    """
    _require_states(states, texts)
    axes = axes_or_new(axes)
    norms = np.linalg.norm(states, axis=2)
    cosines = (states * states[-1]).sum(axis=2) / np.maximum(norms * norms[-1], np.finfo(np.float32).tiny)
    _lines(axes, cosines, texts, legend)
    axes.set_ylabel("cosine to the last layer's")
    axes.set_title("How like the last layer's each state is")
    return axes


def layer_norms(
    states: NDArray[np.float32], texts: Sequence[str], *, legend: bool = True, axes: Axes | None = None
) -> Axes:
    """Draw how long each layer's pooled state is, a line a text. Parameters and the rest: see `layers`."""
    _require_states(states, texts)
    axes = axes_or_new(axes)
    _lines(axes, np.linalg.norm(states, axis=2), texts, legend)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("length of the pooled state (L2 norm)")
    axes.set_title("How long each state is")
    return axes


def _lines(axes: Axes, values: NDArray[np.float32], texts: Sequence[str], legend: bool) -> None:
    many = len(texts) > _NAMED
    for number, text in enumerate(texts):
        axes.plot(
            values[:, number],
            _STYLES[number // len(COLOURS) % len(_STYLES)],
            color=COLOURS[number % len(COLOURS)],
            marker=None if many else MARKERS[number % len(MARKERS)],
            markersize=4,
            linewidth=0.8 if many else 1.4,
            label=label(text),
        )
    if legend and not many:
        names = axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        for name in names.get_texts():
            name.set_parse_math(False)
    axes.set_xlabel("layer (0: what the first one is given)")
    count_on(axes)
    open_frame(axes)


def _require_states(states: NDArray[np.float32], texts: Sequence[str]) -> None:
    if states.ndim != 3 or states.shape[1] != len(texts):
        raise InvalidArgumentError(f"states: shape {states.shape}; (n_layer + 1, {len(texts)} texts, n_embd) is wanted")
