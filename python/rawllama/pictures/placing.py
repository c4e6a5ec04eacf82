"""Words beside points: places are chosen so that words cover no other word, line or point, where that can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .style import GREY, with_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_FONT_SIZE = 7.0
# Lengths are points, 1/72 inch.
_RADII = (6.0, 12.0, 20.0, 30.0, 42.0)  # from the middle of a mark to the edge of its label
_LINED = 8.0  # from so far on, a line leads from the label to its point
_MARK = 4.0  # from the middle of a mark to its edge
_GAP = 1.0  # around each label
_ANGLES = np.deg2rad([0, 180, 90, 270, 45, 135, 225, 315])
_PIECES = 6  # of a line, each looked at as a small box
_THICK = 1.5  # half of such a box's side
_SWEEPS = 20
_TRIES, _MOVES = 8, 192  # at most so many tries, and labels moved in their first turns
_LATER = 0.1  # what each angle costs more than the one before it
_FAR = 0.3  # what a point of distance costs, where a square point of a covered mark costs 1
_COVERED = 4.0  # what a square point of a covered word or line costs


class _Places(NamedTuple):
    """Where one label could stand.

    Attributes
    ----------
    offsets
        Shape (k, 2): from the point to the label's middle.
    boxes
        Shape (k, 1 + _PIECES, 4): (left, bottom, right, top) of the label, and of pieces of its line, which are empty
        for a label that needs none.
    costs
        Shape (k,): distance, and the marks that are covered; inf outside the axes.
    """

    offsets: NDArray[np.float64]
    boxes: NDArray[np.float64]
    costs: NDArray[np.float64]


def place_labels(axes: Axes, points: NDArray[np.float64], labels: Sequence[str]) -> int:
    """Write a label beside each point, and leave out those that would cover another one.

    Parameters
    ----------
    axes
        Axes that have the points, their limits and their titles already.
    points
        Shape (n, 2), in the units of the axes.
    labels
        n of them.

    Returns
    -------
    int
        How many were written.
    """
    with with_fonts():
        places = _places(axes, points, labels)
    chosen = _choose(places)
    shown = _uncovered(np.array([place.boxes[choice, 0] for place, choice in zip(places, chosen, strict=True)]))
    shown = [number for number in shown if np.isfinite(places[number].costs[chosen[number]])]
    for number in shown:
        far = bool(np.ptp(places[number].boxes[chosen[number], 1:]))
        _write(axes, labels[number], points[number], places[number].offsets[chosen[number]], far)
    return len(shown)


def _places(axes: Axes, points: NDArray[np.float64], labels: Sequence[str]) -> list[_Places]:
    """The places of each label, in points from the figure's corner."""
    figure: Any = axes.get_figure(root=True)
    figure.draw_without_rendering()  # the layout decides how large the axes are
    scale, renderer = figure.dpi / 72, _renderer(figure)
    centres = axes.transData.transform(points) / scale
    inside = np.array(axes.get_window_extent(renderer).extents) / scale
    marks = np.hstack([centres - _MARK, centres + _MARK])
    sizes = [_size(axes, label, renderer) / scale + 2 * _GAP for label in labels]
    return [_places_of(centre, size, marks, inside) for centre, size in zip(centres, sizes, strict=True)]


def _places_of(
    centre: NDArray[np.float64], size: NDArray[np.float64], marks: NDArray[np.float64], inside: NDArray[np.float64]
) -> _Places:
    directions = np.round(np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1), 6)
    offsets = np.concatenate([directions * (radius + size / 2) for radius in _RADII])
    middles = centre + offsets
    labels = np.hstack([middles - size / 2, middles + size / 2])
    ends = np.clip(centre, labels[:, :2], labels[:, 2:])
    distances = np.linalg.norm(ends - centre, axis=1)
    along = centre + np.linspace(0.2, 0.9, _PIECES)[:, None] * (ends - centre)[:, None]
    width = np.where(distances > _LINED, _THICK, 0)[:, None, None]
    lines = np.concatenate([along - width, along + width], axis=2)
    lines[distances <= _LINED] = 0
    boxes = np.concatenate([labels[:, None], lines], axis=1)
    far = _FAR * np.repeat(_RADII, len(_ANGLES)) + _LATER * np.tile(np.arange(len(_ANGLES)), len(_RADII))
    outside = (labels[:, :2] < inside[:2]).any(axis=1) | (labels[:, 2:] > inside[2:]).any(axis=1)
    costs = np.where(outside, np.inf, far + _shared(boxes, marks))
    if outside.all():
        return _Places(offsets, boxes, costs)
    return _Places(offsets[~outside], boxes[~outside], costs[~outside])


def _choose(places: Sequence[_Places]) -> list[int]:
    """A place for each label: the best of several tries, the first from the nearest places, others from any."""
    random = np.random.default_rng(0)
    tries = [_settle(places, [int(np.argmin(place.costs)) for place in places])]
    for _ in range(min(_TRIES, _MOVES // max(len(places), 1))):
        tries.append(_settle(places, [int(random.choice(np.flatnonzero(~np.isinf(p.costs)))) for p in places]))
    return min(tries)[1]


def _settle(places: Sequence[_Places], chosen: list[int]) -> tuple[float, list[int]]:
    """Labels move by turns, each to the best place that the others leave, until none does; the cost, and the places."""
    costs = np.zeros(len(places))
    for _ in range(_SWEEPS):
        before = list(chosen)
        for number, place in enumerate(places):
            others = [places[i].boxes[chosen[i]] for i in range(len(places)) if i != number]
            taken = np.concatenate(others) if others else np.empty((0, 4))
            found = place.costs + _COVERED * _shared(place.boxes, taken)
            chosen[number] = int(np.argmin(found))
            costs[number] = found[chosen[number]]
        if chosen == before:
            break
    return float(costs.sum()), chosen


def _uncovered(boxes: NDArray[np.float64]) -> list[int]:
    """The labels that stay when those that cover most are taken away, until none is covered; shape (n, 4)."""
    shown = list(range(len(boxes)))
    while len(shown) > 1:
        covered = [_shared(boxes[[[i]]], boxes[[j for j in shown if j != i]])[0] for i in shown]
        if not any(covered):
            break
        del shown[int(np.argmax(covered))]
    return shown


def _shared(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area that sets of boxes, shape (k, pieces, 4), share with others, shape (m, 4): shape (k,)."""
    low = np.maximum(boxes[:, :, None, :2], others[:, :2])
    high = np.minimum(boxes[:, :, None, 2:], others[:, 2:])
    areas: NDArray[np.float64] = np.prod(np.maximum(high - low, 0), axis=3).sum(axis=(1, 2))
    return areas


def _size(axes: Axes, text: str, renderer: Any) -> NDArray[np.float64]:
    """Width and height in pixels."""
    probe = axes.text(0, 0, text, fontsize=_FONT_SIZE, parse_math=False)
    extent = probe.get_window_extent(renderer)
    probe.remove()
    return np.array([extent.width, extent.height])


def _renderer(figure: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = figure.canvas
    if not hasattr(canvas, "get_renderer"):
        canvas = FigureCanvasAgg(figure)
    return canvas.get_renderer()


def _write(axes: Axes, text: str, point: NDArray[np.float64], offset: NDArray[np.float64], far: bool) -> None:
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
    axes.annotate(
        text,
        (float(point[0]), float(point[1])),
        (float(offset[0]), float(offset[1])),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=_FONT_SIZE,
        arrowprops=line if far else None,
        parse_math=False,
    )
