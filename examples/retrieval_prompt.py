"""Retrieval-augmented generation: passages that a search finds go into the prompt of a small decoder.

    python examples/retrieval_prompt.py ["a question" ...]

SmolLM2 has 135 million weights in 98 MB. Without help it invents. With a passage before the question it often says what
the passage says, and still mixes in what it does not. Under a grammar that allows only the sentences of the passage it
can invent nothing: it chooses one. That choice may be wrong too, but the reader sees where it stands.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from rawllama import Batch, Context, Embedder, Model, Sampler, ffi, lib
from rawllama.bench import decoder

SET = Path(__file__).with_name("retrieval_set.toml")
QUESTIONS = ("How many bits a weight does Q4_K take?", "Who proposed reciprocal rank fusion, and when?")
N_SOURCES = 1  # more fit, and this model mixes them up; larger ones gain from 3 to 10
N_ANSWER = 64  # tokens


def chat(model: Model, question: str, sources: Sequence[str]) -> str:
    """The prompt, with the marks around each turn that the model was trained with."""
    context = "\n\n".join(sources)
    asked = (
        f"Context:\n{context}\n\nAnswer the question with the context. Question: {question}" if sources else question
    )
    turns = [("system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"), ("user", asked)]
    strings = [[ffi.new("char[]", part.encode()) for part in turn] for turn in turns]  # the structs only point to them
    messages = ffi.new("struct llama_chat_message[]", strings)
    template = (model.chat_template() or "chatml").encode()
    size = lib.llama_chat_apply_template(template, messages, len(turns), True, ffi.NULL, 0)
    buffer = ffi.new("char[]", size + 1)
    lib.llama_chat_apply_template(template, messages, len(turns), True, buffer, size + 1)
    return ffi.string(buffer).decode()


def answer(context: Context, sampler: Sampler, question: str, sources: Sequence[str]) -> str:
    """What the model says; as many of the sources as leave room for that go into the prompt."""
    assert context.memory is not None
    vocab, room = context.model.vocab, context.n_ctx_seq - N_ANSWER
    tokens = vocab.tokenize(chat(context.model, question, sources), parse_special=True)
    while tokens.size > room and sources:
        sources = sources[:-1]
        tokens = vocab.tokenize(chat(context.model, question, sources), parse_special=True)
    context.memory.clear()
    batch = Batch(context.n_batch)
    batch.add_sequence(tokens, logits="last")
    said = list[int]()
    while len(said) < N_ANSWER:
        context.decode(batch)
        token = sampler.sample(context)
        if vocab.is_eog(token):
            break
        said.append(token)
        batch.clear()
        batch.add_sequence([token], pos=tokens.size + len(said) - 1)
    return " ".join(vocab.detokenize(said).split())


def main(questions: Sequence[str]) -> None:
    passages = [" ".join(text.split()) for text in tomllib.loads(SET.read_text(encoding="utf-8"))["passages"].values()]
    with Embedder("minilm", progress=False) as embedder:
        scores = embedder.encode_query(questions) @ embedder.encode_document(passages).T
    with Model(decoder.path()) as model, Context(model, n_ctx=512, n_batch=512) as context:
        for question, row in zip(questions, scores, strict=True):
            found = [passages[i] for i in (-row).argsort()[:N_SOURCES]]
            sentences = [sentence for text in found for sentence in re.split(r"(?<=\.) ", text)]
            print(f"\n{question}\n  source          {' '.join(found)}")
            with Sampler() as free, Sampler() as quoting:
                free.greedy()  # always the likeliest token: the same answer each time
                quoting.grammar(model.vocab, "root ::= " + " | ".join(map(json.dumps, sentences)), "root").greedy()
                print(f"  without source  {answer(context, free, question, [])}")
                print(f"  with source     {answer(context, free, question, found)}")
                print(f"  only quoting    {answer(context, quoting, question, found)}")


if __name__ == "__main__":
    main(sys.argv[1:] or QUESTIONS)
