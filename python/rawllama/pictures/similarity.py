"""How alike texts are, as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import axes_or_new, heat_map, label, number_cells, require_texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rawllama.embedder import Embedder

_BARS = {"cosine": "cosine", "dot": "dot product", "euclid": "distance, negative"}
_LABELLED = 40  # texts that have room for their words


def similarity(embedder: Embedder, texts: Sequence[str], *, metric: str = "cosine", axes: Axes | None = None) -> Axes:
    """Draw how alike each two of some texts are.

    Parameters
    ----------
    embedder
        Embeds them.
    texts
        The texts.
    metric
        As in `rawllama.similarity.similarity`.
    axes
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        The axes; the array of their image is the matrix.

    Raises
    ------
    InvalidArgumentError
        No texts, or an unknown metric; or as `Embedder.encode`.
    MissingExtraError
        matplotlib is not there.
    """
    texts = require_texts(texts)
    axes = axes_or_new(axes)
    matrix = embedder.similarity(embedder.encode(texts), metric=metric)
    limits = (min(0.0, float(matrix.min())), 1.0) if metric == "cosine" else None
    image = heat_map(axes, matrix, _BARS[metric], limits=limits, square=True)
    number_cells(axes, image)
    labels = [label(text) for text in texts] if len(texts) <= _LABELLED else []
    axes.set_xticks(np.arange(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(np.arange(len(labels)), labels, parse_math=False)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.set_title("How alike the texts are")
    return axes
