"""Four kinds of tokenizer, each with the same few words, which are tokens where a space is before them."""

from __future__ import annotations

import gguf

TEXT = "the cat sat on the mat"
WORDS = (
    "the", "cat", "sat", "on", "mat", "hello", "world", "dog", "ran", "in", "house", "sun", "is", "red", "one", "two",
    "man", "with", "plays", "guitar", "we", "read", "books",
)  # fmt: skip
CHARACTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789")
MARKS = tuple(".,?!")
SPACE = "\u2581"  # how a vocabulary writes the space before a word

NORMAL, UNKNOWN, CONTROL, BYTE = (int(gguf.TokenType[name]) for name in ("NORMAL", "UNKNOWN", "CONTROL", "BYTE"))


def word_pieces(writer: gguf.GGUFWriter) -> int:
    """BERT's kind: pieces of words, [CLS] before the text and [SEP] after it. Returns the number of tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # libllama marks the start of a word where Hugging Face marks what is inside one.
    tokens = special + [SPACE + piece for piece in (*WORDS, *CHARACTERS, *MARKS)] + [*CHARACTERS]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL] * len(special) + [NORMAL] * (len(tokens) - len(special)))
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)
    return len(tokens)


def byte_pairs(writer: gguf.GGUFWriter, pre: str, *, bos: str = "", eos: str, special: tuple[str, ...] = ()) -> int:
    """GPT-2's kind: bytes and merges of them; `pre` says how text is cut first. Returns the number of tokens.

    `bos`, where it is not empty, is put before texts; `eos` and the tokens of `special` are only known.
    """
    merges = _merges("\u0120")
    special = (*special, eos, *((bos,) if bos else ()))
    tokens = [*_byte_alphabet(), *map("".join, merges), *special]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([NORMAL] * (len(tokens) - len(special)) + [CONTROL] * len(special))
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokens.index(eos))
    writer.add_bos_token_id(tokens.index(bos or eos))
    writer.add_add_bos_token(bool(bos))
    writer.add_pad_token_id(tokens.index(special[0]))
    return len(tokens)


def sentence_pieces(writer: gguf.GGUFWriter, *, special: tuple[str, ...] = ("<unk>", "<s>", "</s>")) -> int:
    """Llama's kind: characters and merges of them by score, bytes for what is unknown. Returns the number of tokens.

    `special` are the names of the unknown token, of the one before texts and of the one after.
    """
    known = [*map("".join, _merges(SPACE)), SPACE, *CHARACTERS, *MARKS]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *known]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(known))
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(known))])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return len(tokens)


def unigrams(writer: gguf.GGUFWriter) -> int:
    """T5's kind: the likeliest pieces by score, </s> after the text. Returns the number of tokens."""
    special = ["<pad>", "</s>", "<unk>"]
    words = [SPACE + word for word in WORDS] + [*WORDS]
    letters = [SPACE, *CHARACTERS, *MARKS]
    tokens = special + words + letters
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL, CONTROL, UNKNOWN] + [NORMAL] * (len(tokens) - len(special)))
    writer.add_token_scores([0.0] * len(special) + [-4.0] * len(words) + [-6.0] * len(letters))
    writer.add_add_space_prefix(True)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    return len(tokens)


def _merges(space: str) -> list[tuple[str, str]]:
    """Pairs that build each word and its space from the left, one letter at a time."""
    pairs = [(space + word[:end], word[end]) for word in WORDS for end in range(len(word))]
    return list(dict.fromkeys(pairs))


def _byte_alphabet() -> list[str]:
    """The printable characters that stand for the 256 bytes, in the bytes' order."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]
