"""`rawllama inspect`: what a model file holds, and the memory that it will take."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rawllama import Model, tap
from rawllama.hub import resolve
from rawllama.inspection import estimate, metadata
from rawllama.tensors import Tensor, Tensors

from . import _model

if TYPE_CHECKING:
    from rawllama.footprint import Footprint

_EPILOG = """\
The memory is what libllama itself would ask for, found without reading the weights; rows of results are beside it.
Example: rawllama inspect model.gguf --ctx 8192 --type-k q8_0 --type-v q8_0
"""
# Context's parameters that change what it takes: the option's name, and how its value is read.
_SETTINGS: dict[str, tuple[str, type]] = {
    "n_ctx": ("--ctx", int),
    "n_batch": ("--batch", int),
    "n_ubatch": ("--ubatch", int),
    "n_seq_max": ("--sequences", int),
    "type_k": ("--type-k", str),
    "type_v": ("--type-v", str),
    "pooling_type": ("--pooling", str),
    "flash_attn_type": ("--flash-attention", str),
}
_SHOWN = 3  # values of a list
_WIDTH = 72  # of a value in the table


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "inspect", help="a model's metadata, tensors and memory", epilog=_EPILOG
    )
    parser.add_argument("model", metavar="MODEL", help=_model.HELP)
    for name, (option, kind) in _SETTINGS.items():
        parser.add_argument(
            option, dest=name, type=kind, metavar="N" if kind is int else "NAME", help=f"{name} of the context"
        )
    parser.add_argument("--gpu-layers", dest="n_gpu_layers", type=int, metavar="N", help="n_gpu_layers of the model")
    parser.add_argument("--graph", action="store_true", help="the tensors of its graph too, as a tap names them")
    parser.add_argument("--json", action="store_true", help="for programs: one object in JSON, lists in full")
    parser.add_argument("-v", "--verbose", action="store_true", help="libllama's log on standard error")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return the exit status."""
    path = resolve(options.model)
    said, tensors = metadata(path), Tensors(path)
    settings = {name: getattr(options, name) for name in _SETTINGS}
    layers = {"n_gpu_layers": options.n_gpu_layers}
    memory = estimate(path, layers, embeddings=True, **settings)
    graph: tuple[tap.Info, ...] = ()
    if options.graph:
        with Model(path, **layers) as model:
            kept = {name: value for name, value in settings.items() if name in ("pooling_type", "flash_attn_type")}
            graph = tap.names(model, **kept)
    if options.json:
        facts = {
            "metadata": said,
            "tensors": [
                {"name": one.name, "type": one.type, "shape": one.shape, "bytes": one.n_bytes}
                for one in tensors.values()
            ],
            "memory": [dataclasses.asdict(one) for one in memory],
            "graph": [dataclasses.asdict(one) for one in graph],
        }
        print(json.dumps(facts, indent=2))
    else:
        print("\n\n".join(_report(said, tensors, memory, graph)))
    return 0


def _report(
    said: dict[str, Any], tensors: Tensors, memory: Sequence[Footprint], graph: Sequence[tap.Info]
) -> Iterable[str]:
    yield _section("metadata", [(_shown(key), _shown(value)) for key, value in said.items()])
    found = list(tensors.values())
    rows = [(one.name, one.type, _shape(one.shape), f"{one.n_bytes:,}") for one in found]
    yield _section("tensors, their types, shapes as numpy has them, and bytes", rows, right=(3,))
    yield _section("all tensors", _by_type(found), right=(1, 2, 3))
    yield _section("memory to load it and make a context", _memory(memory), right=(1, 2, 3, 4))
    if graph:
        rows = [(one.name, one.op, one.type, _shape(one.shape)) for one in graph]
        yield _section("graph of three tokens, in the order computed", rows)


def _by_type(found: Sequence[Tensor]) -> Sequence[tuple[str, ...]]:
    counts: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for one in found:
        for kind in (one.type, "all"):
            counts[kind] += 1
            weights[kind] += one.n_rows * one.width
            sizes[kind] += one.n_bytes
    return [
        (kind, f"{counts[kind]:,} tensors", f"{weights[kind]:,} weights", f"{sizes[kind]:,} bytes") for kind in counts
    ]


def _memory(memory: Sequence[Footprint]) -> Sequence[tuple[str, ...]]:
    sizes = ((one.memory, *map(_mib, (one.model, one.context, one.compute, one.total))) for one in memory)
    return [("", "weights", "sequences", "computing", "all"), *sizes]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        first = ", ".join(map(_shown, value[:_SHOWN]))
        return f"{len(value):,}: {first}{', ...' if len(value) > _SHOWN else ''}"
    words = repr(value)[1:-1] if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    return words if len(words) <= _WIDTH else f"{words[: _WIDTH - 3]}..."


def _section(title: str, rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    lines = [
        "    " + "  ".join(_aligned(cell, widths[i], i in right) for i, cell in enumerate(row)).rstrip() for row in rows
    ]
    return "\n".join([title, *lines])


def _aligned(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)
