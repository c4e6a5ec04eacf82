"""What all pictures share: figures, labels, heat maps, and colours that colour-blind people tell apart."""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama.errors import InvalidArgumentError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

# Okabe and Ito's.
BLUE, RED, GREY = "#0072B2", "#D55E00", "#6E6E6E"
COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", RED, "#000000", "#8C6D31")
MARKERS = "osD^vPX*"
SIZE = (7.2, 4.0)  # inches; at 150 dpi as wide as a README
DPI = 150
_WIDEST = 40  # characters of a text that stands as a label
_NUMBERED = 12  # rows and columns, up to which a heat map has room for its numbers
# For writing that DejaVu Sans lacks, on Linux, macOS and Windows.
_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Hiragino Sans", "PingFang SC", "Yu Gothic",
    "Microsoft YaHei", "Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans Devanagari", "Nirmala UI", "Arial Unicode MS",
)  # fmt: skip
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def new_figure(size: tuple[float, float] = SIZE) -> Figure:
    """A figure that pyplot does not know.

    Raises
    ------
    MissingExtraError
        matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib is not installed: pip install 'rawllama[plots]'") from None
    return Figure(figsize=size, dpi=DPI, layout="constrained")


@contextmanager
def with_fonts() -> Iterator[None]:
    """Look for shapes of characters in more fonts than matplotlib's own, and show a box where none has one."""
    from matplotlib import font_manager, rc_context, rcParams

    own = list(rcParams["font.sans-serif"])
    more = [name for name in _FONTS if name in font_manager.get_font_names()]
    with rc_context({"font.sans-serif": ["DejaVu Sans", *more, *own]}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def axes_or_new(axes: Axes | None, size: tuple[float, float] = SIZE) -> Axes:
    """The axes that were given, or those of a new figure. MissingExtraError: matplotlib is not there."""
    return new_figure(size).subplots() if axes is None else axes


def open_frame(axes: Axes) -> None:
    """Leave out the lines of the frame that carry no numbers."""
    axes.spines[["top", "right"]].set_visible(False)


def count_on(axes: Axes) -> None:
    """Whole numbers on the x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def sequential() -> Colormap:
    """White to blue."""
    return _colours("rawllama-sequential", ("#FFFFFF", "#9CC9E3", BLUE, "#00344F"))


def diverging() -> Colormap:
    """Blue, white, red: white is 0."""
    return _colours("rawllama-diverging", (BLUE, "#9CC9E3", "#FFFFFF", "#F2B48A", RED))


def heat_map(
    axes: Axes,
    matrix: NDArray[Any],
    bar: str,
    *,
    limits: tuple[float, float] | None = None,
    square: bool = False,
) -> AxesImage:
    """Draw a matrix with a colour bar: white to blue.

    Parameters
    ----------
    axes
        To draw on.
    matrix
        Shape (rows, columns).
    bar
        What the colours are, with the unit.
    limits
        The numbers that are white and darkest; where they are as far from 0, white is 0, and negative numbers are blue
        and positive ones red. By default the least and the largest of the matrix.
    square
        Whether a cell is as high as it is wide.
    """
    low, high = limits or (float(matrix.min()), float(matrix.max()))
    colours = diverging() if low == -high else sequential()
    image = axes.imshow(matrix, cmap=colours, vmin=low, vmax=high, aspect="equal" if square else "auto")
    figure: Any = axes.get_figure()
    colour_bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.045, 1)), label=bar)
    colour_bar.outline.set_visible(False)
    return image


def number_cells(axes: Axes, image: AxesImage) -> None:
    """Write each number of a small heat map into its cell, dark on light or light on dark."""
    matrix = np.asarray(image.get_array())
    if max(matrix.shape) > _NUMBERED:
        return
    for (row, column), value in np.ndenumerate(matrix):
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if dark else "k")


def label(text: str) -> str:
    """A text as a label: one line, short, with a sign where it has nothing to show."""
    line = _UNPRINTABLE.sub(" ", text)
    line = " ".join(line.split())
    return textwrap.shorten(line, _WIDEST, placeholder=" …") if " " in line else _cut(line)


def require_texts(texts: Sequence[str], least: int = 1) -> list[str]:
    """The texts as a list.

    Raises
    ------
    InvalidArgumentError
        One string, or too few.
    """
    if isinstance(texts, str):
        raise InvalidArgumentError("texts: it is one text; pass a list, e.g. [text]")
    found = list(texts)
    if len(found) < least:
        raise InvalidArgumentError(f"texts: {len(found)} of them; at least {least} are needed")
    return found


def require_at_least(argument: str, value: int, least: int) -> int:
    """An integer that is large enough; InvalidArgumentError names `argument` if not."""
    if value < least:
        raise InvalidArgumentError(f"{argument}: {value} is less than {least}")
    return value


def _cut(line: str) -> str:
    if not line:
        return "(empty)"
    return line if len(line) <= _WIDEST else line[: _WIDEST - 1] + "…"


def _colours(name: str, stops: tuple[str, ...]) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(name, stops)
