"""The models that the tests write: libllama loads them, tokenizes, and tells tokens apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import ffi, lib, pointer, view

from .tiny import LAYERS, MODELS, POSITIONS, WIDTH, write, write_lora
from .vocabularies import TEXT

if TYPE_CHECKING:
    from rawllama._libllama import struct_llama_context_p, struct_llama_model_p

NONE, MEAN, CLS, LAST, RANK = (
    lib.LLAMA_POOLING_TYPE_NONE, lib.LLAMA_POOLING_TYPE_MEAN, lib.LLAMA_POOLING_TYPE_CLS, lib.LLAMA_POOLING_TYPE_LAST,
    lib.LLAMA_POOLING_TYPE_RANK,
)  # fmt: skip


class Facts(NamedTuple):
    """What libllama says of a model."""

    n_vocab: int
    pooling: int = NONE
    memory: bool = True
    encoder: bool = False
    decoder: bool = True
    n_cls_out: int = 1
    rope: int = lib.LLAMA_ROPE_TYPE_NEOX


NO_ROPE = lib.LLAMA_ROPE_TYPE_NONE
FACTS = {
    "bert": Facts(104, MEAN, memory=False),
    "bert-reranker": Facts(104, RANK, memory=False),
    "bert-classifier": Facts(104, RANK, memory=False, n_cls_out=3),
    "nomic-bert": Facts(104, MEAN, memory=False),
    "jina-bert-v2": Facts(104, MEAN, memory=False, rope=NO_ROPE),
    "modern-bert": Facts(328, CLS, memory=False),
    "gemma-embedding": Facts(367, MEAN, memory=False),
    "t5encoder": Facts(90, encoder=True, decoder=False, rope=NO_ROPE),
    "t5": Facts(90, encoder=True, rope=NO_ROPE),
    "llama": Facts(367, rope=lib.LLAMA_ROPE_TYPE_NORM),
    "qwen3": Facts(326),
    "qwen3-embedding": Facts(326, LAST),
    "qwen3-reranker": Facts(326, RANK, n_cls_out=2),
    "qwen2vl": Facts(324, rope=lib.LLAMA_ROPE_TYPE_MROPE),
    "gpt2": Facts(324, rope=NO_ROPE),
    "mamba": Facts(324, rope=NO_ROPE),
    "lfm2": Facts(326),
}
GENERATORS = [name for name, facts in FACTS.items() if facts.memory and facts.decoder and facts.pooling == NONE]
RERANKERS = [name for name, facts in FACTS.items() if facts.pooling == RANK]

every_model = pytest.mark.parametrize("name", MODELS)


@contextmanager
def loaded(path: Path) -> Iterator[struct_llama_model_p]:
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    assert model, "libllama refuses the file"
    yield model
    lib.llama_model_free(model)


@contextmanager
def created(model: struct_llama_model_p, **settings: Any) -> Iterator[struct_llama_context_p]:
    """A context for two sequences of the model's length, with embeddings; `settings` are other parameters."""
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 2 * POSITIONS
    params.n_seq_max = 2
    params.kv_unified = True  # without it, libllama aborts when it makes a context of T5 for two sequences
    params.n_threads = params.n_threads_batch = 1
    params.embeddings = True
    for key, value in settings.items():
        setattr(params, key, value)
    context = lib.llama_init_from_model(model, params)
    assert context
    yield context
    lib.llama_free(context)


def tokenize(model: struct_llama_model_p, text: str) -> list[int]:
    tokens = np.empty(64, np.int32)
    data = text.encode()
    vocab = lib.llama_model_get_vocab(model)
    n_tokens = lib.llama_tokenize(vocab, data, len(data), pointer(tokens, "llama_token *"), len(tokens), True, False)
    assert n_tokens > 0
    return [int(token) for token in tokens[:n_tokens]]


Run = Callable[[Any, Any], int]


def run(call: Run, context: struct_llama_context_p, *sequences: list[int]) -> int:
    """Give all tokens of the sequences to llama_encode or llama_decode, as outputs; returns how many they are."""
    n_tokens = sum(map(len, sequences))
    batch = lib.llama_batch_init(n_tokens, 0, 1)
    for sequence, tokens in enumerate(sequences):
        for position, token in enumerate(tokens):
            i = batch.n_tokens
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, True
            batch.seq_id[i][0] = sequence
            batch.n_tokens += 1
    assert call(context, batch) == 0
    lib.llama_batch_free(batch)
    return n_tokens


def forward(model: struct_llama_model_p, context: struct_llama_context_p, *sequences: list[int]) -> NDArray[np.float32]:
    """Embeddings of all tokens, a row each, by the part of the model that reads a text."""
    call: Run = lib.llama_encode if lib.llama_model_has_encoder(model) else lib.llama_decode
    n_tokens = run(call, context, *sequences)
    return rows(context, lib.llama_get_embeddings_ith, n_tokens, lib.llama_model_n_embd_out(model))


def rows(
    context: struct_llama_context_p, get: Callable[[Any, int], Any], count: int, width: int
) -> NDArray[np.float32]:
    """The first `count` outputs that `get` gives, of `width` numbers each."""
    found = [get(context, i) for i in range(count)]
    assert all(found), "there is no such output"
    return np.stack([view(row, width) for row in found])


def distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max())


def string(read: Callable[[Any, int], int]) -> str:
    """What a function of C writes into a buffer."""
    buffer = ffi.new("char[]", 200)
    assert read(buffer, len(buffer)) >= 0
    text: bytes = ffi.string(buffer)
    return text.decode()


def test_each_has_its_facts() -> None:
    assert FACTS.keys() == MODELS.keys()


@every_model
def test_file(name: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """It is small, and the seed decides its bytes."""
    content = tiny(name).read_bytes()
    assert len(content) < 300_000
    assert write(name, tmp_path / "again.gguf").read_bytes() == content
    assert write(name, tmp_path / "other.gguf", seed=1).read_bytes() != content


@every_model
def test_facts(name: str, tiny: Callable[[str], Path]) -> None:
    facts = FACTS[name]
    architecture = MODELS[name].architecture
    with loaded(tiny(name)) as model, created(model) as context:
        key = b"general.architecture"
        assert string(lambda to, size: lib.llama_model_meta_val_str(model, key, to, size)) == architecture
        assert string(lambda to, size: lib.llama_model_desc(model, to, size)).startswith(f"{architecture} ?B")
        assert lib.llama_model_n_layer(model) == LAYERS
        assert lib.llama_model_n_embd(model) == lib.llama_model_n_embd_out(model) == WIDTH
        assert lib.llama_model_n_ctx_train(model) == POSITIONS
        assert bool(lib.llama_get_memory(context)) == facts.memory
        assert facts == Facts(
            n_vocab=lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)),
            pooling=lib.llama_pooling_type(context),
            memory=facts.memory,
            encoder=lib.llama_model_has_encoder(model),
            decoder=lib.llama_model_has_decoder(model),
            n_cls_out=lib.llama_model_n_cls_out(model),
            rope=lib.llama_model_rope_type(model),
        )


@every_model
def test_tokenizer(name: str, tiny: Callable[[str], Path]) -> None:
    """Words are tokens, nothing is unknown, and the text comes back."""
    with loaded(tiny(name)) as model:
        vocab = lib.llama_model_get_vocab(model)
        tokens = np.array(tokenize(model, TEXT), np.int32)
        assert 6 <= len(tokens) <= 10
        unknown = lib.LLAMA_TOKEN_ATTR_UNKNOWN
        assert not any(lib.llama_vocab_get_attr(vocab, token) & unknown for token in tokens.tolist())
        given = pointer(tokens, "llama_token *")
        text = string(lambda to, size: lib.llama_detokenize(vocab, given, len(tokens), to, size, True, False))
        assert text.strip() == TEXT


@every_model
def test_embeddings(name: str, tiny: Callable[[str], Path]) -> None:
    """Vectors differ between tokens, between places of one token, and not by what else is in the batch."""
    with loaded(tiny(name)) as model:
        first, second = tokenize(model, f"a {TEXT}"), tokenize(model, "we read books")
        with created(model, pooling_type=NONE) as context:
            both = forward(model, context, first, second)
        with created(model, pooling_type=NONE) as context:
            alone = forward(model, context, second)
    assert np.isfinite(both).all()
    assert 0.1 < np.abs(both).max() < 100
    assert (both.std(axis=1) > 0.1).all()
    text = both[: len(first)]
    assert min(distance(a, b) for i, a in enumerate(text) for b in text[:i]) > 0.1
    again = [i for i, token in enumerate(first) if first.count(token) == 2]
    assert len(again) == 2, "'the' is there twice"
    assert distance(both[again[0]], both[again[1]]) > 0.1
    np.testing.assert_allclose(both[len(first) :], alone, atol=2e-3)


@pytest.mark.parametrize("name", GENERATORS)
def test_logits(name: str, tiny: Callable[[str], Path]) -> None:
    """Decoders have an opinion on the next token, and it depends on the tokens before."""
    n_vocab = FACTS[name].n_vocab
    with loaded(tiny(name)) as model, created(model, embeddings=False) as context:
        sequences = [tokenize(model, TEXT), tokenize(model, "we read books")]
        if lib.llama_model_has_encoder(model):
            run(lib.llama_encode, context, *sequences)
            sequences = [[lib.llama_model_decoder_start_token(model), 10, 11]] * 2
        n_tokens = run(lib.llama_decode, context, *sequences)
        logits = rows(context, lib.llama_get_logits_ith, n_tokens, n_vocab)
    assert np.isfinite(logits).all()
    assert (logits.std(axis=1) > 0.1).all()
    assert distance(logits[len(sequences[0]) - 1], logits[-1]) > 0.1


@pytest.mark.parametrize("name", [name for name in MODELS if FACTS[name].pooling != NONE])
def test_pooled(name: str, tiny: Callable[[str], Path]) -> None:
    """Pooled as the file says, two texts have two vectors; rerankers give n_cls_out numbers."""
    facts = FACTS[name]
    with loaded(tiny(name)) as model:
        texts = [tokenize(model, TEXT), tokenize(model, "we read books")]
        with created(model) as context:
            run(lib.llama_decode, context, *texts)
            pooled = rows(context, lib.llama_get_embeddings_seq, 2, facts.n_cls_out if facts.pooling == RANK else WIDTH)
        with created(model, pooling_type=NONE) as context:
            first = forward(model, context, *texts)[: len(texts[0])]
    assert np.isfinite(pooled).all()
    assert distance(pooled[0], pooled[1]) > 0.05
    # EmbeddingGemma's dense layers come after the pooling, and without pooling after each token: it is the same.
    by_hand = {MEAN: first.mean(axis=0), CLS: first[0], LAST: first[-1]}
    if facts.pooling in by_hand:
        np.testing.assert_allclose(pooled[0], by_hand[facts.pooling], atol=2e-3)


def test_labels(tiny: Callable[[str], Path]) -> None:
    with loaded(tiny("bert-classifier")) as model:
        labels = [lib.llama_model_cls_label(model, i) for i in range(3)]
        assert [ffi.string(label) for label in labels] == [b"no", b"maybe", b"yes"]
    with loaded(tiny("bert-reranker")) as model:
        assert not lib.llama_model_cls_label(model, 0)


def test_qwen3_scores_are_probabilities(tiny: Callable[[str], Path]) -> None:
    with loaded(tiny("qwen3-reranker")) as model, created(model) as context:
        run(lib.llama_decode, context, tokenize(model, TEXT))
        assert view(lib.llama_get_embeddings_seq(context, 0), 2).sum() == pytest.approx(1)


def test_lora(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """An adapter changes what the model says, and its seed decides its bytes."""
    file = tiny("llama-lora")
    assert file.stat().st_size < 20_000
    assert write_lora(tmp_path / "again.gguf").read_bytes() == file.read_bytes()
    assert write_lora(tmp_path / "other.gguf", seed=1).read_bytes() != file.read_bytes()
    with loaded(tiny("llama")) as model:
        adapter = lib.llama_adapter_lora_init(model, str(file).encode())
        assert adapter
        with created(model, pooling_type=NONE) as context:
            tokens = tokenize(model, TEXT)
            plain = forward(model, context, tokens)
            lib.llama_memory_clear(lib.llama_get_memory(context), True)
            adapters, scale = ffi.new("struct llama_adapter_lora *[]", [adapter]), ffi.new("float[]", [1.0])
            assert lib.llama_set_adapters_lora(context, adapters, 1, scale) == 0
            adapted = forward(model, context, tokens)
    assert np.isfinite(adapted).all()
    assert distance(plain, adapted) > 0.1


def test_chat_template(tiny: Callable[[str], Path]) -> None:
    with loaded(tiny("qwen3")) as model:
        template = lib.llama_model_chat_template(model, ffi.NULL)
        role, content = ffi.new("char[]", b"user"), ffi.new("char[]", b"hello")
        chat = ffi.new("llama_chat_message[]", [(role, content)])
        text = string(lambda to, size: lib.llama_chat_apply_template(template, chat, 1, True, to, size))
    assert text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_smollm2(smollm2: Path) -> None:
    """The real decoder knows what comes next."""
    with loaded(smollm2) as model, created(model, embeddings=False) as context:
        assert lib.llama_model_n_embd(model) == 576
        assert lib.llama_model_n_ctx_train(model) == 8192
        n_tokens = run(lib.llama_decode, context, tokenize(model, "The capital of France is"))
        vocab = lib.llama_model_get_vocab(model)
        logits = view(lib.llama_get_logits_ith(context, n_tokens - 1), lib.llama_vocab_n_tokens(vocab))
        best = int(logits.argmax())
        assert np.isfinite(logits).all()
        assert string(lambda to, size: lib.llama_token_to_piece(vocab, best, to, size, 0, False)) == " Paris"
