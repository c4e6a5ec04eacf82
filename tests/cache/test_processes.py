"""Several processes on one cache, some of which are killed while they write."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rawllama.cache import Cache

WIDTH, MIB = 1536, 1 << 20
# A row follows from its number, so that each reader knows what is right.
COMMON = """
import sys, random, numpy as np
from rawllama.cache import Cache
folder, seed = sys.argv[1], int(sys.argv[2])
numbers = random.Random(seed)
def rows_of(wanted):
    return np.array(wanted, np.uint32)[:, None].repeat(384, 1).view(np.uint8)
def keys_of(wanted):
    return [b"%d" % number for number in wanted]
"""
WRITER = (
    COMMON
    + """
cache = Cache(folder, size_limit=int(sys.argv[3]))
print("ready", flush=True)
while True:
    wanted = [numbers.randrange(50_000) for _ in range(numbers.choice((1, 20, 400)))]
    cache.put_many(keys_of(wanted), rows_of(wanted))
"""
)
READER = (
    COMMON
    + """
import time
cache = Cache(folder)
end, hits = time.monotonic() + float(sys.argv[3]), 0
print("ready", flush=True)
while time.monotonic() < end:
    wanted = [numbers.randrange(50_000) for _ in range(500)]
    rows, found = cache.get_many(keys_of(wanted), 1536)
    assert (rows[found] == rows_of(wanted)[found]).all()
    hits += int(found.sum())
print(hits)
"""
)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise AssertionError(process.communicate()[1])
    return process


def check(folder: Path) -> int:
    """All rows that are found are right; how many they are."""
    numbers = np.arange(50_000, dtype=np.uint32)
    with Cache(folder) as cache:
        rows, found = cache.get_many([b"%d" % number for number in numbers], WIDTH)
        np.testing.assert_array_equal(rows[found], numbers[:, None].repeat(384, 1).view(np.uint8)[found])
        cache.put_many([b"and it is written"], np.zeros((1, WIDTH), np.uint8))
        return int(found.sum())


@pytest.mark.parametrize("limit", [1024 * MIB, 16 * MIB], ids=["all fits", "files come and go"])
def test_killed_while_writing(folder: Path, limit: int) -> None:
    """A reader and a writer go on, while others are killed at random moments in the middle of writing."""
    Cache(folder, size_limit=limit).close()
    reader, writer = start(READER, folder, 1, 6), start(WRITER, folder, 2, limit)
    moments = random.Random(3)
    try:
        for seed in range(8):
            victim = start(WRITER, folder, 10 + seed, limit)
            time.sleep(moments.uniform(0, 0.3))
            victim.kill()
            assert victim.wait() == -signal.SIGKILL
            victim.communicate()
        said, errors = reader.communicate(timeout=60)
        assert reader.returncode == 0, errors
        assert int(said) > 1000
        assert writer.poll() is None, "it writes on"
    finally:
        for process in (reader, writer):
            process.kill()
            _, errors = process.communicate()
    assert "Traceback" not in errors, errors
    assert check(folder) > 1000
    assert sum(file.stat().st_size for file in folder.glob("rows-*.mdb")) <= limit


def test_cleared_by_another_process(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.put_many([b"1"], np.ones((1, WIDTH), np.uint8))
        subprocess.run([sys.executable, "-c", COMMON + "Cache(folder).clear()", str(folder), "0"], check=True)
        assert not cache.get_many([b"1"], WIDTH)[1].any()
        assert cache._folder is not None and len(cache._folder._opened) == 1, "the file that is gone is let go of"
        cache.put_many([b"1"], np.ones((1, WIDTH), np.uint8))
        assert cache.get_many([b"1"], WIDTH)[1].all()


def test_many_processes_make_it_at_once(folder: Path) -> None:
    code = COMMON + "cache = Cache(folder)\ncache.put_many(keys_of([seed]), rows_of([seed]))\nprint('done')"
    command = [sys.executable, "-c", code, str(folder)]
    processes = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(6)
    ]
    for process in processes:
        said, errors = process.communicate(timeout=60)
        assert said == "done\n", errors
    assert check(folder) == 6
