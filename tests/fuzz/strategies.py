"""Programs for program.py, from hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .program import NUMBERS, SLOTS

slot = st.integers(0, SLOTS - 1)
small = st.integers(0, 40)
number = st.one_of(small, st.sampled_from(NUMBERS))
maybe = st.one_of(st.none(), st.integers(0, 5), number)
token = st.one_of(st.integers(0, 89), number)
model = st.integers(0, 9)
sequences = st.sampled_from((0, 1, 2, 4, 64, 256, 257))
threads_number = st.sampled_from((*[1] * 20, 2, 0, 513))
size = st.sampled_from((0, 1, 2, 8, 16, 32, 64, 128, 512, -1, 2**31))
parts = st.sampled_from(["the", " cat", "[SEP]", "<s>", "\x00", "\udc80", "é", "  ", "語"])
text = st.one_of(st.text(max_size=60), st.lists(parts, max_size=12).map("".join))


def op(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(st.just(name), *arguments).map(list)


def lists(strategy: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=most)


sizes = st.one_of(
    st.sampled_from([[128, 64, 64, 4, 1], [256, 128, 128, 16, 1], [64, 64, 16, 2, 1], [512, 512, 512, 1, 1]]),
    st.tuples(size, size, size, sequences, threads_number).map(list),
)
# What leads to work comes several times, so that most programs compute something.
common = [
    op("context", slot, model, sizes, st.tuples(*[st.integers(0, 5)] * 5).map(list), st.integers(0, 15)),
    op("batch", slot, st.sampled_from((1, 8, 64, 128, 512, 0, -1)), st.sampled_from((0, 0, 0, 32, 31)),
       st.sampled_from((1, 1, 2, 64, 0)), st.sampled_from((1, 1, 4))),
    op("add", slot, lists(token, 40), lists(st.integers(0, 3), 2), st.just(0), st.integers(0, 2)),
    op("add_many", slot, small, small, small, st.just(0)),
    op("clear", slot),
    op("compute", slot, slot, st.just(0)),
    op("compute", slot, slot, st.integers(0, 2)),
    op("sequence_rows", slot, st.none()),
    op("logits", slot, st.none()),
]  # fmt: skip
rare = [
    op("add", slot, lists(token, 70), lists(number, 3), number, st.integers(0, 2)),
    op("add_many", slot, small, small, number, number),
    op("add_offsets", slot, lists(token, 20), lists(number, 5), lists(number, 4)),
    op("fill_vectors", slot, small, st.integers(-9, 9)),
    op("poke", slot, st.integers(0, 4), number, number),
    op("n_tokens", slot, number),
    op("tapped", slot, slot, small, st.one_of(st.none(), lists(number, 2)), st.one_of(st.none(), lists(number, 3))),
    op("tapped", slot, slot, small, st.none(), st.none()),
    op("hidden", slot, slot, st.one_of(st.none(), lists(st.integers(-4, 4), 3)), small),
    op("sequence_rows", slot, lists(number, 4)),
    op("token_rows", slot, st.one_of(st.none(), lists(number, 4))),
    op("logits", slot, lists(number, 4)),
    op("lend", slot, st.integers(0, 1), small),
    op("forget"),
    op("memory", slot, st.integers(0, 6), st.tuples(maybe, maybe, maybe, maybe).map(list)),
    op("save", slot, st.one_of(st.none(), st.integers(0, 4)), st.integers(0, 1), slot),
    op("corrupt", slot, st.integers(0, 4000), st.integers(0, 255)),
    op("truncate", slot, st.integers(0, 4000)),
    op("load", slot, slot, st.one_of(st.none(), st.integers(0, 4)), st.integers(0, 1)),
    op("settings", slot, st.integers(0, 4), number),
    op("control_vector", slot, st.integers(0, 8), number, number),
    op("adapter", slot, st.just(1)),
    op("adapt", slot, lists(slot, 2), small),
    op("pool", slot, st.sampled_from((1, 2, 3, 0))),
    op("attach", slot, st.one_of(st.none(), slot)),
    op("sampler", slot, model, lists(st.tuples(small, number, small).map(list), 5)),
    op("sample", slot, slot, st.one_of(st.just(-1), number)),
    op("accept", slot, token),
    op("tokenize", model, lists(text, 5), st.integers(0, 7)),
    op("detokenize", model, lists(token, 20)),
    op("close", st.integers(0, 3), slot),
    op("drop", st.integers(0, 4), slot),
    op("close_model", model),
]
single = st.one_of(*common, *common, *rare)
threads = op("threads", st.lists(single, max_size=12), st.lists(single, max_size=12))
START = [
    ["context", 0, 1, [128, 64, 64, 4, 1], [1, 0, 0, 1, 0], 2],
    ["context", 1, 0, [128, 128, 128, 8, 1], [2, 0, 0, 1, 0], 3],
    ["context", 2, 2, [64, 64, 64, 4, 1], [0, 0, 0, 2, 0], 3],
    ["batch", 0, 64, 0, 2, 1],
    ["batch", 1, 128, 0, 1, 1],
    ["batch", 2, 64, 0, 4, 1],
    ["batch", 3, 16, 32, 1, 1],
]


def programs(length: int) -> st.SearchStrategy[list[Any]]:
    """Lists of operations, behind some contexts and batches, so that they have something to do."""
    body = st.lists(st.one_of(*[single] * 12, threads), min_size=length // 2, max_size=length)
    context = op("context", st.just(3), model, sizes, st.tuples(*[st.integers(0, 5)] * 5).map(list), st.integers(0, 15))
    return st.tuples(context, body).map(lambda parts: [*START, parts[0], *parts[1]])
