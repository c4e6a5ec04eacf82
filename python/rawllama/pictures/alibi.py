"""ALiBi: each head's bias against distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rawllama.layers import alibi_bias as bias_of
from rawllama.layers import alibi_slopes as slopes_of

from .style import BLUE, axes_or_new, count_on, open_frame, require_at_least, sequential

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROOM = 0.05  # of the axes' height, that a name at the end of a line needs


def alibi_slopes(n_head: int = 8, *, max_bias: float = 8.0, axes: Axes | None = None) -> Axes:
    """Draw the slope of each head, what a token of distance takes from its scores.

    Parameters
    ----------
    n_head
        Heads of a layer.
    max_bias
        The exponent of the last head's slope: 2 ** -max_bias.
    axes
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        The axes.

    Raises
    ------
    InvalidArgumentError
        No heads, or a bias that is not positive.
    MissingExtraError
        matplotlib is not there.
    """
    slopes = slopes_of(n_head, max_bias)
    axes = axes_or_new(axes)
    axes.plot(np.arange(n_head), slopes, "o", color=BLUE)
    axes.set_yscale("log", base=2)
    count_on(axes)
    axes.grid(alpha=0.3)
    axes.set_xlabel("head")
    axes.set_ylabel("slope (score a token), log scale")
    axes.set_title("Each head's slope")
    open_frame(axes)
    return axes


def alibi_bias(n_head: int = 8, *, max_bias: float = 8.0, n: int = 64, axes: Axes | None = None) -> Axes:
    """Draw what each head adds to the scores of one query, an encoder's, up to `n` tokens to both sides.

    A decoder has the left half alone. Parameters and the rest: see `alibi_slopes`.
    """
    slopes = slopes_of(n_head, max_bias)
    require_at_least("n", n, 1)
    axes = axes_or_new(axes)
    distances = np.arange(-n, n + 1)
    bias = bias_of(slopes, np.array([0]), distances)[:, 0]
    shades = sequential()(np.linspace(0.95, 0.35, n_head))
    named = -np.inf
    for shade, head in zip(shades, np.argsort(-slopes, kind="stable").tolist(), strict=True):
        end = bias[head, -1]
        axes.plot(distances, bias[head], color=shade, label=f"head {head}")
        if end - named > _ROOM * slopes.max() * n:
            axes.annotate(f" head {head}", (n, end), va="center", fontsize="small", color=shade)
            named = end
    axes.set_xlabel("key's position less the query's (tokens)")
    axes.set_ylabel("bias added to the score")
    axes.set_title("Far keys count less, most in the first heads")
    open_frame(axes)
    return axes
