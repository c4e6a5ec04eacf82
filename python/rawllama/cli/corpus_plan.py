"""`rawllama corpus-plan`: what 10 million or 100 billion documents cost, from rates that are measured here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rawllama.corpus_plan import Assumptions, Rates, measure, page
from rawllama.errors import InvalidArgumentError
from rawllama.io import require_writable
from rawllama.rows import DTYPES

from . import _model

_EPILOG = """\
Measure once on a machine that does nothing else, then ask what you like:
  rawllama corpus-plan --measure --rates rates.json
  rawllama corpus-plan --rates rates.json --cores 96 --gpu H100=1e6 > planning.md
"""


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "corpus-plan",
        help="what a corpus costs to embed: hours, storage, network",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rates", metavar="FILE", type=Path, help="JSON of rates: read, or written with --measure")
    parser.add_argument("--measure", action="store_true", help="measure this machine's rates: about two minutes")
    parser.add_argument("--model", default="minilm", help=f"to measure: {_model.HELP}")
    parser.add_argument(
        "--documents", type=_numbers, metavar="N,...", default=(1e7, 1e9, 1e11), help="sizes (default: 1e7,1e9,1e11)"
    )
    parser.add_argument(
        "--nodes", type=_counts, metavar="N,...", default=(1, 10, 100, 1000), help="CPU nodes (default: 1,10,100,1000)"
    )
    parser.add_argument("--cores", type=int, metavar="N", default=64, help="of a node (default: 64)")
    parser.add_argument(
        "--gpu", type=_gpu, metavar="NAME=RATE", help="a GPU, and the tokens a second that you say one of it embeds"
    )
    parser.add_argument(
        "--gpus", type=_counts, metavar="N,...", default=(1, 8, 64, 512), help="of them (default: 1,8,64,512)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the vectors (default: float32)")
    parser.add_argument("--network", type=float, metavar="GBIT", default=10, help="Gbit/s of a node (default: 10)")
    parser.add_argument(
        "--storage", type=float, metavar="GBIT", default=100, help="Gbit/s of shared storage in all (default: 100)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="libllama's log on standard error")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure if it is wanted, print the page; return the exit status."""
    name, rate = options.gpu or ("GPU", None)
    assumed = Assumptions(
        documents=options.documents,
        nodes=options.nodes,
        cores_per_node=options.cores,
        gpus=options.gpus,
        gpu_tokens_per_second=rate,
        gpu_name=name,
        dtype=options.dtype,
        node_gbit=options.network,
        storage_gbit=options.storage,
    )
    print(page(_rates(options), assumed))
    return 0


def _rates(options: argparse.Namespace) -> Rates:
    if not options.measure:
        if options.rates is None:
            raise InvalidArgumentError("--rates: there are none; name a file of them, or measure with --measure")
        return Rates.load(options.rates)
    if options.rates is not None:
        require_writable(str(options.rates), "jsonl")
    rates = measure(options.model)
    for note in rates.notes:
        print(f"rawllama: {note}", file=sys.stderr)
    if options.rates is not None:
        rates.save(options.rates)
    return rates


def _gpu(text: str) -> tuple[str, float]:
    name, sign, rate = text.partition("=")
    if not (name and sign):
        raise argparse.ArgumentTypeError("pass NAME=RATE, such as H100=1e6")
    return name, _number(rate)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(_number, text.split(",")))


def _counts(text: str) -> tuple[int, ...]:
    numbers = _numbers(text)
    if not all(number.is_integer() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} has a number that is not whole")
    return tuple(map(int, numbers))
