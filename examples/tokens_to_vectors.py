"""From a text to its vector, step by step: all of it in numpy, and each step compared with libllama's own numbers.

    python examples/tokens_to_vectors.py ["a text"]

The model is a BERT (Devlin 2019): an embedding layer, six equal layers, a mean. Weights are read from the GGUF file;
`Context.tap` copies what libllama computes on its way. Formulas with their sources are in `rawllama.layers`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from rawllama import Batch, Context, Embedder, Model, hub
from rawllama.layers import EmbeddingTable, layer_norm, learned_positions, learned_segments, pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float32]

EPS = 1e-12  # the file's bert.attention.layer_norm_epsilon


def weights(model: Model, name: str) -> Rows:
    """A matrix of the file, (outputs, inputs), or a vector, (1, n)."""
    table = EmbeddingTable(model, name)
    return table.rows(np.arange(len(table)))


def dense(model: Model, name: str, x: Rows) -> Rows:
    """A row for each token in, a row for each token out."""
    return x @ weights(model, f"{name}.weight").T + weights(model, f"{name}.bias")


def norm(model: Model, name: str, x: Rows) -> Rows:
    return layer_norm(x, weights(model, f"{name}.weight"), weights(model, f"{name}.bias"), EPS)


def attention(model: Model, block: str, x: Rows) -> Rows:
    """Tokens learn from each other: the only place where they meet (Vaswani 2017, section 3.2)."""
    # Each of 12 heads has 32 of the 384 columns: (heads, tokens, columns).
    shape = len(x), model.n_head, -1
    q, k, v = (dense(model, f"{block}.attn_{name}", x).reshape(shape).swapaxes(0, 1) for name in "qkv")
    scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])  # how well what a token looks for fits what others have
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)  # softmax: each row adds up to 1
    return dense(model, f"{block}.attn_output", (shares @ v).swapaxes(0, 1).reshape(len(x), -1))


def feed_forward(model: Model, block: str, x: Rows) -> Rows:
    """Each token by itself: to four times the width, GELU (Hendrycks 2016), and back."""
    wide = dense(model, f"{block}.ffn_up", x)
    wide *= 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    return dense(model, f"{block}.ffn_down", wide)


def layer(model: Model, number: int, x: Rows) -> Rows:
    """Both are added to what came in, so that a layer changes a token's row rather than replaces it."""
    block = f"blk.{number}"
    x = norm(model, f"{block}.attn_output_norm", x + attention(model, block, x))
    return norm(model, f"{block}.layer_output_norm", x + feed_forward(model, block, x))


def compare(step: str, ours: Rows, theirs: Rows, bound: float) -> None:
    difference = np.abs(ours - theirs).max()
    first = " ".join(f"{number:8.4f}" for number in np.atleast_2d(ours)[0, :4])
    print(f"{step:30} {ours.shape!s:9} {first} ...  {difference:.0e}")
    assert ours.shape == theirs.shape and difference <= bound, f"{step}: {difference} is beyond {bound}"


def main(text: str) -> None:
    with Model(hub.resolve("minilm")) as model, Context(model, embeddings=True, flash_attn_type="disabled") as context:
        # Text becomes integers, each a piece of it. [CLS] and [SEP] are put around it; llama.cpp marks a piece that
        # begins a word with U+2581, where BERT's own files mark one inside a word with ##.
        tokens = model.vocab.tokenize(text)
        print(text, *(f"{token:6} {model.vocab.text(token)}" for token in tokens), sep="\n")

        # libllama computes all of it once.
        batch = Batch(tokens.size)
        batch.add_sequence(tokens)
        with context.tap("embd", "inp_embd", "inp_norm-0", "layer_output-*") as tap:
            context.process(batch)

        print(f"\n{'step':30} {'shape':9} {'first numbers':40} difference")
        # Integers become rows: they are looked up, the same row wherever the token stands.
        x = EmbeddingTable(model, "token_embd.weight").rows(tokens)
        compare("rows of the tokens", x, tap["embd"], 0)
        # Rows learn where they stand, and in which of two texts; there is one here.
        x = x + learned_positions(model, np.arange(tokens.size)) + learned_segments(model, np.zeros(tokens.size, int))
        compare("+ positions + segments", x, tap["inp_embd"], 1e-6)
        x = norm(model, "token_embd_norm", x)
        compare("embedding norm", x, tap["inp_norm-0"], 1e-5)
        # Rows learn what stands around them. ggml looks GELU up in a table of 16-bit floats: here the numbers part.
        for number in range(model.n_layer):
            x = layer(model, number, x)
            compare(f"layer {number}", x, tap[f"layer_output-{number}"], 1e-2)
        # One row for the text, and of length 1, so that a dot product is a cosine.
        vector = pool(x, [0, tokens.size], "mean")
        compare("their mean", vector, context.get_embeddings_seq(), 1e-3)
        vector /= np.linalg.norm(vector)
    with Embedder("minilm") as embedder:  # all of this in one call; its own kernels have no such table
        compare("of length 1", vector, embedder.encode([text]), 1e-4)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "The llama sits outside")
