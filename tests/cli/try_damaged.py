"""Embed with a model file whose header has one byte changed, again and again, each time in a process of its own.

    python tests/cli/try_damaged.py MODEL SEED COUNT

One JSON line a try. The header is all that stands before the tensor data. Forking is what makes hundreds of tries
cheap: this process has imported everything and never called the library.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import gguf
from rawllama import cli
from rawllama.cli import embed

SECONDS = 60
BYTES = 16 << 30  # of address space: a damaged size must not take the machine's memory
TEXTS = ("hello world", "the cat sat on the mat")
# Where the byte is, and how often.
WEIGHTS = {"keys and values": 6, "arrays": 2, "tensor infos": 2}


def regions(path: Path) -> dict[str, list[range]]:
    """The ranges of bytes of each part of the header."""
    reader = gguf.GGUFReader(path)
    found: dict[str, list[range]] = {name: [] for name in WEIGHTS}
    for field in reader.fields.values():
        sizes = [part.nbytes for part in field.parts]
        # Of an array: the key and its length, the array's type, the items' type, their number; then the items.
        head = sum(sizes[:5] if field.types and field.types[0] == gguf.GGUFValueType.ARRAY else sizes)
        found["keys and values"].append(range(field.offset, field.offset + head))
        found["arrays"].append(range(field.offset + head, field.offset + sum(sizes)))
    for tensor in reader.tensors:
        start = tensor.field.offset
        found["tensor infos"].append(range(start, start + sum(part.nbytes for part in tensor.field.parts)))
    return found


def embed_in_child(path: Path, output: IO[bytes]) -> int:
    """Run `rawllama embed` in a fork; return what waitpid says."""
    output.seek(0)
    output.truncate()
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(output.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)  # nobody handles it, so it ends a child that hangs in C
        os._exit(cli.main(["embed", "--model", str(path), "--threads", "2", "--format", "jsonl", *TEXTS]))
    except BaseException as error:
        os.write(2, f"Traceback: {error!r}".encode(errors="backslashreplace"))
        os._exit(99)


def attempt(path: Path, position: int, value: int, output: IO[bytes]) -> dict[str, Any]:
    """Change the byte, embed, change it back."""
    before = put(path, position, value)
    try:
        status = embed_in_child(path, output)
    finally:
        put(path, position, before)
    output.seek(0)
    return {
        "position": position,
        "before": before,
        "after": value,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "message": output.read().decode(errors="backslashreplace"),
    }


def put(path: Path, position: int, value: int) -> int:
    """Write one byte and return the one that was there."""
    with path.open("r+b", buffering=0) as file:
        before = os.pread(file.fileno(), 1, position)[0]
        os.pwrite(file.fileno(), bytes([value]), position)
    return before


def main() -> None:
    """Try COUNT times, by SEED."""
    model, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    choose = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        path = Path(folder, "damaged.gguf")
        shutil.copy(model, path)
        header = path.read_bytes()[: gguf.GGUFReader(path).data_offset]
        parts = {name: [i for part in ranges for i in part] for name, ranges in regions(path).items()}
        for _ in range(count):
            name = choose.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            position = choose.choice(parts[name])
            # One bit, a small number and any byte find different things.
            values = {header[position] ^ 1 << choose.randrange(8), choose.randrange(4), choose.randrange(256)}
            value = choose.choice(sorted(values - {header[position]}))
            print(json.dumps({"part": name, **attempt(path, position, value, output)}), flush=True)


assert embed  # imported here, so that no child has to
if __name__ == "__main__":
    main()
