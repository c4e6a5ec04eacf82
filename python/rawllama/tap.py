"""Tensors inside the graph: what libllama computes between token ids and results, as numpy arrays.

    with context.tap("inp_embd", "Qcur-*", layers=[0]) as tap:
        context.process(batch)
    tap["Qcur-0"]

The names are those that llama.cpp's own graph gives; `names(model)` lists them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ._params import c_string, enum_name, text
from .errors import InvalidArgumentError
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .context import Context
    from .model import Model

#: The name under which each layer's output can be had, whatever the architecture.
LAYER_OUTPUT = "layer_output"
# Architectures whose graph gives the layers' outputs no name: the operation that makes them.
_UNNAMED = {
    **dict.fromkeys(
        ("bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe"), "ADD@blk.{}.layer_output_norm.bias"
    ),
    **dict.fromkeys(("modern-bert", "neo-bert", "eurobert"), "ADD@ffn_inp-{}"),
    "plamo2": "ffn_residual-{}",
}
_DTYPES = {lib.GGML_TYPE_F32: np.float32, lib.GGML_TYPE_I32: np.int32, lib.GGML_TYPE_I64: np.int64}
# Tokens that names() computes: no other dimension of a small model is as long.
_N_TOKENS = 3


@dataclass(frozen=True)
class Info:
    """A tensor of the graph, without its values.

    Attributes
    ----------
    name
        As the graph names it; or, for a pattern `OP@source`, that with the source's name.
    op
        The operation that makes it, as ggml calls it: `MUL_MAT`, `ROPE`; `NONE` for an input of the graph.
    type
        Its type in the graph: `f32`, `f16`, `i32`, ...
    shape
        As numpy has it: ggml's dimensions the other way round. ggml's `ne` of queries is (columns of a head, heads,
        tokens), so their shape is (tokens, heads, columns). Dimensions of 1 in front are left out, as ggml does not
        know how many were meant, but of numbers that are no integers two remain.
    layer
        That its name tells; None without.
    """

    name: str
    op: str
    type: str
    shape: tuple[int, ...]
    layer: int | None


@dataclass(frozen=True)
class Tensor(Info):
    """A tensor of the graph, with its values.

    Attributes
    ----------
    graph
        In which it was computed, counted from 0: a batch takes one for each ubatch.
    values
        float32, or int32 or int64 where the tensor has integers; of `shape`, with the chosen rows.
    """

    graph: int
    values: NDArray[Any]


class Tap:
    """Copies tensors of a context's graph while they are computed. `Context.tap` makes it; it works within `with`.

    Copies are made in C as soon as a tensor is computed, from the CPU or a device, before a later operation takes over
    its memory, and dequantised. They stay when the block ends. A name may come several times: in each ubatch, and
    where a graph gives it twice, as `Qcur-0` before and after the rotation.

    Calls: rawllama_tap_init, rawllama_tap_free, rawllama_tap_plug, rawllama_tap_count, rawllama_tap_look,
    rawllama_tap_clear, rawllama_tap_failed, rawllama_tap_n_names, rawllama_tap_name
    """

    def __init__(
        self,
        context: Context,
        patterns: Sequence[str],
        layers: Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
        *,
        values: bool = True,
    ) -> None:
        model = context.model
        if not patterns:
            raise InvalidArgumentError("patterns: none given; tap.names(model) lists what there is")
        self._context = context
        self._patterns = tuple(patterns)
        request, _ = _request(
            [_translated(pattern, model.architecture) for pattern in patterns],
            None if layers is None else chosen_layers(layers, model.n_layer),
            None if rows is None else _chosen_rows(rows),
            values,
        )
        self._c = ffi.gc(lib.rawllama_tap_init(request), lib.rawllama_tap_free)
        self._values = values
        self._tensors: list[Tensor] = []
        self._matched: set[int] = set()

    def __repr__(self) -> str:
        return f"<Tap of {', '.join(self._patterns)}: {len(self.tensors)} tensors>"

    def __enter__(self) -> Self:
        self._context._plug(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context._unplug(self)
        if error is None and self._values:
            self._collect()
            self._require_matches()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that was copied, in the order computed.

        Raises
        ------
        InvalidArgumentError
            A tensor has not as many rows as were chosen.
        MemoryError
            There was none for a copy.
        """
        self._collect()
        return tuple(self._tensors)

    def all(self, name: str) -> list[NDArray[Any]]:
        """The values of all tensors of this name, in the order computed; errors as those of `tap[name]`."""
        found = [tensor.values for tensor in self.tensors if tensor.name == name]
        if not found:
            raise self._unknown(name)
        return found

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The values of the tensor of this name that was computed last.

        Raises
        ------
        InvalidArgumentError
            There is none; the message names the closest.
        """
        return self.all(name)[-1]

    def __contains__(self, name: object) -> bool:
        return any(tensor.name == name for tensor in self.tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(tensor.name for tensor in self.tensors))

    def __len__(self) -> int:
        return len(dict.fromkeys(tensor.name for tensor in self.tensors))

    def clear(self) -> None:
        """Forget what was copied."""
        self._collect()
        self._tensors.clear()

    def _collect(self) -> None:
        """Take over what C has copied."""
        with self._context._mutex:
            for one in self._seen():
                self._tensors.append(self._tensor(one))
                self._matched.add(one.pattern)
            failed = lib.rawllama_tap_failed(self._c)
            name = text(failed.name)
            lib.rawllama_tap_clear(self._c)
        if failed.kind == lib.RAWLLAMA_TAP_ROW:
            raise InvalidArgumentError(f"rows: {name} has {failed.n_rows} rows, and no row {failed.row}")
        if failed.kind == lib.RAWLLAMA_TAP_TYPE:
            raise InvalidArgumentError(f"patterns: the values of {name} cannot be read as numbers, or not row by row")
        if failed.kind == lib.RAWLLAMA_TAP_MEMORY:
            raise MemoryError(f"no memory to copy {name}; tap fewer layers or rows")

    def _seen(self) -> list[Any]:
        """What C has copied, as `struct rawllama_tapped`; valid until it is told to clear."""
        return [lib.rawllama_tap_look(self._c, index) for index in range(lib.rawllama_tap_count(self._c))]

    def _tensor(self, one: Any) -> Tensor:
        info = _info(one)
        values = np.empty(info.shape, _DTYPES[one.values_type])
        if values.size:
            ffi.memmove(ffi.from_buffer(values), one.values, values.nbytes)
        if self._patterns[one.pattern].startswith(f"{LAYER_OUTPUT}-"):
            info = Info(f"{LAYER_OUTPUT}-{info.layer}", info.op, info.type, info.shape, info.layer)
        return Tensor(info.name, info.op, info.type, info.shape, info.layer, one.graph, values)

    def _require_matches(self) -> None:
        """Raise if a pattern has found nothing where something was computed: it is mistyped."""
        if not lib.rawllama_tap_n_names(self._c):
            return
        for number, pattern in enumerate(self._patterns):
            if number not in self._matched:
                raise self._unknown(pattern)

    def _unknown(self, name: str) -> InvalidArgumentError:
        """The exception for a name or pattern that nothing has."""
        count = lib.rawllama_tap_n_names(self._c)
        if not count:
            return InvalidArgumentError(f"{name}: nothing was computed with this tap; process a batch within its block")
        names = {text(lib.rawllama_tap_name(self._c, index)) or "" for index in range(count)}
        if name in names:
            return InvalidArgumentError(f"{name}: it was not asked for; tap it too")
        close = difflib.get_close_matches(name.replace("*", "0"), sorted(names), 3)
        words = f"the closest are {', '.join(close)}" if close else "tap.names(model) lists what there is"
        return InvalidArgumentError(f"{name}: no tensor of this graph has that name; {words}")


def names(model: Model, **settings: Any) -> tuple[Info, ...]:
    """The tensors of a model's graph, in the order computed; shapes are those for 3 tokens.

    Parameters
    ----------
    model
        The model. A batch of 3 tokens is computed, in a context of its own.
    settings
        As `Context` takes them: with `flash_attn_type="disabled"` the attention's weights are among the tensors, and
        other poolings have other ends.

    Calls: rawllama_tap_init, rawllama_tap_look
    """
    from .batch import Batch
    from .context import Context

    batch = Batch(_N_TOKENS)
    batch.add_sequence([model.vocab.eos or 0] * _N_TOKENS)
    defaults = {"n_ctx": 64, "n_batch": 64, "n_ubatch": 64, "embeddings": True, "taps": True}
    with Context(model, **(defaults | settings)) as context, Tap(context, ["**"], values=False) as tap:
        if model.has_encoder:
            context.encode(batch)
        if model.has_decoder:
            context.decode(batch)
        return tuple(map(_info, tap._seen()))


def chosen_layers(layers: Sequence[int], n_layer: int) -> list[int]:
    """Layers as numbers from 0 on; negative ones count from the last.

    Raises
    ------
    InvalidArgumentError
        A layer that is not there, or none at all.
    """
    if not len(layers):
        raise InvalidArgumentError("layers: none given; None is all")
    for layer in layers:
        if not isinstance(layer, (int, np.integer)) or not -n_layer <= layer < n_layer:
            raise InvalidArgumentError(f"layers: {layer!r} is not from 0 to {n_layer - 1}, nor from {-n_layer} to -1")
    return [int(layer) % n_layer for layer in layers]


def _chosen_rows(rows: Sequence[int]) -> list[int]:
    for row in rows:
        if not isinstance(row, (int, np.integer)) or not -(2**63) <= row < 2**63:
            raise InvalidArgumentError(f"rows: {row!r} is not an integer")
    if not len(rows):
        raise InvalidArgumentError("rows: none given; None is all")
    return [int(row) for row in rows]


def _translated(pattern: str, architecture: str) -> str:
    """A pattern in the graph's own names."""
    if not isinstance(pattern, str) or not pattern:
        raise InvalidArgumentError(f"patterns: {pattern!r} is not the name of a tensor, or a pattern of names")
    name, _, layer = pattern.partition("-")
    return _UNNAMED.get(architecture, "l_out-{}").format(layer) if name == LAYER_OUTPUT else pattern


def _request(
    patterns: list[str], layers: list[int] | None, rows: list[int] | None, values: bool
) -> tuple[Any, tuple[Any, ...]]:
    """A `struct rawllama_tap_request *`, and what it points to."""
    strings = [ffi.new("char[]", c_string(pattern, "patterns")) for pattern in patterns]
    kept = (
        ffi.new("char *[]", strings),
        ffi.NULL if layers is None else ffi.new("int32_t[]", layers),
        ffi.NULL if rows is None else ffi.new("int64_t[]", rows),
    )
    request = ffi.new("struct rawllama_tap_request *", {
        "patterns": kept[0],
        "n_patterns": len(strings),
        "layers": kept[1],
        "n_layers": len(layers or ()),
        "rows": kept[2],
        "n_rows": len(rows or ()),
        "no_values": not values,
    })  # fmt: skip
    return request, (kept, strings)


def _info(one: Any) -> Info:
    return Info(
        text(one.name) or "",
        text(one.op) or "",
        enum_name("GGML_TYPE_", one.type),
        tuple(reversed([int(n) for n in one.ne[0 : one.n_dims]])),
        None if one.layer < 0 else int(one.layer),
    )
