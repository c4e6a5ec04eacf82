"""llama.cpp's own program `llama-embedding`, default settings. Needs it beside the peers' python.

It loads the model, computes and ends, so its time is what it prints as `prompt eval time`: the computation of the
batches alone, without load, tokenizer and output. Texts are one a line.

libllama leaves out of that time each batch that is larger than all before it (the output buffer grows, and the wait
for that resets the clock). So a full batch of other texts comes first: it is left out itself, all later ones are
counted, and the batches of the texts stay what they are without it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from worker import Missing, Side, serve

# Four texts of 512 tokens fill the program's batch of 2048.
FIRST_BATCH = [" ".join(["a"] * 510)] * 4
PROGRAM = Path(sys.executable).with_name("llama-embedding")
# It ends without waiting for the thread that prints, so the times may be missing: it is asked again.
ATTEMPTS = 20


class LlamaEmbedding(Side):
    def __init__(self, model: str, threads: int, variant: str) -> None:
        super().__init__(model, threads, variant)
        if not PROGRAM.exists():
            raise Missing(f"no program llama-embedding beside {Path(sys.executable).name}")
        # Verbosity 4 is where the times are printed.
        self.command = [str(PROGRAM), "-m", model, "-t", str(threads), "--no-escape", "-lv", "4",
                        "--embd-output-format", "array"]  # fmt: skip
        self.largest = 0

    def about(self) -> str:
        return "llama.cpp of the pinned source, default settings (batches of 2048 tokens, flash attention auto)"

    def run(self, texts: Sequence[str]) -> str:
        """What it logs; its memory is added to the books."""
        with tempfile.TemporaryDirectory() as name:
            prompts, log = Path(name, "prompts"), Path(name, "log")
            prompts.write_text("\n".join(texts), encoding="utf-8")  # a closing newline would be one more text
            with log.open("w") as stderr:
                child = subprocess.Popen([*self.command, "-f", str(prompts)], stdout=subprocess.DEVNULL, stderr=stderr)
                _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise RuntimeError(log.read_text(encoding="utf-8")[-2000:])
            self.largest = max(self.largest, usage.ru_maxrss * 1024)
            return log.read_text(encoding="utf-8")

    def encode(self, texts: Sequence[str]) -> None:
        self.run(texts)

    def seconds(self, texts: Sequence[str]) -> float:
        for _ in range(ATTEMPTS):
            if found := re.search(r"prompt eval time = *([\d.]+) ms", self.run([*FIRST_BATCH, *texts])):
                return float(found[1]) / 1e3
        raise RuntimeError(f"no times in {ATTEMPTS} runs")

    def peak(self) -> int:
        return self.largest


if __name__ == "__main__":
    serve(LlamaEmbedding)
