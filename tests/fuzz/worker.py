"""The child process that runs programs: one JSON line in, one out. It may die of a program; its parent sees that."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from .program import run


def main(folder: Path) -> None:
    files = {path.stem: path for path in folder.glob("*.gguf")}
    for line in sys.stdin:
        try:
            answer = dict(run(json.loads(line), files))
        except BaseException:  # a fault of ours: an exception that users should not see
            answer = {"fault": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
