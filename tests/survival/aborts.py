"""Every place in libllama that can end the process, whether it is reachable, on which thread, and why it does no harm.

    python tests/survival/aborts.py [--sites] [--roots header|python] [--source FOLDER] [--verdicts FILE]

A place is a `GGML_ASSERT`, a `GGML_ABORT`, a `throw`, or a call of `abort` and its like. The functions that the
Pythonic layer calls are the roots; what they can reach is found by a scan of the source, which takes more for
reachable than is:

- a name in a function's body is a call of every function of that name that the linker could mean; a method's name
  counts where it is called, a free function's name anywhere, as its address may be taken there;
- so do the names in the initializer of a global variable, and in a macro, for whoever names the variable or the macro;
- all branches of `#if` count, those of other processors too.

A place that only the calling thread reaches is caught by csrc/guard.hpp: the abort callback throws. Three kinds of
function are no place to throw, and what they reach needs a verdict by hand in aborts.toml:

- worker: what ggml's threads run, and the calling thread among them, which the others would wait for forever;
- cleanup: destructors, which C++ forbids to throw;
- locked: what runs under a lock that is not given back by unwinding.

The scan is of the CPU build: GPU backends are out of its scope.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cscan import Graph, Node, Site, scan

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SOURCE = ROOT / "vendor" / "llama.cpp"
VERDICTS = HERE / "aborts.toml"

LOCK = "ggml_critical_section_start"  # given back by a call, not by a destructor
VERDICT_KINDS = ("caught", "checked", "impossible", "open")


# ---- verdicts


@dataclass
class Rule:
    """Says of some places why they do no harm."""

    verdict: str
    why: str
    files: list[str]
    functions: list[str]
    conditions: list[str]
    absent: list[str] = field(default_factory=list)  # functions that libllama must not call for the rule to be true
    used: set[tuple[str, str, str]] = field(default_factory=set)

    def takes(self, site: Site) -> bool:
        """Whether the rule is about this place; notes which of its patterns were."""
        texts = (site.file, site.function, site.condition)
        found = [self._first(patterns, text) for patterns, text in zip(self._patterns, texts, strict=True)]
        file, function, condition = found
        if file is None or function is None or condition is None:
            return False
        self.used.add((file, function, condition))
        return True

    @staticmethod
    def _first(patterns: list[str], text: str) -> str | None:
        return next((one for one in patterns if re.fullmatch(one, text, re.DOTALL)), None)

    @property
    def _patterns(self) -> tuple[list[str], list[str], list[str]]:
        return self.files, self.functions, self.conditions

    def dead(self) -> Iterator[str]:
        """Its patterns that no place needed."""
        for index, name in enumerate(("file", "function", "condition")):
            used = {patterns[index] for patterns in self.used}
            for pattern in self._patterns[index]:
                if pattern not in used:
                    yield f"{name} {pattern!r} of the rule {self.why[:80]!r}"


@dataclass
class Judgement:
    """What aborts.toml says."""

    spawns: dict[str, list[str]]  # functions that begin threads, and what those run
    indirect: list[str]  # reached through pointers that no name leads to
    rules: list[Rule]

    @classmethod
    def read(cls, path: Path) -> Judgement:
        """Read the file; ValueError names what is wrong in it."""
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        threads = data["threads"]
        return cls(threads["spawns"], threads["indirect"], [_rule(one) for one in data.get("rule", [])])


def _rule(data: dict[str, Any]) -> Rule:
    unknown = data.keys() - {"verdict", "why", "files", "functions", "conditions", "absent"}
    if unknown or data["verdict"] not in VERDICT_KINDS:
        raise ValueError(f"a rule with {', '.join(unknown) or data['verdict']}: {data}")
    patterns = [data.get(name, [".*"]) for name in ("files", "functions", "conditions")]
    return Rule(
        data["verdict"], " ".join(data["why"].split()), patterns[0], patterns[1], patterns[2], data.get("absent", [])
    )


# ---- the roots


def roots_of_header(source: Path) -> set[str]:
    """The functions of llama.h that are not deprecated, except those for training."""
    text = (source / "include" / "llama.h").read_text(encoding="utf-8")
    text = re.sub(r"DEPRECATED\(.*?\"\s*\);", "", re.sub(r"//[^\n]*", "", text), flags=re.DOTALL)
    names = set(re.findall(r"LLAMA_API[^;()]*?\b(\w+)\s*\(", text))
    return {name for name in names if not name.startswith("llama_opt_")}


def roots_of_python(folder: Path) -> set[str]:
    """The names of C functions in the Python and C++ sources: of the Pythonic layer and of csrc."""
    files = [*folder.glob("python/rawllama/**/*.py"), *folder.glob("csrc/*.cpp")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return set(re.findall(r"(?:llama|ggml|gguf)_\w+", text))


# ---- the table


class Row(NamedTuple):
    """A place that is reached, and what is said of it."""

    site: Site
    threads: str  # calling, worker, both, cleanup, locked
    rule: Rule | None


CAUGHT = Rule("caught", "only the calling thread gets there, inside csrc/guard.hpp", [], [], [])


@dataclass
class Report:
    """The places that are reached, and what is wrong with the verdicts."""

    rows: list[Row]
    total: int
    problems: list[str]

    def text(self, sites: bool) -> str:
        """The table, or only its counts."""
        lines = [self._line(row) for row in sorted(self.rows, key=lambda row: row.site)] if sites else []
        counts = Counter((row.threads, row.rule.verdict if row.rule else "none") for row in self.rows)
        lines += [f"{number:5d}  {threads:8s}  {verdict}" for (threads, verdict), number in sorted(counts.items())]
        lines += [f"{len(self.rows):5d}  of {self.total} places are reachable"]
        return "\n".join([*lines, *self.problems])

    @staticmethod
    def _line(row: Row) -> str:
        site = row.site
        said = f"{row.rule.verdict}: {row.rule.why}" if row.rule else "NO VERDICT"
        return f"{site.file}:{site.line}  {site.function}  {site.kind}({site.condition})  [{row.threads}]  {said}"


def report(source: Path, roots: set[str], judgement: Judgement) -> Report:
    """Scan, find what is reached, and judge it."""
    nodes, problems = scan(source)
    graph = Graph(nodes)
    marks = _Marks(graph, roots, judgement)
    problems += marks.problems
    rows = [Row(site, threads, _judge(site, threads, judgement)) for site, threads in marks.rows()]
    problems += [f"no verdict: {Report._line(row)}" for row in rows if row.rule is None]
    problems += [f"matches nothing: {dead}" for rule in judgement.rules for dead in rule.dead()]
    called = {name for node in graph.nodes if node.layer == "llama" for name in node.calls}
    absent = [(rule, name) for rule in judgement.rules for name in rule.absent]
    problems += [f"libllama calls {name}, so this is wrong: {rule.why[:80]}" for rule, name in absent if name in called]
    problems += [f"no function is called {name}" for _, name in absent if not graph.named(name)]
    return Report(rows, sum(len(node.sites) for node in nodes), problems)


def _judge(site: Site, threads: str, judgement: Judgement) -> Rule | None:
    """The first rule that takes the place; on the calling thread none is needed, unless `abort` is called outright."""
    if threads == "calling" and site.kind != "end":
        return CAUGHT
    return next((rule for rule in judgement.rules if rule.takes(site)), None)


class _Marks:
    """Which nodes are reached, and from where."""

    def __init__(self, graph: Graph, roots: set[str], judgement: Judgement) -> None:
        self.graph = graph
        self.problems: list[str] = []
        begin = [node for name in sorted(roots) for node in graph.named(name)] + self._named(judgement.indirect)
        begin += [node for node in graph.nodes if node.name.startswith("operator")]  # no name calls them
        entries = self._named(sorted({name for runs in judgement.spawns.values() for name in runs}))
        reached = graph.closure(begin)
        self.reached = [node for node in graph.nodes if id(node) in reached]
        begins = {id(node) for node in self.reached if node.label in judgement.spawns}
        self._worker = graph.closure(entries) | begins
        self._calling = graph.closure(begin, barred={id(node) for node in entries})
        self._cleanup = graph.closure((node for node in self.reached if node.noexcept), plain=True)
        self._locked = graph.closure((node for node in self.reached if LOCK in node.calls), plain=True)
        self._check_spawns(judgement)

    def rows(self) -> Iterator[tuple[Site, str]]:
        """Each place that is reached, and where it runs; one that several nodes share, once."""
        seen = set()
        for node in self.reached:
            for site in node.sites:
                if site not in seen:
                    seen.add(site)
                    yield site, self._threads(id(node))

    def _threads(self, node: int) -> str:
        if node in self._worker:
            return "both" if node in self._calling else "worker"
        return "cleanup" if node in self._cleanup else "locked" if node in self._locked else "calling"

    def _named(self, names: Iterable[str]) -> list[Node]:
        found = {name: self.graph.named(name) for name in names}
        self.problems += [f"no function is called {name}" for name, nodes in found.items() if not nodes]
        return [node for nodes in found.values() for node in nodes]

    def _check_spawns(self, judgement: Judgement) -> None:
        """Each function that begins threads must be known, with what they run."""
        spawning = {node.label for node in self.reached if node.spawns}
        known = judgement.spawns.keys()
        self.problems += [f"begins threads, and is not in [threads]: {one}" for one in sorted(spawning - known)]
        self.problems += [f"begins no threads: {one}" for one in sorted(known - spawning)]


def main() -> int:
    """Print the table and fail on places without a verdict and on rules without a place."""
    parser = argparse.ArgumentParser(description="libllama's ways to end the process, and why each does no harm")
    parser.add_argument("--sites", action="store_true", help="list each place, not the counts alone")
    parser.add_argument("--roots", choices=("header", "python"), default="header", help="where calls begin")
    parser.add_argument("--source", type=Path, default=SOURCE, help="llama.cpp")
    parser.add_argument("--verdicts", type=Path, default=VERDICTS)
    given = parser.parse_args()
    roots = roots_of_header(given.source) if given.roots == "header" else roots_of_python(ROOT)
    found = report(given.source, roots, Judgement.read(given.verdicts))
    print(found.text(given.sites))
    return bool(found.problems)


if __name__ == "__main__":
    sys.exit(main())
