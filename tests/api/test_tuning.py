"""Tuning: what is chosen of given measurements, one real run, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawllama import Embedder, InvalidArgumentError, Model, tuning
from rawllama._engine import Settings
from rawllama.errors import ClosedError
from rawllama.tuning import Tuning, choose, remembered, rounds, search

Tiny = Callable[[str], Path]
DEFAULT = Settings(8, 1, 512, None)
OTHER, THIRD = replace(DEFAULT, n_contexts=2), replace(DEFAULT, n_contexts=4)
SAMPLE = ["the cat sat on the mat " * count for count in range(1, 9)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RAWLLAMA_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is one thread: several that wait for each other on a busy machine make the runs long."""
    monkeypatch.setattr("rawllama._options._cores", lambda: 1)


@pytest.fixture
def embedder(tiny: Tiny, cache: Path) -> Iterator[Embedder]:
    with Embedder(tiny("bert")) as made:
        yield made


# ---- the choice


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({DEFAULT: [10, 10, 10]}, DEFAULT),
        ({DEFAULT: [10, 10, 10, 10], OTHER: [9, 9, 9, 9]}, OTHER),
        ({DEFAULT: [10, 10, 10, 10], OTHER: [11, 11, 11, 11]}, DEFAULT),
        ({DEFAULT: [10, 10, 10, 10], OTHER: [9.8, 9.8, 9.8, 9.8]}, DEFAULT),  # 2 % is nothing
        ({DEFAULT: [10, 10, 10, 10], OTHER: [9, 9, 11, 11]}, DEFAULT),  # as often slower
        ({DEFAULT: [10, 10, 10, 10, 10], OTHER: [9, 9, 9, 11, 11]}, DEFAULT),  # and nearly so
        ({DEFAULT: [10, 10, 10, 10], OTHER: [8, 8, 8, 11]}, OTHER),  # slower once
        ({DEFAULT: [10, 20, 40, 80], OTHER: [9, 18, 36, 72]}, OTHER),  # the machine became slower for both
        ({DEFAULT: [10, 20, 40, 80], OTHER: [11, 19, 41, 79]}, DEFAULT),
        ({DEFAULT: [10, 10, 10, 10], OTHER: [9, 9, 9, 9], THIRD: [8, 8, 8, 8]}, THIRD),
        ({DEFAULT: [10, 10, 10, 10], OTHER: [8, 8, 8, 8], THIRD: [9, 9, 9, 9]}, OTHER),
        ({DEFAULT: [10, 10, 10, 100], OTHER: [9.9, 9.9, 9.9, 10]}, DEFAULT),  # one round went wrong
    ],
)
def test_choose(measured: dict[Settings, list[float]], expected: Settings) -> None:
    assert choose(measured, DEFAULT) == expected


def machine(cost: Callable[[Settings], float], seed: int = 0) -> Callable[[Sequence[Settings]], tuning.Times]:
    """Five rounds on a machine where settings cost what `cost` says, with some noise."""
    noise = np.random.default_rng(seed)
    return lambda candidates: {one: [cost(one) * noise.normal(1, 0.01) for _ in range(5)] for one in candidates}


def test_search_finds_the_best() -> None:
    def cost(one: Settings) -> float:
        return (
            abs(np.log2(one.n_contexts / 4)) + abs(np.log2(one.token_budget / 256)) + (one.flash_attn is None) + 10
            + (one.n_threads > 4)
        )  # fmt: skip

    best, speedup, times = search(DEFAULT, 10_000, machine(cost))
    assert best == Settings(4, 4, 256, False)
    assert speedup == pytest.approx(cost(DEFAULT) / cost(best), rel=0.05)
    assert {one.n_contexts for one in times} == {1, 2, 4, 8}
    assert {one.token_budget for one in times} == {256, 512, 1024, 2048}
    assert {one.n_threads for one in times} == {8, 4}


def test_search_keeps_the_defaults_where_all_are_alike() -> None:
    for seed in range(20):
        best, speedup, times = search(DEFAULT, 10_000, machine(lambda _: 1.0, seed))
        assert best == DEFAULT
        assert speedup == 1.0
        assert DEFAULT in times


def test_the_last_comparison_is_with_the_defaults() -> None:
    """What seemed better on the way, and is not when both are measured once more, is not taken."""
    calls: list[list[Settings]] = []

    def measure(candidates: Sequence[Settings]) -> tuning.Times:
        calls.append(list(candidates))
        favoured = replace(DEFAULT, token_budget=1024)
        again = sum(favoured in call for call in calls) > 2
        return {one: [0.5 if one == favoured and not again else 1.0] * 4 for one in candidates}

    best, speedup, _ = search(replace(DEFAULT, n_threads=1), 10_000, measure)
    assert best == replace(DEFAULT, n_threads=1)
    favoured = replace(DEFAULT, token_budget=1024)
    calls.clear()
    best, speedup, _ = search(DEFAULT, 10_000, measure)
    assert calls[-1] == [DEFAULT, favoured]
    assert (best, speedup) == (DEFAULT, 1.0)


def test_search_tries_what_is_possible() -> None:
    """No more contexts than threads, no budget above the sample, and without memory for one the others go on."""
    tried: set[Settings] = set()

    def measure(candidates: Sequence[Settings]) -> tuning.Times:
        tried.update(candidates)
        return {one: [0.5 if one.n_contexts > 1 else 1.0] * 4 for one in candidates if one.token_budget < 600}

    best, _, _ = search(Settings(2, 1, 512, None), 1500, measure)
    assert best == Settings(2, 2, 512, None)
    assert {one.n_contexts for one in tried} == {1, 2}
    assert {one.token_budget for one in tried} == {256, 512, 1024}
    assert all(one.n_contexts <= one.n_threads for one in tried)
    tried.clear()
    search(Settings(1, 1, 512, None), 10, measure)
    assert tried == {Settings(1, 1, 512, None), Settings(1, 1, 512, False)}


class Clock:
    """Seconds that pass when something runs."""

    def __init__(self, costs: dict[Settings, float]) -> None:
        self.costs = costs
        self.now = 100.0
        self.order: list[Settings] = []

    def __call__(self) -> float:
        return self.now

    def run(self, settings: Settings) -> None:
        self.now += self.costs[settings]
        self.order.append(settings)


@pytest.mark.parametrize(("seconds", "count"), [(0, 3), (1, 3), (15, 5), (1000, 15)])
def test_rounds(seconds: float, count: int) -> None:
    clock = Clock({DEFAULT: 1.0, OTHER: 2.0})
    times = rounds(clock.run, [DEFAULT, OTHER], seconds, clock)
    assert times == {DEFAULT: [1.0] * count, OTHER: [2.0] * count}
    assert clock.order[:6] == [DEFAULT, OTHER, OTHER, DEFAULT, DEFAULT, OTHER], "they take turns in going first"


# ---- a real run


def test_tune(embedder: Embedder, tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It measures, applies, remembers; the next Embedder of this model computes so, and gives the same rows."""
    monkeypatch.setattr("rawllama._options._cores", lambda: 2)
    before = embedder.encode(SAMPLE)
    assert embedder.tuning is None
    found = embedder.tune(SAMPLE, seconds=0)
    assert embedder.tuning is found
    assert embedder._settings == found.settings
    assert np.abs(embedder.encode(SAMPLE) - before).max() < 1e-3
    assert all(len(times) >= 3 and min(times) > 0 for times in found.times.values())
    assert {one.flash_attn for one in found.times} == {None, False}
    assert {one.n_contexts for one in found.times} == {1, 2}
    assert found.speedup >= 1
    assert found.tokens_per_second > 100
    assert found.flops_per_second > 1e6
    assert found.path is not None
    assert found.path.parent == cache / "tuning"
    assert json.loads(found.path.read_text())["settings"] == asdict(found.settings)
    with Embedder(tiny("bert")) as other:
        assert other.tuning == replace(found, times={})
        assert other._settings == found.settings
        assert other.plan(SAMPLE).seconds is not None
    with Embedder(tiny("bert-reranker")) as other:
        assert other.tuning is None, "that is another model"
    found.forget()
    found.forget()
    with Embedder(tiny("bert")) as other:
        assert other.tuning is None


def test_a_better_one_is_applied(embedder: Embedder, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    best = Settings(1, 1, 256, False)
    monkeypatch.setattr(tuning, "search", lambda *_, **__: (best, 1.5, {best: [0.5, 0.25, 0.5]}))
    found = embedder.tune(SAMPLE, seconds=0)
    assert embedder._settings == best
    assert embedder.encode(SAMPLE).shape == (8, 32)
    n_tokens = sum(embedder.tokenize(text).size for text in SAMPLE)
    assert found.tokens_per_second == pytest.approx(2 * n_tokens)
    with Embedder(tiny("bert")) as other:
        assert other._settings == best
        assert other.tuning is not None
        assert other.tuning.speedup == 1.5
    for argument in ({"n_threads": 2}, {"n_contexts": 1}, {"token_budget": 512}, {"flash_attn": True}):
        with Embedder(tiny("bert"), **argument) as other:
            assert other.tuning is None, "who gives one of them gets the defaults of the others"
            assert other._settings != best


@pytest.mark.parametrize(("name", "pooling"), [("bert", "none"), ("bert-reranker", None), ("llama", "last")])
def test_other_poolings(name: str, pooling: str | None, tiny: Tiny) -> None:
    with Embedder(tiny(name), pooling=pooling) as embedder:
        assert embedder.tune(SAMPLE, seconds=0).tokens_per_second > 100


def test_overlong_texts(tiny: Tiny) -> None:
    long = ["cat " * 500, "dog"]
    with Embedder(tiny("bert")) as embedder, pytest.raises(InvalidArgumentError, match="502 tokens"):
        embedder.tune(long, seconds=0)
    with Embedder(tiny("bert"), overlong="chunk") as embedder:
        assert embedder.tune(long, seconds=0).speedup >= 1


def test_a_large_sample_is_thinned(embedder: Embedder) -> None:
    """A pass takes the time that there is for it, with texts of all lengths in it."""
    bench = tuning._Bench(embedder, tuning.read(SAMPLE * 1000), embedder._settings, 0.0, Clock({}))
    lengths = np.concatenate(bench._lengths())
    assert 1500 < bench.n_tokens < 3000
    assert set(lengths) == {embedder.tokenize(text).size for text in SAMPLE}


def test_what_was_given_stays(tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no candidate, and what was found with it is not remembered for those without it."""
    monkeypatch.setattr("rawllama._options._cores", lambda: 4)
    monkeypatch.setattr(tuning, "choose", lambda times, default: min(times, key=lambda one: one.token_budget))
    with Embedder(tiny("bert"), n_threads=1, flash_attn=True) as embedder:
        found = embedder.tune(SAMPLE * 2, seconds=0)
        assert {(one.n_threads, one.n_contexts, one.flash_attn) for one in found.times} == {(1, 1, True)}
        assert embedder._settings == found.settings == Settings(1, 1, 256, True)
    assert found.path is None
    assert not (cache / "tuning").exists()


def test_refused(embedder: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match="sample: it has no texts"):
        embedder.tune([])
    with pytest.raises(InvalidArgumentError, match="sample: it is one text"):
        embedder.tune("a text")
    with pytest.raises(InvalidArgumentError, match=r"sample\[1\]: it is missing"):
        embedder.tune(["a", None])  # type: ignore[list-item]
    embedder.close()
    with pytest.raises(ClosedError):
        embedder.tune(SAMPLE)


def test_an_interrupted_run_changes_nothing(embedder: Embedder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = embedder._settings

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "choose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedder.tune(SAMPLE, seconds=0)
    assert embedder._settings == settings
    assert not (cache / "tuning").exists()
    assert embedder.encode("a cat").shape == (32,)


def test_printed(embedder: Embedder) -> None:
    found = Tuning(OTHER, 1.25, 5000.0, 1e9, {DEFAULT: [0.02, 0.01], OTHER: [0.012]}, None)
    assert [" ".join(line.split()) for line in str(found).splitlines()] == [
        "n_threads n_contexts token_budget flash_attn ms",
        "8 1 512 default 15.0",
        "8 2 512 default 12.0 best",
        "1.25 times as fast as the defaults, 5000 tokens a second",
        "not remembered",
    ]
    assert "remembered in there" in str(replace(found, times={}, path=Path("there")))


# ---- what is remembered

FOUND = Tuning(Settings(1, 1, 256, False), 1.5, 5000.0, 1e9)



def test_without_a_folder_to_write_to(embedder: Embedder, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="what was measured is used, and not remembered"):
        found = embedder.tune(SAMPLE[:4], seconds=0)
    assert found.path is None
    found.forget()


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts["settings"].update(n_threads=0),
        lambda facts: facts["settings"].update(n_threads=100_000),
        lambda facts: facts["settings"].update(token_budget="many"),
        lambda facts: facts["settings"].update(more=1),
        lambda facts: facts.update(settings=None),
        lambda facts: facts.pop("speedup"),
        lambda facts: facts.update(tokens_per_second=0),
        lambda facts: facts.update(flops_per_second="fast"),
    ],
)
def test_a_damaged_file_is_none(change: Callable[[Any], object], embedder: Embedder) -> None:
    path = tuning._remember(embedder.model, FOUND)
    assert path is not None
    assert remembered(embedder.model) == replace(FOUND, path=path)
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    assert remembered(embedder.model) is None
    for content in (b"", b"{", b"[]", b"\xff\xfe"):
        path.write_bytes(content)
        assert remembered(embedder.model) is None


def test_another_machine(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning._remember(embedder.model, FOUND)
    assert remembered(embedder.model) is not None
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_cores", lambda: 77)
        assert remembered(embedder.model) is None
    with monkeypatch.context() as patch:
        patch.setattr(tuning.backend, "build", lambda: {"commit": "another"})
        assert remembered(embedder.model) is None
    with monkeypatch.context() as patch:
        patch.setattr(tuning.backend, "devices", lambda: ())
        assert remembered(embedder.model) is None
    assert remembered(embedder.model) is not None


def test_another_way_to_load_the_model(embedder: Embedder, tiny: Tiny) -> None:
    tuning._remember(embedder.model, FOUND)
    for options, known in (({}, True), ({"devices": []}, False), ({"n_gpu_layers": 0}, False)):
        with Model(tiny("bert"), **options) as model:
            assert (remembered(model) is not None) == known
