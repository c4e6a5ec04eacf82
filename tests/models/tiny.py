"""GGUF files with small random models, one for each architecture that differs for libllama, under 300 kB each.

    write("qwen3-embedding", path)

All have 2 layers, 32 columns and 64 positions. Names, shapes and keys are those that llama.cpp's src/models/*.cpp
reads.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from .vocabularies import byte_pairs, sentence_pieces, unigrams, word_pieces

WIDTH, INNER, LAYERS, HEADS, POSITIONS = 32, 64, 2, 4, 64
HEAD = WIDTH // HEADS
KV_HEADS = 2  # where queries share keys and values
WINDOW = 8  # tokens that a sliding window sees
BUCKETS = 32  # of T5's relative positions
CONV, STATE, RANK = 4, 8, 4  # Mamba's sizes
LORA_RANK = 4
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Shapes = dict[str, tuple[int, ...]]
"""Tensors by name; shapes as numpy has them, rows first."""


@dataclass(frozen=True)
class Model:
    """A model that can be written."""

    architecture: str
    """libllama's name for it."""
    fill: Callable[[gguf.GGUFWriter], Shapes]
    """Adds what the file says, and returns the tensors that it needs."""


def write(name: str, path: Path, *, seed: int = 0) -> Path:
    """Write the model `name` of `MODELS` to `path`; the same seed gives the same bytes."""
    model = MODELS[name]
    writer = gguf.GGUFWriter(path, model.architecture)
    writer.add_name(f"tiny {name}")
    _save(writer, model.fill(writer), seed)
    return path


def write_lora(path: Path, *, seed: int = 0) -> Path:
    """Write a LoRA adapter for the model "llama": rank 4, for the queries and ffn_down of each layer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 2 * LORA_RANK)
    shapes: Shapes = {}
    for at in _layers():
        for tensor, rows, columns in (("attn_q", WIDTH, WIDTH), ("ffn_down", WIDTH, INNER)):
            shapes[f"{at}.{tensor}.weight.lora_a"] = (LORA_RANK, columns)
            shapes[f"{at}.{tensor}.weight.lora_b"] = (rows, LORA_RANK)
    _save(writer, shapes, seed)
    return path


def _save(writer: gguf.GGUFWriter, shapes: Shapes, seed: int) -> None:
    for name, shape in shapes.items():
        writer.add_tensor(name, values(name, shape, seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def values(name: str, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """What the tensor of this name and shape holds: random, of a size that keeps the layers' outputs near 1."""
    noise = np.random.default_rng([zlib.crc32(name.encode()), seed]).standard_normal(shape)
    if name.endswith("norm.weight"):
        noise = 1 + 0.1 * noise
    elif name.endswith(".bias"):
        noise *= 0.1
    elif name.endswith("ssm_a"):
        noise = -np.exp(noise)  # a state decays
    elif not name.endswith(("embd.weight", "types.weight", "rel_b.weight")):
        noise /= np.sqrt(shape[-1])
    return noise.astype(np.float32)


# Encoders -------------------------------------------------------------------------------------------------------------


def _bert(writer: gguf.GGUFWriter, *, head: bool = False, labels: tuple[str, ...] = ()) -> Shapes:
    """BERT: learned positions. With `head` it is a reranker that gives a number for each label, else one."""
    vocabulary = word_pieces(writer)
    _add_encoder_keys(writer, gguf.PoolingType.RANK if head else gguf.PoolingType.MEAN)
    writer.add_classifier_output_labels(labels)
    shapes = _table("token_embd", vocabulary) | _table("token_types", 2) | _table("position_embd", POSITIONS)
    shapes |= _norm("token_embd_norm", bias=True)
    for at in _layers():
        shapes |= _attention(at, bias=True) | _norm(f"{at}.attn_output_norm", bias=True)
        shapes |= _linear(f"{at}.ffn_up", INNER, bias=True) | _linear(f"{at}.ffn_down", WIDTH, INNER, bias=True)
        shapes |= _norm(f"{at}.layer_output_norm", bias=True)
    if head:
        shapes |= _linear("cls", WIDTH, bias=True) | _linear("cls.output", max(1, len(labels)), bias=True)
    return shapes


def _nomic_bert(writer: gguf.GGUFWriter) -> Shapes:
    """BERT with rotary positions, fused queries, keys and values, and a gate."""
    vocabulary = word_pieces(writer)
    _add_encoder_keys(writer, gguf.PoolingType.MEAN)
    writer.add_rope_freq_base(1000.0)
    shapes = _table("token_embd", vocabulary) | _table("token_types", 2) | _norm("token_embd_norm", bias=True)
    for at in _layers():
        shapes |= _fused_attention(at) | _norm(f"{at}.attn_output_norm", bias=True)
        shapes |= _gated(at) | _norm(f"{at}.layer_output_norm", bias=True)
    return shapes


def _jina_bert_v2(writer: gguf.GGUFWriter) -> Shapes:
    """BERT with ALiBi: positions are a bias of the attention."""
    vocabulary = word_pieces(writer)
    _add_encoder_keys(writer, gguf.PoolingType.MEAN)
    shapes = _table("token_embd", vocabulary) | _table("token_types", 2) | _norm("token_embd_norm", bias=True)
    for at in _layers():
        shapes |= _attention(at, bias=True) | _norm(f"{at}.attn_output_norm", bias=True)
        shapes |= _gated(at) | {f"{at}.ffn_down.bias": (WIDTH,)} | _norm(f"{at}.layer_output_norm", bias=True)
    return shapes


def _modern_bert(writer: gguf.GGUFWriter) -> Shapes:
    """ModernBERT: the first layer sees all tokens, the second a window around each."""
    vocabulary = byte_pairs(writer, "modern-bert", bos="[CLS]", eos="[SEP]", special=("[PAD]", "[UNK]", "[MASK]"))
    writer.add_add_eos_token(True)
    _add_encoder_keys(writer, gguf.PoolingType.CLS)
    writer.add_rope_freq_base(160000.0)
    _add_window(writer, [False, True])
    shapes = _table("token_embd", vocabulary) | _norm("token_embd_norm") | _norm("output_norm")
    for layer, at in enumerate(_layers()):
        shapes |= _norm(f"{at}.attn_norm") if layer else {}
        shapes |= _fused_attention(at) | _norm(f"{at}.ffn_norm")
        shapes |= _linear(f"{at}.ffn_up", 2 * INNER) | _linear(f"{at}.ffn_down", WIDTH, INNER)
    return shapes


def _gemma_embedding(writer: gguf.GGUFWriter) -> Shapes:
    """EmbeddingGemma: windows, and two dense layers after the pooling."""
    head, key_values = 16, 1
    vocabulary = sentence_pieces(writer, special=("<unk>", "<bos>", "<eos>"))
    writer.add_add_eos_token(True)
    _add_sizes(writer)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _add_heads(writer, key_values, head)
    _add_window(writer, [True, False])
    writer.add_dense_features_dims("dense_2", WIDTH, INNER)
    writer.add_dense_features_dims("dense_3", INNER, WIDTH)
    shapes = _table("token_embd", vocabulary) | _norm("output_norm")
    shapes |= _linear("dense_2", INNER) | _linear("dense_3", WIDTH, INNER)
    for at in _layers():
        shapes |= _decoder_layer(at, head, key_values) | _query_key_norms(at, head)
        shapes |= _norm(f"{at}.post_attention_norm") | _norm(f"{at}.post_ffw_norm")
    return shapes


def _t5_encoder(writer: gguf.GGUFWriter) -> Shapes:
    """The encoder of T5: positions are buckets of distances."""
    vocabulary = unigrams(writer)
    _add_t5_keys(writer)
    return _table("token_embd", vocabulary) | _t5_encoder_shapes()


def _t5(writer: gguf.GGUFWriter) -> Shapes:
    """T5 with its decoder, which looks at the encoder's output."""
    vocabulary = unigrams(writer)
    _add_t5_keys(writer)
    writer.add_decoder_start_token_id(0)
    shapes = _table("token_embd", vocabulary) | _t5_encoder_shapes() | _norm("dec.output_norm")
    for at in _layers("dec.blk"):
        shapes |= _t5_attention(at) | _t5_attention(at, "cross_attn") | _t5_feed_forward(at)
        shapes |= _table(f"{at}.attn_rel_b", BUCKETS, HEADS)
    return shapes


def _t5_encoder_shapes() -> Shapes:
    shapes = _norm("enc.output_norm")
    for at in _layers("enc.blk"):
        shapes |= _t5_attention(at) | _t5_feed_forward(at) | _table(f"{at}.attn_rel_b", BUCKETS, HEADS)
    return shapes


def _t5_attention(at: str, name: str = "attn") -> Shapes:
    shapes = _norm(f"{at}.{name}_norm")
    for part in "qkvo":
        shapes |= _linear(f"{at}.{name}_{part}", WIDTH)
    return shapes


def _t5_feed_forward(at: str) -> Shapes:
    return _norm(f"{at}.ffn_norm") | _gated(at)


# Decoders -------------------------------------------------------------------------------------------------------------


def _llama(writer: gguf.GGUFWriter) -> Shapes:
    """Llama: queries share keys and values; the output layer has weights of its own."""
    vocabulary = sentence_pieces(writer)
    _add_decoder_keys(writer)
    _add_heads(writer, KV_HEADS, HEAD)
    writer.add_rope_dimension_count(HEAD)
    shapes = _table("token_embd", vocabulary) | _norm("output_norm") | _linear("output", vocabulary)
    for at in _layers():
        shapes |= _decoder_layer(at, HEAD, KV_HEADS)
    return shapes


def _qwen3(
    writer: gguf.GGUFWriter, *, pooling: gguf.PoolingType | None = None, labels: tuple[str, ...] = ()
) -> Shapes:
    """Qwen3: norms of queries and keys, tied output; also as embedding model, and as reranker with `labels`."""
    head = 16
    vocabulary = byte_pairs(writer, "qwen2", eos="<|endoftext|>", special=("<|im_start|>", "<|im_end|>"))
    writer.add_chat_template(CHATML)
    _add_decoder_keys(writer)
    _add_heads(writer, KV_HEADS, head)
    if pooling is not None:
        writer.add_pooling_type(pooling)
        writer.add_add_eos_token(True)
    writer.add_classifier_output_labels(labels)
    shapes = _table("token_embd", vocabulary) | _norm("output_norm")
    for at in _layers():
        shapes |= _decoder_layer(at, head, KV_HEADS) | _query_key_norms(at, head)
    return shapes | (_linear("cls.output", len(labels)) if labels else {})


def _qwen2vl(writer: gguf.GGUFWriter) -> Shapes:
    """Qwen2-VL's text part: each token has four positions."""
    heads = 2
    head = WIDTH // heads
    vocabulary = byte_pairs(writer, "qwen2", eos="<|endoftext|>")
    _add_decoder_keys(writer, heads)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_sections([2, 3, 3, 0])  # together half a head
    shapes = _table("token_embd", vocabulary) | _norm("output_norm")
    for at in _layers():
        shapes |= _decoder_layer(at, head, 1, heads=heads)
        shapes |= {f"{at}.attn_q.bias": (WIDTH,), f"{at}.attn_k.bias": (head,), f"{at}.attn_v.bias": (head,)}
    return shapes


def _gpt2(writer: gguf.GGUFWriter) -> Shapes:
    """GPT-2: learned positions, fused queries, keys and values."""
    vocabulary = byte_pairs(writer, "gpt-2", eos="<|endoftext|>")
    _add_sizes(writer)
    writer.add_layer_norm_eps(1e-5)
    shapes = _table("token_embd", vocabulary) | _table("position_embd", POSITIONS) | _norm("output_norm", bias=True)
    for at in _layers():
        shapes |= _norm(f"{at}.attn_norm", bias=True) | _fused_attention(at, bias=True)
        shapes |= _norm(f"{at}.ffn_norm", bias=True)
        shapes |= _linear(f"{at}.ffn_up", INNER, bias=True) | _linear(f"{at}.ffn_down", WIDTH, INNER, bias=True)
    return shapes


# With a state ---------------------------------------------------------------------------------------------------------


def _mamba(writer: gguf.GGUFWriter) -> Shapes:
    """Mamba: no attention, a state for each sequence."""
    inner = 2 * WIDTH  # libllama takes no other
    vocabulary = byte_pairs(writer, "gpt-2", eos="<|endoftext|>")
    _add_sizes(writer, heads=0, inner=0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(CONV)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(RANK)
    shapes = _table("token_embd", vocabulary) | _norm("output_norm")
    for at in _layers():
        shapes |= _norm(f"{at}.attn_norm") | _linear(f"{at}.ssm_in", 2 * inner)
        shapes |= {f"{at}.ssm_conv1d.weight": (inner, CONV), f"{at}.ssm_conv1d.bias": (inner,)}
        shapes |= _linear(f"{at}.ssm_x", RANK + 2 * STATE, inner) | _linear(f"{at}.ssm_dt", inner, RANK, bias=True)
        shapes |= {f"{at}.ssm_a": (inner, STATE), f"{at}.ssm_d": (inner,)} | _linear(f"{at}.ssm_out", WIDTH, inner)
    return shapes


def _lfm2(writer: gguf.GGUFWriter) -> Shapes:
    """LFM2: a short convolution with a state, then a layer of attention."""
    convolution = 3
    vocabulary = byte_pairs(writer, "lfm2", bos="<|startoftext|>", eos="<|im_end|>", special=("<|pad|>",))
    _add_decoder_keys(writer)
    writer.add_head_count_kv([0, KV_HEADS])  # 0 means: not attention
    writer.add_shortconv_l_cache(convolution)
    shapes = _table("token_embd", vocabulary) | _norm("token_embd_norm")  # so the last norm is called
    first, second = _layers()
    shapes |= _norm(f"{first}.attn_norm") | _norm(f"{first}.ffn_norm") | _gated(first)
    shapes |= {f"{first}.shortconv.conv.weight": (WIDTH, convolution)}
    shapes |= _linear(f"{first}.shortconv.in_proj", 3 * WIDTH) | _linear(f"{first}.shortconv.out_proj", WIDTH)
    return shapes | _decoder_layer(second, HEAD, KV_HEADS) | _query_key_norms(second, HEAD)


# What the file says ---------------------------------------------------------------------------------------------------


def _add_sizes(writer: gguf.GGUFWriter, *, heads: int = HEADS, inner: int = INNER) -> None:
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(LAYERS)
    writer.add_head_count(heads)


def _add_encoder_keys(writer: gguf.GGUFWriter, pooling: gguf.PoolingType) -> None:
    _add_sizes(writer)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)


def _add_decoder_keys(writer: gguf.GGUFWriter, heads: int = HEADS) -> None:
    _add_sizes(writer, heads=heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)


def _add_t5_keys(writer: gguf.GGUFWriter) -> None:
    _add_sizes(writer)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_relative_attn_buckets_count(BUCKETS)


def _add_heads(writer: gguf.GGUFWriter, key_values: int, head: int) -> None:
    """So many heads of keys and values, and so many columns in each head."""
    writer.add_head_count_kv(key_values)
    writer.add_key_length(head)
    writer.add_value_length(head)


def _add_window(writer: gguf.GGUFWriter, layers: list[bool]) -> None:
    """A sliding window in the layers that are true here."""
    writer.add_sliding_window(WINDOW)
    writer.add_sliding_window_pattern(layers)
    writer.add_rope_freq_base_swa(10000.0)


# Shapes ---------------------------------------------------------------------------------------------------------------


def _layers(prefix: str = "blk") -> list[str]:
    return [f"{prefix}.{layer}" for layer in range(LAYERS)]


def _table(name: str, rows: int, columns: int = WIDTH) -> Shapes:
    return {f"{name}.weight": (rows, columns)}


def _linear(name: str, rows: int, columns: int = WIDTH, *, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (rows, columns), **({f"{name}.bias": (rows,)} if bias else {})}


def _norm(name: str, width: int = WIDTH, *, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (width,), **({f"{name}.bias": (width,)} if bias else {})}


def _attention(
    at: str, head: int = HEAD, key_values: int = HEADS, *, heads: int = HEADS, bias: bool = False
) -> Shapes:
    shapes = _linear(f"{at}.attn_q", heads * head, bias=bias)
    for part in "kv":
        shapes |= _linear(f"{at}.attn_{part}", key_values * head, bias=bias)
    return shapes | _linear(f"{at}.attn_output", WIDTH, heads * head, bias=bias)


def _fused_attention(at: str, *, bias: bool = False) -> Shapes:
    return _linear(f"{at}.attn_qkv", 3 * WIDTH, bias=bias) | _linear(f"{at}.attn_output", WIDTH, bias=bias)


def _query_key_norms(at: str, head: int) -> Shapes:
    return _norm(f"{at}.attn_q_norm", head) | _norm(f"{at}.attn_k_norm", head)


def _gated(at: str) -> Shapes:
    return _linear(f"{at}.ffn_gate", INNER) | _linear(f"{at}.ffn_up", INNER) | _linear(f"{at}.ffn_down", WIDTH, INNER)


def _decoder_layer(at: str, head: int, key_values: int, *, heads: int = HEADS) -> Shapes:
    norms = _norm(f"{at}.attn_norm") | _norm(f"{at}.ffn_norm")
    return norms | _attention(at, head, key_values, heads=heads) | _gated(at)


MODELS: dict[str, Model] = {
    "bert": Model("bert", _bert),
    "bert-reranker": Model("bert", partial(_bert, head=True)),
    "bert-classifier": Model("bert", partial(_bert, head=True, labels=("no", "maybe", "yes"))),
    "nomic-bert": Model("nomic-bert", _nomic_bert),
    "jina-bert-v2": Model("jina-bert-v2", _jina_bert_v2),
    "modern-bert": Model("modern-bert", _modern_bert),
    "gemma-embedding": Model("gemma-embedding", _gemma_embedding),
    "t5encoder": Model("t5encoder", _t5_encoder),
    "t5": Model("t5", _t5),
    "llama": Model("llama", _llama),
    "qwen3": Model("qwen3", _qwen3),
    "qwen3-embedding": Model("qwen3", partial(_qwen3, pooling=gguf.PoolingType.LAST)),
    "qwen3-reranker": Model("qwen3", partial(_qwen3, pooling=gguf.PoolingType.RANK, labels=("yes", "no"))),
    "qwen2vl": Model("qwen2vl", _qwen2vl),
    "gpt2": Model("gpt2", _gpt2),
    "mamba": Model("mamba", _mamba),
    "lfm2": Model("lfm2", _lfm2),
}
"""The models by the names that `write` takes."""
