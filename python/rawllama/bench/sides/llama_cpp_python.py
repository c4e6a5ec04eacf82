# mypy: ignore-errors
"""llama-cpp-python's `Llama.embed`. Needs llama-cpp-python, built as setup.sh does.

"default" leaves all to it: no flash attention, half the cores for n_threads and all for n_threads_batch. "tuned" has
flash attention, batches of 512 tokens, and both numbers of threads set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from worker import Rows, Side, serve


class LlamaCppPython(Side):
    needs = ("llama_cpp",)
    shown = ("llama-cpp-python",)

    def __init__(self, settings: dict[str, Any]) -> None:
        from llama_cpp import Llama

        super().__init__(settings)
        threads = self.threads
        tuned: dict[str, Any] = {
            "flash_attn": True, "n_batch": 512, "n_ubatch": 512, "n_threads": threads, "n_threads_batch": threads,
        }  # fmt: skip
        chosen = tuned if settings["variant"] == "tuned" else {}
        self.llama = Llama(settings["model"], embedding=True, verbose=False, **chosen)
        params = self.llama.context_params
        self.words = (
            f"flash attention {'on' if params.flash_attn_type == 1 else 'off'}, "
            f"threads {params.n_threads} and {params.n_threads_batch}, n_batch {self.llama.n_batch}"
        )

    def about(self) -> str:
        return f"{super().about()}, {self.words}"

    def encode(self, texts: Sequence[str]) -> Rows:
        return np.array(self.llama.embed(list(texts)), np.float32)


if __name__ == "__main__":
    serve(LlamaCppPython)
