"""Texts as points of a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rawllama.errors import InvalidArgumentError
from rawllama.geometry import clusters, project

from .placing import place_labels
from .style import COLOURS, MARKERS, axes_or_new, label, require_texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from rawllama.embedder import Embedder

_SIZE = (7.2, 5.0)
_LABELLED = 60  # texts that are written beside their points
_SMALL = 100  # points; of more, each is drawn smaller


def text_map(
    embedder: Embedder,
    texts: Sequence[str],
    *,
    method: str = "pca",
    n_clusters: int = 4,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    axes: Axes | None = None,
) -> Axes:
    """Draw texts in two dimensions, so that those with like meanings are near each other.

    Parameters
    ----------
    embedder
        Embeds them.
    texts
        The texts, three at least.
    method, seed
        As in `rawllama.geometry.project`.
    n_clusters
        Clusters that are coloured, by k-means; as many as texts at most.
    labels
        A label for each text, to colour by in place of clusters.
    axes
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        The axes: a collection of points for each colour. Words for which there is no room are left
        out, and those of more than 60 texts.

    Raises
    ------
    InvalidArgumentError
        Too few texts, not as many labels as texts; or as `Embedder.encode`.
    MissingExtraError
        The packages of the extra `plots` are not installed.
    """
    texts = require_texts(texts, 3)
    if labels is not None and len(labels) != len(texts):
        raise InvalidArgumentError(f"labels: {len(labels)} for {len(texts)} texts")
    axes = axes_or_new(axes, _SIZE)
    rows = embedder.encode(texts, dtype="float32")
    points = project(rows, method, seed=seed)
    groups = _named_clusters(rows, n_clusters, seed) if labels is None else list(labels)
    _scatter(axes, points, groups)
    names = axes.legend(fontsize="small", ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.06), frameon=False)
    for name in names.get_texts():
        name.set_parse_math(False)
    _describe(axes, rows, points, method)
    axes.set_title("Texts with like meanings are near each other")
    if len(texts) <= _LABELLED:
        place_labels(axes, points, [label(text) for text in texts])
    return axes


def _named_clusters(rows: NDArray[np.float32], n: int, seed: int) -> list[str]:
    return [f"k-means {number + 1}" for number in clusters(rows, min(n, len(rows)), seed=seed).tolist()]


def _scatter(axes: Axes, points: NDArray[np.float64], groups: Sequence[str]) -> None:
    for number, group in enumerate(dict.fromkeys(groups)):
        own = points[[one == group for one in groups]]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=36 if len(points) <= _SMALL else 10,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
            label=label(group),
            zorder=2,
        )


def _describe(axes: Axes, rows: NDArray[np.float32], points: NDArray[np.float64], method: str) -> None:
    """Axes: what they are, and that they have no unit."""
    if method == "pca":
        whole = max(float(rows.var(axis=0).sum()), np.finfo(np.float32).tiny)
        shares = points.var(axis=0) / whole
        axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
        axes.set_ylabel(f"second ({shares[1]:.0%})")
    else:
        axes.set_xlabel("UMAP, no unit: only what is near counts")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.1)
    axes.spines[:].set_color("#CCCCCC")
