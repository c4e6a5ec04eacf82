"""What the tests of models and contexts share: batches with known tokens, contexts, and child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rawllama.batch import Batch
from rawllama.context import Context
from rawllama.model import Model

Tokens = NDArray[np.int32]
Rows = NDArray[np.float32]

ROOT = Path(__file__).parent.parent


def some_tokens(model: Model, count: int, seed: int = 0) -> Tokens:
    """Token ids that the model knows, always the same ones for a seed."""
    return np.random.default_rng(seed).integers(5, model.vocab.n_tokens, count, np.int32)


def batch_of(*sequences: Sequence[int] | Tokens, logits: str = "all", start: int = 0, first: int = 0) -> Batch:
    """A batch of these sequences, with ids from `first` and positions from `start`."""
    batch = Batch(sum(map(len, sequences)))
    for seq_id, tokens in enumerate(sequences, first):
        batch.add_sequence(tokens, seq_id, pos=start, logits=logits)
    return batch


def context_of(model: Model, **settings: Any) -> Context:
    """A context that computes with one thread and has room for all the tests' batches; `settings` change that."""
    defaults: dict[str, Any] = {
        "n_ctx": 256, "n_batch": 256, "n_ubatch": 256, "n_seq_max": 4, "n_threads": 1, "n_threads_batch": 1,
        "kv_unified": True,
    }  # fmt: skip
    return Context(model, **(defaults | settings))


def run_python(
    code: str, *arguments: object, fails: bool = False, timeout: float = 120, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own; `fails` lets it end with anything but 0."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1", "PYTHONPATH": path, **env}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    if not fails:
        assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done
