"""Nothing that the Pythonic layer accepts ends the process: random programs, and those that once did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from .runner import Runner
from .strategies import programs

KEPT = sorted((Path(__file__).parent / "programs").glob("*.json"))


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("fuzz")) as one:
        yield one


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(program=programs(80))
def test_random_programs(runner: Runner, program: list[object]) -> None:
    runner.run(program)


def test_they_do_something(runner: Runner) -> None:
    """After test_random_programs: most of what it asked for was done, and much was refused."""
    counts = runner.outcomes
    assert sum(counts.values()) > 2000, counts
    assert counts["done"] > 500, counts
    assert counts["InvalidArgumentError"] + counts["InvalidBatchError"] > 300, counts


def test_programs_that_once_ended_the_process(runner: Runner) -> None:
    """What campaign.py has kept; nothing so far."""
    for path in KEPT:
        runner.run(json.loads(path.read_text(encoding="utf-8")))
