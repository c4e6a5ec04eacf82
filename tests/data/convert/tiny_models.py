"""Tiny encoder folders in Hugging Face layout, one per family, the same bytes on every machine.

Written with numpy and the standard library only, so that the test suite (which has no torch) and
``make_fingerprints.py`` (which runs upstream's converter) build identical folders. Sizes: hidden 32,
4 heads, 2 layers, feed-forward 64, about 40 tokens (300 for byte-level BPE).
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Shapes = dict[str, tuple[int, ...]]

HIDDEN, HEADS, LAYERS, FF, POSITIONS = 32, 4, 2, 64, 40

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["the", "cat", "sat", "##s", "##ing", "on", "mat", "é", "中", "##e", "a", "b", "##c", ".", ","]
LETTERS = [chr(code) for code in range(ord("c"), ord("w"))]
WORDPIECES = SPECIAL + PIECES + LETTERS


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights in [-0.5, 0.5) that depend on the name only; shape as asked, float32."""
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.frombuffer(hashlib.shake_256(name.encode()).digest(2 * count), dtype="<i2")
    return (raw.astype(np.float32) / np.float32(65536)).reshape(shape)


def save_json(path: Path, content: Any) -> None:
    """A JSON file at `path`, its folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def encode(array: np.ndarray, dtype: str) -> bytes:
    """The little-endian bytes of `array` as the safetensors type `dtype`."""
    if dtype == "BF16":
        return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}[dtype]).tobytes()


def save_tensors(path: Path, shapes: Shapes, dtype: str = "F32") -> None:
    """A safetensors file with deterministic values; names with ``position_ids`` become int64."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    for name, shape in shapes.items():
        ids = name.endswith("position_ids")
        blob = encode(np.arange(shape[-1]) if ids else values(name, shape), "I64" if ids else dtype)
        span = [offset, offset + len(blob)]
        header[name] = {"dtype": "I64" if ids else dtype, "shape": list(shape), "data_offsets": span}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def pooling(folder: Path, mode: str) -> None:
    """sentence-transformers' modules.json with one pooling module."""
    kind = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [{"idx": i, "name": str(i), "path": p, "type": kind + t} for i, (p, t) in enumerate(modules)]
    save_json(folder / "modules.json", listed)
    flags = {f"pooling_mode_{name}": name == mode for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    save_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, **flags})


# Tokenizers -------------------------------------------------------------------------------------------


def added(token_id: int, content: str, *, special: bool = True, normalized: bool = False) -> dict[str, Any]:
    """One entry of tokenizer.json's added_tokens."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    return {"id": token_id, "content": content, **flags, "normalized": normalized, "special": special}


def template(first: str, last: str, ids: dict[str, int]) -> dict[str, Any]:
    """A TemplateProcessing post-processor: `first` A `last`, and `first` A `last` B `last`."""

    def special(token: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": 0}}

    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    known = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (first, last)}
    return {
        "type": "TemplateProcessing",
        "single": [special(first), a, special(last)],
        "pair": [special(first), a, special(last), b, special(last)],
        "special_tokens": known,
    }


def roberta_processing(ids: dict[str, int]) -> dict[str, Any]:
    """The post-processor of RoBERTa's tokenizer."""
    ends = {"sep": ["</s>", ids["</s>"]], "cls": ["<s>", ids["<s>"]]}
    return {"type": "RobertaProcessing", **ends, "trim_offsets": True, "add_prefix_space": False}


def tokenizer_json(folder: Path, **parts: Any) -> None:
    """A tokenizer.json from its parts; what is not given is null."""
    names = (
        "truncation",
        "padding",
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
    )
    content = {"version": "1.0", **{name: parts.get(name) for name in names}, "model": parts["model"]}
    save_json(folder / "tokenizer.json", content)


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """The folder's tokenizer.json."""
    content: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return content


def change_tokenizer(folder: Path, **parts: Any) -> None:
    """Other `parts` in the folder's tokenizer.json."""
    save_json(folder / "tokenizer.json", {**read_tokenizer(folder), **parts})


def wordpiece(folder: Path, *, lowercase: bool = True, strip_accents: bool | None = None) -> None:
    """BERT's tokenizer: normalizer, WordPiece, [CLS] and [SEP]."""
    ids = {token: i for i, token in enumerate(WORDPIECES)}
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    tokenizer_json(
        folder,
        added_tokens=[added(ids[token], token) for token in SPECIAL],
        normalizer={**normalizer, "strip_accents": strip_accents, "lowercase": lowercase},
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=template("[CLS]", "[SEP]", ids),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
        model={
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    )
    named = {f"{t[1:-1].lower()}_token": t for t in SPECIAL}
    save_json(
        folder / "tokenizer_config.json",
        {**named, "do_lower_case": lowercase, "tokenizer_class": "BertTokenizer"},
    )


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level BPE, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def bpe_model(first: list[str], last: list[str], *, pairs: bool) -> dict[str, Any]:
    """A byte-level BPE model; merges as pairs (new layout) or as strings (old layout)."""
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("c", "a"), ("ca", "t"), ("Ġ", "cat")]
    tokens = first + byte_alphabet() + ["".join(pair) for pair in merges] + last
    return {
        "type": "BPE",
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": [list(pair) for pair in merges] if pairs else [" ".join(pair) for pair in merges],
    }


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def roberta_bpe(folder: Path, *, tokenizer_class: str = "RobertaTokenizer", whitespace: bool = False) -> None:
    """RoBERTa's tokenizer, or the whitespace-split kind of some Jina models."""
    model = bpe_model(["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"], pairs=False)
    ids = model["vocab"]
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer_json(
        folder,
        added_tokens=[added(ids[t], t, normalized=t != "<mask>") for t in specials],
        pre_tokenizer={"type": "Whitespace"} if whitespace else BYTE_LEVEL,
        post_processor=roberta_processing(ids),
        decoder=BYTE_LEVEL,
        model=model,
    )
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    save_json(folder / "tokenizer_config.json", {**named, "tokenizer_class": tokenizer_class})
    save_json(folder / "special_tokens_map.json", {**named, "mask_token": {"content": "<mask>", "lstrip": True}})


def modern_bpe(folder: Path) -> None:
    """ModernBERT's tokenizer: NFC, byte-level BPE, [CLS] and [SEP], user-defined tokens."""
    model = bpe_model(["|||IP_ADDRESS|||", "<|padding|>"], ["   ", "  ", *SPECIAL, "[unused0]", "a▁b"], pairs=True)
    ids = model["vocab"]
    plain = [added(ids[t], t, special=False, normalized=True) for t in ("   ", "  ", "[unused0]", "a▁b")]
    tokenizer_json(
        folder,
        added_tokens=[
            added(ids["|||IP_ADDRESS|||"], "|||IP_ADDRESS|||", special=False, normalized=True),
            added(ids["<|padding|>"], "<|padding|>", special=False),
            *plain,
            *(added(ids[t], t) for t in SPECIAL),
        ],
        normalizer={"type": "NFC"},
        pre_tokenizer=BYTE_LEVEL,
        post_processor=template("[CLS]", "[SEP]", ids),
        decoder=BYTE_LEVEL,
        model=model,
    )
    named = {f"{t[1:-1].lower()}_token": t for t in SPECIAL}
    save_json(folder / "tokenizer_config.json", {**named, "tokenizer_class": "PreTrainedTokenizerFast"})


UNIGRAM: list[tuple[str, float]] = [
    ("▁", -2.5), ("▁the", -3.25), ("s", -3.5), ("▁cat", -4.0), ("t", -4.25), ("a", -4.5), ("é", -5.0), ("中", -6.125),
    (".", -6.5), ("▁mat", -7.0), ("e", -7.5), ("h", -8.0), ("c", -8.25), ("m", -9.0),
]  # fmt: skip

# A character map with one rule, fullwidth a to a, in SentencePiece's form: a double-array trie, then its strings.
TRIE = [0x3B800, 0x2F8EF, 0x200BD, 0x1D81, 0x80000000, 4, *(i ^ 1 for i in range(6, 256))]
CHARSMAP = struct.pack("<257I", 4 * len(TRIE), *TRIE) + b"a\0"


def unigram_json(folder: Path, *, config: dict[str, Any]) -> None:
    """XLM-RoBERTa's tokenizer as tokenizer.json, without sentencepiece.bpe.model."""
    heads = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab = [[t, 0.0] for t in heads] + [[t, score] for t, score in UNIGRAM] + [["<extra>", -9.5], ["<mask>", 0.0]]
    ids = {str(token): i for i, (token, _) in enumerate(vocab)}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    tokenizer_json(
        folder,
        added_tokens=[added(ids[t], t) for t in (*heads, "<mask>")] + [added(ids["<extra>"], "<extra>", special=False)],
        normalizer={"type": "Precompiled", "precompiled_charsmap": base64.b64encode(CHARSMAP).decode()},
        pre_tokenizer=metaspace,
        post_processor=template("<s>", "</s>", ids),
        decoder=metaspace,
        model={"type": "Unigram", "unk_id": ids["<unk>"], "vocab": vocab, "byte_fallback": False},
    )
    xlm_roberta_config(folder, config)


def xlm_roberta_config(folder: Path, extra: dict[str, Any]) -> None:
    """tokenizer_config.json as XLM-RoBERTa folders have it."""
    named = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    named |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    save_json(folder / "tokenizer_config.json", {**named, **extra, "tokenizer_class": "XLMRobertaTokenizer"})


def field(number: int, payload: bytes | int | float) -> bytes:
    """One protobuf field: bytes, float32 or a small non-negative integer (below 128)."""
    if isinstance(payload, bytes):
        size = len(payload)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        return bytes([number << 3 | 2]) + length + payload
    if isinstance(payload, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", payload)
    return bytes([number << 3, payload])


def unigram_spm(folder: Path) -> None:
    """XLM-RoBERTa's tokenizer as sentencepiece.bpe.model beside a tokenizer.json."""
    unigram_json(folder, config={"clean_up_tokenization_spaces": True})
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((t, s, 1) for t, s in UNIGRAM)]
    pieces += [("<user>", 0.0, 4), ("<unused>", -9.5, 5), ("z", -9.75, 1)]
    coded = [field(1, field(1, t.encode()) + field(2, score) + field(3, kind)) for t, score, kind in pieces]
    trainer = field(2, field(3, 1))
    normalizer = field(3, field(1, b"nmt_nfkc") + field(2, CHARSMAP) + field(3, 1) + field(4, 1))
    (folder / "sentencepiece.bpe.model").write_bytes(b"".join(coded) + trainer + normalizer)


# Tensors ----------------------------------------------------------------------------------------------


def linear(name: str, rows: int, columns: int, *, bias: bool = True) -> Shapes:
    """A weight of (rows, columns) and its bias."""
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def norm(name: str, size: int = HIDDEN, *, bias: bool = True) -> Shapes:
    """A layer norm's weight and bias."""
    return {f"{name}.weight": (size,)} | ({f"{name}.bias": (size,)} if bias else {})


def embeddings(vocab: int, *, positions: int = POSITIONS, types: int = 2, hidden: int = HIDDEN) -> Shapes:
    """BERT's embeddings; no positions or types where 0 is asked for."""
    shapes: Shapes = {"embeddings.word_embeddings.weight": (vocab, hidden)}
    if positions:
        shapes["embeddings.position_embeddings.weight"] = (positions, hidden)
    if types:
        shapes["embeddings.token_type_embeddings.weight"] = (types, hidden)
    return shapes | norm("embeddings.LayerNorm", hidden)


def attention(prefix: str, hidden: int = HIDDEN) -> Shapes:
    """BERT's self-attention block."""
    shapes: Shapes = {}
    for part in ("self.query", "self.key", "self.value", "output.dense"):
        shapes |= linear(f"{prefix}.{part}", hidden, hidden)
    return shapes | norm(f"{prefix}.output.LayerNorm", hidden)


def bert(vocab: int = len(WORDPIECES), *, hidden: int = HIDDEN, positions: int = POSITIONS, types: int = 2) -> Shapes:
    """BertModel without its pooler."""
    shapes = embeddings(vocab, positions=positions, types=types, hidden=hidden)
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        shapes |= attention(f"{at}.attention", hidden)
        shapes |= linear(f"{at}.intermediate.dense", FF, hidden) | linear(f"{at}.output.dense", hidden, FF)
        shapes |= norm(f"{at}.output.LayerNorm", hidden)
    return shapes


def under(prefix: str, shapes: Shapes) -> Shapes:
    """The same tensors with `prefix` before each name."""
    return {prefix + name: shape for name, shape in shapes.items()}


def old_names(shapes: Shapes) -> Shapes:
    """LayerNorm parameters as TensorFlow named them: gamma and beta."""
    swap = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(name: str) -> str:
        for new, old in swap.items():
            name = name.replace(new, old)
        return name

    return {rename(name): shape for name, shape in shapes.items()}


def config(folder: Path, architecture: str, model_type: str, **extra: Any) -> None:
    """A config.json with BERT's key names; None takes a key out."""
    content: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": len(WORDPIECES),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": FF,
        "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    content |= extra
    save_json(folder / "config.json", {key: value for key, value in content.items() if value is not None})


# Families ---------------------------------------------------------------------------------------------


def make_bert(folder: Path) -> None:
    wordpiece(folder)
    config(folder, "BertModel", "bert")
    pooling(folder, "mean_tokens")
    save_tensors(folder / "model.safetensors", bert() | linear("pooler.dense", HIDDEN, HIDDEN))


def make_bert_f16(folder: Path) -> None:
    make_bert(folder)
    pooling(folder, "cls_token")
    save_tensors(folder / "model.safetensors", bert(), "F16")


def make_bert_bf16(folder: Path) -> None:
    make_bert(folder)
    pooling(folder, "lasttoken")
    save_tensors(folder / "model.safetensors", bert(), "BF16")


def make_bert_f64(folder: Path) -> None:
    make_bert(folder)
    save_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": HIDDEN, "pooling_mode": "cls"})
    save_tensors(folder / "model.safetensors", bert(), "F64")


def make_bert_odd(folder: Path) -> None:
    """Rows of 24 do not fill a Q8_0 block of 32."""
    wordpiece(folder, lowercase=False, strip_accents=False)
    config(folder, "BertModel", "bert", hidden_size=24)
    save_tensors(folder / "model.safetensors", bert(hidden=24))


def make_bert_mlm(folder: Path) -> None:
    """An old checkpoint: prefix, gamma and beta, a head to drop, a sparse config, padded vocabulary, shards."""
    wordpiece(folder, strip_accents=True)
    sparse = {"type_vocab_size": None, "layer_norm_eps": None, "pad_token_id": None}
    config(folder, "BertForMaskedLM", "bert", vocab_size=48, **sparse)
    shapes = under("bert.", old_names(bert(48)) | {"embeddings.position_ids": (1, POSITIONS)})
    shapes |= linear("cls.predictions.transform.dense", HIDDEN, HIDDEN) | {"cls.predictions.bias": (48,)}
    shapes |= linear("cls.seq_relationship", 2, HIDDEN)
    names = list(shapes)
    parts = {"model-00001-of-00002.safetensors": names[:20], "model-00002-of-00002.safetensors": names[20:]}
    for file, part in parts.items():
        save_tensors(folder / file, {name: shapes[name] for name in part})
    weight_map = {name: file for file, part in parts.items() for name in part}
    save_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def make_bert_tokens(folder: Path) -> None:
    """Special tokens named in unusual ways: as an object, an end that is not the last, a separated pair."""
    make_bert(folder)
    ids = {token: i for i, token in enumerate(WORDPIECES)}
    inner = template("[CLS]", "[SEP]", ids)
    inner["pair"].insert(3, inner["pair"][2])
    change_tokenizer(folder, post_processor={"type": "Sequence", "processors": [inner]})
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    unknown = {"__type": "AddedToken", "content": "[UNK]", **flags}
    named = {"eos_token": "[MASK]", "unk_token": unknown, "cls_token": "[CLS]"}
    save_json(folder / "tokenizer_config.json", {**named, "tokenizer_class": "BertTokenizer"})
    config(folder, "BertModel", "bert", eot_token_id=5, sep_token_id=3, mask_token_id=1000)


def make_bert_unlisted(folder: Path) -> None:
    """Neither a list of added tokens nor a tokenizer_config.json; special tokens at the ids of English BERT."""
    make_bert(folder)
    (folder / "tokenizer_config.json").unlink()
    words = ["[PAD]", *PIECES, *LETTERS]
    words += [f"word{i}" for i in range(len(words), 100)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ids = {token: i for i, token in enumerate(words)}
    model = {**read_tokenizer(folder)["model"], "vocab": ids}
    change_tokenizer(folder, added_tokens=[], post_processor=template("[CLS]", "[SEP]", ids), model=model)
    config(folder, "BertModel", "bert", vocab_size=len(words))
    save_tensors(folder / "model.safetensors", bert(len(words)))


def make_bert_reranker(folder: Path) -> None:
    wordpiece(folder)
    config(folder, "BertForSequenceClassification", "bert", id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    head = linear("classifier", 1, HIDDEN) | under("bert.", linear("pooler.dense", HIDDEN, HIDDEN))
    save_tensors(folder / "model.safetensors", under("bert.", bert()) | head)


def make_bert_labels(folder: Path) -> None:
    wordpiece(folder)
    labels = {str(i): f"kind {i}" for i in range(11)}
    config(
        folder,
        "BertForSequenceClassification",
        "bert",
        id2label=labels,
        label2id={v: int(k) for k, v in labels.items()},
    )
    save_tensors(folder / "model.safetensors", under("bert.", bert()) | linear("classifier", 11, HIDDEN))


def distilbert_config(folder: Path, architecture: str, **extra: Any) -> None:
    content = {
        "architectures": [architecture],
        "model_type": "distilbert",
        "vocab_size": len(WORDPIECES),
        "dim": HIDDEN,
    }
    content |= {"n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": FF, "max_position_embeddings": POSITIONS}
    save_json(folder / "config.json", {**content, "activation": "gelu", "pad_token_id": 0, **extra})


def distilbert() -> Shapes:
    shapes = embeddings(len(WORDPIECES), types=0)
    for i in range(LAYERS):
        at = f"transformer.layer.{i}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= linear(f"{at}.attention.{part}", HIDDEN, HIDDEN)
        shapes |= norm(f"{at}.sa_layer_norm") | linear(f"{at}.ffn.lin1", FF, HIDDEN)
        shapes |= linear(f"{at}.ffn.lin2", HIDDEN, FF) | norm(f"{at}.output_layer_norm")
    return shapes


def make_distilbert(folder: Path) -> None:
    wordpiece(folder)
    distilbert_config(folder, "DistilBertModel")
    pooling(folder, "cls_token")
    save_tensors(folder / "model.safetensors", distilbert())


def make_distilbert_mlm(folder: Path) -> None:
    wordpiece(folder)
    distilbert_config(folder, "DistilBertForMaskedLM")
    head = linear("vocab_transform", HIDDEN, HIDDEN) | norm("vocab_layer_norm") | {"vocab_projector.bias": (40,)}
    save_tensors(folder / "model.safetensors", under("distilbert.", distilbert()) | head)


def make_distilbert_classifier(folder: Path) -> None:
    wordpiece(folder)
    distilbert_config(folder, "DistilBertForSequenceClassification", id2label={"0": "bad", "1": "good"})
    head = linear("pre_classifier", HIDDEN, HIDDEN) | linear("classifier", 2, HIDDEN)
    save_tensors(folder / "model.safetensors", under("distilbert.", distilbert()) | head)


ROBERTA_VOCAB = 267


def roberta_config(
    folder: Path, architecture: str, kind: str = "roberta", vocab: int = ROBERTA_VOCAB, **extra: Any
) -> None:
    ends = {
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }
    size = {"vocab_size": vocab, "max_position_embeddings": POSITIONS + 2}
    config(folder, architecture, kind, **(ends | size | extra))


def make_roberta(folder: Path) -> None:
    roberta_bpe(folder)
    roberta_config(folder, "RobertaModel")
    pooling(folder, "mean_tokens")
    save_tensors(folder / "model.safetensors", bert(ROBERTA_VOCAB, positions=POSITIONS + 2, types=1))


def make_roberta_plain(folder: Path) -> None:
    """A post-processor that adds no tokens, against a tokenizer_config.json that asks for some."""
    make_roberta(folder)
    change_tokenizer(folder, post_processor=BYTE_LEVEL)
    asked = {"add_bos_token": True, "add_sep_token": True, "add_pad_token": True}
    save_json(folder / "tokenizer_config.json", {**asked, "sep_token": "</s>", "tokenizer_class": "RobertaTokenizer"})


def roberta_head(labels: int) -> Shapes:
    return linear("classifier.dense", HIDDEN, HIDDEN) | linear("classifier.out_proj", labels, HIDDEN)


def make_roberta_reranker(folder: Path) -> None:
    roberta_bpe(folder, tokenizer_class="RobertaTokenizerFast")
    roberta_config(folder, "RobertaForSequenceClassification", id2label={"0": "relevance"}, pad_token_id=None)
    shapes = under("roberta.", bert(ROBERTA_VOCAB, positions=POSITIONS + 2, types=1))
    save_tensors(folder / "model.safetensors", shapes | roberta_head(1))


XLM_VOCAB = 22


def xlm_config(folder: Path, architecture: str, **extra: Any) -> None:
    roberta_config(folder, architecture, "xlm-roberta", XLM_VOCAB, **extra)


def make_xlm_roberta_spm(folder: Path) -> None:
    unigram_spm(folder)
    xlm_config(folder, "XLMRobertaModel")
    pooling(folder, "cls_token")
    save_tensors(folder / "model.safetensors", bert(XLM_VOCAB, positions=POSITIONS + 2, types=1))


def make_xlm_roberta_json(folder: Path) -> None:
    unigram_json(folder, config={"add_prefix_space": True, "clean_up_tokenization_spaces": True})
    xlm_config(folder, "XLMRobertaModel")
    pooling(folder, "mean_tokens")
    save_tensors(folder / "model.safetensors", under("roberta.", bert(XLM_VOCAB, positions=POSITIONS + 2, types=1)))


def make_xlm_roberta_reranker(folder: Path) -> None:
    """The layout of bge-reranker-v2-m3, with no sentencepiece.bpe.model and a terse tokenizer_config.json."""
    unigram_json(folder, config={})
    xlm_config(folder, "XLMRobertaForSequenceClassification", id2label={"0": "LABEL_0"})
    shapes = under("roberta.", bert(XLM_VOCAB, positions=POSITIONS + 2, types=1))
    save_tensors(folder / "model.safetensors", shapes | roberta_head(1))


def nomic_config(folder: Path, vocab: int, *, moe: bool, **extra: Any) -> None:
    content: dict[str, Any] = {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "vocab_size": vocab,
    }
    content |= {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_inner": FF, "type_vocab_size": 2}
    content |= {
        "n_positions": 2048 if moe else 8192,
        "max_trained_positions": 2048,
        "layer_norm_epsilon": 1e-12,
    }
    content |= {"activation_function": "gelu" if moe else "swiglu", "causal": False, "prenorm": False}
    content |= {"qkv_proj_bias": moe, "mlp_fc1_bias": moe, "mlp_fc2_bias": moe, "rotary_emb_base": 1000}
    content |= {"rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None}
    save_json(folder / "config.json", {**content, **extra})


def nomic(vocab: int, *, moe: bool, hidden: int = HIDDEN, types: int = 2) -> Shapes:
    shapes = {
        name.replace("embeddings.LayerNorm", "emb_ln"): shape
        for name, shape in embeddings(vocab, positions=0, types=types, hidden=hidden).items()
    }
    for i in range(LAYERS):
        at = f"encoder.layers.{i}"
        shapes |= linear(f"{at}.attn.Wqkv", 3 * hidden, hidden, bias=moe)
        shapes |= linear(f"{at}.attn.out_proj", hidden, hidden, bias=moe)
        shapes |= norm(f"{at}.norm1", hidden) | norm(f"{at}.norm2", hidden)
        if moe and i % 2 == 1:
            shapes |= {f"{at}.mlp.router.layer.weight": (4, hidden), f"{at}.mlp.experts.bias": (hidden,)}
            shapes |= {f"{at}.mlp.experts.mlp.w{k}": (4 * FF, hidden) for k in (1, 2)}
        elif moe:
            shapes |= linear(f"{at}.mlp.fc1", FF, hidden) | linear(f"{at}.mlp.fc2", hidden, FF)
        else:
            shapes |= linear(f"{at}.mlp.fc11", FF, hidden, bias=False) | linear(
                f"{at}.mlp.fc12", FF, hidden, bias=False
            )
            shapes |= linear(f"{at}.mlp.fc2", hidden, FF, bias=False)
    return shapes


MOE = {"moe_every_n_layers": 2, "moe_top_k": 2, "num_experts": 4, "pad_token_id": 1, "type_vocab_size": 1}


def make_nomic(folder: Path) -> None:
    wordpiece(folder)
    nomic_config(folder, 48, moe=False)
    pooling(folder, "mean_tokens")
    save_tensors(folder / "model.safetensors", nomic(48, moe=False))


def make_nomic_moe(folder: Path) -> None:
    unigram_json(folder, config={"clean_up_tokenization_spaces": True})
    nomic_config(folder, XLM_VOCAB, moe=True, **MOE)
    pooling(folder, "mean_tokens")
    save_tensors(folder / "model.safetensors", nomic(XLM_VOCAB, moe=True, types=1))


def jina(vocab: int) -> Shapes:
    shapes = embeddings(vocab, positions=0)
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        shapes |= attention(f"{at}.attention") | linear(f"{at}.mlp.gated_layers", 2 * FF, HIDDEN, bias=False)
        shapes |= linear(f"{at}.mlp.wo", HIDDEN, FF) | norm(f"{at}.mlp.layernorm")
    return shapes


def make_jina(folder: Path) -> None:
    wordpiece(folder)
    config(folder, "JinaBertModel", "bert", position_embedding_type="alibi", feed_forward_type="geglu")
    pooling(folder, "mean_tokens")
    save_tensors(folder / "model.safetensors", jina(len(WORDPIECES)) | linear("pooler.dense", HIDDEN, HIDDEN))


def qk_norms(shapes: Shapes) -> Shapes:
    """jina-embeddings-v2-base-code's extra norms, and its second attention norm."""
    for i in range(LAYERS):
        for part in ("attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1"):
            shapes |= norm(f"encoder.layer.{i}.{part}")
        old = f"encoder.layer.{i}.mlp.layernorm"
        for end in ("weight", "bias"):
            shapes[f"encoder.layer.{i}.layer_norm_2.{end}"] = shapes.pop(f"{old}.{end}")
    return shapes


def make_jina_code(folder: Path) -> None:
    roberta_bpe(folder)
    config(folder, "JinaBertForMaskedLM", "bert", vocab_size=ROBERTA_VOCAB, position_embedding_type="alibi")
    pooling(folder, "mean_tokens")
    save_tensors(folder / "model.safetensors", qk_norms(jina(ROBERTA_VOCAB)))


def make_jina_whitespace(folder: Path) -> None:
    roberta_bpe(folder, whitespace=True)
    config(folder, "JinaBertForMaskedLM", "bert", vocab_size=ROBERTA_VOCAB, position_embedding_type="alibi")
    save_tensors(folder / "model.safetensors", under("bert.", jina(ROBERTA_VOCAB)))


MODERN_VOCAB = 281


def modern_config(folder: Path, architecture: str, **extra: Any) -> None:
    ends = {
        "bos_token_id": 266,
        "eos_token_id": 267,
        "cls_token_id": 266,
        "sep_token_id": 267,
        "pad_token_id": 264,
    }
    eps = {"layer_norm_eps": 1e-5, "norm_eps": 1e-5, "local_attention": 16, "hidden_activation": "gelu"}
    absent = {"type_vocab_size": None, "hidden_act": None}
    config(folder, architecture, "modernbert", **{"vocab_size": MODERN_VOCAB, **ends, **eps, **absent, **extra})


def modernbert() -> Shapes:
    shapes: Shapes = {"embeddings.tok_embeddings.weight": (MODERN_VOCAB, HIDDEN)}
    shapes |= norm("embeddings.norm", bias=False) | norm("final_norm", bias=False)
    for i in range(LAYERS):
        at = f"layers.{i}"
        shapes |= norm(f"{at}.attn_norm", bias=False) if i else {}
        shapes |= linear(f"{at}.attn.Wqkv", 3 * HIDDEN, HIDDEN, bias=False)
        shapes |= linear(f"{at}.attn.Wo", HIDDEN, HIDDEN, bias=False) | norm(f"{at}.mlp_norm", bias=False)
        shapes |= linear(f"{at}.mlp.Wi", 2 * FF, HIDDEN, bias=False) | linear(f"{at}.mlp.Wo", HIDDEN, FF, bias=False)
    return shapes


def modern_head() -> Shapes:
    return linear("head.dense", HIDDEN, HIDDEN, bias=False) | norm("head.norm", bias=False)


def make_modernbert(folder: Path) -> None:
    modern_bpe(folder)
    thetas = {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3}
    modern_config(folder, "ModernBertModel", **thetas, classifier_pooling="mean")
    pooling(folder, "cls_token")
    save_tensors(folder / "model.safetensors", modernbert())


def make_modernbert_mlm(folder: Path) -> None:
    modern_bpe(folder)
    modern_config(folder, "ModernBertForMaskedLM", hidden_activation="silu", local_attention=None)
    save_tensors(folder / "model.safetensors", under("model.", modernbert()) | modern_head())


def make_modernbert_reranker(folder: Path) -> None:
    """A config as transformers 5 writes it: rope_parameters for each kind of layer."""
    modern_bpe(folder)
    ropes = {"full_attention": {"rope_theta": 80000.0, "rope_type": "default"}}
    ropes["sliding_attention"] = {"rope_theta": 5000.0, "rope_type": "default"}
    modern_config(
        folder,
        "ModernBertForSequenceClassification",
        rope_parameters=ropes,
        classifier_pooling="mean",
        id2label={"0": "LABEL_0"},
    )
    head = modern_head() | linear("classifier", 1, HIDDEN)
    save_tensors(folder / "model.safetensors", under("model.", modernbert()) | head)


def neobert_config(folder: Path, architecture: str, **extra: Any) -> None:
    absent = {
        "type_vocab_size": None,
        "layer_norm_eps": None,
        "max_position_embeddings": None,
        "hidden_act": None,
    }
    config(
        folder,
        architecture,
        "neobert",
        **absent,
        intermediate_size=96,
        norm_eps=1e-5,
        max_length=POSITIONS,
        **extra,
    )


def neobert() -> Shapes:
    shapes: Shapes = {"encoder.weight": (len(WORDPIECES), HIDDEN)}
    for i in range(LAYERS):
        at = f"transformer_encoder.{i}"
        shapes |= linear(f"{at}.qkv", 3 * HIDDEN, HIDDEN, bias=False) | linear(f"{at}.wo", HIDDEN, HIDDEN, bias=False)
        shapes |= linear(f"{at}.ffn.w12", 2 * FF, HIDDEN, bias=False) | linear(f"{at}.ffn.w3", HIDDEN, FF, bias=False)
        shapes |= norm(f"{at}.attention_norm", bias=False) | norm(f"{at}.ffn_norm", bias=False)
    return shapes | norm("layer_norm", bias=False)


def make_neobert(folder: Path) -> None:
    wordpiece(folder)
    neobert_config(folder, "NeoBERT")
    save_tensors(folder / "model.safetensors", neobert())


def make_neobert_mlm(folder: Path) -> None:
    wordpiece(folder)
    neobert_config(folder, "NeoBERTLMHead")
    save_tensors(folder / "model.safetensors", under("model.", neobert()) | linear("decoder", 40, HIDDEN))


def make_neobert_reranker(folder: Path) -> None:
    wordpiece(folder)
    neobert_config(folder, "NeoBERTForSequenceClassification", id2label={"0": "LABEL_0"})
    head = linear("dense", HIDDEN, HIDDEN) | linear("classifier", 1, HIDDEN)
    save_tensors(folder / "model.safetensors", under("model.", neobert()) | head)


MODELS: dict[str, Callable[[Path], None]] = {
    name.removeprefix("make_").replace("_", "-"): maker
    for name, maker in list(globals().items())
    if name.startswith("make_")
}


def build(name: str, folder: Path) -> Path:
    """The folder of model `name`, filled; its last component is the name, as upstream reads names from it."""
    folder = folder / name
    folder.mkdir(parents=True)
    MODELS[name](folder)
    return folder
