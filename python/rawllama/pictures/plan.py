"""The batches that an Embedder computes, and the padding that a rectangle of them would have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rawllama.errors import InvalidArgumentError

from .style import BLUE, GREY, axes_or_new, open_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rawllama.planning import Plan

_NUMBERED = 24  # bars that have room for their numbers


def plan(plan: Plan, *, axes: Axes | None = None) -> Axes:
    """Draw the tokens of each batch, and above them the padding that the same sequences would need as a rectangle.

    Parameters
    ----------
    plan
        What `Embedder.plan` gives.
    axes
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        The axes: two containers of bars, tokens and padding.

    Raises
    ------
    InvalidArgumentError
        A plan without batches.
    MissingExtraError
        matplotlib is not there.
    """
    if not len(plan):
        raise InvalidArgumentError("plan: it has no batches; plan at least one text")
    axes = axes_or_new(axes)
    numbers = np.arange(len(plan))
    padding = plan.sequences * plan.longest - plan.tokens
    width = 0.8 if len(plan) <= _NUMBERED else 1.0
    axes.bar(numbers, plan.tokens, width, color=BLUE, label="tokens, computed")
    rest = axes.bar(
        numbers, padding, width, bottom=plan.tokens, color="#DDDDDD", label="padding of a rectangle, not there"
    )
    if len(plan) <= _NUMBERED:
        axes.bar_label(rest, [f"{count}" for count in plan.sequences], padding=2, fontsize="small", color=GREY)
        axes.set_xticks(numbers)
    axes.margins(x=0.02)
    axes.set_ylim(top=1.3 * float((plan.tokens + padding).max()))
    share = padding.sum() / (plan.tokens + padding).sum()
    axes.set_xlabel(
        "batch, in the order computed" + ("; above each bar its sequences" if len(plan) <= _NUMBERED else "")
    )
    axes.set_ylabel("tokens")
    axes.set_title(
        f"{plan.sequences.sum()} sequences, {len(plan)} batches: as rectangles, {share:.0%} would be padding"
    )
    axes.legend(fontsize="small", loc="upper right", ncols=2, frameon=False)
    open_frame(axes)
    return axes
