"""Numbers of threads: those that ggml takes and the system can start."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from rawllama import InvalidArgumentError
from rawllama.threadpool import ThreadPool, require_threads

# With an address space of 1 GiB there is room for the stacks of some dozen threads.
CHILD = """
import resource
from rawllama.threadpool import require_threads
assert require_threads("n_threads", 2) == 2
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    require_threads("n_threads", 512)
except ValueError as error:
    print(error)
"""


def test_more_threads_than_the_system_starts() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("n_threads: 512, and the system lets this process start ")


@pytest.mark.parametrize("count", [0, -1, 513, 2.0, None, "2"])
def test_numbers_that_are_none(count: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"n_threads: .* is not from 1 to 512"):
        require_threads("n_threads", count)
    with pytest.raises(InvalidArgumentError, match=r"n_threads: .* is not from 1 to 512"):
        ThreadPool(count)
