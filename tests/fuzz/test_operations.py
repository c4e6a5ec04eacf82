"""Nothing that the Pythonic layer accepts ends the process: random programs, and those whose C calls do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from .program import MODELS
from .runner import Runner
from .strategies import programs

LLAMA, BERT, GPT2, MAMBA = (MODELS.index(name) for name in ("llama", "bert", "gpt2", "mamba"))
DEFAULTS = [1, 0, 0, 1, 0]
TWO_THREADS = [256, 256, 256, 4, 2]
# Each ends the process where C is called directly: by a signal, or by an assert of one of ggml's threads. All but the
# last operation do their work, and that is refused.
DEADLY: dict[str, list[list[Any]]] = {
    "a decoder that shall encode": [
        ["context", 0, LLAMA, TWO_THREADS, DEFAULTS, 2], ["batch", 0, 64, 0, 1, 1], ["add_many", 0, 2, 5, 7, 0],
        ["compute", 0, 0, 2],
    ],
    "positions that were not learned, encoder": [
        ["context", 0, BERT, TWO_THREADS, DEFAULTS, 3], ["batch", 0, 64, 0, 1, 1], ["add_many", 0, 1, 20, 7, 60],
        ["compute", 0, 0, 0],
    ],
    "positions that were not learned, decoder": [
        ["context", 0, GPT2, TWO_THREADS, DEFAULTS, 2], ["batch", 0, 64, 0, 1, 1], ["add_many", 0, 1, 20, 7, 60],
        ["compute", 0, 0, 0],
    ],
    "more tokens than an encoder's ubatch": [
        ["context", 0, BERT, [64, 64, 16, 2, 2], DEFAULTS, 3], ["batch", 0, 64, 0, 1, 1], ["add_many", 0, 2, 15, 7, 0],
        ["compute", 0, 0, 0],
    ],
    "a pool of fewer threads than the context's": [
        ["context", 0, LLAMA, TWO_THREADS, DEFAULTS, 2], ["pool", 0, 1], ["attach", 0, 0],
    ],
    "positions divided by 0": [
        ["context", 0, LLAMA, TWO_THREADS, DEFAULTS, 2], ["batch", 0, 64, 0, 1, 1], ["add_many", 0, 1, 5, 7, 0],
        ["compute", 0, 0, 0], ["memory", 0, 5, [0, 0, None, None]],
    ],
    "a token that is none": [["detokenize", MAMBA, [-(2**31)]]],
}  # fmt: skip
# What campaign.py has found, if ever.
KEPT = sorted((Path(__file__).parent / "programs").glob("*.json"))


def kept_as_examples(test: Callable[..., None]) -> Callable[..., None]:
    """Let hypothesis begin with them."""
    for path in KEPT:
        test = example(program=json.loads(path.read_text(encoding="utf-8")))(test)
    return test


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("fuzz")) as one:
        yield one


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(program=programs(80))
@kept_as_examples
def test_random_programs(runner: Runner, program: list[object]) -> None:
    runner.run(program)


def test_they_do_something(runner: Runner) -> None:
    """After test_random_programs: most of what it asked for was done, and much was refused."""
    counts = runner.outcomes
    assert sum(counts.values()) > 2000, counts
    assert counts["done"] > 500, counts
    assert counts["InvalidArgumentError"] + counts["InvalidBatchError"] > 300, counts


@pytest.mark.parametrize("name", DEADLY)
def test_what_ends_the_process_in_c_is_refused(runner: Runner, name: str) -> None:
    program = DEADLY[name]
    before = runner.outcomes.copy()
    runner.run(program)
    seen = runner.outcomes - before
    assert seen["done"] == len(program) - 1, seen
    assert seen["InvalidArgumentError"] + seen["InvalidBatchError"] == 1, seen
