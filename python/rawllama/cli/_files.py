"""`rawllama embed INPUT -o OUTPUT`: what of the command concerns files."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rawllama._options import between
from rawllama.errors import TruncationWarning
from rawllama.hub import resolve
from rawllama.io import ENDINGS, FORMATS
from rawllama.jobs import inputs, sinks
from rawllama.jobs.job import BAD_ROWS, CHECKPOINT_SECONDS, PART_ROWS, embed_files
from rawllama.rows import DTYPES

#: Formats of inputs, and of outputs, of texts and of files.
INPUT_FORMATS = inputs.KINDS
OUTPUT_FORMATS = tuple(dict.fromkeys([*FORMATS, *sinks.KINDS]))
ENGINES = ("local", "ray")
_STANDARD_OUTPUT = (None, "-", "/dev/stdout")
# What these give is None unless it was asked for.
_ONLY_FILES = ("into", "dtype", "bad_rows", "part_rows", "checkpoint", "restart", "work", "cache", "engine", "actors",
               "progress")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes for files."""
    group = parser.add_argument_group("files", "INPUT ... -o OUTPUT, which can be killed and started again")
    group.add_argument("--into", metavar="NAME", help="column of the vectors (default: embedding)")
    group.add_argument("--dtype", choices=DTYPES, help="default: float32")
    group.add_argument("--bad-rows", choices=BAD_ROWS,
                       help="rows without a text, or with a wrong one: an error, a vector that is null, or left out "
                            "(default: error)")  # fmt: skip
    group.add_argument("--part-rows", type=_count, metavar="N",
                       help=f"rows of a file, where OUTPUT is a folder (default: {PART_ROWS})")  # fmt: skip
    group.add_argument("--checkpoint", type=_seconds, metavar="SECONDS",
                       help="work that a kill may cost, beside a block of rows "
                            f"(default: {CHECKPOINT_SECONDS:g})")  # fmt: skip
    group.add_argument("--restart", action="store_true", default=None, help="forget what runs before have done")
    group.add_argument("--work", metavar="DIR", help="for what is not yet put out (default: OUTPUT.parts)")
    group.add_argument("--cache", metavar="DIR", help="rows that were computed once are taken from there")
    group.add_argument("--engine", choices=ENGINES, help="ray: on a cluster, Parquet to a folder (default: local)")
    group.add_argument("--actors", type=_count, metavar="N", help="of Ray, each with --threads (default: all there is)")
    group.add_argument("--progress", action=argparse.BooleanOptionalAction, help="a bar (default: on a terminal)")


def _count(text: str) -> int:
    try:
        return between("it", int(text), 1, 1 << 40)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def files_of(options: argparse.Namespace) -> list[str] | None:
    """The inputs, if the arguments name some; None if they are texts, or there are none.

    They name inputs where -o names a file or a folder, and each of them a file, a folder, a glob or an address.

    Raises
    ------
    FileNotFoundError
        An argument looks like an input, and there is none.
    ValueError
        Some are inputs and others are not; or the output takes no texts; or an option is only for files.
    """
    if options.input is not None and not options.items and _is_for_files(options):
        if options.input == "-":
            raise ValueError(f"standard input cannot be read again after a kill: write it to a file, "
                             f"and rawllama embed FILE -o {options.output}")  # fmt: skip
        return [str(options.input)]
    if options.output not in _STANDARD_OUTPUT and options.input is None and options.items:
        there = [inputs.exists(name) for name in options.items]
        if all(there):
            return list(options.items)
        _require_texts(options.items, there)
    _require_no_option(options)
    return None


def _require_texts(items: list[str], there: list[bool]) -> None:
    missing = next(name for name, found in zip(items, there, strict=True) if not found)
    if any(there):
        raise ValueError(f"{missing}: no such input, and others of the arguments are some; texts that have names "
                         "of files can be piped in")  # fmt: skip
    if inputs.kind_of(missing) and not re.search(r"\s", missing):
        words = f"{os.strerror(errno.ENOENT)} (to embed the name, pipe it in)"
        raise FileNotFoundError(errno.ENOENT, words, missing)


def _require_no_option(options: argparse.Namespace) -> None:
    """Refuse what is only for files."""
    if options.format in sinks.KINDS and options.format not in FORMATS:
        raise ValueError(f"--format {options.format} is for files: rawllama embed FILE -o OUTPUT")
    if options.output is not None and not options.format:
        ending = Path(options.output).suffix.lower()
        if sinks.kind_of(options.output) and ending not in ENDINGS:
            words = "no format's ending for texts; put them into a file"
            raise ValueError(f"{options.output}: {ending} is {words}: rawllama embed FILE -o {options.output}")
    if options.input_format not in (None, "lines", "jsonl"):
        raise ValueError(f"--input-format {options.input_format} is for files: rawllama embed FILE -o OUTPUT")
    for name in _ONLY_FILES:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for files: rawllama embed FILE -o OUTPUT")


def _is_for_files(options: argparse.Namespace) -> bool:
    """Whether the output, or the input's format, is one that texts do not have."""
    if options.output in _STANDARD_OUTPUT:
        return False
    kind = options.format or sinks.kind_of(options.output)
    is_folder = options.output.endswith(("/", os.sep))
    return is_folder or kind not in (None, *FORMATS) or options.input_format not in (None, "lines", "jsonl")


def run(source: list[str], options: argparse.Namespace) -> int:
    """Embed the files; return the exit status."""
    if options.output in _STANDARD_OUTPUT:
        raise ValueError("files are embedded into files: name one with -o")
    call = _ray if options.engine == "ray" else _local
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        print(call(source, options), file=sys.stderr)
    return 0


def _local(source: list[str], options: argparse.Namespace) -> Any:
    if options.actors is not None:
        raise ValueError("--actors is for --engine ray")
    given = {"part_rows": options.part_rows, "checkpoint_seconds": options.checkpoint}
    more = {name: value for name, value in given.items() if value is not None}
    with _cache(options.cache) as cache:
        return embed_files(
            source,
            options.output,
            input_format=options.input_format,
            format=options.format,
            work=options.work,
            progress=options.progress,
            cache=cache,
            n_threads=options.threads,
            **_common(options),
            **more,
        )


def _ray(source: list[str], options: argparse.Namespace) -> Any:
    from rawllama.ray import embed_files as on_ray

    for name in ("work", "cache", "checkpoint", "progress"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is not for --engine ray")
    if options.format not in (None, "parquet"):
        raise ValueError("--engine ray writes Parquet: leave --format out")
    given = {
        "actors": options.actors,
        "cpus_per_actor": options.threads,
        "part_rows": options.part_rows,
        "input_format": options.input_format,
    }
    more = {name: value for name, value in given.items() if value is not None}
    call: Callable[..., Any] = on_ray
    # A name is found anew on each node, whose folders may be others.
    return call(source, options.output, **_common(options) | {"model": options.model}, **more)


def _common(options: argparse.Namespace) -> dict[str, Any]:
    """Keywords that both engines take."""
    return {
        "model": str(resolve(options.model)),
        "column": options.column,
        "into": options.into or "embedding",
        "prompt": options.prompt,
        "bad_rows": options.bad_rows or "error",
        "restart": bool(options.restart),
        "pooling": options.pooling,
        "normalize": options.normalize,
        "dims": options.dims,
        "dtype": options.dtype or "float32",
        "overlong": options.overlong,
    }


def _cache(path: str | None) -> Any:
    from contextlib import nullcontext

    if path is None:
        return nullcontext()
    from rawllama.cache import Cache

    return Cache(path)
