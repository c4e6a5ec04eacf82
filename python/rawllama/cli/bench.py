"""`rawllama bench`: how fast it is, beside the C programs and other libraries."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rawllama.bench import batch, calls, check, compare, embed, inputs, plots, processes, profile, record, report, scale

_MOST = 1_000_000
_PEERS_HELP = "interpreters of environments that have the other libraries; this one is always asked too"
_HELP = {
    "model": "path of a GGUF file, or a known name",
    "input": f"texts: {', '.join(inputs.NAMES)}, or a file",
    "texts": "how many texts",
    "rounds": "rounds, at most",
    "calls": "calls in a round",
    "query": "the text whose latency is measured",
    "threads": "threads of each side",
    "pythons": _PEERS_HELP,
    "sides": "only these sides, and what they are compared with",
    "memory": "measure peak memory too",
    "prompts": "tokens of prompts, as llama-bench's -p",
    "generations": "tokens to generate, as its -n",
    "depths": "tokens before those, as its -d",
    "lengths": "tokens of one text",
    "times": "trials",
    "batched": "tokens of a prompt, tokens to generate, sequences: as llama-batched-bench's -npp, -ntg, -npl",
    "imports": "processes that import rawllama",
    "kernels": "rawllama or ggml",
}


@dataclass(frozen=True)
class Kind:
    """A benchmark.

    Attributes
    ----------
    help
        What it measures.
    settings, measure
        Its `Settings`, and what makes a record with them.
    quick
        Settings that are fast, and less exact.
    """

    help: str
    settings: type[Any]
    measure: Callable[[Any], record.Record]
    quick: dict[str, Any]


KINDS = {
    "embed": Kind("texts a second: rawllama, llama-embedding, a C loop, other libraries", embed.Settings, embed.measure,
                  {"texts": 60, "rounds": 5}),
    "latency": Kind("one query, percentiles", embed.Settings, embed.measure_latency, {"rounds": 5, "calls": 20}),
    "calls": Kind("nanoseconds a raw call: cffi, ctypes, C", calls.Settings, calls.measure,
                  {"rounds": 7, "calls": 20_000, "imports": 3}),
    "batch": Kind("prompts and generation, as llama-bench and llama-batched-bench", batch.Settings, batch.measure,
                  {"prompts": (128,), "generations": (16,), "depths": (0, 128), "rounds": 3,
                   "batched": ((64, 16, 1), (64, 16, 4))}),
    "scale": Kind("time and memory as texts, lengths, calls and threads grow", scale.Settings, scale.measure,
                  {"rounds": 3, "calls": (1, 4, 16, 64), "texts": (1, 10, 100), "lengths": (8, 32, 128, 512)}),
    "profile": Kind("where the time goes, by stage and operation", profile.Settings, profile.measure,
                    {"texts": 60, "rounds": 3}),
    "check": Kind("whether the method finds a difference, and none where none is", check.Settings, check.measure,
                  {"times": 1}),
}  # fmt: skip


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    parser: argparse.ArgumentParser = commands.add_parser("bench", help="how fast it is")
    kinds = parser.add_subparsers(metavar="BENCHMARK", required=True)
    for name, kind in KINDS.items():
        one = kinds.add_parser(name, help=kind.help, description=kind.help)
        _add_settings(one, kind)
        _add_common(one)
        one.set_defaults(run=run, names=[name])
    everything = kinds.add_parser("all", help="all of them, one after the other")
    everything.add_argument("--threads", type=_count, metavar="N", help=_HELP["threads"])
    everything.add_argument("--pythons", nargs="+", metavar="PYTHON", help=_PEERS_HELP)
    _add_common(everything)
    everything.set_defaults(run=run, names=list(KINDS))
    shown = kinds.add_parser("show", help="tables and pictures of records")
    shown.add_argument("records", type=Path, nargs="+", metavar="FILE", help="what --json has written")
    _add_output(shown)
    shown.set_defaults(run=show)
    compared = kinds.add_parser("compare", help="what changed between two records, beyond noise")
    compared.add_argument("before", type=Path, metavar="BEFORE")
    compared.add_argument("after", type=Path, metavar="AFTER")
    compared.add_argument("--markdown", action="store_true", help="tables in Markdown")
    compared.add_argument("-v", "--verbose", action="store_true", help="libllama's log on standard error")
    compared.set_defaults(run=run_compare)


def run(options: argparse.Namespace) -> int:
    """Measure, print, and write what is wanted; return the exit status."""
    right = True
    for name in options.names:
        kind = KINDS[name]
        done = kind.measure(_settings(kind, options))
        if options.json:
            path = options.json if len(options.names) == 1 else options.json / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            done.write(path)
        _give(done, options)
        right = right and (name != "check" or set(done.details["right"].values()) == {done.options["times"]})
    return 0 if right else 1


def show(options: argparse.Namespace) -> int:
    """Print records that were written before."""
    for path in options.records:
        _give(record.read(path), options)
    return 0


def run_compare(options: argparse.Namespace) -> int:
    """Print what changed; return 1 where something is slower."""
    found, notes = compare.compare(record.read(options.before), record.read(options.after))
    print(report.changes(found).text(report.MARKDOWN if options.markdown else "simple"))
    for note in notes:
        print(f"note: {note}")
    return int(any(one.verdict == "slower" for one in found))


def _give(done: record.Record, options: argparse.Namespace) -> None:
    print(report.text(done, report.MARKDOWN if options.markdown else "simple"), end="\n\n", flush=True)
    if options.plot:
        for path in plots.save(done, options.plot):
            print(path, file=sys.stderr)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="less of everything: minutes, and wider intervals")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record; `all` takes a folder")
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="write pictures")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    parser.add_argument("-v", "--verbose", action="store_true", help="libllama's log on standard error")


def _add_settings(parser: argparse.ArgumentParser, kind: Kind) -> None:
    """An option for each of its settings."""
    for one in fields(kind.settings):
        default = getattr(kind.settings(), one.name)
        shown = "" if default in (None, ()) else f" (default: {_words(default)})"
        how = {"help": f"{_HELP[one.name]}{shown}"} | _kind_of(one.name, default)
        parser.add_argument(f"--{one.name}", **how)


def _kind_of(name: str, default: Any) -> dict[str, Any]:
    """How argparse reads an option whose default is this."""
    if name == "batched":
        return {"type": _triple, "nargs": "+", "metavar": "PP,TG,B"}
    if name == "sides":
        return {"choices": [spec.name for spec in processes.SPECS], "nargs": "+", "metavar": "SIDE"}
    if isinstance(default, bool):
        return {"action": "store_true", "default": None, "help": _HELP[name]}
    if isinstance(default, tuple):
        numbers = bool(default) and isinstance(default[0], int)
        return {"type": _count if numbers else str, "nargs": "+", "metavar": "N" if numbers else name[:-1].upper()}
    return {"type": _count, "metavar": "N"} if isinstance(default, int) else {"metavar": name.upper()}


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {_MOST}")
    return int(text)


def _triple(text: str) -> tuple[int, int, int]:
    try:
        pp, tg, pl = map(_count, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers, as 128,32,4") from None
    return pp, tg, pl


def _settings(kind: Kind, options: argparse.Namespace) -> Any:
    """Those of the command line, else the quick ones, else the defaults."""
    given = {one.name: getattr(options, one.name, None) for one in fields(kind.settings)}
    chosen = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }
    for name in ("texts", "rounds", "calls", "times", "threads", "imports"):
        if chosen.get(name) == 0:
            raise ValueError(f"--{name}: 0 is not enough; use 1 or more")
    return kind.settings(**(kind.quick if options.quick else {}) | chosen)


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(_words(one) if not isinstance(one, tuple) else ",".join(map(str, one)) for one in value)
    return str(value)
