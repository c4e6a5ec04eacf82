"""The vocabulary of a model as GGUF keys: WordPiece, byte-level BPE, or SentencePiece's unigram."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from . import _sentencepiece
from ._errors import ConvertError
from ._families import NOMIC_MOE, Family
from ._folder import Folder, Json
from ._keys import Keys
from ._special import add_special_tokens

SPACE = "\u2581"

# libllama reads no pre-tokenizer's name for WordPiece; upstream writes one after the vocabulary all the same.
WORDPIECE_NAMES = {"0f052197aac305fe42f378b5c61554b7": "jina-v2-en"}

XLM_ROBERTA_MASK = 250001

PREFIX_NOTE = (
    "tokenizer_config.json lacks add_prefix_space, which llama.cpp's converter takes for false while "
    "tokenizer.json puts a space before each text: first words get other tokens; "
    'write "add_prefix_space": true there'
)


class TokenType(IntEnum):
    """GGUF's types of tokens."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


Entries = list[tuple[str, TokenType]]


def add_vocabulary(keys: Keys, family: Family, folder: Folder, config: Json) -> int:
    """Add the tokenizer's keys, and return the number of tokens.

    Raises
    ------
    ConvertError
        A file of the tokenizer is missing, damaged, or of a kind that libllama does not know.
    """
    if is_unigram(family, folder):
        size = unigram(keys, family, folder, config)
    elif family.vocabulary == "bpe" or (family.vocabulary == "jina" and folder.vocabulary() == "BPE"):
        size = bpe(keys, family, folder, config)
    else:
        size = wordpiece(keys, folder, config)
    if family.arch != "modern-bert":
        keys.set("tokenizer.ggml.token_type_count", "uint32", config.get("type_vocab_size", 1))
    return size


def is_unigram(family: Family, folder: Folder) -> bool:
    """Whether the model's vocabulary is SentencePiece's unigram."""
    if family.vocabulary == "either":
        return folder.vocabulary() == "Unigram"
    return family.vocabulary == "unigram"


def check_type(folder: Folder, wanted: str) -> None:
    """Check the kind of vocabulary.

    Raises
    ------
    ConvertError
        It is another one.
    """
    found = folder.vocabulary()
    if found != wanted:
        architecture = folder.config["architectures"][0]
        raise ConvertError(f"folder: {architecture} needs a {wanted} vocabulary, tokenizer.json has {found}")


def entries(folder: Folder, vocabulary: dict[str, int], config: Json) -> Entries:
    """Texts and types of all tokens in the order of their ids; ids without a token become unused ones.

    Raises
    ------
    ConvertError
        An id is beyond config.json's vocab_size.
    """
    added = folder.added_tokens(vocabulary)
    by_id = {token_id: text for text, token_id in vocabulary.items()}
    by_id |= {token.id: token.content for token in added.values()}
    size = config.get("vocab_size") or len(by_id)
    if max(by_id, default=0) >= size:
        raise ConvertError(f"folder: the tokenizer has id {max(by_id)}, vocab_size in config.json is {size}")
    special = {text for text, token in added.items() if token.special or looks_special(text)}
    found: Entries = []
    for i in range(size):
        text = by_id.get(i)
        if text is None:
            found.append((f"[PAD{i}]", TokenType.UNUSED))
        elif text in special:
            found.append((text, TokenType.CONTROL))
        elif text in added:
            found.append((text.replace(SPACE, " "), TokenType.USER_DEFINED))
        else:
            found.append((text, TokenType.NORMAL))
    return found


def looks_special(text: str) -> bool:
    """Whether an added token steers the model, though its file does not call it special."""
    framed = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(
        text.startswith(begin) and text.endswith(end) for begin, end in framed
    )


def set_tokens(keys: Keys, model: str, pre: str, tokens: Sequence[str], types: Sequence[TokenType]) -> None:
    """Set the keys that every vocabulary has.

    Raises
    ------
    ConvertError
        Two tokens are the same: libllama ends the process on such a file.
    """
    if len(set(tokens)) != len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise ConvertError(f"folder: the vocabulary has token {twice!r} twice; libllama cannot load that")
    keys.set("tokenizer.ggml.model", "string", model)
    keys.set("tokenizer.ggml.pre", "string", pre)
    keys.set("tokenizer.ggml.tokens", "array", list(tokens))
    keys.set("tokenizer.ggml.token_type", "array", [int(kind) for kind in types])


def wordpiece(keys: Keys, folder: Folder, config: Json) -> int:
    """BERT's vocabulary: libllama marks the beginnings of words, Hugging Face the continuations."""
    check_type(folder, "WordPiece")
    listed = entries(folder, folder.need_tokenizer()["model"]["vocab"], config)
    tokens = [marked(text, kind) for text, kind in listed]
    joined = "\n".join(text for text, _ in listed).encode()
    pre = WORDPIECE_NAMES.get(hashlib.sha256(joined).hexdigest()[:32], "default")
    set_tokens(keys, "bert", pre, tokens, [kind for _, kind in listed])
    add_special_tokens(keys, folder, len(tokens))
    check_special(keys, [kind for _, kind in listed])
    return len(tokens)


def check_special(keys: Keys, types: Sequence[TokenType]) -> None:
    """Check that libllama finds the tokens that it puts around each text.

    Raises
    ------
    ConvertError
        It would take other ones, or end the process for want of one.
    """
    for name, default in (("bos", 101), ("seperator", 102), ("unknown", 100)):
        _, token = keys.values.get(f"tokenizer.ggml.{name}_token_id", ("uint32", default))
        if token >= len(types) or types[token] != TokenType.CONTROL:
            raise ConvertError(
                f"folder: no {name} token: list [CLS], [SEP] and [UNK] among the added_tokens of "
                "tokenizer.json, and name them in tokenizer_config.json"
            )


def marked(text: str, kind: TokenType) -> str:
    """A WordPiece token as libllama stores it."""
    if kind == TokenType.CONTROL:
        return text
    return text[2:] if text.startswith("##") else SPACE + text


def bpe(keys: Keys, family: Family, folder: Folder, config: Json) -> int:
    """GPT-2's byte-level BPE, or BPE over words between spaces (some Jina models)."""
    check_type(folder, "BPE")
    tokenizer = folder.need_tokenizer()
    pre_tokenizer = tokenizer.get("pre_tokenizer") or {}
    whitespace = family.vocabulary == "jina" and pre_tokenizer.get("type") == "Whitespace"
    if not whitespace:
        check_pre_tokenizer(pre_tokenizer)
    listed = entries(folder, tokenizer["model"]["vocab"], config)
    model, pre = ("whitespace", "whitespace") if whitespace else ("gpt2", family.pre)
    set_tokens(keys, model, pre, [text for text, _ in listed], [kind for _, kind in listed])
    keys.set("tokenizer.ggml.merges", "array", merges(tokenizer["model"]))
    if family.arch == "modern-bert":
        for kind in ("bos", "eos", "sep"):
            keys.set(f"tokenizer.ggml.add_{kind}_token", "bool", True)
    add_special_tokens(keys, folder)
    return len(listed)


def check_pre_tokenizer(pre_tokenizer: Json) -> None:
    """Check that texts are cut as GPT-2 cuts them, the only way for which this converter knows a name.

    Raises
    ------
    ConvertError
        They are cut in another way.
    """
    plain = pre_tokenizer.get("type") == "ByteLevel" and pre_tokenizer.get("use_regex", True)
    if not plain or pre_tokenizer.get("add_prefix_space"):
        kind = pre_tokenizer.get("type")
        raise ConvertError(
            f"folder: pre-tokenizer {kind} in tokenizer.json is not supported, only ByteLevel as in GPT-2 "
            "without a prefix space; convert this model with llama.cpp's convert_hf_to_gguf.py"
        )


def merges(model: Json) -> list[str]:
    """The merges of a BPE model, each as its two parts with a space between.

    Raises
    ------
    ConvertError
        There are none: libllama needs them.
    """
    found: list[str | list[str]] = model.get("merges") or []
    if not found:
        raise ConvertError("folder: tokenizer.json has a BPE vocabulary without merges; download it again")
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in found)
    return [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in pairs]


def unigram(keys: Keys, family: Family, folder: Folder, config: Json) -> int:
    """XLM-RoBERTa's vocabulary, from sentencepiece.bpe.model where it is there, else from tokenizer.json."""
    path = folder.path / "sentencepiece.bpe.model"
    if path.is_file():
        size = from_sentencepiece(keys, family, _sentencepiece.read(path), config)
    else:
        size = from_tokenizer_json(keys, folder, config)
    add_special_tokens(keys, folder, size)
    return size


Scored = list[tuple[str, float, TokenType]]


def padded(scored: Scored, config: Json) -> Scored:
    """The tokens, and unused ones up to config.json's vocab_size."""
    size = config.get("vocab_size") or 0
    return scored + [(f"[PAD{i}]", -10000.0, TokenType.UNUSED) for i in range(len(scored), size)]


def set_scored(keys: Keys, scored: Scored, *, prefix: bool, collapse: bool, charsmap: bytes) -> int:
    """Set the keys of a unigram vocabulary, and return its size.

    A space is put before a text with `prefix`, and runs of spaces become one with `collapse`.
    """
    set_tokens(keys, "t5", "default", [text for text, _, _ in scored], [kind for _, _, kind in scored])
    keys.set("tokenizer.ggml.scores", "array", [score for _, score, _ in scored])
    keys.set("tokenizer.ggml.add_space_prefix", "bool", prefix)
    keys.set("tokenizer.ggml.remove_extra_whitespaces", "bool", collapse)
    if charsmap:
        keys.set("tokenizer.ggml.precompiled_charsmap", "array", charsmap)
    return len(scored)


def from_sentencepiece(keys: Keys, family: Family, model: _sentencepiece.SentencePiece, config: Json) -> int:
    """The vocabulary with fairseq's four tokens in front, which is how XLM-RoBERTa numbers it."""
    kept = {2: TokenType.UNKNOWN, 3: TokenType.CONTROL, 5: TokenType.UNUSED, 6: TokenType.BYTE}
    own = padded([(p.text, p.score, kept.get(p.kind, TokenType.NORMAL)) for p in model.pieces], config)
    heads = [(text, 0.0, TokenType.CONTROL) for text in ("<s>", "<pad>", "</s>")]
    scored = [*heads, ("<unk>", 0.0, TokenType.UNKNOWN), *own[3:-1]]
    if family is NOMIC_MOE and len(scored) > XLM_ROBERTA_MASK:
        scored[XLM_ROBERTA_MASK] = ("<mask>", 0.0, TokenType.CONTROL)
    return set_scored(
        keys,
        scored,
        prefix=model.add_space_prefix,
        collapse=model.remove_extra_whitespaces,
        charsmap=model.charsmap,
    )


def from_tokenizer_json(keys: Keys, folder: Folder, config: Json) -> int:
    """The vocabulary as tokenizer.json has it."""
    check_type(folder, "Unigram")
    tokenizer, settings = folder.need_tokenizer(), folder.tokenizer_config or {}
    vocabulary = {text: i for i, (text, _) in enumerate(tokenizer["model"]["vocab"])}
    added = folder.added_tokens(vocabulary)
    named = added.get(settings.get("unk_token", ""))
    unknown = named.id if named else tokenizer["model"].get("unk_id", 3)
    special = folder.special_names()

    def kind(i: int, text: str) -> TokenType:
        if i == unknown:
            return TokenType.UNKNOWN
        if text in special:
            return TokenType.CONTROL
        return TokenType.USER_DEFINED if text in added else TokenType.NORMAL

    scored = [(text, score, kind(i, text)) for i, (text, score) in enumerate(tokenizer["model"]["vocab"])]
    prefix = bool(settings.get("add_prefix_space", False))
    if not prefix and prepends_space(tokenizer.get("pre_tokenizer") or {}):
        keys.notes.append(PREFIX_NOTE)
    return set_scored(
        keys,
        padded(scored, config),
        prefix=prefix,
        collapse=bool(settings.get("clean_up_tokenization_spaces", False)),
        charsmap=find_charsmap(tokenizer.get("normalizer") or {}),
    )


def prepends_space(pre_tokenizer: Json) -> bool:
    """Whether a pre-tokenizer, or one inside it, puts a space before each text."""
    inner: list[Any] = pre_tokenizer.get("pretokenizers") or []
    if pre_tokenizer.get("type") == "Metaspace":
        old_flag = pre_tokenizer.get("add_prefix_space", True)
        return bool(pre_tokenizer.get("prepend_scheme", "always" if old_flag else "never") != "never")
    return any(prepends_space(part) for part in inner)


def find_charsmap(normalizer: Json) -> bytes:
    """The character map of SentencePiece's normalizer, empty where there is none."""
    if normalizer.get("precompiled_charsmap"):
        return base64.b64decode(normalizer["precompiled_charsmap"])
    inner: list[Any] = normalizer.get("normalizers") or []
    return next(filter(None, map(find_charsmap, inner)), b"")
