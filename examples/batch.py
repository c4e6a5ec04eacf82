"""What a batch looks like: tokens with their positions and sequences, and which of them sees which.

    python examples/batch.py

Several texts are computed at once, one behind the other and without padding. That they do not read each other is the
work of a mask: a matrix that is added to attention's scores, 0 where a token may look and minus infinity where not.
libllama makes it of the batch's arrays, and it is shown here as libllama made it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rawllama import Batch, Context, Model, Vocab, hub
from rawllama.bench import decoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS = ["The cat sits outside", "A llama", "It rains"]


def show(vocab: Vocab, batch: Batch, mask: NDArray[np.bool_]) -> None:
    """The arrays that C reads, and beside each token (a row) which others (the columns) it sees."""
    print("index  token  piece       pos  seq_id   sees")
    for i in range(batch.n_tokens):
        piece, token, pos = vocab.text(int(batch.token[i])), batch.token[i], batch.pos[i]
        sequences = ",".join(map(str, batch.seq_id[i, : batch.n_seq_id[i]]))
        print(f"{i:5}{token:7}  {piece:11}{pos:4}{sequences:>8}   " + " ".join(np.where(mask[i], "#", ".")))


def encoder() -> None:
    """A token sees all of its own text, and nothing else."""
    with (
        Model(hub.resolve("minilm")) as model,
        Context(model, embeddings=True, n_seq_max=4, kv_unified=True, flash_attn_type="disabled") as context,
    ):
        tokens, offsets = model.vocab.tokenize_many(TEXTS)
        batch = Batch(tokens.size)
        batch.add_sequences(tokens, offsets)  # text i is sequence i, and its positions begin at 0
        with context.tap("self_kq_mask") as tap:
            context.process(batch)
        together, mask = context.get_embeddings_seq(), tap["self_kq_mask"] == 0
        show(model.vocab, batch, mask)
        sequence = batch.seq_id[: tokens.size, 0]
        assert np.array_equal(mask, sequence[:, None] == sequence)

        # So a text has the same vector whatever stands beside it. What is left is rounding, mostly that of GELU, which
        # ggml looks up in a table of 16-bit floats: a last bit that falls the other way becomes a thousandth there.
        print("\nlargest difference to the vector of the text alone")
        for i, text in enumerate(TEXTS):
            batch.clear()
            batch.add_sequence(tokens[offsets[i] : offsets[i + 1]])
            context.process(batch)
            difference = np.abs(context.get_embeddings_seq(0) - together[i]).max()
            print(f"  {difference:.0e}  {text}")
            assert difference < 1e-2
        # As one sequence they do read each other.
        batch.clear()
        batch.add_sequence(tokens)
        context.process(batch)
        print(f"  {np.abs(context.get_embeddings_seq(0) - together[0]).max():.0e}  the first, if all are one sequence")


def decoder_only() -> None:
    """A token sees what came before it. A beginning that two texts share is computed once, and belongs to both."""
    with Model(decoder.path()) as model, Context(model, n_ctx=256, n_seq_max=2, kv_unified=True) as context:
        beginning, *ends = (model.vocab.tokenize(text) for text in ("Llamas eat", " grass and hay", " at noon"))
        batch = Batch(64, n_seq_max=2)
        batch.add_sequence(beginning, seq_id=(0, 1))
        for i, end in enumerate(ends):
            batch.add_sequence(end, seq_id=i, pos=beginning.size)
        with context.tap("attn_inp_kq_mask") as tap:
            context.process(batch)
        # Columns are cells of the KV cache: the batch fills the first ones, and later batches see them there.
        mask = tap["attn_inp_kq_mask"][: batch.n_tokens, : batch.n_tokens] == 0
        show(model.vocab, batch, mask)
        sequences = [set(row[:n]) for row, n in zip(batch.seq_id, batch.n_seq_id[: batch.n_tokens], strict=False)]
        for i, j in np.ndindex(mask.shape):
            assert mask[i, j] == (bool(sequences[i] & sequences[j]) and batch.pos[i] >= batch.pos[j])


def main() -> None:
    print("An encoder (MiniLM), three texts\n")
    encoder()
    print("\nA decoder (SmolLM2), two texts with the same beginning\n")
    decoder_only()


if __name__ == "__main__":
    main()
