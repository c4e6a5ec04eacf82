"""Kills jobs with SIGKILL and starts them again: `python -m tests.jobs.kills --times 50` prints what happened.

Half of the kills come at a random time, and half right before a random one of the job's changes of files: an opening,
a renaming, a removal. Some are killed again when they go on. The output must have the bytes of an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = ("the", "cat", "sat", "on", "a", "mat")
ROWS, BLOCK = 3000, 200
TARGETS = ("out.parquet", "out.arrow", "out.npy", "out.jsonl", "out.csv", "out.lance", "out.db", "out/")
# What Python tells its auditors before it changes files.
_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.chmod")


@dataclass(frozen=True)
class Case:
    """A job in a folder, which children run."""

    folder: Path
    model: str
    target: str
    source: str = "in.parquet"

    def start(self, die_at: int = 0) -> subprocess.Popen[bytes]:
        """A child that runs the job; it kills itself before the change of files of this number, if there is one."""
        command = [sys.executable, __file__, "--child", self.source, self.target, self.model, str(die_at)]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self) -> bytes:
        """Run the job to its end; what it printed."""
        out, err = self.start().communicate()
        assert b"done" in out, err.decode()
        return out

    def content(self) -> dict[str, bytes]:
        """The bytes of each file of the output; of Lance, whose files have random names, those of its rows.

        Asserts that nothing else is left.
        """
        names = {path.name for path in self.folder.iterdir()}
        assert names == {self.source, self.target.rstrip("/")}, names
        place = self.folder / self.target
        if place.suffix == ".lance":
            import lance  # which takes its time: not in each child

            rows = lance.dataset(str(place)).to_table().combine_chunks()
            return {"rows": rows.to_batches()[0].serialize().to_pybytes()}
        files = [place] if place.is_file() else [path for path in place.iterdir() if path.is_file()]
        return {path.name: path.read_bytes() for path in files}

    def clear(self) -> None:
        """Remove the output."""
        for path in self.folder.iterdir():
            if path.name != self.source:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_input(folder: Path, rows: int = ROWS) -> None:
    """Short texts, with numbers."""
    words = random.Random(0)
    texts = [" ".join(words.choices(WORDS, k=words.randint(1, 12))) for _ in range(rows)]
    pq.write_table(pa.table({"id": range(rows), "text": texts}), folder / "in.parquet", row_group_size=700)


def killed_at(case: Case, number: int) -> bool:
    """Run the job until its change of files of this number; whether it was killed there, else it is at its end."""
    process = case.start(number)
    _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err.decode()
    return process.returncode != 0


def killed_after(case: Case, seconds: float) -> bool:
    """Run the job for so long; whether it was killed before its end."""
    process = case.start()
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err.decode()
    return process.returncode != 0


def _child(source: str, target: str, model: str, die_at: int) -> None:
    """Run the job, and count its changes of files; in a process of its own."""
    from rawllama import Embedder
    from rawllama.jobs import embed_files

    here = str(Path().absolute())
    count = 0

    def audit(event: str, arguments: Sequence[Any]) -> None:
        nonlocal count
        if event not in _EVENTS or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        if os.path.abspath(os.fsdecode(arguments[0])).startswith(here):  # noqa: PTH100 (any path)
            count += 1
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    with Embedder(model, n_threads=1, progress=False) as embedder:
        sys.addaudithook(audit)
        report = embed_files(
            source, target, model=embedder, block_rows=BLOCK, part_rows=3 * BLOCK, checkpoint_seconds=0, progress=False
        )
    print("done", report.rows, report.resumed, count)


@contextmanager
def _cases() -> Iterator[dict[str, tuple[Case, dict[str, bytes], float, int]]]:
    """A job for each kind of output; what an undisturbed run gives, its seconds, and its changes of files."""
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch, "tiny.gguf")
        write: Callable[..., Any] = runpy.run_path(str(Path(__file__).parents[1] / "cli" / "tiny_bert.py"))["write"]
        write(model)
        cases = {}
        for target in TARGETS:
            folder = Path(scratch, target.strip("/"))
            folder.mkdir()
            write_input(folder)
            case = Case(folder, str(model), target)
            started = time.monotonic()
            changes = int(case.finish().split()[3])
            cases[target] = (case, case.content(), time.monotonic() - started, changes)
        yield cases


def _campaign(times: int, seed: int) -> None:
    """So many jobs, each killed once at least."""
    chance = random.Random(seed)
    kills = resumed = 0
    with _cases() as cases:
        for number in range(1, times + 1):
            case, expected, seconds, changes = cases[chance.choice(TARGETS)]
            case.clear()
            before = kills
            while kills == before or chance.random() < 0.3:
                if chance.random() < 0.5:
                    kills += killed_at(case, chance.randint(1, changes))
                else:
                    kills += killed_after(case, chance.uniform(0, seconds))
                if kills == before:
                    case.clear()  # it was too fast
            resumed += int(case.finish().split()[2]) > 0
            assert case.content() == expected, case.target
            print(f"{number}: {case.target} killed {kills - before} times, complete and equal", flush=True)
    print(f"{kills} kills, {times} jobs, all complete and equal; {resumed} of them went on with rows from before")


def _every(target: str) -> None:
    """A kill before each change of files, one after the other."""
    with _cases() as cases:
        case, expected, _, changes = cases[target]
        for number in range(1, changes + 1):
            case.clear()
            assert killed_at(case, number)
            case.finish()
            assert case.content() == expected, number
        print(f"{target}: killed before each of {changes} changes of files, always complete and equal")


def main() -> None:
    """Run the campaign, or one job for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", metavar="TARGET", choices=TARGETS, help="kill before each change of files instead")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        source, target, model, die_at = options.child
        _child(source, target, model, int(die_at))
    elif options.every:
        _every(options.every)
    else:
        _campaign(options.times, options.seed)


if __name__ == "__main__":
    main()
