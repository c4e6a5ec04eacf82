"""A Ray cluster of three nodes, each a raylet with workers of its own, on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rawllama import Embedder

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
_NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
# A node that does not answer is dead after a few seconds, not half a minute.
_SYSTEM = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """The cluster, whose nodes come and go."""

    def __init__(self, folder: str) -> None:
        from ray.cluster_utils import Cluster

        head = {**_NODE, "include_dashboard": False, "temp_dir": folder, "_system_config": _SYSTEM}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.others: list[Any] = []
        self.address: str = self.cluster.address
        self.fill()

    def fill(self) -> None:
        """Let there be three nodes again."""
        while len(self.others) < 2:
            self.others.append(self.cluster.add_node(**_NODE))
        self.cluster.wait_for_nodes()

    def workers(self, node: Any | None = None) -> list[int]:
        """Process ids of the actors, of all nodes or of one."""
        nodes = [self.cluster.head_node, *self.others] if node is None else [node]
        raylets = {one.process.pid for node in nodes for one in node.all_processes["raylet"]}
        return [pid for pid, parent, name in _processes() if parent in raylets and name.startswith("ray::MapWorker")]

    def kill(self, node: Any) -> None:
        """SIGKILL for the node and all that runs on it."""
        raylets = {one.process.pid for one in node.all_processes["raylet"]}
        children = [pid for pid, parent, _ in _processes() if parent in raylets]
        self.others.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        for pid in children:
            with suppress(ProcessLookupError):  # it went with its raylet
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head and two more nodes of one CPU each; the test process is their driver."""
    import ray

    before = signal.getsignal(signal.SIGTERM)
    folder = tempfile.mkdtemp(prefix="ray-")  # the paths of sockets must be short
    made = Nodes(folder)
    ray.init(address=made.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield made
    finally:
        ray.shutdown()
        made.cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts of 3 to 60 words, no two of them equal."""
    generator = np.random.default_rng(8)
    words = ["river", "bank", "money", "stone", "cat", "guitar", "cloud", "seven", "blue", "runs", "sings", "under"]
    return [f"{i} {' '.join(generator.choice(words, generator.integers(2, 60)))}" for i in range(480)]


@pytest.fixture(scope="session")
def vectors(texts: list[str], minilm: str) -> np.ndarray:
    """What the Embedder alone makes of the texts."""
    with Embedder(minilm, progress=False) as embedder:
        return np.asarray(embedder.encode(texts))


@pytest.fixture(scope="session")
def corpus(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two Parquet files with row groups of odd sizes: columns `id` and `text`."""
    folder = tmp_path_factory.mktemp("corpus")
    table = pa.table({"id": range(len(texts)), "text": texts})
    pq.write_table(table[:205], folder / "a.parquet", row_group_size=47)
    pq.write_table(table[205:], folder / "b.parquet")
    return folder


def _processes() -> Iterator[tuple[int, int, str]]:
    """Process id, parent and command line of all processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                yield int(entry.name), parent, (entry / "cmdline").read_bytes().decode(errors="replace")
