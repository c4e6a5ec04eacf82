"""Programs over the Pythonic layer: lists of operations, run one after the other, whatever they ask for.

An operation is a list: a name and arguments, small integers and short lists, so that programs are JSON. Objects live in
numbered slots. Whatever the library refuses with an exception of its own is fine; everything else is a fault: another
exception, or the end of the process, which the parent sees.
"""

from __future__ import annotations

import gc
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rawllama import LlamaError, NativeAssertError
from rawllama.adapter import LoraAdapter
from rawllama.batch import Batch
from rawllama.context import Context
from rawllama.model import Model
from rawllama.sampler import Sampler
from rawllama.threadpool import ThreadPool

SLOTS = 4
MODELS = ("bert", "llama", "bert-reranker", "qwen3", "t5", "mamba", "lfm2", "gpt2", "qwen2vl", "gemma-embedding")
KINDS = ("context", "batch", "adapter", "pool", "sampler")
POOLINGS = (None, "none", "mean", "cls", "last", "rank")
CACHE_TYPES = (None, "f16", "f32", "q8_0", "q4_0", "bf16")
#: Offsets, lengths and ids: the usual, the edges, and the impossible.
NUMBERS = (-(2**31), -2, -1, 0, 1, 2, 3, 7, 8, 15, 16, 31, 63, 64, 65, 127, 128, 255, 256, 511, 512, 2**15, 2**31 - 1)
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"))

Operation = list[Any]
_OPERATIONS: dict[str, Callable[..., object]] = {}


def operation(function: Callable[..., object]) -> Callable[..., object]:
    _OPERATIONS[function.__name__] = function
    return function


class World:
    """The objects of one program."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        self.models: dict[int, Model] = {}
        self.slots: dict[str, dict[int, Any]] = {kind: {} for kind in KINDS}
        self.states: dict[int, bytearray] = {}
        self.kept: list[Any] = []
        self.outcomes: Counter[str] = Counter()

    def model(self, index: int) -> Model:
        index %= len(MODELS)
        if index not in self.models or self.models[index].closed:
            self.models[index] = Model(self.files[MODELS[index]])
        return self.models[index]

    def get(self, kind: str, slot: int) -> Any:
        try:
            return self.slots[kind][slot % SLOTS]
        except KeyError:
            raise _Missing from None

    def put(self, kind: str, slot: int, value: Any) -> None:
        self.slots[kind][slot % SLOTS] = value

    def run(self, program: list[Operation]) -> None:
        for name, *arguments in program:
            try:
                _OPERATIONS[name](self, *arguments)
            except _Missing:
                pass  # no operation
            except NativeAssertError as error:  # which, so that a check before the call can be thought of
                self.outcomes[str(error).partition("GGML_ASSERT")[2][:80] or str(error)[:120]] += 1
            except LlamaError as error:
                self.outcomes[type(error).__name__] += 1
            else:
                self.outcomes["done"] += 1

    def end(self) -> None:
        """Close everything, in no particular order."""
        self.kept.clear()
        for slots in self.slots.values():
            slots.clear()
        for model in self.models.values():
            model.close()
        gc.collect()


class _Missing(Exception):
    """The slot is empty."""


def run(program: list[Operation], files: Mapping[str, Path]) -> Counter[str]:
    """Run one program; return how many operations ended how."""
    warnings.simplefilter("ignore", ResourceWarning)
    world = World(files)
    try:
        world.run(program)
    finally:
        world.end()
    return world.outcomes


@operation
def context(world: World, slot: int, model: int, sizes: list[int], choices: list[int], flags: int) -> None:
    n_ctx, n_batch, n_ubatch, n_seq_max, n_threads = sizes
    world.put("context", slot, Context(
        world.model(model),
        n_ctx=min(n_ctx, 1024),
        n_batch=min(n_batch, 512),
        n_ubatch=min(n_ubatch, 512),
        n_seq_max=n_seq_max,
        n_threads=min(n_threads, 3),
        n_threads_batch=min(n_threads, 3),
        pooling_type=POOLINGS[choices[0] % len(POOLINGS)],
        type_k=CACHE_TYPES[choices[1] % len(CACHE_TYPES)],
        type_v=CACHE_TYPES[choices[2] % len(CACHE_TYPES)],
        flash_attn_type=choices[3] % 3 - 1,
        attention_type=choices[4] % 3 - 1,
        embeddings=bool(flags & 1),
        kv_unified=bool(flags & 2),
        swa_full=bool(flags & 4),
        offload_kqv=bool(flags & 8),
    ))  # fmt: skip


@operation
def batch(world: World, slot: int, capacity: int, n_embd: int, n_seq_max: int, n_pos: int) -> None:
    world.put("batch", slot, Batch(min(capacity, 1024), n_embd=min(n_embd, 64), n_seq_max=min(n_seq_max, 64),
                                   n_pos=min(n_pos, 8)))


@operation
def add(world: World, slot: int, tokens: list[int], seq_ids: list[int], pos: int, logits: int) -> None:
    world.get("batch", slot).add_sequence(tokens, seq_ids, pos=pos, logits=("none", "last", "all")[logits % 3])


@operation
def add_many(world: World, slot: int, count: int, length: int, token: int, pos: int) -> None:
    """`count` sequences of `length` tokens: what is usually right."""
    count, length = count % 20, length % 40
    tokens = (np.arange(count * length) * 7 + token) % 90
    world.get("batch", slot).add_sequences(tokens, np.arange(count + 1) * length, None, [pos] * count)


@operation
def add_offsets(world: World, slot: int, tokens: list[int], offsets: list[int], seq_ids: list[int]) -> None:
    world.get("batch", slot).add_sequences(tokens, offsets, seq_ids or None)


@operation
def fill_vectors(world: World, slot: int, count: int, value: int) -> None:
    one = world.get("batch", slot)
    one.n_tokens = count
    one.embd[:count] = FLOATS[value % len(FLOATS)] if value < 0 else np.sin(np.arange(one.n_embd))
    one.pos[..., :count] = np.arange(count)
    one.logits[:count] = 1


@operation
def poke(world: World, slot: int, array: int, index: int, value: int) -> None:
    """Write into a batch's arrays, as users do with numpy."""
    one = world.get("batch", slot)
    target = (one.token, one.pos, one.n_seq_id, one.seq_id, one.logits)[array % 5].reshape(-1)
    if target.size:
        target[index % target.size] = value if target.dtype == np.int32 else value % 2


@operation
def n_tokens(world: World, slot: int, count: int) -> None:
    world.get("batch", slot).n_tokens = count


@operation
def clear(world: World, slot: int) -> None:
    world.get("batch", slot).clear()


@operation
def compute(world: World, slot: int, which: int, how: int) -> None:
    one = world.get("context", slot)
    (one.process, one.decode, one.encode)[how % 3](world.get("batch", which))


TAPPED = ("*", "**", "Qcur-*", "layer_output-*", "@blk.*.attn_norm.weight", "inp_*", "nothing", "", "?" * 70, "MUL@**")


@operation
def tapped(world: World, slot: int, which: int, pattern: int, layers: list[int] | None, rows: list[int] | None) -> None:
    one = world.get("context", slot)
    with one.tap(TAPPED[pattern % len(TAPPED)], layers=layers, rows=rows) as tap:
        one.process(world.get("batch", which))
    for tensor in tap.tensors:
        assert tensor.values.shape == tensor.shape


@operation
def hidden(world: World, slot: int, which: int, layers: list[int] | None, pooling: int) -> None:
    how = (None, "mean", "cls", "last", "rank")[pooling % 5]
    one, batch = world.get("context", slot), world.get("batch", which)
    assert one.hidden_states(batch, layers, pooling=how).shape[-1] == one.model.n_embd


@operation
def sequence_rows(world: World, slot: int, ids: list[int] | None) -> None:
    assert world.get("context", slot).get_embeddings_seq(ids).dtype == np.float32


@operation
def token_rows(world: World, slot: int, indices: list[int] | None) -> None:
    assert world.get("context", slot).get_embeddings_ith(indices).dtype == np.float32


@operation
def logits(world: World, slot: int, indices: list[int] | None) -> None:
    assert world.get("context", slot).get_logits_ith(indices).dtype == np.float32


@operation
def lend(world: World, slot: int, which: int, keep: int) -> None:
    one = world.get("context", slot)
    with (one.lend_embeddings, one.lend_logits)[which % 2]() as rows:
        array = np.asarray(rows)
        array.sum()
        if keep % 3 == 0:
            world.kept.append(array)
        del array


@operation
def forget(world: World) -> None:
    world.kept.clear()


@operation
def memory(world: World, slot: int, which: int, arguments: list[int | None]) -> None:
    one = world.get("context", slot).memory
    if one is None:
        raise _Missing
    a, b, c, d = arguments
    calls: tuple[Callable[[], object], ...] = (
        lambda: one.clear(bool(a)),
        lambda: one.remove(a, b, c),
        lambda: one.copy(a, b, c, d),
        lambda: one.keep(a),
        lambda: one.shift(a, b or 0, c, d),
        lambda: one.divide(a, b or 0, c, d),
        lambda: one.positions(a),
    )
    if a is None and which % len(calls) not in (0, 1):
        raise _Missing
    if b is None and which % len(calls) == 2:
        raise _Missing
    calls[which % len(calls)]()


@operation
def save(world: World, slot: int, seq_id: int | None, partial: int, to: int) -> None:
    world.states[to % SLOTS] = world.get("context", slot).state.save(seq_id, partial=bool(partial))


@operation
def corrupt(world: World, slot: int, index: int, value: int) -> None:
    if data := world.states.get(slot % SLOTS):
        data[index % len(data)] = value % 256


@operation
def truncate(world: World, slot: int, index: int) -> None:
    if data := world.states.get(slot % SLOTS):
        world.states[slot % SLOTS] = data[: index % len(data)]  # a copy: another thread may be loading it


@operation
def load(world: World, slot: int, source: int, seq_id: int | None, partial: int) -> None:
    if source % SLOTS not in world.states:
        raise _Missing
    world.get("context", slot).state.load(world.states[source % SLOTS], seq_id, partial=bool(partial))


@operation
def settings(world: World, slot: int, which: int, value: int) -> None:
    one = world.get("context", slot)
    match which % 5:
        case 0:
            one.embeddings = bool(value % 2)
        case 1:
            one.causal_attn = bool(value % 2)
        case 2:
            one.set_n_threads(min(value, 3))
        case 3:
            one.warmup()
        case 4:
            one.abort()


@operation
def control_vector(world: World, slot: int, value: int, start: int, end: int) -> None:
    one = world.get("context", slot)
    shape = (one.model.n_layer - 1, one.model.n_embd)
    one.set_control_vector(None if value == 0 else np.full(shape, FLOATS[value % len(FLOATS)]), start, end)


@operation
def adapter(world: World, slot: int, model: int) -> None:
    world.put("adapter", slot, LoraAdapter(world.model(model), world.files["llama-lora"]))


@operation
def adapt(world: World, slot: int, which: list[int], scale: int) -> None:
    adapters = {world.get("adapter", one): FLOATS[scale % len(FLOATS)] for one in which}
    world.get("context", slot).set_adapters(adapters)


@operation
def pool(world: World, slot: int, count: int) -> None:
    world.put("pool", slot, ThreadPool(min(count, 3)))


@operation
def attach(world: World, slot: int, which: int | None) -> None:
    one = world.get("context", slot)
    one.detach_threadpool() if which is None else one.attach_threadpool(world.get("pool", which))


@operation
def sampler(world: World, slot: int, model: int, links: list[list[int]]) -> None:
    one = Sampler()
    vocab = world.model(model).vocab
    for which, a, b in links:
        x, y = FLOATS[a % len(FLOATS)], FLOATS[b % len(FLOATS)]
        adders: tuple[Callable[[], object], ...] = (
            lambda: one.greedy(),
            lambda a=a: one.dist(a),
            lambda a=a: one.top_k(a),
            lambda x=x, b=b: one.top_p(x, b),
            lambda x=x, b=b: one.min_p(x, b),
            lambda x=x, b=b: one.typical(x, b),
            lambda x=x: one.temp(x),
            lambda x=x, y=y: one.temp_ext(x, y, 1.0),
            lambda x=x: one.top_n_sigma(x),
            lambda a=a, x=x, y=y: one.penalties(a, x, y, 0.0),
            lambda a=a, x=x: one.logit_bias({a: x}),
            lambda: one.grammar(vocab, 'root ::= "a" | "b" root', "root"),
        )
        adders[which % len(adders)]()
    world.put("sampler", slot, one)


@operation
def sample(world: World, slot: int, which: int, index: int) -> None:
    world.get("sampler", slot).sample(world.get("context", which), index)


@operation
def accept(world: World, slot: int, token: int) -> None:
    world.get("sampler", slot).accept(token)


@operation
def tokenize(world: World, model: int, texts: list[str], flags: int) -> None:
    vocab = world.model(model).vocab
    tokens, _ = vocab.tokenize_many(texts, add_special=bool(flags & 1), parse_special=bool(flags & 2))
    vocab.detokenize(tokens, remove_special=bool(flags & 4))


@operation
def detokenize(world: World, model: int, tokens: list[int]) -> None:
    world.model(model).vocab.detokenize(np.array(tokens, np.int32))


@operation
def close(world: World, kind: int, slot: int) -> None:
    name = ("context", "adapter", "pool", "sampler")[kind % 4]
    world.get(name, slot).close()


@operation
def drop(world: World, kind: int, slot: int) -> None:
    world.slots[KINDS[kind % len(KINDS)]].pop(slot % SLOTS, None)


@operation
def close_model(world: World, index: int) -> None:
    world.model(index).close()


@operation
def threads(world: World, first: list[Operation], second: list[Operation]) -> None:
    """Two programs at once, over the same objects."""
    faults: list[BaseException] = []

    def body(program: list[Operation]) -> None:
        try:
            world.run(program)
        except BaseException as error:
            faults.append(error)

    both = [threading.Thread(target=body, args=(program,)) for program in (first, second)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    if faults:
        raise faults[0]
