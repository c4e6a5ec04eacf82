"""Where the time of embeddings goes: tokenising, packing, each kind of ggml's operations, collecting.

libllama calls back around each operation of the graph, which it then computes one by one. That takes a little longer,
so the operations are given as shares, and the time of the whole computation is measured without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawllama import Batch, Embedder, Model, ffi, lib
from rawllama.embedder import MAX_SEQUENCES, TOKEN_BUDGET, plan
from rawllama.errors import LlamaError
from rawllama.hub import resolve
from rawllama.normalize import normalize_rows

from . import inputs, machine
from .record import Record

WHOLE, COMPUTING = "encode", "computing"
STAGES = ("tokenising", "packing", COMPUTING, "collecting")
MATRICES = "MUL_MAT"
_PEAKS = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np

def best(function, count=5):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)

n, threads = 2048, int(sys.argv[1])
a, b = (np.random.default_rng(i).random((n, n), np.float32) for i in (0, 1))
c = np.empty_like(a)
print(2 * n**3 / best(lambda: np.matmul(a, b, out=c)) / 1e9)
source = [np.ones(1 << 24, np.float32) for _ in range(threads)]
target = [np.empty_like(one) for one in source]
with ThreadPoolExecutor(threads) as pool:
    print(threads * 2 * source[0].nbytes / best(lambda: list(pool.map(np.copyto, target, source))) / 1e9)
"""


@dataclass(frozen=True)
class Settings:
    """What is profiled.

    Attributes
    ----------
    model
        A path, or a name of `hub`'s.
    input
        See `inputs.texts`.
    texts
        So many.
    threads
        So many, on one context.
    kernels
        As `Model` takes it; None is the Embedder's default.
    rounds
        So many; medians count.
    """

    model: str = "minilm"
    input: str = inputs.CORPUS
    texts: int = 200
    threads: int = field(default_factory=machine.cores)
    kernels: str | None = None
    rounds: int = 5


@dataclass
class Operation:
    """What one kind of operation took.

    Attributes
    ----------
    seconds
        In all.
    count
        Of them.
    flops, bytes
        Of matrix products, 2 m n k each; and what they read and write at least.
    """

    seconds: float = 0.0
    count: int = 0
    flops: float = 0.0
    bytes: float = 0.0


def measure(settings: Settings) -> Record:
    """All stages of `encode`, and the operations within the computation."""
    record, watch = Record("profile", machine.facts(), asdict(settings)), machine.Watch()
    texts = inputs.texts(settings.input, settings.texts)
    path = resolve(settings.model)
    with Embedder(path, n_threads=settings.threads, n_contexts=1, kernels=settings.kernels) as embedder:
        record.sides["rawllama"] = f"kernels {embedder.model.kernels}, threads {settings.threads}, one context"
        _stages(record, embedder, texts, settings)
        _roofline(record, embedder, texts, settings)
    record.notes += watch.notes()
    return record


def _stages(record: Record, embedder: Embedder, texts: list[str], settings: Settings) -> None:
    times: dict[str, list[float]] = {name: [] for name in (WHOLE, *STAGES)}
    with _context(embedder, texts, settings.threads) as context:
        for number in range(settings.rounds + 1):  # the first one warms up
            found = {WHOLE: _seconds(lambda: embedder.encode(texts)), **_one_round(embedder, context, texts)}
            for name, seconds in found.items() if number else ():
                times[name].append(seconds)
            print(f"round {number} of {settings.rounds}", file=sys.stderr)
    for name, values in times.items():
        record.add("rawllama", name, "ms", "lower", [seconds * 1e3 for seconds in values])


def _one_round(embedder: Embedder, context: Any, texts: list[str]) -> dict[str, float]:
    """Seconds of each stage, one after the other, as `encode` has them."""
    clock = _Clock()
    batches: list[Batch] = []
    with clock.of("tokenising"):
        tokens, offsets = embedder.model.vocab.tokenize_many(texts)
    with clock.of("packing"):
        batches += _pack(tokens, offsets)
    for batch in batches:
        with clock.of(COMPUTING):
            _decode(embedder.model, context, batch)
        with clock.of("collecting"):
            _collect(embedder, context, batch)
    return dict(clock.seconds)


def _pack(tokens: NDArray[np.int32], offsets: NDArray[np.int64]) -> Iterator[Batch]:
    order, bounds = plan(np.diff(offsets))
    for first, last in pairwise(bounds):
        chosen = order[first:last]
        batch = Batch(int((offsets[chosen + 1] - offsets[chosen]).sum()))
        for seq_id, text in enumerate(chosen):
            batch.add_sequence(tokens[offsets[text] : offsets[text + 1]], seq_id)
        yield batch


def _collect(embedder: Embedder, context: Any, batch: Batch) -> NDArray[np.float32]:
    count = int(batch.seq_id[: batch.n_tokens].max()) + 1
    rows = np.empty((count, embedder.model.n_embd_out), np.float32)
    ids = np.arange(count, dtype=np.int32)
    lib.rawllama_copy_embeddings_seq(
        context, ffi.from_buffer("llama_seq_id[]", ids), count, rows.shape[1], ffi.from_buffer("float[]", rows)
    )
    return normalize_rows(rows, embedder.normalize)


def _decode(model: Model, context: Any, batch: Batch) -> None:
    if memory := lib.llama_get_memory(context):
        lib.llama_memory_clear(memory, True)
    function = lib.llama_encode if model.has_encoder else lib.llama_decode
    if function(context, batch.c.batch) != 0:
        raise LlamaError("libllama could not compute the batch")
    lib.llama_synchronize(context)


@contextmanager
def _context(embedder: Embedder, texts: list[str], threads: int, observer: Any = None) -> Iterator[Any]:
    """A raw context as the Embedder has it for these texts; `observer` is its cb_eval."""
    longest = int(np.diff(embedder.model.vocab.tokenize_many(texts)[1]).max())
    n_tokens = max(TOKEN_BUDGET, longest + -longest % MAX_SEQUENCES)
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = n_tokens
    params.n_seq_max = MAX_SEQUENCES
    params.n_threads = params.n_threads_batch = threads
    params.pooling_type = getattr(lib, f"LLAMA_POOLING_TYPE_{embedder.pooling.upper()}")
    params.embeddings = params.kv_unified = True
    if observer is not None:
        params.cb_eval = observer
    context = lib.llama_init_from_model(embedder.model.c, params)
    if not context:
        raise LlamaError("libllama could not make a context: see its log with -v")
    try:
        yield context
    finally:
        lib.llama_free(context)


# ---- operations, and the roofline


def _roofline(record: Record, embedder: Embedder, texts: list[str], settings: Settings) -> None:
    """The operations of all texts, and of one query; and what the machine could do at most."""
    found: dict[str, Operation] = defaultdict(Operation)
    products: dict[str, Operation] = defaultdict(Operation)
    with _context(embedder, texts, settings.threads, _observer(found, products)) as context:
        for what, chosen in (("texts", texts), ("query", [inputs.QUERY])):
            batches = list(_pack(*embedder.model.vocab.tokenize_many(chosen)))
            for kept in (False, True):  # the first one warms up
                for table in (found, products):
                    table.clear()
                for batch in batches * (1 if what == "texts" or not kept else 20):
                    _decode(embedder.model, context, batch)
            record.details[f"operations, {what}"] = {name: asdict(one) for name, one in found.items()}
            record.details[f"products, {what}"] = {name: asdict(one) for name, one in products.items()}
    record.details["peak GFLOP/s"], record.details["peak GB/s"] = peaks(settings.threads)


def _observer(found: dict[str, Operation], products: dict[str, Operation]) -> Any:
    """A callback that libllama calls before and after each operation."""
    start = 0.0

    def observe(tensor: Any, ask: bool, _: Any) -> bool:
        nonlocal start
        if ask:
            start = time.perf_counter()
            return True
        seconds = time.perf_counter() - start
        name = ffi.string(lib.ggml_op_desc(tensor)).decode()
        if name == MATRICES:
            _count(products[_shape(tensor)], seconds, tensor)
        _count(found[name], seconds, tensor if name == MATRICES else None)
        return True

    return ffi.callback("ggml_backend_sched_eval_callback", observe)


def _count(operation: Operation, seconds: float, product: Any) -> None:
    operation.seconds += seconds
    operation.count += 1
    if product is not None:
        operation.flops += 2.0 * lib.ggml_nelements(product) * product.src[0].ne[0]
        operation.bytes += sum(lib.ggml_nbytes(one) for one in (product, product.src[0], product.src[1]))


def _shape(product: Any) -> str:
    """What a product multiplies by: a weight or another tensor, without its layer."""
    name: str = ffi.string(product.src[0].name).decode()
    parts = name.split(".")
    return parts[2] if parts[0] == "blk" and len(parts) > 2 else name.split("-")[0].split(" ")[0] or "unnamed"


def peaks(threads: int) -> tuple[float, float]:
    """The machine's GFLOP/s in numpy's product of two float32 matrices of 2048 x 2048, and GB/s in copying."""
    limits = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
                           str(threads))  # fmt: skip
    command = [sys.executable, "-c", _PEAKS, str(threads)]
    done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=True)
    flops, copied = map(float, done.stdout.split())
    return flops, copied


# ---- time


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class _Clock:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add the time of this block."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start
