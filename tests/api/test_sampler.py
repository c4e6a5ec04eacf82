"""Samplers against numpy, against libllama's own loop, and with all that could end the process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import ffi, lib
from rawllama import sampler as sampler_module
from rawllama.batch import Batch
from rawllama.context import Context
from rawllama.errors import (
    ClosedError,
    ConcurrentUseError,
    DecodeError,
    InvalidArgumentError,
    LlamaError,
    NativeAssertError,
)
from rawllama.model import Model
from rawllama.sampler import Candidates, Sampler

N = 300
INF = float("inf")
NAN = float("nan")


@pytest.fixture
def logits() -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(0, 3, N).astype(np.float32)


@pytest.fixture(scope="module")
def path(tiny: Callable[[str], Path]) -> Path:
    return tiny("llama")


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with Model(path) as model:
        yield model


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    with Context(model, n_ctx=64, n_seq_max=1, n_threads=1, n_threads_batch=1) as context:
        decode(context, [5, 6, 7])
        yield context


def decode(context: Context, tokens: list[int], start: int = 0) -> None:
    batch = Batch(len(tokens))
    batch.add_sequence(tokens, pos=start)
    context.decode(batch)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    result: NDArray[np.float64] = powers / powers.sum()
    return result


def by_logit(logits: NDArray[np.float32]) -> list[int]:
    return [int(i) for i in np.argsort(-logits, kind="stable")]


def piece(model: Model, token: int) -> bytes:
    return model.vocab.piece(token)


def token_of(model: Model, text: bytes) -> int:
    """The token that is this text."""
    return next(token for token in range(model.vocab.n_tokens) if piece(model, token) == text)


# ---- each sampler against numpy


def test_greedy_is_argmax(logits: NDArray[np.float32]) -> None:
    assert Sampler().greedy().apply(logits).selected == logits.argmax()


def test_empty_chain_changes_nothing(logits: NDArray[np.float32]) -> None:
    before = logits.copy()
    left = Sampler().apply(logits)
    assert left.ids.tolist() == list(range(N))
    assert np.array_equal(left.logits, logits)
    assert not left.p.any()
    assert left.selected is None
    left.logits[:] = 0
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("k", [1, 10, 128, 129, 200, N, N + 1])
def test_top_k(logits: NDArray[np.float32], k: int) -> None:
    left = Sampler().top_k(k).apply(logits)
    assert left.ids.tolist() == by_logit(logits)[:k]
    assert np.array_equal(left.logits, logits[left.ids])


@pytest.mark.parametrize("k", [0, -1])
def test_top_k_of_nothing_keeps_all(logits: NDArray[np.float32], k: int) -> None:
    sampler = Sampler().top_k(k)
    assert sampler.names == ["?top-k"]
    assert len(sampler.apply(logits).ids) == N


@pytest.mark.parametrize("size", [N, 3000])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.9, 0.999])
def test_top_p(size: int, p: float) -> None:
    logits = np.random.default_rng(1).normal(0, 2, size).astype(np.float32)
    order = by_logit(logits)
    count = int(np.searchsorted(np.cumsum(softmax(logits)[order]), p)) + 1
    left = Sampler().top_p(p).apply(logits)
    assert abs(len(left.ids) - count) <= (p == 0.999)  # float32 sums
    assert left.ids.tolist() == order[: len(left.ids)]


def test_min_keep(logits: NDArray[np.float32]) -> None:
    assert len(Sampler().top_p(0.0, min_keep=7).apply(logits).ids) == 7
    assert len(Sampler().min_p(1.0, min_keep=7).apply(logits).ids) == 7


@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_min_p(logits: NDArray[np.float32], p: float) -> None:
    probabilities = softmax(logits)
    kept = set(np.flatnonzero(probabilities >= p * probabilities.max() * (1 - 1e-6)).tolist())
    assert set(Sampler().min_p(p).apply(logits).ids.tolist()) == kept


def test_typical(logits: NDArray[np.float32]) -> None:
    p = softmax(logits)
    entropy = -(p * np.log(p)).sum()
    order = np.argsort(np.abs(-np.log(p) - entropy))
    count = int(np.flatnonzero(np.cumsum(p[order]) > 0.5)[0]) + 1
    assert Sampler().typical(0.5).apply(logits).ids.tolist() == order[:count].tolist()


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_temp(logits: NDArray[np.float32], t: float) -> None:
    assert np.array_equal(Sampler().temp(t).apply(logits).logits, logits / np.float32(t))


@pytest.mark.parametrize("add", [lambda one: one.temp(0), lambda one: one.temp(-1), lambda one: one.temp_ext(0, 0)])
def test_temp_0_leaves_the_most_likely(logits: NDArray[np.float32], add: Callable[[Sampler], Sampler]) -> None:
    with Sampler() as sampler:
        left = add(sampler).apply(logits)
    assert np.flatnonzero(np.isfinite(left.logits)).tolist() == [logits.argmax()]


def test_temp_ext(logits: NDArray[np.float32]) -> None:
    p = softmax(logits)
    share = -(p * np.log(p)).sum() / np.log(N)
    t = 0.5 + (1.5 - 0.5) * share**2
    left = Sampler().temp_ext(1.0, 0.5, 2.0).apply(logits)
    assert np.allclose(left.logits, logits[left.ids] / t, rtol=1e-4)
    assert np.allclose(left.p, softmax(left.logits), rtol=1e-3)


def test_top_n_sigma(logits: NDArray[np.float32]) -> None:
    kept = logits >= logits.max() - 1.5 * logits.std()
    assert np.array_equal(np.isfinite(Sampler().top_n_sigma(1.5).apply(logits).logits), kept)


def test_xtc_drops_all_but_the_last_above_the_threshold() -> None:
    logits = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
    left = Sampler().xtc(1.0, 0.15, seed=1).dist(1).apply(logits)
    assert left.ids.tolist() == [2, 0]
    assert left.selected in (2, 0)


def test_logit_bias(logits: NDArray[np.float32]) -> None:
    left = Sampler().logit_bias({3: 100.0, 5: -INF, 299: -2.5}).greedy().apply(logits)
    expected = logits.copy()
    expected[[3, 299]] += [100, -2.5]
    expected[5] = -INF
    assert np.array_equal(left.logits, expected)
    assert left.selected == 3


def test_logit_bias_of_nothing(logits: NDArray[np.float32]) -> None:
    assert np.array_equal(Sampler().logit_bias({}).apply(logits).logits, logits)


def test_penalties(logits: NDArray[np.float32]) -> None:
    sampler = Sampler().penalties(4, 1.5, 0.25, 0.5)
    for token in [9, 1, 2, 2, 3]:  # the first is forgotten
        sampler.accept(token)
    expected = logits.copy()
    for token, count in {1: 1, 2: 2, 3: 1}.items():
        expected[token] = expected[token] * 1.5 if expected[token] <= 0 else expected[token] / 1.5
        expected[token] -= count * 0.25 + 0.5
    assert np.allclose(sampler.apply(logits).logits, expected, rtol=1e-6)
    assert np.array_equal(sampler.reset().apply(logits).logits, logits)


def test_dry(model: Model) -> None:
    logits = np.zeros(model.vocab.n_tokens, np.float32)
    sampler = Sampler().dry(model.vocab, 2.0, 3.0, 2, 64, [])
    for token in [11, 12, 13, 14, 11, 12, 13]:
        sampler.accept(token)
    expected = logits.copy()
    expected[14] = -2.0 * 3.0 ** (3 - 2)
    assert np.allclose(sampler.apply(logits).logits, expected)
    broken = Sampler().dry(model.vocab, 2.0, 3.0, 2, 64, [model.vocab.piece(12).decode()])
    for token in [11, 12, 13, 14, 11, 12, 13]:
        broken.accept(token)
    assert not broken.apply(logits).logits.any()


def chi_square(counts: Counter[int], probabilities: NDArray[np.float64]) -> float:
    draws = counts.total()
    return sum((counts[i] - draws * p) ** 2 / (draws * p) for i, p in enumerate(probabilities))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_dist_draws_by_probability(seed: int) -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.05, 0.05], np.float32))
    sampler = Sampler().dist(seed)
    counts = Counter(sampler.apply(logits).selected for _ in range(20_000))
    # 18.47: 0.001 of chi-square with 4 degrees of freedom. Seeds are fixed, so this does not flicker.
    assert chi_square(counts, softmax(logits)) < 18.47  # type: ignore[arg-type]
    assert chi_square(counts, np.full(5, 0.2)) > 1000, "the test sees what it should"  # type: ignore[arg-type]


def draw(sampler: Sampler, logits: NDArray[np.float32], count: int = 50) -> list[int | None]:
    return [sampler.apply(logits).selected for _ in range(count)]


def select_with(name: str, seed: int | None) -> Sampler:
    sampler = Sampler()
    return sampler.mirostat(N, seed) if name == "mirostat" else getattr(sampler, name)(*SELECT[name], seed=seed)


SELECT: dict[str, tuple[float, ...]] = {"dist": (), "mirostat": (), "mirostat_v2": (), "adaptive_p": (0.2,)}


@pytest.mark.parametrize("name", SELECT)
def test_seeds(logits: NDArray[np.float32], name: str) -> None:
    one = draw(select_with(name, 1), logits)
    assert one == draw(select_with(name, 1), logits)
    assert one != draw(select_with(name, 2), logits)
    assert draw(select_with(name, None), logits) != draw(select_with(name, None), logits)
    sampler = select_with(name, 1)
    draw(sampler, logits)
    assert draw(sampler.reset(), logits) == one


def test_seed_is_told() -> None:
    assert Sampler().dist(12).seed == 12
    assert Sampler().greedy().seed is None
    assert Sampler().mirostat_v2(5).seed == 5
    random = Sampler().dist().seed
    assert random is not None
    assert 0 <= random < 2**32


# ---- the chain


def test_names_and_remove(logits: NDArray[np.float32]) -> None:
    sampler = Sampler().top_k(5).top_p(1.0).temp(0.5).greedy()
    assert sampler.names == ["top-k", "?top-p", "temp", "greedy"]
    assert sampler.remove(0).names == ["?top-p", "temp", "greedy"]
    assert len(sampler.apply(logits).ids) == N
    assert sampler.remove(2).apply(logits).selected is None
    assert sampler.dist(1).names[-1] == "dist"
    with pytest.raises(InvalidArgumentError, match="i: 3"):
        sampler.remove(3)


def test_every_sampler_of_the_header_has_its_method() -> None:
    declared = {name.removeprefix("llama_sampler_init_") for name in dir(lib) if name.startswith("llama_sampler_init_")}
    deprecated = {"grammar_lazy"}
    assert len(declared) > 15
    assert declared - deprecated <= set(dir(Sampler))


@pytest.mark.parametrize("accepted", [[], [1, 2, 3]])
def test_clone_goes_on_as_the_original(logits: NDArray[np.float32], accepted: list[int]) -> None:
    sampler = Sampler().penalties(8, 3.0).xtc(0.5, 0.1, seed=4).dist(9)
    draw(sampler, logits, 5)
    for token in accepted:
        sampler.accept(token)
    clone = sampler.clone()
    assert clone.names == sampler.names
    with pytest.raises(InvalidArgumentError, match="before dist"):
        clone.top_k(1)
    rest = draw(sampler, logits)
    assert draw(clone, logits) == rest
    sampler.close()
    assert draw(clone, logits), "it has no part in the other's memory"


def test_clone_of_mirostat(logits: NDArray[np.float32]) -> None:
    sampler = Sampler().mirostat(N, 3)
    draw(sampler, logits, 5)
    clone = sampler.clone()
    assert draw(clone, logits) == draw(sampler, logits)


def test_clone_of_an_undecided_adaptive_p_is_refused(logits: NDArray[np.float32]) -> None:
    # libllama clones the pending token and not the probabilities that accept() then reads.
    sampler = Sampler().adaptive_p(0.5, seed=1)
    token = sampler.apply(logits).selected
    with pytest.raises(InvalidArgumentError, match="accept"):
        sampler.clone()
    assert token is not None
    sampler.accept(token).clone().close()


def test_perf(logits: NDArray[np.float32]) -> None:
    sampler = Sampler(no_perf=False).top_k(100).dist(1)
    for _ in range(50):
        sampler.apply(logits)
        sampler.accept(1)
    assert sampler.perf.n_sample == 50
    assert sampler.perf.t_sample_ms > 0
    sampler.reset_perf()
    assert (sampler.perf.n_sample, sampler.perf.t_sample_ms) == (0, 0)


def test_closed(logits: NDArray[np.float32]) -> None:
    sampler = Sampler().greedy()
    sampler.close()
    for call in (lambda: sampler.apply(logits), sampler.reset, sampler.clone, sampler.dist, lambda: sampler.names):
        with pytest.raises(ClosedError):
            call()


# ---- arguments

WRONG: list[Callable[[Sampler], Any]] = [
    lambda s: s.top_p(NAN),
    lambda s: s.top_p(1.1),
    lambda s: s.top_p(0.5, min_keep=-1),
    lambda s: s.min_p(-0.1),
    lambda s: s.typical(2),
    lambda s: s.top_k(2**31),
    lambda s: s.top_k(1.5),
    lambda s: s.temp(NAN),
    lambda s: s.temp(INF),
    lambda s: s.temp(1e-7),
    lambda s: s.temp("hot"),
    lambda s: s.temp_ext(1, INF),
    lambda s: s.temp_ext(1, 1, -1),
    lambda s: s.xtc(NAN, 0.1),
    lambda s: s.xtc(0.5, 2),
    lambda s: s.top_n_sigma(NAN),
    lambda s: s.mirostat(0),
    lambda s: s.mirostat(100, m=0),
    lambda s: s.mirostat(100, tau=NAN),
    lambda s: s.mirostat_v2(eta=INF),
    lambda s: s.penalties(-1),
    lambda s: s.penalties(2**31 - 1),
    lambda s: s.penalties(64, 0),
    lambda s: s.penalties(64, NAN),
    lambda s: s.penalties(64, 1, INF),
    lambda s: s.adaptive_p(NAN),
    lambda s: s.adaptive_p(0.5, 1.0),
    lambda s: s.dist(-1),
    lambda s: s.dist(2**32),
    lambda s: s.dist(2**32 - 1),
    lambda s: s.logit_bias({-1: 1.0}),
    lambda s: s.logit_bias({10: 1.0}, n_vocab=10),
    lambda s: s.logit_bias({1: NAN}),
    lambda s: s.logit_bias({1: INF}),
    lambda s: s.logit_bias({1: 1e30}),
    lambda s: s.accept(-1),
    lambda s: s.accept(2**31),
    lambda s: s.remove(0),
    lambda s: s.apply([]),
    lambda s: s.apply([[1.0]]),
    lambda s: s.apply([1.0, NAN]),
    lambda s: s.apply([1.0, INF]),
    lambda s: s.apply([1.0, 1e30]),
    lambda s: s.apply([1e300]),
    # places in the chain
    lambda s: s.greedy().top_k(1),
    lambda s: s.dist().greedy(),
    lambda s: s.top_k(5).logit_bias({1: 1.0}),
    lambda s: [s.temp(1e-6) for _ in range(4)],
    lambda s: s.mirostat(100).apply(np.zeros(99)),
    lambda s: s.logit_bias({1: 1.0}, n_vocab=10).mirostat(9),
]


@pytest.mark.parametrize("call", range(len(WRONG)))
def test_wrong_arguments(call: int) -> None:
    with Sampler() as sampler, pytest.raises(InvalidArgumentError):
        WRONG[call](sampler)


def test_a_refused_sampler_is_not_added(logits: NDArray[np.float32]) -> None:
    sampler = Sampler().greedy()
    with pytest.raises(InvalidArgumentError, match="before greedy"):
        sampler.top_k(1)
    assert sampler.names == ["greedy"]
    assert len(sampler.apply(logits).ids) == N


def test_all_excluded_is_no_token() -> None:
    for sampler in (Sampler().greedy(), Sampler().dist(1), Sampler().mirostat(5), Sampler().adaptive_p(0.1)):
        assert sampler.apply(np.full(5, -INF)).selected is None


# ---- with a model


def raw_samples(model: Model, context: Context, seed: int, count: int) -> list[int]:
    """libllama's own loop: llama_sampler_sample."""
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for sampler in (
        lib.llama_sampler_init_top_k(40), lib.llama_sampler_init_temp(0.8), lib.llama_sampler_init_dist(seed)
    ):  # fmt: skip
        lib.llama_sampler_chain_add(chain, sampler)
    tokens = []
    for i in range(count):
        tokens.append(lib.llama_sampler_sample(chain, context.c, -1))
        decode(context, tokens[-1:], 3 + i)
    lib.llama_sampler_free(chain)
    return tokens


@pytest.mark.parametrize("seed", [1, 2])
def test_sample_is_llama_sampler_sample(model: Model, context: Context, seed: int) -> None:
    sampler = Sampler().top_k(40).temp(0.8).dist(seed)
    tokens: list[int] = []
    for i in range(20):
        tokens.append(sampler.sample(context))
        decode(context, tokens[-1:], 3 + i)
    with Context(model, n_ctx=64, n_seq_max=1, n_threads=1, n_threads_batch=1) as other:
        decode(other, [5, 6, 7])
        assert raw_samples(model, other, seed, 20) == tokens
    assert sampler.perf.n_sample == 20


def test_sample_accepts(context: Context) -> None:
    sampler = Sampler().penalties(64, 1.0, 1e6).greedy()
    tokens = [sampler.sample(context) for _ in range(5)]
    assert len(set(tokens)) == 5, "a token that was accepted is so unlikely that it does not come again"


def test_sample_of_an_output(context: Context) -> None:
    batch = Batch(3)
    batch.add_sequence([8, 9, 10], pos=3)
    context.decode(batch)
    sampler = Sampler().greedy()
    assert [sampler.sample(context, i) for i in range(3)] == context.get_logits_ith().argmax(1).tolist()


def test_sample_errors(model: Model, context: Context, path: Path) -> None:
    sampler = Sampler().top_k(5)
    with pytest.raises(InvalidArgumentError, match="no sampler selects"):
        sampler.sample(context)
    sampler.dist(1)
    for index in (3, -4, 2**31, -(2**31) - 1):
        with pytest.raises(InvalidArgumentError):
            sampler.sample(context, index)
    with pytest.raises(InvalidArgumentError, match="index"):
        sampler.sample(context, 0.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="367"):
        Sampler().mirostat(99).sample(context)
    with Model(path) as other, pytest.raises(InvalidArgumentError, match="another model"):
        Sampler().dry(other.vocab, 1.0).greedy().sample(context)
    with Context(model, n_ctx=64, n_seq_max=1) as fresh, pytest.raises(InvalidArgumentError):
        sampler.sample(fresh)
    context.close()
    with pytest.raises(ClosedError):
        sampler.sample(context)


def test_the_chain_ends_with_the_model(path: Path, logits: NDArray[np.float32]) -> None:
    model = Model(path)
    sampler = Sampler().grammar(model.vocab, 'root ::= "a"').greedy()
    clone = sampler.clone()
    free = Sampler().greedy()
    model.close()
    assert sampler.closed
    assert clone.closed
    assert not free.closed
    for call in (lambda: sampler.apply(logits), lambda: sampler.accept(1), sampler.reset, sampler.clone):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(ClosedError):
        free.remove(0).infill(model.vocab)


def test_the_chain_keeps_the_model(path: Path) -> None:
    sampler = Sampler().grammar(Model(path).vocab, 'root ::= "a"')
    sampler.accept(int(np.flatnonzero(np.isfinite(sampler.apply(np.zeros(367)).logits))[0]))
    sampler._parent.close()  # type: ignore[union-attr]


def test_two_models(model: Model, path: Path) -> None:
    with Model(path) as other, pytest.raises(InvalidArgumentError, match="another model"):
        Sampler().dry(model.vocab, 1.0).infill(other.vocab)


def test_one_thread_at_a_time(logits: NDArray[np.float32]) -> None:
    sampler = Sampler().greedy()
    with sampler._used, pytest.raises(ConcurrentUseError):
        sampler.apply(logits)


# ---- grammars


def test_grammar_allows_only_its_text(model: Model) -> None:
    left = Sampler().grammar(model.vocab, 'root ::= "ab" | "b"').apply(np.zeros(model.vocab.n_tokens))
    allowed = {piece(model, int(token)) for token in left.ids[np.isfinite(left.logits)]}
    assert allowed <= {b"a", b"ab", b"b"}
    assert {b"a", b"b"} <= allowed


def test_generation_follows_the_grammar(model: Model, context: Context) -> None:
    sampler = Sampler().grammar(model.vocab, 'root ::= [a-c]{3} "!"').dist(1)
    text = b""
    for i in range(10):
        token = sampler.sample(context)
        if model.vocab.is_eog(token):
            break
        text += piece(model, token)
        decode(context, [token], 3 + i)
    assert len(text) == 4
    assert set(text[:3]) <= set(b"abc")
    assert text.endswith(b"!")


def test_a_token_that_the_grammar_does_not_allow(model: Model) -> None:
    a, b = token_of(model, b"a"), token_of(model, b"b")
    sampler = Sampler().penalties(8, 2.0).grammar(model.vocab, 'root ::= "aa"')
    sampler.accept(a)
    for _ in range(2):
        with pytest.raises(InvalidArgumentError, match=f"token: {b}"):
            sampler.accept(b)
    sampler.accept(a)
    with pytest.raises(InvalidArgumentError):
        sampler.accept(a)
    assert sampler.perf.n_sample == 2
    sampler.reset().accept(a)


def test_a_grammar_that_no_token_fits(model: Model, context: Context) -> None:
    ban = {t: -INF for t in range(model.vocab.n_tokens) if b"a" in piece(model, t)}
    sampler = Sampler().logit_bias(ban).grammar(model.vocab, 'root ::= "a"').dist(1)
    with pytest.raises(InvalidArgumentError, match="excluded"):
        sampler.sample(context)


def test_lazy_grammar(model: Model) -> None:
    a, b, c = (token_of(model, one) for one in (b"a", b"b", b"c"))
    everything = np.zeros(model.vocab.n_tokens)

    def is_free(sampler: Sampler) -> bool:
        return bool(np.isfinite(sampler.apply(everything).logits).all())

    by_pattern = Sampler().grammar_lazy_patterns(model.vocab, 'root ::= "bc"', trigger_patterns=["a(b)"])
    for token, free in ((b, True), (a, True), (b, False)):
        by_pattern.accept(token)
        assert is_free(by_pattern) == free
    by_pattern.accept(c)
    by_token = Sampler().grammar_lazy_patterns(model.vocab, 'root ::= "bc"', trigger_tokens=[b])
    by_token.accept(a)
    assert is_free(by_token)
    assert not is_free(by_token.accept(b))
    assert not is_free(by_token.clone())
    assert is_free(by_token.reset())


def test_a_trigger_that_the_grammar_does_not_allow_ends_the_chain(model: Model) -> None:
    sampler = Sampler().grammar_lazy_patterns(model.vocab, 'root ::= "b"', trigger_patterns=["a"])
    with pytest.raises(NativeAssertError):
        sampler.accept(token_of(model, b"a"))
    with pytest.raises(NativeAssertError, match="make a new one"):
        sampler.reset()
    sampler.close()


@pytest.mark.parametrize(
    "pattern",
    ["a*", "a+", "(?:a|b){2,}", "[\\s\\S]*?(x)", "(" * 500 + "a" + ")" * 500 + "b" * 500, "(a{100}){100}", "a{99999}"],
)
def test_patterns_that_could_take_all_the_stack(model: Model, pattern: str) -> None:
    with pytest.raises(InvalidArgumentError, match="trigger_patterns"):
        Sampler().grammar_lazy_patterns(model.vocab, 'root ::= "b"', trigger_patterns=[pattern])


@pytest.mark.parametrize("pattern", ["(", "[b-a]", "a\0", "a{2,1}"])
def test_patterns_that_are_none(model: Model, pattern: str) -> None:
    sampler = Sampler()
    with pytest.raises(InvalidArgumentError):
        sampler.grammar_lazy_patterns(model.vocab, 'root ::= "b"', trigger_patterns=[pattern])
    assert sampler.greedy().names == ["greedy"]


@pytest.mark.parametrize("pattern", ["<tool_call>", r"\*\+\{3,\}", "[*+]", "a?b", "a{1,100}", "^ab$", "(x|y){0,9}"])
def test_patterns_that_are_fine(model: Model, pattern: str) -> None:
    Sampler().grammar_lazy_patterns(model.vocab, 'root ::= "b"', trigger_patterns=[pattern]).close()


def test_lazy_arguments(model: Model) -> None:
    for arguments in ({}, {"trigger_patterns": "a"}, {"trigger_tokens": [367]}, {"trigger_tokens": [-1]}):
        with pytest.raises(InvalidArgumentError, match="trigger"):
            Sampler().grammar_lazy_patterns(model.vocab, 'root ::= "b"', **arguments)  # type: ignore[arg-type]


JSON = r'''
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
'''
FINE = [
    JSON,
    'root ::= "a"',
    "root ::= ",
    'root ::= "" ',
    'root ::= ("a"? "b"?)*',
    'root ::= (("a"*)* "b"| "b" [])+ # comment\n\nx ::= root\n',
    "root ::= .{0,2000}",
    'root ::= "a"{3}{2}?',
    'root ::= "a"{0,3000}',
    "root ::= <[12]> !<[3]>* x\r\nx ::= [^a-z\\]\\x41-] ",
    'root ::=\n "a" |\n "b"\n',
    "root ::= " + "(" * 99 + '"a"' + ")" * 99,
    'root ::= ("a"?){0,1000}',
    "root ::= a-b\na-b ::= [^]",
    'root ::= "a" root | "b"',
    'root ::= x\nx ::= "a"\nx ::= "b"',
]
BAD = {
    "syntax": "root ::= )",
    "no name": "::= a",
    "no root": 'x ::= "a"',
    "undefined": "root ::= x",
    "empty": "",
    "only a comment": "# nothing",
    "unknown escape": r'root ::= "\q"',
    "unfinished string": 'root ::= "a',
    "unfinished set": "root ::= [a",
    "nothing to repeat": 'root ::= ""*',
    "nothing repeated twice": 'root ::= "a"{0}{2}',
    "too many repetitions": 'root ::= "a"{2001}',
    "repetitions of repetitions": 'root ::= "a"{100}{100}',
    "left recursion": 'root ::= root "a" | "b"',
    "left recursion behind what may be empty": 'root ::= x root "a" | "b"\nx ::= "x" |',
    "repetition of what may be empty": 'root ::= ("a" | [])+',
    "a newline in a rule": 'root ::= "a"\n"b"',
    "an unknown token": "root ::= <no-such-token>",
    "a huge token": "root ::= <[99999999999]>",
    "a parenthesis": 'root ::= ("a"',
}
# libllama is never given these.
DEADLY = {
    "repetition that ends before it begins": 'root ::= "a"{5,3}',
    "left recursion behind what may be empty, hidden": 'root ::= x root "a" | "b"\nx ::= y\ny ::= "x" |',
    "left recursion hidden in a group": 'root ::= ("x"? "y"?) root "a" | "b"',
    "parentheses": "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000,
    "a chain of rules": "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(200_000)) + 'r200000 ::= "a"',
    "ways to begin": "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} | r{i + 1}\n" for i in range(64)) + 'r64 ::= "a"',
    "a large string, often": 'root ::= "' + "a" * 1_000_000 + '"{2000}',
}


@pytest.mark.parametrize("text", FINE)
def test_good_grammars(model: Model, text: str) -> None:
    sampler = Sampler().grammar(model.vocab, text)
    assert sampler.names == ["grammar"]
    sampler.clone().reset().apply(np.zeros(model.vocab.n_tokens))
    sampler.close()


def parses(model: Model, text: str, root: bytes = b"root") -> bool:
    vocab = lib.llama_model_get_vocab(model.c)
    sampler = lib.llama_sampler_init_grammar(vocab, text.encode(), root)
    lib.llama_sampler_free(sampler)
    return bool(sampler)


@pytest.mark.parametrize("name", BAD)
def test_bad_grammars(model: Model, name: str) -> None:
    if BAD[name]:
        assert not parses(model, BAD[name]), "libllama refuses it too"
    with Sampler() as sampler, pytest.raises(InvalidArgumentError, match="grammar"):
        sampler.grammar(model.vocab, BAD[name])
    assert Sampler().grammar(model.vocab, FINE[0]).names == ["grammar"]


@pytest.mark.parametrize("name", DEADLY)
def test_deadly_grammars(model: Model, name: str) -> None:
    with Sampler() as sampler, pytest.raises(InvalidArgumentError, match="grammar"):
        sampler.grammar(model.vocab, DEADLY[name])


def test_the_line_is_named(model: Model) -> None:
    with pytest.raises(InvalidArgumentError, match=r"line 3: .*'\)"):
        Sampler().grammar(model.vocab, 'root ::= x\n\nx ::= "a" )')


@pytest.mark.parametrize("text", ['root ::= "\ud800"', 'root ::= "\udc80"', 'root ::= "a\0"'])
def test_grammars_that_are_no_utf8(model: Model, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="grammar_str"):
        Sampler().grammar(model.vocab, text)


def test_grammar_after_what_cuts(model: Model) -> None:
    with pytest.raises(InvalidArgumentError, match="before top_k"):
        Sampler().top_k(5).grammar(model.vocab, 'root ::= "a"')


def test_tokens_too_long_for_a_grammar(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "_MAX_PIECE", 2)
    with Model(path) as model, pytest.raises(InvalidArgumentError, match="more than 2 bytes"):
        Sampler().grammar(model.vocab, 'root ::= "a"')


def test_dry_and_infill_arguments(model: Model) -> None:
    for breakers in ("ab", [""], ["a" * 41], ["a\0"]):
        with pytest.raises(InvalidArgumentError, match="seq_breakers"):
            Sampler().dry(model.vocab, 1.0, seq_breakers=breakers)
    for numbers in ((-1.0,), (1.0, NAN), (1.0, 1.75, -1), (1.0, 1.75, 2, -1), (1.0, 1.75, 2, 2**30)):
        with pytest.raises(InvalidArgumentError, match="dry_"):
            Sampler().dry(model.vocab, *numbers)  # type: ignore[arg-type]
    left = Sampler().top_k(10).infill(model.vocab).greedy().apply(np.arange(367.0))
    assert left.selected is not None


def test_generate_with_a_real_model(smollm2: Path) -> None:
    with Model(smollm2) as model, Context(model, n_ctx=128) as context:
        tokens = model.vocab.tokenize("The capital of France is")
        decode(context, [int(token) for token in tokens])
        sampler = Sampler().grammar(model.vocab, 'root ::= " " [A-Z] [a-z]{2,12} "."').greedy()
        text, pos = b"", len(tokens)
        while not model.vocab.is_eog(token := sampler.sample(context)):
            text += model.vocab.piece(token)
            decode(context, [token], pos)
            pos += 1
    assert text == b" Paris."


# ---- nothing dies: in a process of its own, as that is what is tried

TRIES = 1000
FUZZ = """
import sys
from hypothesis import HealthCheck, given, settings, strategies as st, Phase
import numpy as np
from rawllama.errors import InvalidArgumentError
from rawllama.model import Model
from rawllama.sampler import Sampler

model = Model(sys.argv[1])
n_vocab = model.vocab.n_tokens
nan, inf = float("nan"), float("inf")
odd = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-6, 1e-45, 3e38, -3e38, 1e9, nan, inf, -inf])
number = st.one_of(st.floats(0, 2, width=32), odd, st.floats())
small = st.one_of(st.integers(-2, 500), st.sampled_from([-2**31, 2**31 - 1, 2**31, 2**64]))
v = model.vocab
samplers = st.one_of(
    st.tuples(st.sampled_from(["top_p", "min_p", "typical"]), number, small),
    st.tuples(st.just("top_k"), small),
    st.tuples(st.sampled_from(["temp", "top_n_sigma"]), number),
    st.tuples(st.just("temp_ext"), number, number, number),
    st.tuples(st.just("xtc"), number, number, small, small),
    st.tuples(st.just("penalties"), small, number, number, number),
    st.tuples(st.just("logit_bias"), st.dictionaries(small, number, max_size=4)),
    st.tuples(st.just("dry"), st.just(v), number, number, small, small, st.lists(st.text(max_size=3), max_size=2)),
    st.tuples(st.just("infill"), st.just(v)),
    st.tuples(st.just("grammar"), st.just(v), st.sampled_from(['root ::= "a"*', 'root ::= [^a]+ "b"', "root ::= .*"])),
)
select = st.one_of(
    st.tuples(st.just("greedy")),
    st.tuples(st.just("dist"), small),
    st.tuples(st.just("mirostat"), st.one_of(small, st.just(n_vocab)), small, number, number, small),
    st.tuples(st.just("mirostat_v2"), small, number, number),
    st.tuples(st.just("adaptive_p"), number, number, small),
)
rows = st.one_of(
    st.builds(lambda seed, x: np.random.default_rng(seed).normal(0, 1, n_vocab) * x, st.integers(0, 99), number),
    st.builds(lambda x: np.full(n_vocab, x), number),
    st.builds(lambda seed, xs: np.random.default_rng(seed).choice(xs, n_vocab), st.integers(0, 99),
              st.lists(number, min_size=1, max_size=4)),
    st.lists(number, max_size=200),
)
done = [0, 0]

@settings(max_examples=int(sys.argv[2]), database=None, deadline=None, derandomize=True, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))
@given(st.lists(samplers, max_size=5), select, rows, st.lists(small, max_size=8))
def attempt(chain, last, row, tokens):
    done[0] += 1
    with Sampler() as sampler, np.errstate(all="ignore"):
        for name, *arguments in [*chain, last]:
            try:
                getattr(sampler, name)(*arguments)
            except InvalidArgumentError:
                pass
        for token in tokens:
            try:
                sampler.accept(token)
            except InvalidArgumentError:
                pass
        for _ in range(2):
            try:
                left = sampler.apply(row)
                done[1] += 1
                assert 0 < len(left.ids) <= len(row)
                if left.selected is not None:
                    assert 0 <= left.selected < n_vocab
                    assert left.selected in left.ids
                    sampler.accept(left.selected)
            except InvalidArgumentError:
                pass
            sampler.clone().close() if not sampler._undecided else sampler.reset()

attempt()
print(*done)
"""


def child(code: str, *arguments: str, timeout: float = 300) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return done.stdout


def test_nothing_dies(path: Path) -> None:
    tried, applied = map(int, child(FUZZ, str(path), str(TRIES)).split())
    assert tried >= TRIES * 0.9
    assert applied > TRIES / 2, "most chains have been applied, twice"


GRAMMARS = """
import sys
from hypothesis import HealthCheck, given, settings, strategies as st, Phase
from rawllama import lib
from rawllama import _grammar
from rawllama.errors import InvalidArgumentError
from rawllama.model import Model
import os
model = Model(sys.argv[1])
vocab = lib.llama_model_get_vocab(model.c)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
parts = ["root", "x", "y", " ::= ", "::=", "\\n", "\\n", " ", "|", "(", ")", "(", ")", '"a"', '"b"', '""', '"\\\\x41"',
         '"\\\\n', '"', "[a-z]", "[^\\\\]]", "[]", "[a-", "*", "+", "?", "{2}", "{0}", "{0,2}", "{1,}", "{3,1}", "{,2}",
         "{", "}", ".", "<[1]>", "!<[2]>", "<", "#c", "#c\\n", "-", "é", "\\r\\n", "\\t",
         "{ 2 , 3 }", "{2001}", "{40}", "(x?){2}"]
junk = st.lists(st.sampled_from(parts), max_size=12).map("".join)
terminals = ['"a"', '"b"', "[^c]", "[a-z]", ".", "<[1]>", "!<[2]>"]
times = st.sampled_from([""] * 9 + ["*", "+", "?", "{2}", "{0}", "{0,2}", "{1,}", "{2,1}", "{40}", " {2}{3}"])

def sequences(item):
    sequence = st.lists(st.tuples(item, times).map("".join), min_size=1, max_size=3).map(" ".join)
    return st.lists(sequence, min_size=1, max_size=3).map(" | ".join)

def rule(*names):
    atom = st.sampled_from(terminals + [*names] * 2)
    return sequences(st.one_of(atom, atom, sequences(atom).map("({})".format)))

rules = st.tuples(rule("x", "y", "z"), rule("y", "z"), rule("z", '""', "root"), rule(),
                   st.one_of(*[st.just("")] * 5, junk))
text = st.one_of(
    junk,
    rules.map(lambda r: "root ::= {}\\nx ::= {}\\ny ::= {}\\nz ::= {}\\n{}".format(*r)),
)
count = {}

@settings(max_examples=int(sys.argv[2]), database=None, deadline=None, derandomize=True, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))
@given(text)
def attempt(text):
    words = ""
    try:
        _grammar.check(text, "root")
    except InvalidArgumentError as error:
        words = str(error)
    # What libllama would not survive is not tried.
    if "ends before it begins" in words or "behind others" in words:
        count["kept away"] = count.get("kept away", 0) + 1
        return
    sampler = lib.llama_sampler_init_grammar(vocab, text.encode(), b"root")
    lib.llama_sampler_free(sampler)
    assert bool(sampler) == (not words) or not text, (text, words)
    count[bool(sampler)] = count.get(bool(sampler), 0) + 1

attempt()
print(count.get(True, 0), count.get(False, 0), count.get("kept away", 0))
"""


def test_grammars_are_judged_as_libllama_judges(path: Path) -> None:
    good, bad, kept = map(int, child(GRAMMARS, str(path), "800").split())
    assert good > 50
    assert bad > 200
    assert kept > 100


def test_errors_are_the_package_s() -> None:
    assert issubclass(DecodeError, LlamaError)
    assert Candidates._fields == ("ids", "logits", "p", "selected")
    assert ffi.sizeof("llama_token_data") == 12
