"""A long campaign: `python -m tests.fuzz.campaign --operations 1000000 --seed 1`; prints what happened.

Programs that end the process are shrunk by hypothesis and written to tests/fuzz/programs/, where they are tests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from .runner import Fault, Runner
from .strategies import programs

PROGRAMS = Path(__file__).parent / "programs"


def one_round(runner: Runner, number: int, examples: int, length: int) -> str | None:
    """Some programs of one seed; the shrunk fault, if there was one."""

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @given(program=programs(length))
    def body(program: list[object]) -> None:
        runner.run(program)

    try:
        body()
    except Fault as fault:
        return str(fault)
    except BaseExceptionGroup as group:  # what depends on the threads' order, hypothesis calls flaky
        return str(next(fault for fault in group.exceptions if isinstance(fault, Fault)))
    return None


def keep(fault: str) -> Path:
    """Write the program, which stands in a fault's last line, where the tests find it."""
    program = fault.splitlines()[-1]
    PROGRAMS.mkdir(exist_ok=True)
    path = PROGRAMS / f"{hashlib.sha256(program.encode()).hexdigest()[:12]}.json"
    path.write_text(json.dumps(json.loads(program)) + "\n", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--length", type=int, default=150)
    options = parser.parse_args()
    start, faults, number = time.monotonic(), 0, options.seed
    with tempfile.TemporaryDirectory() as folder, Runner(Path(folder)) as runner:
        while (count := sum(runner.outcomes.values())) < options.operations:
            fault = one_round(runner, number, 100, options.length)
            if fault is not None:
                faults += 1
                print(fault, f"kept as {keep(fault)}", sep="\n", flush=True)
            number += 1
            print(f"{count} operations, {faults} faults, {time.monotonic() - start:.0f} s", flush=True)
        for outcome, times in runner.outcomes.most_common():
            print(f"{times:9} {outcome}")
        print(f"{sum(runner.outcomes.values())} operations, {runner.deaths} dead processes, {faults} faults")


if __name__ == "__main__":
    main()
