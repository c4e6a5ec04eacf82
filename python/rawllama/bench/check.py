"""Whether the method can be trusted: it finds a side that is 5 % slower, and no difference where there is none."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

from . import inputs, machine, stats
from .processes import Process, Spec, start
from .record import Record
from .rounds import alternate

SLOWER = 0.05
ROUNDS = 41
_TEXTS = 20


@dataclass(frozen=True)
class Settings:
    """How often it is tried.

    Attributes
    ----------
    model
        A path, or a name of `hub`'s.
    times
        Trials of both kinds.
    threads
        So many on each side.
    """

    model: str = "minilm"
    times: int = 10
    threads: int = field(default_factory=machine.cores)


def measure(settings: Settings) -> Record:
    """Compare rawllama with itself and with a slower self, so many times."""
    record, watch = Record("check", machine.facts(), asdict(settings)), machine.Watch()
    sides = (Spec("first", "ours", here=True), Spec("second", "ours", here=True),
             Spec("slower", "ours", settings={"slower": SLOWER}, here=True))  # fmt: skip
    texts = {"all": inputs.texts("mixed", _TEXTS)}
    with ExitStack() as stack:
        first, second, slower = (
            stack.enter_context(start(spec, (), settings.model, settings.threads)) for spec in sides
        )
        for process in (first, second, slower):
            process.give(texts)
            process.seconds("all", 2)
        for number in range(settings.times):
            record.pairs += alternate([(second, first), (slower, first)], _seconds, lambda side: side.spec.name,
                                      f"trial {number + 1}", ROUNDS)  # fmt: skip
    record.details["right"] = count_right(record)
    record.notes += watch.notes()
    return record


def count_right(record: Record) -> dict[str, int]:
    """Of each kind of pair, how many verdicts are right."""
    wanted = {"second": stats.SAME, "slower": stats.SLOWER}
    verdicts = [(pair.side, stats.verdict(pair.speed)) for pair in record.pairs]
    return {side: sum(verdict == wanted[name] for name, verdict in verdicts if name == side) for side in wanted}


def _seconds(process: Process) -> float:
    return process.seconds("all")[0]
