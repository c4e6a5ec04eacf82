"""llama.cpp's examples/embedding in raw Python: the same C calls in the same order, and nothing of rawllama above them.

    python examples/raw_embedding.py model.gguf "one text" "another text"

With `--pooling none` there is a row for each token, otherwise for each text.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
from rawllama import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rawllama._libllama import struct_llama_batch, struct_llama_context_p, struct_llama_vocab_p

POOLINGS = {
    "model": lib.LLAMA_POOLING_TYPE_UNSPECIFIED,  # what the file says
    "none": lib.LLAMA_POOLING_TYPE_NONE,
    "mean": lib.LLAMA_POOLING_TYPE_MEAN,
    "cls": lib.LLAMA_POOLING_TYPE_CLS,
    "last": lib.LLAMA_POOLING_TYPE_LAST,
}


def tokenize(vocab: struct_llama_vocab_p, text: str) -> list[int]:
    """Tokens of one text, with the special ones that the model wants around it."""
    data = text.encode()
    n_tokens = -lib.llama_tokenize(vocab, data, len(data), ffi.NULL, 0, True, True)  # no room: minus what it needs
    tokens = ffi.new("llama_token[]", n_tokens)
    lib.llama_tokenize(vocab, data, len(data), tokens, n_tokens, True, True)
    return list(tokens)


def batch_add_seq(batch: struct_llama_batch, tokens: list[int], seq_id: int) -> None:
    """Append one text to the batch."""
    for pos, token in enumerate(tokens):
        i = batch.n_tokens
        batch.token[i] = token
        batch.pos[i] = pos  # its place in its own text
        batch.n_seq_id[i] = 1  # it belongs to one text ...
        batch.seq_id[i][0] = seq_id  # ... which is this
        batch.logits[i] = True  # "logits" here means: this token counts for the output
        batch.n_tokens += 1


def batch_decode(ctx: struct_llama_context_p, batch: struct_llama_batch, n_embd: int) -> list[list[float]]:
    """Run the model over the batch: a row for each text, or for each token without pooling."""
    # Forget the texts before. BERT-like encoders remember nothing, so there is no memory to clear.
    memory = lib.llama_get_memory(ctx)
    if memory:
        lib.llama_memory_clear(memory, True)
    if lib.llama_decode(ctx, batch) != 0:
        sys.exit("llama_decode failed")
    # The C arrays end at the next llama_decode, so the numbers are copied.
    if lib.llama_pooling_type(ctx) == lib.LLAMA_POOLING_TYPE_NONE:
        rows = [lib.llama_get_embeddings_ith(ctx, i) for i in range(batch.n_tokens)]
    else:
        rows = [lib.llama_get_embeddings_seq(ctx, s) for s in range(batch.seq_id[batch.n_tokens - 1][0] + 1)]
    return [[embd[i] for i in range(n_embd)] for embd in rows]


def embed(path: str, texts: list[str], pooling: str) -> NDArray[np.float32]:
    """The rows of all texts, each of length 1."""
    model = lib.llama_model_load_from_file(os.fsencode(path), lib.llama_model_default_params())
    if not model:
        sys.exit(f"{path}: unable to load the model")  # libllama has logged why
    n_batch = min(2048, lib.llama_model_n_ctx_train(model))  # tokens at once, so in one text too
    n_seq_max = lib.llama_max_parallel_sequences()  # texts at once

    params = lib.llama_context_default_params()
    params.embeddings = True
    params.pooling_type = POOLINGS[pooling]
    params.n_ctx = params.n_batch = params.n_ubatch = n_batch  # pooling sees one ubatch: no text may be split
    params.n_seq_max = n_seq_max
    params.kv_unified = True  # all texts share n_ctx, instead of a part of it each
    ctx = lib.llama_init_from_model(model, params)
    if not ctx:
        sys.exit(f"{path}: unable to create the context")
    if lib.llama_pooling_type(ctx) == lib.LLAMA_POOLING_TYPE_RANK:
        sys.exit(f"{path}: a reranker gives scores, not embeddings")

    vocab = lib.llama_model_get_vocab(model)
    n_embd = lib.llama_model_n_embd_out(model)
    batch = lib.llama_batch_init(n_batch, 0, 1)  # room for n_batch tokens (not vectors) of one text each
    rows: list[list[float]] = []
    n_seq = 0
    for text in texts:
        tokens = tokenize(vocab, text)
        if not 0 < len(tokens) <= n_batch:
            sys.exit(f"{text[:40]!r} has {len(tokens)} tokens: between 1 and {n_batch} are possible")
        if batch.n_tokens + len(tokens) > n_batch or n_seq == n_seq_max:
            rows += batch_decode(ctx, batch, n_embd)
            batch.n_tokens = n_seq = 0
        batch_add_seq(batch, tokens, n_seq)
        n_seq += 1
    rows += batch_decode(ctx, batch, n_embd)

    lib.llama_batch_free(batch)
    lib.llama_free(ctx)  # before its model
    lib.llama_model_free(model)
    matrix: NDArray[np.float32] = np.array(rows, np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the embeddings of texts.")
    parser.add_argument("--pooling", choices=POOLINGS, default="model")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("texts", nargs="+")
    arguments = parser.parse_args()
    for row in embed(arguments.model, arguments.texts, arguments.pooling):
        print(np.array2string(row, threshold=8, precision=6, floatmode="fixed"))
