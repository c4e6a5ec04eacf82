"""rawllama's Embedder against its peers: texts a second, latency of one query, memory, and cosines.

    python benchmarks/embedding.py --peers PEERS/bin/python [--texts 300] [--rounds 7] [--memory] [--json FILE]

Each side is a process of its own (peers/*.py; peers/README.md makes their environment). All are started and warmed
up, then asked in turn, over a pipe, so that one computes at a time; in each round every peer has its own turn of
rawllama beside it, before it or after it by turns. A ratio is the median of the rounds' ratios, its interval a
bootstrap over the rounds (95 %). Sides that leave the size of a batch to their user get the best of several first.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np
from corpus import texts as corpus_texts
from numpy.typing import NDArray
from rawllama import Model
from rawllama.hub import resolve

PEERS = Path(__file__).parent / "peers"
# 18 tokens with [CLS] and [SEP].
QUERY = "which of the two methods is faster for short texts on a machine without gpu"
QUERY_TOKENS = 18
# For those that choose a batch size, and for memory.
TUNING_TEXTS, MEMORY_TEXTS = 300, 3000
PAUSE_S = 0.1  # until the threads of the one before sleep
RESAMPLED = 10_000


@dataclass(frozen=True)
class Spec:
    """A side: its file in peers/, and which of its forms."""

    name: str
    file: str
    variant: str = ""
    outtype: Any = "f32"
    #: The side that it is compared with; "" for none.
    against: str = "rawllama"
    #: Whether it runs in this environment rather than in the peers'.
    here: bool = False
    #: Whether one query can be timed.
    latency: bool = True


SPECS = (
    Spec("rawllama", "ours", against="", here=True),
    Spec("rawllama q8_0", "ours", outtype="q8_0", here=True),
    # As the C loop, which cannot have rawllama's kernels: what the Embedder adds to the same computation.
    Spec("rawllama, ggml's kernels", "ours", "ggml", here=True),
    Spec("C loop", "c_loop", against="rawllama, ggml's kernels", here=True),
    Spec("llama-embedding", "llama_embedding", latency=False),
    Spec("llama-cpp-python, defaults", "llama_cpp_python", "default"),
    Spec("llama-cpp-python, tuned", "llama_cpp_python", "tuned"),
    Spec("onnxruntime fp32", "onnx_runtime", "fused"),
    Spec("sentence-transformers", "sbert"),
    Spec("onnxruntime int8", "onnx_runtime", "int8", against="rawllama q8_0"),
)


class Missing(Exception):
    """No environment has what a side needs."""


class Process:
    """A side's process."""

    def __init__(self, spec: Spec, python: str, threads: int) -> None:
        if shutil.which(python) is None:
            raise Missing("no such program")
        self.spec = spec
        settings = {"model": str(resolve("minilm", outtype=spec.outtype)), "threads": threads, "variant": spec.variant}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self.process = subprocess.Popen(
            [python, PEERS / f"{spec.file}.py", json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip
        self.about: dict[str, str] = self.read()
        if "missing" in self.about:
            self.__exit__()
            raise Missing(self.about["missing"])

    def read(self) -> Any:
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.errors.seek(0)
        raise RuntimeError(f"{self.spec.name} ended:\n{self.errors.read()[-3000:]}")

    def ask(self, do: str, **request: Any) -> Any:
        assert self.process.stdin
        print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
        return self.read()

    def seconds(self, name: str, count: int = 1) -> list[float]:
        """Times of so many runs of a set of texts."""
        time.sleep(PAUSE_S)
        times: list[float] = self.ask("seconds", set=name, count=count)
        return times

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # the end of its input ends it
        self.errors.close()


class Sets:
    """Texts in files, which the processes read."""

    def __init__(self, folder: Path, n_texts: int) -> None:
        self.folder = folder
        self.texts = {
            "all": corpus_texts(n_texts),
            "tuning": corpus_texts(min(n_texts, TUNING_TEXTS), seed=1),
            "memory": corpus_texts(MEMORY_TEXTS, seed=2),
            "query": [QUERY],
        }
        for name, chosen in self.texts.items():
            (folder / name).write_text(json.dumps(chosen), encoding="utf-8")

    def give(self, process: Process) -> None:
        for name in self.texts:
            process.ask("texts", set=name, file=str(self.folder / name))

    def lengths(self, name: str) -> NDArray[np.int64]:
        """Tokens of each text."""
        with Model(resolve("minilm"), vocab_only=True) as model:
            return np.diff(model.vocab.tokenize_many(self.texts[name])[1])


def start(spec: Spec, pythons: Sequence[str], threads: int) -> Process:
    """The side's process, in the first environment that has what it needs.

    Raises
    ------
    Missing
        None has.
    """
    words = []
    for python in [sys.executable] if spec.here else pythons:
        try:
            return Process(spec, python, threads)
        except Missing as error:
            words.append(f"{error} ({python})")
    raise Missing("; ".join(words))


def start_all(specs: Sequence[Spec], pythons: Sequence[str], threads: int, stack: ExitStack) -> dict[str, Process]:
    """The processes of all sides that are there; the others are said to be missing."""
    processes: dict[str, Process] = {}
    for spec in specs:
        try:
            processes[spec.name] = stack.enter_context(start(spec, pythons, threads))
        except Missing as error:
            print(f"missing: {spec.name}: {error}")
    return processes


def warm_up(processes: dict[str, Process], sets: Sets) -> dict[str, str]:
    """Run each side once on everything; return the batch sizes that were the fastest."""
    sizes = {}
    for name, process in processes.items():
        sets.give(process)
        sizes[name] = process.ask("tune", set="tuning")
        process.seconds("query", 10)
        process.seconds("all")
    return sizes


Pairs = dict[str, list[tuple[float, float]]]


def alternate(processes: dict[str, Process], rounds: int, calls: int) -> tuple[Pairs, Pairs]:
    """For each side, the times of what it is compared with and its own: of all texts, and of one query. Seconds."""
    batches: Pairs = {}
    latencies: Pairs = {}
    sides = [process for process in processes.values() if process.spec.against in processes]
    for number in range(rounds):
        for process in sides[number % len(sides) :] + sides[: number % len(sides)]:
            pair = (processes[process.spec.against], process)
            turns = pair if number % 2 == 0 else pair[::-1]
            times = {one: one.seconds("all")[0] for one in turns}
            batches.setdefault(process.spec.name, []).append((times[pair[0]], times[pair[1]]))
            if process.spec.latency:
                times = {one: median(one.seconds("query", calls + 5)[5:]) for one in turns}
                latencies.setdefault(process.spec.name, []).append((times[pair[0]], times[pair[1]]))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return batches, latencies


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Of the median of these, 95 %, by resampling them."""
    generator = np.random.default_rng(0)
    drawn = generator.choice(np.array(ratios), (RESAMPLED, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def own_times(pairs: Pairs) -> dict[str, list[float]]:
    """Each side's times, those of the ones that others are compared with included."""
    times = {name: [own for _, own in each] for name, each in pairs.items()}
    for spec in SPECS:
        turns = [first for other in SPECS if other.against == spec.name for first, _ in pairs.get(other.name, [])]
        if turns:
            times[spec.name] = times.get(spec.name, []) + turns
    return {spec.name: times[spec.name] for spec in SPECS if spec.name in times}


def print_pairs(title: str, unit: str, pairs: Pairs, figure: Any, ratio: Any, meaning: str) -> None:
    """A table: median and range of a figure, and a ratio with its interval."""
    print(f"\n{title:28} {unit:>10} {'least':>9} {'most':>9}   {meaning}")
    for name, times in own_times(pairs).items():
        figures = sorted(map(figure, times))
        line = f"{name:28} {median(figures):10.2f} {figures[0]:9.2f} {figures[-1]:9.2f}"
        if name in pairs:
            ratios = [ratio(first, own) for first, own in pairs[name]]
            low, high = interval(ratios)
            against = next(spec.against for spec in SPECS if spec.name == name)
            line += f"   {median(ratios):6.3f} ({low:.3f} to {high:.3f}), {against} to it"
        print(line)


def rows_of(processes: dict[str, Process], folder: Path) -> dict[str, NDArray[np.float64]]:
    """Unit rows of all texts, of the sides that give rows."""
    rows = {}
    for name, process in processes.items():
        file = folder / "rows.npy"
        if process.ask("rows", set="all", file=str(file)):
            matrix = np.load(file).astype(np.float64)
            rows[name] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return rows


def print_cosines(rows: dict[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """Of each side's rows to sentence-transformers' in fp32, or rawllama's where that is missing."""
    reference = "sentence-transformers" if "sentence-transformers" in rows else "rawllama"
    found = {}
    print(f"\n{'cosine to ' + reference:40} {'least':>10} {'mean':>10}")
    for name, matrix in rows.items():
        cosines = (matrix * rows[reference]).sum(axis=1)
        found[name] = {"least": float(cosines.min()), "mean": float(cosines.mean())}
        print(f"{name:40} {found[name]['least']:10.6f} {found[name]['mean']:10.6f}")
    return found


def measure_memory(
    specs: Sequence[Spec], pythons: Sequence[str], threads: int, sets: Sets, sizes: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Peak resident memory of a new process in MB: after one text, and after MEMORY_TEXTS."""
    found = {}
    print(f"\n{'peak memory, MB (10^6 bytes)':28} {'1 text':>10} {f'{MEMORY_TEXTS} texts':>12}")
    for spec in specs:
        with start(spec, pythons, threads) as process:
            sets.give(process)
            process.ask("batch_size", value=sizes[spec.name])
            process.ask("run", set="query")
            one = process.ask("peak") / 1e6
            process.ask("run", set="memory")
            found[spec.name] = {"one": one, "many": process.ask("peak") / 1e6}
        print(f"{spec.name:28} {one:10.1f} {found[spec.name]['many']:12.1f}")
    for outtype in dict.fromkeys(spec.outtype for spec in specs):
        print(f"{f'(model file, {outtype})':28} {resolve('minilm', outtype=outtype).stat().st_size / 1e6:10.1f}")
    return found


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def check_lengths(sets: Sets) -> NDArray[np.int64]:
    """Tokens of all texts, which every side must take whole."""
    lengths = sets.lengths("all")
    if lengths.min() < 5 or lengths.max() > 512 or sets.lengths("query")[0] != QUERY_TOKENS:
        sys.exit(f"texts of {lengths.min()} to {lengths.max()} tokens, query of {sets.lengths('query')[0]}")
    return lengths


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time rawllama's Embedder and its peers.")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=50, help="of one query, in a round")
    parser.add_argument("--peers", nargs="*", default=[], metavar="PYTHON", help="of the peers' environments")
    parser.add_argument("--only", nargs="*", metavar="SIDE", choices=[spec.name for spec in SPECS],
                        help="of the peers, and what they are compared with")  # fmt: skip
    parser.add_argument("--memory", action="store_true", help="measure memory too, in new processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all times")
    return parser.parse_args()


def chosen(only: list[str] | None) -> list[Spec]:
    """The sides that are wanted, and those that they are compared with."""
    if only is None:
        return list(SPECS)
    wanted = {"rawllama", *only} | {spec.against for spec in SPECS if spec.name in only}
    return [spec for spec in SPECS if spec.name in wanted]


def main() -> None:
    options = parse()
    specs, pythons = chosen(options.only), [*options.peers, sys.executable]
    record: dict[str, Any] = {"options": {name: str(value) for name, value in vars(options).items()}}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        sets = Sets(Path(name), options.texts)
        lengths = check_lengths(sets)
        quartiles = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1]).astype(int)
        print(f"{options.texts} texts, {lengths.sum()} tokens, quartiles {quartiles}; query of {QUERY_TOKENS} tokens")
        print(f"{options.threads} threads, {options.rounds} rounds; {processor()}")
        processes = start_all(specs, pythons, options.threads, stack)
        sizes = warm_up(processes, sets)
        for side, process in processes.items():
            size = f", batches of {sizes[side]}" if sizes[side] else ""
            print(f"{side:28} {process.about['about']}{size}; Python {process.about['python']}")
        batches, latencies = alternate(processes, options.rounds, options.calls)
        print_pairs(f"{options.texts} texts", "texts/s", batches, lambda one: options.texts / one,
                    lambda first, own: own / first, "speed (95 %)")  # fmt: skip
        print_pairs("one query", "ms", latencies, lambda one: one * 1e3,
                    lambda first, own: first / own, "latency (95 %)")  # fmt: skip
        record |= {"about": {side: process.about for side, process in processes.items()}, "batch_sizes": sizes,
                   "tokens": lengths.tolist(), "batches_s": batches, "latencies_s": latencies,
                   "cosines": print_cosines(rows_of(processes, sets.folder))}  # fmt: skip
        stack.close()  # each of the new processes has the machine for itself
        if options.memory:
            there = [spec for spec in specs if spec.name in processes]
            record["peak_mb"] = measure_memory(there, pythons, options.threads, sets, sizes)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
