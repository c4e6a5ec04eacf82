"""`rawllama embed`: texts, or files of them, to vectors."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama import Embedder
from rawllama.embedder import MAX_THREADS, OVERLONG, POOLINGS
from rawllama.errors import TruncationWarning
from rawllama.hub import resolve
from rawllama.io import Embeddings, format_of, read_texts, require_writable, write
from rawllama.normalize import parse

from . import _files, _model

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPILOG = """\
The arguments are inputs where -o names the output and each of them is a file, a folder, a glob or an address; else they
are texts. Inputs are lines (.txt), JSON lines, CSV, Parquet and Arrow; their other columns are passed on. OUTPUT is
.parquet, .arrow, .npy, .jsonl, .csv, .lance, .db (SQLite, searched with sqlite-vec), or a folder/ of Parquet files.
Killed and started again, it goes on where it was.
Each line of --input is a text, an empty line too; JSON lines hold a string or an object a line.
Examples:
  rawllama embed --model minilm "The cat sits outside" "A man plays the guitar"
  rawllama embed 'reviews/*.parquet' --column body -o vectors.parquet
  rawllama search vectors.parquet "arrived broken"
"""
_OVERLONG_HELP = "texts that are too long are refused, cut, or computed in windows (default: error)"


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "embed", help="texts to vectors", epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("items", nargs="*", metavar="TEXT|INPUT", help="texts, or inputs; or --input has texts")
    parser.add_argument("--model", default="minilm", help=f"{_model.HELP} (default: minilm)")
    parser.add_argument("--input", metavar="FILE", help="file of texts; - is standard input, the default when piped to")
    parser.add_argument("--input-format", choices=_files.INPUT_FORMATS, help="default: by the name's ending")
    parser.add_argument("--column", "--field", default="text", help="column, or key in JSON, of texts (default: text)")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    parser.add_argument("--format", choices=_files.OUTPUT_FORMATS, help="default: by the output's ending")
    parser.add_argument("--pooling", choices=tuple(POOLINGS), help="default: what the model says")
    parser.add_argument("--normalize", type=_normalize, help="none, max-abs, l1, l2, or p (default: l2; none for rank)")
    parser.add_argument("--dims", type=int, metavar="N", help="columns that are kept (default: all)")
    parser.add_argument("--prompt", metavar="NAME", help="the model's prompt before each text (default: what it wants)")
    parser.add_argument("--overlong", choices=OVERLONG, default="error", help=_OVERLONG_HELP)
    parser.add_argument("--threads", type=_threads, metavar="N", help=f"1 to {MAX_THREADS} (default: one a core)")
    parser.add_argument("-v", "--verbose", action="store_true", help="libllama's log on standard error")
    _files.add_arguments(parser)
    parser.set_defaults(run=run)


def _normalize(text: str) -> str | float:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_THREADS}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Embed and write; return the exit status."""
    files = _files.files_of(options)
    if files is not None:
        return _files.run(files, options)
    clock = _Clock()
    target = format_of(options.format, options.output)
    require_writable(options.output, target)
    texts = _texts(options)
    path = resolve(options.model)
    clock.lap("find or make the model")
    settings = {"pooling": options.pooling, "overlong": options.overlong, "dims": options.dims}
    with Embedder(path, n_threads=options.threads, **settings) as embedder:
        clock.lap("load it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            result = _embed(embedder, texts, options)
        truncated = embedder.truncated
        clock.lap(f"embed {len(texts)} texts")
    write(result, target, options.output)
    if truncated:
        print(f"{truncated} texts were cut", file=sys.stderr)
    if target == "table":
        print(clock, file=sys.stderr)
    return 0


def _texts(options: argparse.Namespace) -> Sequence[str]:
    if options.items and options.input:
        raise ValueError("texts were given as arguments and with --input; use one of them")
    if options.items:
        return list(options.items)
    if options.input is None and sys.stdin is not None and sys.stdin.isatty():
        raise ValueError("no texts: give some as arguments, name a file with --input, or pipe lines in")
    return read_texts(options.input or "-", options.input_format, options.column)


def _embed(embedder: Embedder, texts: Sequence[str], options: argparse.Namespace) -> Embeddings:
    if embedder.pooling == "none":
        normalize = options.normalize or "l2"
        rows, offsets, tokens = embedder.encode_tokens(texts, normalize=normalize, prompt=options.prompt)
        return Embeddings(texts, rows, offsets, np.split(tokens, offsets[1:-1]))
    return Embeddings(texts, embedder.encode(texts, normalize=options.normalize, prompt=options.prompt))


class _Clock:
    """How long each part took."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._laps: list[str] = []

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps.append(f"{name} {now - self._last:.2f} s")
        self._last = now

    def __str__(self) -> str:
        return ", ".join(self._laps)
