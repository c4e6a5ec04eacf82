# mypy: ignore-errors
"""llama.cpp's own program `llama-embedding`, default settings. Needs the setting `program`, its path.

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
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker import Side, serve

# Four texts of 512 tokens fill the program's batch of 2048.
FIRST_BATCH = [" ".join(["a"] * 510)] * 4
# It ends without waiting for the thread that prints, so the times may be missing: it is asked again.
ATTEMPTS = 20


class LlamaEmbedding(Side):
    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        # Verbosity 4 is where the times are printed.
        self.command = [settings["program"], "-m", settings["model"], "-t", str(self.threads), "--no-escape",
                        "-lv", "4", "--embd-output-format", "array"]  # fmt: skip
        self.largest = 0

    def about(self) -> str:
        return f"the same libllama, defaults (batches of 2048 tokens, flash attention auto), threads {self.threads}"

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
        return self.both_seconds(texts)[0]

    def both_seconds(self, texts: Sequence[str]) -> tuple[float, float]:
        """The computing time that it prints, and the time of the process from start to end."""
        for _ in range(ATTEMPTS):
            start = time.perf_counter()
            log = self.run([*FIRST_BATCH, *texts])
            wall = time.perf_counter() - start
            if found := re.search(r"prompt eval time = *([\d.]+) ms", log):
                return float(found[1]) / 1e3, wall
        raise RuntimeError(f"no times in {ATTEMPTS} runs")

    def agreement(self, texts: Sequence[str], rounds: int) -> dict[str, list[float]]:
        """Seconds of the texts as the program prints them, and as seen from outside.

        Both less those of as many texts of one word: load, tokenizing and the output of the rows (a call of printf a
        number, which takes 8 % of the whole) are then in neither.
        """
        printed, outside = [], []
        for _ in range(rounds):
            long, short = self.both_seconds(texts), self.both_seconds(["a"] * len(texts))
            printed.append(long[0] - short[0])
            outside.append(long[1] - short[1])
        return {"printed": printed, "outside": outside}

    def peak(self) -> int:
        return self.largest


if __name__ == "__main__":
    serve(LlamaEmbedding)
