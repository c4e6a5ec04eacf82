"""What a token looks at: the attention weights of one head, as libllama computes them.

    python examples/attention.py ["a sentence" [layer head]]

A row is a token that reads, a column one that is read, and each row adds up to 1 (Vaswani 2017, section 3.2.1). Flash
attention never writes this matrix to memory, so it must be off. Many heads look mostly at [CLS] or [SEP]: they found
nothing to read. And weights show what is read, not why a model says what it says (Jain and Wallace 2019).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rawllama import Batch, Context, Model, hub

if TYPE_CHECKING:
    from numpy.typing import NDArray

SENTENCE = "The llama sat on the mat because it was tired"
HEADS = {
    (0, 2): "each token reads the one before it",
    (1, 8): "words read the next word",
    (1, 7): "articles and prepositions read their noun, and several words the adjective",
}
SHADES = " .:-=+*#%@"


def heat_map(pieces: Sequence[str], weights: NDArray[np.float32]) -> str:
    """A row a token; the darker, the more it reads there. Behind it the token that it reads most."""
    width = max(map(len, pieces))
    # Column titles stand upright, one letter a line.
    lines = ["  ".join(letters) for letters in zip(*(piece.rjust(width) for piece in pieces), strict=True)]
    lines = [" " * (width + 2) + line for line in lines]
    for piece, row in zip(pieces, weights, strict=True):
        cells = "".join(2 * SHADES[min(int(weight * len(SHADES)), len(SHADES) - 1)] + " " for weight in row)
        lines.append(f"{piece:>{width}}  {cells} {row.max():.2f} {pieces[row.argmax()]}")
    return "\n".join(lines)


def main(sentence: str, heads: Sequence[tuple[int, int]]) -> None:
    with (
        Model(hub.resolve("minilm")) as model,
        Context(model, embeddings=True, flash_attn_type="disabled") as context,
    ):
        tokens = model.vocab.tokenize(sentence)
        pieces = [model.vocab.text(token).lstrip("\u2581") for token in tokens.tolist()]
        batch = Batch(tokens.size)
        batch.add_sequence(tokens)
        with context.tap("kq_soft_max-*") as tap:  # softmax of queries times keys
            context.process(batch)
        for layer, head in heads:
            weights = tap[f"kq_soft_max-{layer}"][head]  # of (heads, tokens that read, tokens that are read)
            assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
            note = HEADS.get((layer, head), "") if sentence == SENTENCE else ""
            print(f"\nlayer {layer}, head {head}: {note}")
            print(heat_map(pieces, weights))


if __name__ == "__main__":
    sentence, *numbers = sys.argv[1:] or [SENTENCE]
    main(sentence, [(int(numbers[0]), int(numbers[1]))] if numbers else list(HEADS))
