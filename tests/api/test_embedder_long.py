"""A long stream: killed by Ctrl-C in the middle and started again, no row is lost or doubled, and memory stays flat."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rawllama import Embedder

TINY_BERT = Path(__file__).parent.parent / "cli" / "tiny_bert.py"
COUNT, COLUMNS, BLOCK = 200_000, 32, 2000
# MB that the memory may grow by, once the first blocks are done: a row of each text would be 25.
GROWTH = 6

# Text i is i in letters, so no two are equal and none can stand for another. Each block's rows go to a file, and the
# resident memory in kB to standard output.
CODE = """
import re, sys
from rawllama import Embedder

def text(i):
    return " ".join("abcdefghij"[int(digit)] for digit in f"{i:06}")

path, output, start, count, block = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
with Embedder(path, n_threads=1) as embedder, open(output, "ab") as file:
    texts = (text(i) for i in range(start, count))
    for rows in embedder.encode_iter(texts, block_size=block):
        file.write(rows.tobytes())
        file.flush()
        print(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1], flush=True)
"""


def text(i: int) -> str:
    return " ".join("abcdefghij"[int(digit)] for digit in f"{i:06}")


def start(model: Path, output: Path, first: int) -> subprocess.Popen[bytes]:
    arguments = [str(model), str(output), *map(str, (first, COUNT, BLOCK))]
    return subprocess.Popen([sys.executable, "-c", CODE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def rows_in(output: Path) -> int:
    return output.stat().st_size // (4 * COLUMNS) if output.exists() else 0


def test_killed_and_started_again(tmp_path: Path) -> None:
    model, output = tmp_path / "tiny.gguf", tmp_path / "rows"
    runpy.run_path(str(TINY_BERT))["write"](model)
    process = start(model, output, 0)
    while rows_in(output) < COUNT * 0.4:
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    sent = time.perf_counter()
    resident, err = process.communicate(timeout=60)
    ended = time.perf_counter() - sent
    done = rows_in(output)
    assert process.returncode == -signal.SIGINT, err.decode()
    assert err.strip().splitlines()[-1] == b"KeyboardInterrupt"
    assert COUNT * 0.4 <= done < COUNT
    assert ended < 3

    with output.open("r+b") as file:
        file.truncate(done * 4 * COLUMNS)  # a write may have been cut
    process = start(model, output, done)
    rest, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    rows = np.fromfile(output, np.float32).reshape(-1, COLUMNS)
    assert len(rows) == COUNT

    # A row too many or too few would move all behind it. Around the break, and everywhere:
    chosen = np.unique([*range(done - 50, done + 50), *range(0, COUNT, 997), COUNT - 1])
    with Embedder(model, n_threads=1) as embedder:
        expected = embedder.encode([text(i) for i in chosen])
    assert np.abs(rows[chosen] - expected).max() < 2e-3
    assert np.abs(np.diff(expected, axis=0)).max(axis=1).min() > 0.02  # neighbours are told apart

    for printed in (resident, rest):
        kilobytes = np.array(printed.split(), np.int64)
        print(f"resident memory: {kilobytes[4] / 1024:.1f} MB after 5 blocks, {kilobytes.max() / 1024:.1f} MB at most")
        assert kilobytes.size > 20
        assert kilobytes[5:].max() - kilobytes[4] < GROWTH * 1024
