"""What pooling does: one row a token becomes one row a text, by libllama and by numpy, on the same batch.

    python examples/pooling.py

mean    the average of all tokens' rows
cls     the row of the first token, [CLS] in BERT
last    the row of the last token: in a decoder it alone has seen all others
none    no pooling: every token keeps its row, for late interaction (ColBERT) and for looking inside
rank    the row of one token goes through a classification head, and scores come out. Only rerankers have such a head:
        `Embedder(..., pooling="rank").rerank(query, documents)`

A model knows one of them: that which it was trained with. The others compute, and give worse vectors without a word.
"""

from __future__ import annotations

import numpy as np
from rawllama import Batch, Context, Model, hub, similarity
from rawllama.layers import pool

TEXTS = ("The cat sits outside", "A feline rests outdoors", "A man plays the guitar")


def main() -> None:
    with Model(hub.resolve("minilm")) as model:
        # Rows of all tokens of all texts, one text behind the other; text i has rows offsets[i] to offsets[i + 1].
        tokens, offsets = model.vocab.tokenize_many(TEXTS)
        batch = Batch(tokens.size)
        batch.add_sequences(tokens, offsets)

        # Pooling is a part of the graph that a context builds, so each kind has a context of its own. Three sequences
        # would do, but libllama makes none where n_seq_max does not divide n_ubatch (512) and the pooling is mean.
        def context(pooling: str) -> Context:
            return Context(model, embeddings=True, n_seq_max=4, kv_unified=True, pooling_type=pooling)

        with context("none") as unpooled:
            unpooled.process(batch)
            rows = unpooled.get_embeddings_ith()
        print(f"none  {rows.shape}: {', '.join(map(str, np.diff(offsets)))} tokens in {len(TEXTS)} texts\n")

        print("                first numbers of the first text       difference     cosine of texts")
        print("                                                      to numpy       0, 1    0, 2    1, 2")
        for pooling in ("mean", "cls", "last"):
            with context(pooling) as pooled:
                pooled.process(batch)
                vectors = pooled.get_embeddings_seq()
            ours = pool(rows, offsets, pooling)  # a few lines of numpy: python/rawllama/layers/pool.py
            difference = np.abs(ours - vectors).max()
            assert difference < 1e-5, pooling
            alike = similarity.similarity(vectors)
            numbers = " ".join(f"{number:8.4f}" for number in vectors[0, :4])
            print(f"{pooling:5} {vectors.shape}  {numbers}   {difference:.0e}", end="      ")
            print("".join(f"{alike[i, j]:8.3f}" for i, j in ((0, 1), (0, 2), (1, 2))))
        print(f"\nThis model was trained with: {model.metadata['bert.pooling_type']} (1 is mean, 2 cls, 3 last)")


if __name__ == "__main__":
    main()
