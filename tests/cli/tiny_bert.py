"""A GGUF file with a small random BERT: enough for libllama to load it and embed with it, 100 kB."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, INNER, LAYERS = 32, 2, 64, 2
FILLERS = 130  # tokens that no text has: they make the arrays of tokens longer
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# libllama marks the start of a word where Hugging Face marks what is inside one.
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
WORDS = ("hello", "world", "the", "cat", "sat", "on", "mat", *LETTERS)
TOKENS = (*SPECIAL, *(f"\u2581{word}" for word in WORDS), *LETTERS)
NORMAL, CONTROL = 1, 3


def write(path: Path, *, positions: int = 64, block_count: int = LAYERS, classifier: bool = False) -> None:
    """Write the file; with `classifier`, it has a layer that gives one score."""
    tokens = [*TOKENS, *(f"\u2581filler{i}" for i in range(FILLERS))]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny")
    writer.add_context_length(positions)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(block_count)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _add_vocabulary(writer, tokens)
    random = np.random.default_rng(1)
    shapes = _shapes(len(tokens), positions)
    if classifier:
        shapes["cls.output.weight"] = (1, WIDTH)
    for name, shape in shapes.items():
        scale = 1 if name.endswith("norm.weight") else 0.2
        writer.add_tensor(name, (random.standard_normal(shape) * scale).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in SPECIAL else NORMAL for token in tokens])
    writer.add_pad_token_id(tokens.index("[PAD]"))
    writer.add_unk_token_id(tokens.index("[UNK]"))
    writer.add_sep_token_id(tokens.index("[SEP]"))
    writer.add_mask_token_id(tokens.index("[MASK]"))
    writer.add_bos_token_id(tokens.index("[CLS]"))
    writer.add_eos_token_id(tokens.index("[SEP]"))


def _shapes(vocabulary: int, positions: int) -> dict[str, tuple[int, ...]]:
    """Shapes as numpy has them: rows first."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, WIDTH),
        "token_types.weight": (2, WIDTH),
        "position_embd.weight": (positions, WIDTH),
    }
    linear = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH),
              "attn_output": (WIDTH, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
    norms = ["token_embd_norm"]
    for layer in range(LAYERS):
        for name, shape in linear.items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
            shapes[f"blk.{layer}.{name}.bias"] = shape[:1]
        for name in ("attn", "layer"):
            norms.append(f"blk.{layer}.{name}_output_norm")
    for name in norms:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (WIDTH,)
    return shapes
