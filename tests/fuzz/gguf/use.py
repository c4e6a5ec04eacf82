"""Use a model file as a program would: `python use.py FILE...`. What matters is that the process survives."""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rawllama import LlamaError
from rawllama.batch import Batch
from rawllama.context import Context
from rawllama.model import Model

BYTES = 16 << 30  # of address space: a damaged size must not take the machine's memory
USED_KB = 2 << 20  # more for a file of some kilobytes is a fault too
TEXTS = ("Hello world, the cat sat on 12345 mats.\n\n", "<s>[SEP]  caf\u00e9 \u8a9e")
THREADS = 4  # ggml's own end the process where they meet what they do not expect


def use(path: str) -> None:
    """Load it, with and without weights; tokenize; compute with embeddings and with logits."""
    with suppress(LlamaError), Model(path, vocab_only=True) as model:
        use_vocab(model)
    with suppress(LlamaError), Model(path) as model:
        use_vocab(model)
        for embeddings in (True, False):
            with suppress(LlamaError):
                compute(model, embeddings=embeddings)


def use_vocab(model: Model) -> None:
    vocab = model.vocab
    repr(model), repr(vocab), model.cls_labels[:4], model.chat_template()
    for special in (False, True):
        for text in TEXTS:
            with suppress(LlamaError):
                vocab.detokenize(vocab.tokenize(text, parse_special=special), unparse_special=special)
    for token in range(0, len(vocab), 1 + len(vocab) // 64):
        with suppress(LlamaError):
            vocab.piece(token), vocab.attr(token), vocab.is_eog(token)


def compute(model: Model, *, embeddings: bool) -> None:
    sizes: dict[str, Any] = {"n_ctx": 64, "n_batch": 64, "n_ubatch": 64}
    threads: dict[str, Any] = {"n_threads": THREADS, "n_threads_batch": THREADS}
    batch = Batch(4)
    batch.add_sequence([min(7 * i + 1, len(model.vocab) - 1) for i in range(4)], logits="all")
    with Context(model, embeddings=embeddings, **sizes, **threads) as context:
        if model.has_encoder:
            with suppress(LlamaError):
                context.encode(batch)
        if model.has_decoder:
            with suppress(LlamaError):
                context.decode(batch)
        read_results(context)


def read_results(context: Context) -> None:
    for results in (context.get_embeddings_seq, context.get_embeddings_ith, context.get_logits_ith):
        with suppress(LlamaError):
            results()


def peak_kb() -> int:
    """Of this process alone: the peak in getrusage is also that of the process that was forked."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for argument in sys.argv[1:]:
        use(argument)
        if peak_kb() > USED_KB:
            sys.exit("too much memory was used")
        print("survived", flush=True)
