"""Rotary positions: how far pairs of columns turn, and what is left of a score at a distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from rawllama.errors import InvalidArgumentError
from rawllama.layers import NTK, Linear, YaRN, rope_frequencies

from .style import COLOURS, GREY, axes_or_new, open_frame, require_at_least

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

SCALINGS = ("none", "linear", "NTK-aware", "YaRN")
_STYLES = ("-", "--", "-.", ":")
_SPREAD = 0.25  # of a distance, to both sides, that a score is averaged over


def rope(
    d: int = 64,
    *,
    base: float = 10000.0,
    n_ctx: int = 2048,
    factor: float = 4.0,
    legend: bool = True,
    axes: Axes | None = None,
) -> Axes:
    """Draw how often each pair of columns turns within the extended context, without and with each extension.

    Parameters
    ----------
    d
        Columns of a head.
    base
        RoPE's base, theta.
    n_ctx
        Tokens of the training's context.
    factor
        How many times longer the context is to be.
    legend
        Whether to name the lines.
    axes
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        The axes: a line for each of `SCALINGS`, in this order.

    Raises
    ------
    InvalidArgumentError
        An odd number of columns, a context without tokens, or a factor below 1.
    MissingExtraError
        matplotlib is not there.
    """
    speeds = _frequencies(d, base, n_ctx, factor)
    axes = axes_or_new(axes)
    length = n_ctx * factor
    for name, colour, style in zip(SCALINGS, COLOURS, _STYLES, strict=False):
        turns = speeds[name] * length / (2 * np.pi)
        axes.plot(np.arange(d // 2), turns, style, color=colour, label=name, linewidth=1.8)
    axes.axhline(1, color=GREY, linewidth=0.8)
    axes.annotate("one turn", (0, 1), textcoords="offset points", xytext=(0, 3), fontsize="small", color=GREY)
    axes.set_yscale("log")
    axes.set_xlabel("pair of columns")
    axes.set_ylabel(f"turns in {length:.0f} tokens, log scale")
    axes.set_title("Linear slows all pairs, NTK and YaRN the slow ones")
    _finish(axes, factor, legend)
    return axes


def rope_decay(
    d: int = 64,
    *,
    base: float = 10000.0,
    n_ctx: int = 2048,
    factor: float = 4.0,
    legend: bool = True,
    axes: Axes | None = None,
) -> Axes:
    """Draw the score of a query and an equal key against their distance, as `score_at` computes it.

    YaRN's magnitude, the same for all distances, is left out. Parameters and the rest: see `rope`.
    """
    speeds = _frequencies(d, base, n_ctx, factor)
    axes = axes_or_new(axes)
    distances = np.unique(np.geomspace(1, n_ctx * factor, 400).astype(int))
    for name, colour, style in zip(SCALINGS, COLOURS, _STYLES, strict=False):
        axes.plot(distances, score_at(distances, speeds[name]), style, color=colour, label=name, linewidth=1.8)
    axes.axvline(n_ctx, color=GREY, linewidth=0.8)
    axes.annotate(
        "trained ", (n_ctx, 1), xycoords=("data", "axes fraction"), ha="right", va="top", fontsize="small", color=GREY
    )
    axes.set_xscale("log")
    axes.set_xlabel("distance of query and key (tokens), log scale")
    axes.set_ylabel("score, share of that at distance 0")
    axes.set_title("Scores fade with distance")
    _finish(axes, factor, legend)
    return axes


def score_at(distances: ArrayLike, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score of a query and a key that are equal and as long in each pair, as a share of that at distance 0.

    At distance m it is the mean of cos(m w) over the frequencies w. It swings, so it is averaged over the distances
    from 3/4 m to 5/4 m, which multiplies each cosine with sin(m w / 4) / (m w / 4).

    Parameters
    ----------
    distances
        Tokens, shape (n,).
    frequencies
        Radians a token, shape (d / 2,).

    Returns
    -------
    ndarray
        float64, shape (n,).
    """
    angles = np.asarray(distances)[:, None] * frequencies
    scores: NDArray[np.float64] = (np.cos(angles) * np.sinc(_SPREAD * angles / np.pi)).mean(axis=1)
    return scores


def _finish(axes: Axes, factor: float, legend: bool) -> None:
    open_frame(axes)
    if legend:
        axes.legend(fontsize="small", title=f"extension, {factor:g}x", title_fontsize="small")


def _frequencies(d: int, base: float, n_ctx: int, factor: float) -> Mapping[str, NDArray[np.float64]]:
    """Radians a token of each pair, by the extension."""
    require_at_least("n_ctx", n_ctx, 1)
    if not factor >= 1:
        raise InvalidArgumentError(f"factor: {factor} is less than 1")
    chosen = (None, Linear(factor), NTK(factor), YaRN(factor, n_ctx))
    return {name: rope_frequencies(d, base, scaling) for name, scaling in zip(SCALINGS, chosen, strict=True)}
