"""What a corpus costs to embed: rates that are measured here, arithmetic, and a page of it.

    rates = measure("minilm")
    print(page(rates, Assumptions(gpu_tokens_per_second=1e6)))

`rawllama corpus-plan` is the command of it.
"""

from __future__ import annotations

from .arithmetic import Assumptions, Limits
from .measure import measure
from .page import page
from .rates import Length, Rates

__all__ = ["Assumptions", "Length", "Limits", "Rates", "measure", "page"]
