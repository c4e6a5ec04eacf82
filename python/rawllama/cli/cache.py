"""`rawllama cache`: what is in a cache of vectors, and away with it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rawllama.cache import Cache, is_cache
from rawllama.errors import InvalidArgumentError

_EPILOG = """\
`rawllama embed --cache DIR` makes and uses it.
Example: rawllama cache vectors.cache --size-limit 20000
"""
_LEAST = 17


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    parser: argparse.ArgumentParser = commands.add_parser("cache", help="what a cache of vectors has", epilog=_EPILOG)
    parser.add_argument("folder", metavar="DIR", type=Path, help="the cache")
    parser.add_argument("--size-limit", type=_megabytes, metavar="MB",
                        help=f"keep to so many megabytes from now on, {_LEAST} at least")  # fmt: skip
    parser.add_argument("--clear", action="store_true", help="remove all that is in it")
    parser.set_defaults(run=run, verbose=False)


def _megabytes(text: str) -> int:
    if not text.isdecimal() or int(text) < _LEAST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of megabytes from {_LEAST} on")
    return int(text) * 1_000_000


def run(options: argparse.Namespace) -> int:
    """Change and print; return the exit status."""
    if not is_cache(options.folder):
        raise InvalidArgumentError(f"{options.folder} is no cache: name the folder of one")
    with Cache(options.folder, size_limit=options.size_limit) as cache:
        if options.clear:
            cache.clear()
        print(cache.stats())
    return 0
