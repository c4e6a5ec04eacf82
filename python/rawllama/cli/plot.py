"""`rawllama plot`: pictures of positions, attention, texts and batches."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama import Embedder, Model, pictures
from rawllama.geometry import METHODS
from rawllama.hub import resolve
from rawllama.io import read_texts
from rawllama.layers import EmbeddingTable
from rawllama.pictures import files, samples
from rawllama.pictures.style import new_figure
from rawllama.similarity import METRICS

from . import _model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE = (9.0, 3.8)  # inches: two panels
_POOLINGS = ("mean", "cls", "last")
_EPILOG = "Without texts, there are some. Example: rawllama plot map -o map.png"


@dataclass(frozen=True)
class Panels:
    """A figure: its size in inches, and what draws on each of the axes, two a row."""

    size: tuple[float, float]
    draw: Sequence[Callable[..., Axes]]


@dataclass(frozen=True)
class Picture:
    """A subcommand: what one sees, what it takes, and what makes its panels; what it opens is closed when they are."""

    help: str
    add: Callable[[argparse.ArgumentParser], None]
    panels: Callable[[argparse.Namespace, ExitStack], Panels]


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    about = "pictures of positions, attention, texts and batches"
    parser: argparse.ArgumentParser = commands.add_parser("plot", help=about, description=about, epilog=_EPILOG)
    kinds = parser.add_subparsers(metavar="PICTURE", required=True)
    for name, picture in PICTURES.items():
        one = kinds.add_parser(name, help=picture.help, description=picture.help)
        picture.add(one)
        one.add_argument("-o", "--output", metavar="FILE", help="a .png, .svg or .pdf file (default: show it)")
        one.add_argument("-v", "--verbose", action="store_true", help="libllama's log on standard error")
        one.set_defaults(run=run, panels=picture.panels)


def run(options: argparse.Namespace) -> int:
    """Draw, and save or show; return the exit status."""
    if options.output is not None:
        files.format_of(options.output)  # before there is anything to lose
    with ExitStack() as stack:
        panels: Panels = options.panels(options, stack)
        figure = (files.figure_to_show if options.output is None else new_figure)(panels.size)
        columns, rows = _grid(len(panels.draw))
        for number, draw in enumerate(panels.draw):
            draw(axes=figure.add_subplot(rows, columns, number + 1))
    if options.output is None:
        files.show()
    else:
        files.save(figure, options.output)
        print(options.output, file=sys.stderr)
    return 0


def _grid(n_panels: int) -> tuple[int, int]:
    """Columns and rows of so many panels."""
    columns = min(n_panels, 2)
    return columns, -(-n_panels // columns)


# ---- what each picture takes, and its panels


def _add_positions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help=f"draw the positions that it has learned: {_model.HELP}")
    parser.add_argument("--positions", type=int, default=64, metavar="N", help="how many (default: 64)")
    parser.add_argument("--columns", type=int, default=64, metavar="D", help="of sinusoidal ones (default: 64)")
    parser.add_argument("--base", type=float, default=10000.0, help="of sinusoidal ones (default: 10000)")


def _positions(options: argparse.Namespace, _: ExitStack) -> Panels:
    sizes: dict[str, Any] = {"n": options.positions, "d": options.columns, "base": options.base}
    if options.model is not None:
        table = EmbeddingTable(resolve(options.model), "position_embd.weight")
        sizes = {"rows": table.rows(range(min(options.positions, len(table))))}
    return Panels(_WIDE, [partial(pictures.positions, **sizes), partial(pictures.position_products, **sizes)])


def _add_rope(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--columns", type=int, default=64, metavar="D", help="of a head (default: 64)")
    parser.add_argument("--base", type=float, default=10000.0, help="theta (default: 10000)")
    parser.add_argument("--context", type=int, default=2048, metavar="N", help="tokens of the training (default: 2048)")
    parser.add_argument("--factor", type=float, default=4.0, help="how many times longer it is to be (default: 4)")


def _rope(options: argparse.Namespace, _: ExitStack) -> Panels:
    how = {"base": options.base, "n_ctx": options.context, "factor": options.factor}
    decay = partial(pictures.rope_decay, options.columns, **how, legend=False)
    return Panels(_WIDE, [partial(pictures.rope, options.columns, **how), decay])


def _add_alibi(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--heads", type=int, default=8, metavar="N", help="of a layer (default: 8)")
    parser.add_argument("--max-bias", type=float, default=8.0, help="exponent of the last slope (default: 8)")


def _alibi(options: argparse.Namespace, _: ExitStack) -> Panels:
    drawn = (pictures.alibi_slopes, pictures.alibi_bias)
    return Panels(_WIDE, [partial(draw, options.heads, max_bias=options.max_bias) for draw in drawn])


def _add_similarity(parser: argparse.ArgumentParser) -> None:
    _add_texts(parser)
    parser.add_argument("--metric", choices=METRICS, default="cosine", help="default: cosine")


def _similarity(options: argparse.Namespace, stack: ExitStack) -> Panels:
    given = _texts(options, samples.PAIRS)
    draw = partial(pictures.similarity, _embedder(options, stack), given, metric=options.metric)
    return Panels((7.2, 5.4), [draw])


def _add_layers(parser: argparse.ArgumentParser) -> None:
    _add_texts(parser)
    parser.add_argument("--pooling", choices=_POOLINGS, default="mean", help="default: mean")


def _layers(options: argparse.Namespace, stack: ExitStack) -> Panels:
    given = _texts(options, samples.PAIRS)
    states = pictures.layer_states(_opened(options.model, stack), given, options.pooling)
    cosines = partial(pictures.layers, states, given, legend=False)
    return Panels((10.5, 3.8), [cosines, partial(pictures.layer_norms, states, given)])


def _add_map(parser: argparse.ArgumentParser) -> None:
    _add_texts(parser)
    parser.add_argument("--method", choices=METHODS, default="pca", help="default: pca")
    parser.add_argument("--clusters", type=int, default=4, metavar="N", help="to colour, by k-means (default: 4)")
    parser.add_argument(
        "--labels", metavar="FILE", help="colour by these in place of clusters: one a line, as the texts"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one gives another map (default: 0)")


def _map(options: argparse.Namespace, stack: ExitStack) -> Panels:
    how = {"method": options.method, "n_clusters": options.clusters, "seed": options.seed}
    given = _texts(options, samples.ALL)
    labels = None if options.labels is None else read_texts(options.labels, "lines", "text")
    return Panels((7.2, 5.0), [partial(pictures.text_map, _embedder(options, stack), given, labels=labels, **how)])


def _add_mask(parser: argparse.ArgumentParser) -> None:
    _add_texts(parser, several_models=True)


def _mask(options: argparse.Namespace, stack: ExitStack) -> Panels:
    given = _texts(options, samples.SENTENCES)
    models = options.model or ["minilm"]
    masks = [mask for model in models for mask in pictures.masks_of(_opened(model, stack), given)]
    columns, rows = _grid(len(masks))
    return Panels((5.0 * columns, 4.8 * rows), [partial(pictures.attention_mask, mask) for mask in masks])


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _add_texts(parser)
    parser.add_argument(
        "--token-budget", type=int, metavar="N", help="tokens computed at once (default: the Embedder's)"
    )


def _plan(options: argparse.Namespace, stack: ExitStack) -> Panels:
    given = _texts(options, samples.of_many_lengths())
    embedder = stack.enter_context(Embedder(resolve(options.model), token_budget=options.token_budget))
    return Panels((7.2, 3.8), [partial(pictures.plan, embedder.plan(given))])


PICTURES = {
    "positions": Picture("sinusoidal or learned positions, and how alike they are", _add_positions, _positions),
    "rope": Picture("rotary positions: turns of each pair, and scores at a distance, by extension", _add_rope, _rope),
    "alibi": Picture("ALiBi's slopes and biases of each head", _add_alibi, _alibi),
    "similarity": Picture("how alike texts are", _add_similarity, _similarity),
    "layers": Picture("how the vectors of texts change from layer to layer", _add_layers, _layers),
    "map": Picture("texts in two dimensions, by PCA or UMAP", _add_map, _map),
    "attention-mask": Picture("which token sees which in a batch, as libllama masks it", _add_mask, _mask),
    "plan": Picture("the batches that an Embedder computes, and the padding they are spared", _add_plan, _plan),
}


# ---- what several share


def _add_texts(parser: argparse.ArgumentParser, *, several_models: bool = False) -> None:
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="texts; without any, those of --input, or some examples"
    )
    parser.add_argument("--input", metavar="FILE", help="file of texts, one a line; - is standard input")
    parser.add_argument("--input-format", choices=("lines", "jsonl"), help="default: by the name's ending, else lines")
    parser.add_argument("--field", default="text", help="key of the text in JSON objects (default: text)")
    if several_models:
        parser.add_argument("--model", action="append", help=f"{_model.HELP}; again for a panel more (default: minilm)")
    else:
        parser.add_argument("--model", default="minilm", help=f"{_model.HELP} (default: minilm)")


def _texts(options: argparse.Namespace, otherwise: Sequence[str]) -> list[str]:
    if options.texts and options.input:
        raise ValueError("texts were given as arguments and with --input; use one of them")
    if options.input:
        return read_texts(options.input, options.input_format, options.field)
    return list(options.texts or otherwise)


def _opened(name: str | Path, stack: ExitStack) -> Model:
    return stack.enter_context(Model(resolve(name)))


def _embedder(options: argparse.Namespace, stack: ExitStack) -> Embedder:
    return stack.enter_context(Embedder(resolve(options.model)))
