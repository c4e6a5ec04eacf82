"""Pictures as files, or in a window."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama.errors import InvalidArgumentError, MissingExtraError
from rawllama.files import replacing

from .style import with_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What each format writes into a file beside the picture: without a date, equal pictures are equal files.
FORMATS: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
_WINDOWLESS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")  # matplotlib's backends that only write files


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a file by its name's ending.

    Raises
    ------
    InvalidArgumentError
        The name ends otherwise.
    FileNotFoundError, IsADirectoryError
        There is no such folder, or it is one.
    """
    target = Path(path)
    kind = target.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise InvalidArgumentError(f"{target}: pictures end in .{', .'.join(FORMATS)}")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder: name a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} does not exist: make the folder first")
    return kind


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, SVG or PDF, by the ending; the file appears whole or not at all.

    Raises
    ------
    InvalidArgumentError, OSError
        As `format_of`; or it cannot be written.
    """
    from matplotlib import rc_context

    kind = format_of(path)
    with replacing(path) as temporary, rc_context({"svg.hashsalt": "rawllama"}), with_fonts():
        figure.savefig(temporary, format=kind, metadata=FORMATS[kind])


def figure_to_show(size: tuple[float, float]) -> Figure:
    """A figure of pyplot's, which `show` opens in a window.

    Raises
    ------
    InvalidArgumentError
        There is no screen.
    MissingExtraError
        matplotlib is not there.
    """
    try:
        import matplotlib
        from matplotlib import pyplot
    except ImportError:
        raise MissingExtraError("matplotlib is not installed: pip install 'rawllama[plots]'") from None
    figure: Any = pyplot.figure(figsize=size, layout="constrained")
    if matplotlib.get_backend().lower() in _WINDOWLESS:
        pyplot.close(figure)
        raise InvalidArgumentError("output: matplotlib has no window to show it in; name a file with -o FILE")
    return figure  # type: ignore[no-any-return]


def show() -> None:
    """Open the windows of `figure_to_show`, and wait until they are closed."""
    from matplotlib import pyplot

    pyplot.show()
