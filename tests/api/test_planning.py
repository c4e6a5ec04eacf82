"""Plans: the batches that are computed, what of attention is masked, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import Embedder, InvalidArgumentError, _engine
from rawllama._engine import Settings
from rawllama.errors import ClosedError
from rawllama.planning import Plan, plan_lengths
from rawllama.tuning import Tuning

Tiny = Callable[[str], Path]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths in each batch that Embedders compute."""
    found: list[list[int]] = []
    init = _engine.Job.__init__

    def watch(self: _engine.Job, *args: Any) -> None:
        init(self, *args)
        found.extend(part.tolist() for part in np.split(self.lengths, self.bounds[1:-1]))

    monkeypatch.setattr(_engine.Job, "__init__", watch)
    return found


@pytest.fixture
def embedder(tiny: Tiny) -> Iterator[Embedder]:
    with Embedder(tiny("bert"), n_threads=1) as made:
        yield made


def texts(count: int, seed: int = 0) -> list[str]:
    """Words of 3 to 62 tokens, many of them equal."""
    numbers = np.random.default_rng(seed).integers(1, 61, count)
    return ["cat " * number for number in numbers.tolist()]


def check(plan: Plan, batches: list[list[int]]) -> None:
    assert plan.tokens.tolist() == [sum(batch) for batch in batches]
    assert plan.sequences.tolist() == [len(batch) for batch in batches]
    assert plan.longest.tolist() == [max(batch) for batch in batches]
    assert plan.shortest.tolist() == [min(batch) for batch in batches]


# ---- the batches


def test_what_is_computed(embedder: Embedder, computed: list[list[int]]) -> None:
    """As encode does it then: equal texts once, the same batches in the same order."""
    given = [f"{text}{index % 9}" for index, text in enumerate(texts(2000))]
    plan = embedder.plan(given)
    assert not computed, "a plan computes nothing"
    embedder.encode(given)
    assert len(computed) > 10
    check(plan, computed)
    assert plan.n_texts == 2000
    assert plan.n_equal == 2000 - len(set(given)) > 100


def test_several_windows_of_texts(
    embedder: Embedder, computed: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that are not all in memory at once are planned in parts."""
    monkeypatch.setattr("rawllama._pipeline._WINDOW", 37)
    given = [f"{text}{index}" for index, text in enumerate(texts(100))]
    plan = embedder.plan(given)
    embedder.encode(given)
    check(plan, computed)


def test_overlong_texts(tiny: Tiny, computed: list[list[int]]) -> None:
    given = ["cat " * 300, "dog", "sun " * 100, "hello world"]
    with Embedder(tiny("bert"), n_threads=1, token_budget=100) as embedder:
        with pytest.raises(InvalidArgumentError, match=r"texts\[0\]: 302 tokens"):
            embedder.plan(given)
        plans = [embedder.plan(given, overlong=overlong) for overlong in ("truncate", "chunk")]
        assert embedder.truncated == 0, "a plan cuts nothing"
        with pytest.warns(UserWarning, match="2 texts were cut"):
            embedder.encode(given, overlong="truncate")
        check(plans[0], computed)
        computed.clear()
        embedder.encode(given, overlong="chunk")
        check(plans[1], computed)
        assert plans[1].sequences.sum() > 4


def test_rows_a_token(tiny: Tiny, computed: list[list[int]]) -> None:
    with Embedder(tiny("bert"), pooling="none", n_threads=1) as embedder:
        plan = embedder.plan(texts(300))
        embedder.encode_tokens(texts(300))
        check(plan, computed)


def test_prompts(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1, prompts={"query": "the red sun "}) as embedder:
        assert embedder.plan("cat", prompt="query").tokens.tolist() == [6]
        assert embedder.plan("cat").tokens.tolist() == [3]


def test_nothing(embedder: Embedder) -> None:
    plan = embedder.plan([])
    assert len(plan) == 0
    assert plan.tokens.shape == plan.flops.shape == plan.padding.shape == plan.attention_waste.shape == (0,)
    assert str(plan) == "0 texts, of which 0 equal one before: 0 tokens in 0 sequences in 0 batches"


def test_closed(embedder: Embedder) -> None:
    embedder.close()
    with pytest.raises(ClosedError):
        embedder.plan(["a"])


# ---- attention


def tiles_by_hand(lengths: list[int], causal: bool) -> tuple[int, int]:
    """Pairs in the tiles of the mask that are not masked whole, and pairs that are not masked."""
    n = sum(lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    seen = owner[:, None] == owner
    if causal:
        seen &= np.tri(n, dtype=bool)
    if n < 64:
        return int(seen.sum()), int(seen.sum())
    tiles = [seen[row : row + 64, column : column + 64] for row in range(0, n, 64) for column in range(0, n, 64)]
    return 64 * 64 * sum(bool(tile.any()) for tile in tiles), int(seen.sum())


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize(
    "lengths", [[3], [64], [60, 4], [63, 1, 64], [64, 64, 64], [50] * 10, [200, 100, 5, 5], [40] * 3 + [2] * 30, [513]]
)
def test_masked_tiles(lengths: list[int], name: str, tiny: Tiny) -> None:
    """Which tiles are computed, against the mask itself."""
    lengths = sorted(lengths, reverse=True)
    with Embedder(tiny(name), pooling="mean", n_threads=1, kernels="ggml") as embedder:
        plan = plan_lengths(embedder, [np.array(lengths), np.array([7, 7])], Settings(1, 1, 600, None))
        assert plan.tokens.tolist() == [sum(lengths), 14]
        expected = [tiles_by_hand(part, name == "llama") for part in (lengths, [7, 7])]
        assert list(zip(plan.pairs.tolist(), plan.pairs_needed.tolist(), strict=True)) == expected
        assert plan.attention_waste == pytest.approx([1 - needed / pairs for pairs, needed in expected])
        whole = plan_lengths(embedder, [np.array(lengths)], Settings(1, 1, 600, False))
        assert whole.pairs.tolist() == [sum(lengths) ** 2], "without flash attention nothing is left out"


def test_own_kernels_compute_nothing_that_is_masked(tiny: Tiny) -> None:
    with Embedder(tiny("bert"), n_threads=1, kernels="rawllama") as embedder:
        plan = plan_lengths(embedder, [np.array([60, 4, 3])], Settings(1, 1, 600, None))
    assert plan.pairs.tolist() == plan.pairs_needed.tolist() == [60**2 + 4**2 + 3**2]


def test_no_attention(tiny: Tiny) -> None:
    with Embedder(tiny("mamba"), pooling="mean", n_threads=1) as embedder:
        plan = embedder.plan(["the cat", "a dog"])
        assert plan.pairs.tolist() == [0]
        assert plan.attention_waste.tolist() == [0]


# ---- cost


def test_flops_of_a_known_model(minilm: str) -> None:
    """All products of BERT's layers, counted one by one."""
    with Embedder(minilm, n_threads=1) as embedder:
        plan = plan_lengths(embedder, [np.array([512])], Settings(1, 1, 512, None))
    width, inner, layers = 384, 1536, 6
    products = layers * (4 * width * width + 2 * width * inner)
    attention = layers * 2 * width * 512**2
    assert plan.flops[0] == pytest.approx(2 * (512 * products + attention), rel=0.01)


def test_padding(embedder: Embedder) -> None:
    plan = plan_lengths(embedder, [np.array([30, 20, 10]), np.array([4, 4])], Settings(1, 1, 512, None))
    assert plan.padding == pytest.approx([1 / 3, 0])


def test_seconds(embedder: Embedder) -> None:
    """By the rate that was measured, if one was."""
    assert embedder.plan(["a"]).seconds is None
    embedder.tuning = Tuning(embedder._settings, 1.0, 1000.0, 1e6)
    plan = embedder.plan(texts(100))
    assert plan.seconds == pytest.approx(plan.flops / 1e6)


def test_table(embedder: Embedder) -> None:
    embedder.tuning = Tuning(embedder._settings, 1.0, 1000.0, 1e9)
    jobs: list[NDArray[np.int64]] = [np.array([30, 20, 10]), np.array([4, 4])]
    lines = str(plan_lengths(embedder, jobs, Settings(1, 1, 512, None), 7, 2, 1e9)).splitlines()
    assert lines[0] == "7 texts, of which 2 equal one before: 68 tokens in 5 sequences in 2 batches"
    titles = "batch sequences tokens longest shortest padding* masked** GFLOP ms"
    assert lines[2].split() == titles.split()
    assert [line.split()[:7] for line in lines[3:6]] == [
        ["0", "3", "60", "30", "10", "33%", "0%"],
        ["1", "2", "8", "4", "4", "0%", "0%"],
        ["all", "5", "68", "30", "4", "31%", "0%"],
    ]
    milliseconds = [float(line.split()[8]) for line in lines[3:6]]
    assert milliseconds[2] == pytest.approx(sum(milliseconds[:2]), abs=0.2)
    many = str(plan_lengths(embedder, [np.full(100, 50)], Settings(1, 1, 50, None))).splitlines()
    assert [line.split()[0] for line in many[3:-3]] == [*"012345", "...", *(str(n) for n in range(94, 100)), "all"]
