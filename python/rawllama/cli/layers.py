"""`rawllama layers`: each stage of the embedding layer, formula beside library."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from rawllama import Model
from rawllama.hub import resolve
from rawllama.layers.check import Comparison, compare

from . import _model

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXTS = (
    "The cat sits outside on the warm stones of the old bank, and a river runs past it to the sea.",
    "A man plays the guitar.",
    "Positions tell a model in which order the words came; without them, a sentence is a bag of words.",
)
_EPILOG = """\
Each row compares a formula in numpy with what libllama computed. Where a difference is beyond what rounding explains,
the exit status is 1. Formulas that need no model are compared with single operations of ggml, on random numbers.
"""
_HEADER = ("stage", "formula", "compared with", "values", "largest difference", "bound")


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "layers", help="the embedding layer's formulas, compared with libllama", epilog=_EPILOG
    )
    words = f"{_model.HELP} (default: minilm)"
    parser.add_argument("model", nargs="?", default="minilm", metavar="MODEL", help=words)
    parser.add_argument("--text", action="append", metavar="TEXT", help="compute this one; may come several times")
    parser.add_argument("--json", action="store_true", help="for programs: one object in JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="libllama's log on standard error, and reasons")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare and print; return the exit status."""
    with Model(resolve(options.model)) as model:
        found = compare(model, options.text or TEXTS)
        name = model.description
    print(_json(name, found) if options.json else _report(name, found, options.verbose))
    return 0 if all(one.is_within for one in found) else 1


def _json(name: str, found: Sequence[Comparison]) -> str:
    rows = [dataclasses.asdict(one) | {"is_within": one.is_within} for one in found]
    return json.dumps({"model": name, "comparisons": rows}, indent=2)


def _report(name: str, found: Sequence[Comparison], with_reasons: bool) -> str:
    beyond = [one.stage for one in found if not one.is_within]
    words = f"beyond their bounds: {', '.join(beyond)}" if beyond else f"all {len(found)} are within their bounds"
    parts = [name, _table([_HEADER, *map(_row, found)]), words]
    if with_reasons:
        parts.insert(2, "\n".join(f"{one.stage}: {one.bound.reason}" for one in found))
    return "\n\n".join(parts)


def _row(one: Comparison) -> tuple[str, ...]:
    bound = f"{one.bound.value:.1e}" if one.bound.value else "0"
    mark = "" if one.is_within else "  <- beyond"
    difference = f"{one.difference:.1e}" if one.difference else "0"
    return one.stage, one.formula, one.against, str(one.n), difference, f"{bound}{mark}"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as they must be; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) if index in (3, 4) else cell.ljust(width)
                 for index, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
