"""Text from a decoder model: `python examples/generate.py model.gguf "Once upon a time" [tokens]`."""

from __future__ import annotations

import codecs
import sys
import time

from rawllama import Batch, Context, Model, Sampler


def main(path: str, prompt: str, n_predict: int = 64) -> None:
    with Model(path) as model, Context(model, n_ctx=2048, n_batch=2048) as context, Sampler() as sampler:
        vocab = model.vocab
        tokens = vocab.tokenize(prompt, parse_special=True)
        batch = Batch(2048)
        sampler.penalties(64, 1.1).top_k(40).top_p(0.95).temp(0.8).dist(seed=1)
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")  # a piece may end within a character
        print(prompt, end="", flush=True)
        batch.add_sequence(tokens, logits="last")
        start = time.perf_counter()
        for position in range(tokens.size, tokens.size + n_predict):
            context.decode(batch)
            token = sampler.sample(context)
            if vocab.is_eog(token):
                break
            print(utf8.decode(vocab.piece(token)), end="", flush=True)
            batch.clear()
            batch.add_sequence([token], pos=position)
        seconds = time.perf_counter() - start
        print()
        print(f"{context.perf.n_eval} tokens after the prompt, {seconds:.2f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
