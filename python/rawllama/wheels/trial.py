"""A finished wheel in a new environment: it imports, lists its devices, and computes vectors that mean something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rawllama import faults

from .build import BuildError

_CODE = """
import json, sys
from rawllama import Embedder, backend

with Embedder(sys.argv[1]) as embedder:
    rows = embedder.encode(["The cat sits outside", "A feline rests outdoors", "A man plays the guitar"])
print(json.dumps({
    "devices": [f"{d.name} ({d.kind}): {d.description}" for d in backend.devices()],
    "columns": rows.shape[1],
    "alike": float(rows[0] @ rows[1]),
    "unlike": float(rows[0] @ rows[2]),
}))
"""
# Whoever runs this has them set for another copy; a new environment must do without.
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LD_PRELOAD")


@dataclass(frozen=True)
class Trial:
    """What the wheel did.

    Attributes
    ----------
    devices
        In words.
    columns
        Of a vector.
    alike, unlike
        Cosines of two sentences of one meaning, and of two that have nothing to do with each other.
    faults
        What `rawllama doctor` finds in it, such as a GPU's library whose driver is not on this machine.
    """

    devices: Sequence[str]
    columns: int
    alike: float
    unlike: float
    faults: Sequence[str] = ()


def trial(wheel: Path, model: Path) -> Trial:
    """Install it, with what it requires, and compute in a child process.

    Parameters
    ----------
    model
        all-MiniLM-L6-v2 as GGUF: the vectors' meaning is looked at.

    Raises
    ------
    BuildError
        It does not install, does not load, or computes nonsense.
    """
    with tempfile.TemporaryDirectory(prefix="rawllama-trial-") as scratch:
        venv.create(scratch, with_pip=False)
        python = Path(scratch, "Scripts" if sys.platform == "win32" else "bin", "python")
        _run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", str(wheel)], scratch)
        said = _run([str(python), "-c", _CODE, str(model)], scratch)
        seen = _run([str(python), "-m", "rawllama", "doctor", "--json"], scratch, allowed=(0, 1))
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    result = Trial(**found, faults=[fault["what"] for fault in json.loads(seen)["faults"]])
    if not result.alike > 0.5 > 0.3 > result.unlike:
        raise BuildError(f"{wheel.name}: its vectors mean nothing: {result}")
    return result


def _run(command: Sequence[str], folder: str, allowed: Sequence[int] = (0,)) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    if done.returncode not in allowed:
        said = f"{done.stdout}\n{done.stderr}".strip()[-2000:]
        what = f"{signal.Signals(-done.returncode).name}: {said}" if done.returncode < 0 else said
        raise BuildError(f"the new wheel failed in a new environment: {what} {faults.remedy(what)}".strip())
    return done.stdout
