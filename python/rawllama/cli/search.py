"""`rawllama search`: what a text is most alike, in the vectors of `rawllama embed`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from typing import Any

from rawllama.jobs import Hit, search
from rawllama.jobs.sinks.jsonl import plain

from . import _model

_EPILOG = """\
Each vector is compared; in a .db sqlite-vec does it. Pooling, dims and the column of vectors are as VECTORS says.
Example: rawllama search vectors.parquet "how do I renew a passport" --top 5
"""
_LEAST_WIDTH = 40


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "search", help="rows of a file of vectors that are alike a text", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("vectors", metavar="VECTORS", help=".parquet, .arrow, .lance, .db, or a folder")
    parser.add_argument("query", metavar="TEXT", help="what is looked for")
    parser.add_argument("-k", "--top", type=int, default=10, metavar="N", help="rows (default: 10)")
    parser.add_argument("--model", default="minilm", help=f"{_model.HELP}: that of the vectors (default: minilm)")
    parser.add_argument("--into", metavar="NAME", help="column of the vectors (default: what VECTORS says)")
    parser.add_argument("--column", metavar="NAME", help="column that is shown (default: all but vectors)")
    parser.add_argument("--format", choices=("table", "jsonl"), default="table",
                        help="jsonl: an object a row, with `similarity` and `row` (default: table)")  # fmt: skip
    parser.set_defaults(run=run, verbose=False)


def run(options: argparse.Namespace) -> int:
    """Search and print; return the exit status."""
    hits = search(options.vectors, options.query, model=options.model, top=options.top, into=options.into)
    if hits and options.column is not None and options.column not in hits[0].row:
        raise ValueError(f"--column: there is no {options.column!r}; the columns are {', '.join(hits[0].row)}")
    width = max(_LEAST_WIDTH, shutil.get_terminal_size().columns - 8) if sys.stdout.isatty() else sys.maxsize
    for hit in hits:
        is_json = options.format == "jsonl"
        print(_json(hit) if is_json else f"{hit.similarity:6.3f}  {_words(hit, options.column, width)}")
    return 0


def _json(hit: Hit) -> str:
    return json.dumps({"similarity": round(hit.similarity, 6), "row": plain(hit.row)}, ensure_ascii=False)


def _words(hit: Hit, column: str | None, width: int) -> str:
    """The row in one line."""
    values = list(hit.row.values()) if column is None else [hit.row[column]]
    line = "  ".join(" ".join(str("" if value is None else value).split()) for value in values)
    return textwrap.shorten(line, width, placeholder=" ...") if len(line) > width else line
