"""Files that ended the process, or took all of its memory or time, before modelfile.py refused them. campaign.py found
them; here they are made again from the tests' tiny models, with the one thing that is wrong with each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rawllama import ModelLoadError
from rawllama.model import Model

from . import damage

USE = Path(__file__).parent / "use.py"
STRING, UINT32 = 8, 4


def without_key(name: str) -> Callable[[damage.File], object]:
    return lambda file: file.keys.pop(name)


def without_tensor(name: str) -> Callable[[damage.File], object]:
    return lambda file: file.tensors.pop(name)


def dummy_tokens(file: damage.File) -> None:
    """No vocabulary but its size."""
    file.keys["tokenizer.ggml.model"] = damage.Key(STRING, b"no_vocab")
    file.keys["llama.vocab_size"] = damage.Key(UINT32, 0x10000000)
    file.tensors.clear()


def as_rwkv(file: damage.File) -> None:
    """The trie of tokens has "the" and " cat", and no "t" and " ", at which its tokenizer would stay forever."""
    file.keys["tokenizer.ggml.model"] = damage.Key(STRING, b"rwkv")
    tokens = file.keys["tokenizer.ggml.tokens"]
    tokens.value = [b"the" if token in (b"t", b" ") else token for token in tokens.value]


def without_tokens(file: damage.File) -> None:
    """A tokenizer that takes hashes of the text, modulo the number of tokens."""
    file.keys["tokenizer.ggml.model"] = damage.Key(STRING, b"test")
    file.keys["tokenizer.ggml.tokens"].value = []
    file.tensors.clear()


def with_sections(*sections: int) -> Callable[[damage.File], object]:
    def change(file: damage.File) -> None:
        file.keys["qwen2vl.rope.dimension_sections"].value = list(sections)

    return change


KEPT = {
    "T5 without positions": ("t5", without_tensor("dec.blk.0.attn_rel_b.weight"), "attn_rel_b.weight is missing"),
    "T5's encoder without": ("t5", without_tensor("enc.blk.0.attn_rel_b.weight"), "attn_rel_b.weight is missing"),
    "encoder without": ("t5encoder", without_tensor("enc.blk.0.attn_rel_b.weight"), "attn_rel_b.weight is missing"),
    "no heads": ("modern-bert", without_key("modern-bert.attention.head_count"), "head_count is missing"),
    "many dummy tokens": ("llama", dummy_tokens, "vocab_size cannot be"),
    "RWKV's bytes": ("llama", as_rwkv, "first byte is no token"),
    "modulo no tokens": ("llama", without_tokens, "tokens is empty"),
    "wide sections": ("qwen2vl", with_sections(2, 100, 3, 0), "dimension_sections cannot be"),
    "sections of nothing": ("qwen2vl", with_sections(2, -2, 0, 0), "dimension_sections cannot be"),
}


@pytest.mark.parametrize(("model", "change", "words"), KEPT.values(), ids=KEPT)
def test_kept(
    model: str, change: Callable[[damage.File], object], words: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    file = damage.read(tiny(model))
    change(file)
    path = damage.write(file, tmp_path / "damaged.gguf")
    with pytest.raises(ModelLoadError, match=words):
        Model(path)
    env = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    done = subprocess.run([sys.executable, USE, path], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)


@pytest.mark.parametrize("model", ["bert", "llama", "t5", "t5encoder", "modern-bert", "qwen2vl"])
def test_nothing_changed(model: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """The files above are refused for the one change, not for how they were written."""
    with Model(damage.write(damage.read(tiny(model)), tmp_path / "same.gguf")) as same, Model(tiny(model)) as original:
        assert (same.size, same.n_params) == (original.size, original.n_params)


def test_rwkv_with_all_bytes(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """As RWKV's own vocabulary: each byte is a token, some of them escaped."""
    file = damage.read(tiny("llama"))
    file.keys["tokenizer.ggml.model"] = damage.Key(STRING, b"rwkv")
    tokens = file.keys["tokenizer.ggml.tokens"]
    bytes_ = [b"\\x%02x" % byte for byte in range(128)] + [b"\\x%02x" % byte for byte in range(128, 256)]
    tokens.value = [*bytes_, *(b"\\x20cat%d" % number for number in range(len(tokens.value) - 256))]
    with Model(damage.write(file, tmp_path / "rwkv.gguf"), vocab_only=True) as model:
        assert model.vocab.detokenize_bytes(model.vocab.tokenize(b" cat1 the", add_special=False)) == b" cat1 the"
