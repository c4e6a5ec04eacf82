"""Workers, nodes and drivers that are killed in the middle: each row is there exactly once, and right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from rawllama.ray import embed, embed_files

from .conftest import Nodes

_PATIENCE_S = 60


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Do it in a thread meanwhile; its error is the test's."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    assert not errors, errors


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def require_right(table: pa.Table, vectors: np.ndarray) -> None:
    assert table["id"].to_pylist() == list(range(len(vectors)))
    assert np.abs(np.stack(table["embedding"].to_numpy()) - vectors).max() <= 1e-6


def n_parts(target: Path) -> int:
    return len(list(target.glob("part-*.parquet")))


def test_a_worker_is_killed(nodes: Nodes, corpus: Path, minilm: str, vectors: np.ndarray, tmp_path: Path) -> None:
    target, killed = tmp_path / "out", []

    def kill() -> None:
        wait_until(lambda: n_parts(target) >= 2 and nodes.workers())
        killed.append((nodes.workers()[0], n_parts(target)))
        os.kill(killed[0][0], signal.SIGKILL)

    with beside(kill):
        report = embed_files(corpus, target, model=minilm, actors=2, part_rows=20)
    assert killed[0][1] < report.parts == 25
    require_right(pq.read_table(target), vectors)


def test_a_node_is_killed(nodes: Nodes, corpus: Path, minilm: str, vectors: np.ndarray, tmp_path: Path) -> None:
    """With its raylet and all workers; what it did, the others do."""
    target, killed = tmp_path / "out", []

    def kill() -> None:
        wait_until(lambda: n_parts(target) >= 2 and any(map(nodes.workers, nodes.others)))
        node = next(node for node in nodes.others if nodes.workers(node))
        killed.append(n_parts(target))
        nodes.kill(node)

    try:
        with beside(kill):
            report = embed_files(corpus, target, model=minilm, actors=3, part_rows=20)
        assert killed[0] < report.parts == 25
        require_right(pq.read_table(target), vectors)
    finally:
        nodes.fill()


def test_a_worker_of_a_dataset_is_killed(nodes: Nodes, corpus: Path, minilm: str, vectors: np.ndarray) -> None:
    """Rows that went through Ray's object store, read by Ray."""
    rows = ray.data.read_parquet(str(corpus), override_num_blocks=12)
    seen: list[pa.Table] = []
    for table in embed(rows, model=minilm, actors=1, batch_rows=20).iter_batches(batch_size=20, batch_format="pyarrow"):
        if len(seen) == 2:
            (worker,) = nodes.workers()
            os.kill(worker, signal.SIGKILL)
        seen.append(table)
    require_right(pa.concat_tables(seen).sort_by("id"), vectors)


def test_the_driver_is_killed(nodes: Nodes, corpus: Path, minilm: str, vectors: np.ndarray, tmp_path: Path) -> None:
    """And called again: it goes on."""
    target = tmp_path / "out"
    program = (
        "import ray, sys; from rawllama.ray import embed_files; "
        "ray.init(address=sys.argv[1], log_to_driver=False); "
        "embed_files(sys.argv[2], sys.argv[3], model=sys.argv[4], actors=2, part_rows=20)"
    )
    command = [sys.executable, "-c", program, nodes.address, str(corpus), str(target), minilm]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: n_parts(target) >= 3)
    finally:
        driver.kill()
        driver.wait()
    wait_until(lambda: not nodes.workers())  # they end with their job
    done = n_parts(target)
    report = embed_files(corpus, target, model=minilm, actors=2, part_rows=20)
    assert (report.parts, report.computed_parts) == (25, 25 - done)
    assert 3 <= done < 25
    require_right(pq.read_table(target), vectors)
