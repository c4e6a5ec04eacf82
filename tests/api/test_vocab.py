"""rawllama.vocab: tokens of texts, one or many, and back, without loss; what each token is."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rawllama import lib, pointer
from rawllama._params import enum_names
from rawllama.errors import ClosedError, ConcurrentUseError, InvalidArgumentError, NativeAssertError
from rawllama.model import Model
from rawllama.vocab import TokenAttr, Vocab

from ..models import vocabularies
from ..tools import Tokens, run_python

Tiny = Callable[[str], Path]

KINDS = {"spm": "llama", "wpm": "bert", "ugm": "t5encoder", "bpe": "qwen3"}
SPECIAL = (
    "bos", "eos", "eot", "sep", "nl", "pad", "mask", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep",
)  # fmt: skip
WORDS = st.sampled_from([f" {word}" for word in vocabularies.WORDS])
#: Every character but surrogates, and the words of the tiny vocabularies among them.
TEXT = st.lists(st.one_of(st.text(), WORDS), max_size=9).map("".join)


def raw_tokenize(vocab: Vocab, text: str | bytes, add_special: bool = True, parse_special: bool = False) -> list[int]:
    """The bare C function."""
    data = text.encode() if isinstance(text, str) else text
    tokens = np.empty(4 * len(data) + 16, np.int32)
    with vocab._model._used as model:
        c_vocab = lib.llama_model_get_vocab(model)
        target = pointer(tokens, "llama_token *")
        count = lib.llama_tokenize(c_vocab, data, len(data), target, tokens.size, add_special, parse_special)
    assert count >= 0
    return list(tokens[:count].tolist())


def split(tokens: Tokens, offsets: np.ndarray[Any, Any]) -> list[list[int]]:
    assert tokens.dtype == np.int32
    assert offsets.dtype == np.int64
    assert offsets[0] == 0
    assert offsets[-1] == tokens.size
    return [tokens[start:end].tolist() for start, end in pairwise(offsets)]


def write_vocabulary(path: Path, fill: Callable[[gguf.GGUFWriter], object]) -> Path:
    """A file that has a vocabulary and nothing else."""
    writer = gguf.GGUFWriter(path, "llama")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def fill_sentence_pieces(
    writer: gguf.GGUFWriter, tokens: Sequence[str] | Sequence[bytes], types: Sequence[int]
) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)


@pytest.fixture(scope="module")
def vocab(minilm: str) -> Iterator[Vocab]:
    with Model(minilm, vocab_only=True) as model:
        yield model.vocab


@pytest.fixture(scope="module")
def vocabs(tiny: Tiny) -> Iterator[dict[str, Vocab]]:
    """A small vocabulary of each kind."""
    models = {kind: Model(tiny(name), vocab_only=True) for kind, name in KINDS.items()}
    yield {kind: model.vocab for kind, model in models.items()}
    for model in models.values():
        model.close()


@pytest.fixture(scope="module")
def no_bytes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocab]:
    """A vocabulary that knows "a", "b", spaces and nothing else: libllama throws at any other character."""

    def fill(writer: gguf.GGUFWriter) -> None:
        tokens = ["<unk>", "<s>", "</s>", vocabularies.SPACE, "a", "b"]
        types = [vocabularies.UNKNOWN, *[vocabularies.CONTROL] * 2, *[vocabularies.NORMAL] * 3]
        fill_sentence_pieces(writer, tokens, types)

    with Model(write_vocabulary(tmp_path_factory.mktemp("vocab") / "v.gguf", fill), vocab_only=True) as model:
        yield model.vocab


# ---- facts


def test_minilm(vocab: Vocab) -> None:
    assert (vocab.type, vocab.n_tokens, len(vocab)) == ("wpm", 30522, 30522)
    assert (vocab.bos, vocab.sep, vocab.pad, vocab.mask, vocab.eot, vocab.fim_pre) == (101, 102, 0, 103, None, None)
    assert (vocab.text(101), vocab.text(7592), vocab.text(2050)) == ("[CLS]", "\u2581hello", "a")
    assert vocab.attr(101) == TokenAttr.CONTROL
    assert vocab.attr(7592) is TokenAttr.NORMAL
    assert repr(vocab) == "<Vocab wpm, 30522 tokens>"


@pytest.mark.parametrize("kind", KINDS)
def test_all_facts_are_those_of_c(kind: str, vocabs: dict[str, Vocab]) -> None:
    vocab = vocabs[kind]
    with vocab._model._used as model:
        pointer = lib.llama_model_get_vocab(model)
        assert vocab.type == kind
        assert vocab.n_tokens == lib.llama_vocab_n_tokens(pointer)
        for name in SPECIAL:
            token = getattr(lib, f"llama_vocab_{name}")(pointer)
            assert getattr(vocab, name) == (None if token == lib.LLAMA_TOKEN_NULL else token), name
        for name in ("add_bos", "add_eos", "add_sep"):
            assert getattr(vocab, name) is getattr(lib, f"llama_vocab_get_{name}")(pointer)
        for token in range(vocab.n_tokens):
            assert vocab.is_eog(token) is lib.llama_vocab_is_eog(pointer, token)
            assert vocab.is_control(token) is lib.llama_vocab_is_control(pointer, token)
            assert vocab.score(token) == lib.llama_vocab_get_score(pointer, token)
            assert vocab.attr(token) == lib.llama_vocab_get_attr(pointer, token)


def test_attributes_are_all_there() -> None:
    named = {value: name.lower() for name, value in TokenAttr.__members__.items()}
    assert named == dict(enum_names("LLAMA_TOKEN_ATTR_"))


def test_attributes_combine(vocabs: dict[str, Vocab]) -> None:
    assert TokenAttr(lib.LLAMA_TOKEN_ATTR_NORMAL | lib.LLAMA_TOKEN_ATTR_LSTRIP) == TokenAttr.NORMAL | TokenAttr.LSTRIP
    assert {vocabs["spm"].attr(token) for token in (0, 1, 3, 300)} == {
        TokenAttr.UNKNOWN, TokenAttr.CONTROL, TokenAttr.BYTE, TokenAttr.NORMAL,
    }  # fmt: skip


def test_text_is_as_stored(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        types = [vocabularies.UNKNOWN, vocabularies.NORMAL, vocabularies.NORMAL]
        fill_sentence_pieces(writer, [b"<unk>", b"\xff\xe2\x82", "\u2581\u20ac".encode()], types)

    with Model(write_vocabulary(tmp_path / "v.gguf", fill), vocab_only=True) as model:
        assert [model.vocab.text(token) for token in range(3)] == ["<unk>", "\udcff\udce2\udc82", "\u2581\u20ac"]
        assert model.vocab.pieces(range(3)) == [b"<unk>", b"\xff\xe2\x82", " \u20ac".encode()]
        assert model.vocab.detokenize([1, 2]) == "\udcff\udce2\udc82 \u20ac"


@pytest.mark.skipif(not hasattr(lib, "llama_vocab_get_suppress_tokens"), reason="an older llama.cpp")
def test_suppressed_tokens(vocab: Vocab, tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        vocabularies.sentence_pieces(writer)
        writer.add_array("tokenizer.ggml.suppress_tokens", [5, 7])

    assert vocab.suppress_tokens.shape == (0,)
    with Model(write_vocabulary(tmp_path / "v.gguf", fill), vocab_only=True) as model:
        assert model.vocab.suppress_tokens.tolist() == [5, 7]


# ---- one text


@settings(deadline=None)
@given(text=TEXT, add_special=st.booleans(), parse_special=st.booleans())
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_c(
    kind: str, vocabs: dict[str, Vocab], text: str, add_special: bool, parse_special: bool
) -> None:
    tokens = vocabs[kind].tokenize(text, add_special=add_special, parse_special=parse_special)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == raw_tokenize(vocabs[kind], text, add_special, parse_special)


def test_special_tokens_are_parsed_on_request(vocab: Vocab) -> None:
    text = "hello [SEP] world"
    assert vocab.tokenize(text, parse_special=True).tolist() == [101, 7592, 102, 2088, 102]
    assert vocab.tokenize(text).tolist() == [101, 7592, 1031, 19802, 1033, 2088, 102]
    assert vocab.tokenize(text, add_special=False, parse_special=True).tolist() == [7592, 102, 2088]


@pytest.mark.parametrize(
    ("kind", "tokens"), [("spm", [1]), ("wpm", [2, 3]), ("ugm", [1]), ("bpe", [])], ids=lambda value: str(value)
)
def test_empty_text(kind: str, tokens: list[int], vocabs: dict[str, Vocab]) -> None:
    assert vocabs[kind].tokenize("").tolist() == tokens
    assert vocabs[kind].tokenize("", add_special=False).tolist() == []
    assert vocabs[kind].detokenize([]) == ""


@settings(deadline=None)
@given(data=st.binary(max_size=40))
@example(b"\xc0 ")
@example("\u2581 ".encode())
def test_spm_keeps_any_bytes(vocabs: dict[str, Vocab], data: bytes) -> None:
    def marked(data: bytes) -> bytes:
        return data.replace(b" ", vocabularies.SPACE.encode())

    vocab = vocabs["spm"]
    tokens = vocab.tokenize(data, add_special=False)
    kept = vocab.detokenize_bytes(tokens)
    assert marked(kept) == marked(data)  # libllama takes one for the other
    assert vocab.detokenize(tokens).encode("utf-8", "surrogateescape") == kept
    assert b"".join(vocab.pieces(tokens)) == (b" " + kept if data else b"")


@settings(deadline=None)
@given(data=st.binary(max_size=40))
@pytest.mark.parametrize("kind", KINDS)
def test_surrogates_stand_for_bytes(kind: str, vocabs: dict[str, Vocab], data: bytes) -> None:
    vocab = vocabs[kind]
    try:
        tokens = vocab.tokenize(data)
    except InvalidArgumentError:
        assert kind in ("wpm", "bpe")
    else:
        assert tokens.tolist() == raw_tokenize(vocab, data)
        assert vocab.tokenize(data.decode("utf-8", "surrogateescape")).tolist() == tokens.tolist()


@settings(deadline=None)
@given(text=TEXT)
def test_bpe_keeps_any_text(vocabs: dict[str, Vocab], text: str) -> None:
    vocab = vocabs["bpe"]
    tokens = vocab.tokenize(text)
    assert vocab.detokenize(tokens) == text
    assert b"".join(vocab.pieces(tokens)) == text.encode()


# What becomes of bytes that are no UTF-8, by kind: the text of the tokens.
NOT_UTF8: dict[str, tuple[bytes, dict[str, bytes | None]]] = {
    "a lone byte": (b"the\xffcat", {
        "spm": b"the\xffcat", "bpe": "the\ufffdcat".encode(), "wpm": b" thecat", "ugm": b"the<unk>cat",
    }),
    "a character cut short": (b"cat \xe2\x82", {
        "spm": b"cat \xe2\x82", "bpe": "cat \ufffd\ufffd".encode(), "wpm": b" cat", "ugm": b"cat <unk>",
    }),
    "a surrogate as three bytes": (b"the \xed\xa0\x80 cat", {
        "spm": b"the \xed\xa0\x80 cat", "bpe": b"the \xed\xa0\x80 cat", "wpm": b" the cat", "ugm": b"the <unk> cat",
    }),
    "an overlong slash": (b"the \xc0\xaf cat", {
        "spm": b"the \xc0\xaf cat", "bpe": b"the / cat", "wpm": b" the[UNK] cat", "ugm": b"the <unk> cat",
    }),
    "above U+10FFFF": (b"the \xf4\x90\x80\x80 cat", {
        "spm": b"the \xf4\x90\x80\x80 cat", "bpe": None, "wpm": None, "ugm": b"the <unk> cat",
    }),
    "a character cut short by a space": (b"the\xc3 cat", {
        "spm": "the\udcc3\u2581cat".encode("utf-8", "surrogateescape"),
        "bpe": "the\ufffd cat".encode(), "wpm": b" the cat", "ugm": b"the<unk> cat",
    }),
    "NUL": (b"the \0 cat", {
        "spm": b"the \0 cat", "bpe": b"the \0 cat", "wpm": b" the cat", "ugm": b"the <unk> cat",
    }),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", NOT_UTF8)
def test_bytes_that_are_not_utf8(case: str, kind: str, vocabs: dict[str, Vocab]) -> None:
    data, expected = NOT_UTF8[case]
    vocab = vocabs[kind]
    for text in (data, data.decode("utf-8", "surrogateescape")):
        if expected[kind] is None:
            with pytest.raises(InvalidArgumentError, match=r"^text: .*invalid codepoint"):
                vocab.tokenize(text)
        else:
            tokens = vocab.tokenize(text, add_special=False)
            assert vocab.detokenize_bytes(tokens, unparse_special=True) == expected[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_long_text(kind: str, vocabs: dict[str, Vocab]) -> None:
    text = f"{vocabularies.TEXT} " * 20_000  # 460 kB
    tokens = vocabs[kind].tokenize(text, add_special=False)
    part = raw_tokenize(vocabs[kind], f"{vocabularies.TEXT} " * 2, False)
    assert tokens.size > 100_000
    assert tokens[: len(part) // 2].tolist() == part[: len(part) // 2]


def test_ten_megabytes(vocab: Vocab) -> None:
    tokens = vocab.tokenize("the cat sat. " * 800_000)
    assert tokens.tolist() == [101, *[1996, 4937, 2938, 1012] * 800_000, 102]


def test_more_tokens_than_bytes(tmp_path: Path) -> None:
    """Where no token has the space, each of its three bytes is one."""

    def fill(writer: gguf.GGUFWriter) -> None:
        tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        fill_sentence_pieces(writer, tokens, [vocabularies.UNKNOWN] + [vocabularies.BYTE] * 256)

    with Model(write_vocabulary(tmp_path / "v.gguf", fill), vocab_only=True) as model:
        assert model.vocab.tokenize(" " * 1000).tolist() == [0xE2 + 1, 0x96 + 1, 0x81 + 1] * 1000
        tokens, offsets = model.vocab.tokenize_many([" " * 1000, "", "a", " " * 5000])
        assert offsets.tolist() == [0, 3000, 3000, 3001, 18001]
        assert set(tokens[3001:].tolist()) == {0xE2 + 1, 0x96 + 1, 0x81 + 1}


DEEP = """
import sys, threading
from rawllama.model import Model
threading.stack_size(int(sys.argv[2]))
with Model(sys.argv[1], vocab_only=True) as model:
    def use():
        assert model.vocab.tokenize("7" * 300_000).size == 300_000
        assert model.vocab.tokenize_many(["a" * 400, "!" * 300_000, "b"], n_threads=2)[0].size == 300_401
        assert model.vocab.tokenize("7" * 900).size == 900
        print("done", flush=True)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
"""


@pytest.mark.parametrize("stack", [8 * 2**20, 2**20])
def test_a_long_run_does_not_overflow_the_stack(stack: int, tmp_path: Path) -> None:
    """This vocabulary cuts text by std::regex, which calls itself for each character of a match."""
    path = write_vocabulary(tmp_path / "v.gguf", lambda writer: vocabularies.byte_pairs(writer, "default", eos="<eos>"))
    assert run_python(DEEP, path, stack).stdout == "done\n"


# ---- many texts


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(TEXT, max_size=12), add_special=st.booleans(), parse_special=st.booleans())
@pytest.mark.parametrize("kind", KINDS)
def test_many_are_each_one(
    kind: str, vocabs: dict[str, Vocab], texts: list[str], add_special: bool, parse_special: bool
) -> None:
    vocab = vocabs[kind]
    ones = [vocab.tokenize(text, add_special=add_special, parse_special=parse_special).tolist() for text in texts]
    many = vocab.tokenize_many(texts, add_special=add_special, parse_special=parse_special, n_threads=3)
    assert split(*many) == ones


@pytest.mark.parametrize("n_threads", [*range(1, 9), 512, None])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_threads_gives_the_same(kind: str, n_threads: int | None, vocabs: dict[str, Vocab]) -> None:
    rng = np.random.default_rng(0)
    words = [*vocabularies.WORDS, "x\u00e4\u4e00", "\0", "!?"]
    texts = [" ".join(rng.choice(words, size)) for size in rng.integers(0, 60, 3000)]
    texts[1000] *= 300  # one that takes as long as many
    many = vocabs[kind].tokenize_many(texts, n_threads=n_threads)
    assert split(*many) == [raw_tokenize(vocabs[kind], text) for text in texts]


def test_few_bytes_and_strings(vocab: Vocab) -> None:
    assert split(*vocab.tokenize_many([])) == []
    assert split(*vocab.tokenize_many(["", b"hello", "", "hello", b"", ""])) == [
        [101, 102], [101, 7592, 102], [101, 102], [101, 7592, 102], [101, 102], [101, 102],
    ]  # fmt: skip
    assert split(*vocab.tokenize_many([""], add_special=False)) == [[]]
    assert split(*vocab.tokenize_many(("[SEP]",), add_special=False, parse_special=True)) == [[102]]


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_the_first_that_fails_is_named(n_threads: int, vocab: Vocab, no_bytes: Vocab) -> None:
    bad = b"\xf7\xbf\xbf\xbf"
    texts: list[str | bytes] = ["hello world " * 20] * 4000
    for index in (1777, 1790, 2500, 3999):
        texts[index] = bad
    with pytest.raises(InvalidArgumentError, match=r"^texts\[1777\]: .*invalid codepoint"):
        vocab.tokenize_many(texts, n_threads=n_threads)
    texts = ["ab ba"] * 4000
    texts[3000] = texts[3010] = "c"
    with pytest.raises(NativeAssertError, match=r"^texts\[3000\]: llama_tokenize failed inside the library: .*at"):
        no_bytes.tokenize_many(texts, n_threads=n_threads)
    assert no_bytes.tokenize("ab").tolist() == [4, 5]


@pytest.mark.parametrize("slow", [0, 4])
def test_the_first_that_fails_is_named_though_it_fails_last(slow: int, vocab: Vocab) -> None:
    """Two threads with four texts each at a time: one takes long for a text, the other fails meanwhile."""
    bad = b"\xf7\xbf\xbf\xbf"
    texts = [b"hello world " * 20_000, bad, b"", b"", b"", bad] + [b""] * 58
    texts[slow] = b"hello world " * 200_000 + (bad if slow else b"")
    with pytest.raises(InvalidArgumentError, match=r"^texts\[1\]: "):
        vocab.tokenize_many(texts, n_threads=2)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux counts the threads there")
def test_threads_start_and_end(vocab: Vocab) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def most_during(n_threads: int) -> int:
        ended = threading.Event()
        counts: list[int] = []

        def watch() -> None:
            while not ended.wait(0.001):
                counts.append(count())

        watcher = threading.Thread(target=watch)
        watcher.start()
        before = count()
        vocab.tokenize_many(["the cat sat on the mat " * 1000] * 100, n_threads=n_threads)
        assert count() == before
        ended.set()
        watcher.join()
        return max(counts) - before

    assert [most_during(1), most_during(3)] == [0, 2]


def test_python_threads_share_it(vocab: Vocab) -> None:
    texts = [f"text {number} of some " * (number % 7) for number in range(2000)]
    expected = split(*vocab.tokenize_many(texts, n_threads=1))

    def use(number: int) -> bool:
        if number % 2:
            return split(*vocab.tokenize_many(texts, n_threads=1 + number % 3)) == expected
        return [vocab.tokenize(text).tolist() for text in texts[:500]] == expected[:500]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(32)))


def test_other_python_threads_go_on(vocab: Vocab) -> None:
    ended = threading.Event()
    steps = 0

    def count() -> None:
        nonlocal steps
        while not ended.wait(0.001):
            steps += 1

    counter = threading.Thread(target=count)
    counter.start()
    vocab.tokenize_many(["the cat sat on the mat " * 1000] * 200, n_threads=1)
    ended.set()
    counter.join()
    assert steps > 1


def test_closing_waits_for_nobody(minilm: str) -> None:
    model = Model(minilm, vocab_only=True)
    vocab = model.vocab
    started = threading.Event()
    result: list[int] = []

    def use() -> None:
        started.set()
        result.append(vocab.tokenize_many(["the cat sat on the mat " * 1000] * 200)[0].size)

    thread = threading.Thread(target=use)
    thread.start()
    started.wait()
    refused = False
    while not refused and thread.is_alive():
        with model._mutex:
            busy = model._users > 0
        if busy:
            with pytest.raises(ConcurrentUseError):
                model.close()
            refused = True
    thread.join()
    assert refused
    assert result == [200 * 6002]
    model.close()
    with pytest.raises(ClosedError):
        model.vocab.tokenize("text")
    with pytest.raises(ClosedError):
        _ = model.vocab.bos


# ---- Ctrl-C


def interrupt_after(seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


@pytest.mark.skipif(os.name == "nt", reason="os.kill ends the process there")
@pytest.mark.parametrize("n_threads", [1, 4])
def test_ctrl_c_ends_it(n_threads: int, vocab: Vocab) -> None:
    texts = ["the cat sat on the mat " * 40] * 200_000  # many seconds of work
    encoded = [text.encode() for text in texts]
    start = time.perf_counter()
    interrupt_after(1.0)
    with pytest.raises(KeyboardInterrupt):
        vocab.tokenize_many(encoded, n_threads=n_threads)
    assert time.perf_counter() - start < 5
    assert vocab.tokenize("hello").tolist() == [101, 7592, 102]


@pytest.mark.skipif(os.name == "nt", reason="os.kill ends the process there")
def test_a_handler_of_ones_own_may_go_on(vocab: Vocab) -> None:
    calls = []

    def handler(number: int, frame: FrameType | None) -> None:
        calls.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        timer = interrupt_after(0.2)
        tokens, _ = vocab.tokenize_many(["the cat sat on the mat " * 40] * 20_000)
        assert calls == [signal.SIGINT]  # it came during the call
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert tokens.size == 20_000 * (40 * 6 + 2)


# ---- back to text


def test_pieces_are_exact(vocabs: dict[str, Vocab]) -> None:
    spm = vocabs["spm"]
    assert [spm.piece(3 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    the = int(spm.tokenize("the", add_special=False)[0])
    assert (spm.text(the), spm.piece(the), spm.piece(the, lstrip=1)) == ("\u2581the", b" the", b"the")
    assert (spm.piece(1), spm.piece(1, special=False)) == (b"<s>", b"")
    assert spm.pieces([the, 1], special=False) == [b" the", b""]
    assert spm.pieces([]) == []
    assert spm.pieces(np.array([the, the], np.uint8 if the < 256 else np.uint16)) == [b" the"] * 2


def test_special_tokens_are_left_out_on_request(vocabs: dict[str, Vocab]) -> None:
    spm, wpm = vocabs["spm"], vocabs["wpm"]
    tokens = spm.tokenize("the cat")
    assert spm.detokenize(tokens, unparse_special=True) == "<s> the cat"
    assert spm.detokenize(tokens, unparse_special=True, remove_special=True) == " the cat"
    assert spm.detokenize(tokens[1:]) == "the cat"
    assert wpm.detokenize(wpm.tokenize("the cat"), unparse_special=True) == "[CLS] the cat[SEP]"
    assert wpm.detokenize(wpm.tokenize("the cat"), unparse_special=True, remove_special=True) == " the cat[SEP]"


@pytest.fixture
def long_piece(tmp_path: Path) -> Iterator[Vocab]:
    def fill(writer: gguf.GGUFWriter) -> None:
        fill_sentence_pieces(writer, ["<unk>", "x" * 4096], [vocabularies.UNKNOWN, vocabularies.NORMAL])

    with Model(write_vocabulary(tmp_path / "v.gguf", fill), vocab_only=True) as model:
        yield model.vocab


def test_long_pieces(long_piece: Vocab) -> None:
    assert long_piece.piece(1) == b"x" * 4096
    assert long_piece.detokenize_bytes([1] * 100) == b"x" * 409_600


def test_text_of_more_than_2_gib(long_piece: Vocab) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^tokens: their text has 4294971392 bytes"):
        long_piece.detokenize_bytes(np.full(2**20 + 1, 1))


# ---- refused


@pytest.mark.parametrize("token", [-1, 30522, 2**31, -(2**70), 2**70, 1.0, "1", None])
@pytest.mark.parametrize("name", ["is_eog", "is_control", "text", "score", "attr", "piece"])
def test_one_wrong_token(name: str, token: Any, vocab: Vocab) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^token: .*(between 0 and 30521|no integer)"):
        getattr(vocab, name)(token)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([5, -1], r"tokens\[1\]: -1 is not between 0 and 30521"),
        ([5, 6, 30522], r"tokens\[2\]: 30522 is"),
        ([2**32 + 5], r"tokens\[0\]: 4294967301 is"),
        (np.array([1, 2**64 - 1], np.uint64), r"tokens\[1\]: 18446744073709551615 is"),
        ([2**70], r"tokens: object is no type of integers"),
        ([1.5], "tokens: float64 is"),
        ([True], "tokens: bool is"),
        ("12", r"tokens: the shape \(\) is"),
        (5, r"tokens: the shape \(\) is"),
        ([[1, 2], [3, 4]], r"tokens: the shape \(2, 2\) is"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["detokenize", "detokenize_bytes", "pieces"])
def test_wrong_tokens(name: str, tokens: Any, message: str, vocab: Vocab) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        getattr(vocab, name)(tokens)


def test_tokens_in_any_layout(vocab: Vocab) -> None:
    tokens = np.repeat(vocab.tokenize("the cat sat", add_special=False), 2)[::2]
    assert vocab.detokenize(tokens) == vocab.detokenize(tokens.astype(">i8")) == vocab.detokenize(tokens.tolist())
    assert vocab.detokenize(tokens) == " the cat sat"


def test_wrong_texts(vocab: Vocab) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^text: the surrogate U\+D800 at 1 stands for no byte"):
        vocab.tokenize("a\ud800")
    with pytest.raises(InvalidArgumentError, match=r"^texts\[1\]: the surrogate U\+DC7F at 0"):
        vocab.tokenize_many(["a", "\udc7f"])
    with pytest.raises(InvalidArgumentError, match=r"^text: it is int, not str or bytes"):
        vocab.tokenize(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"^texts\[2\]: it is NoneType"):
        vocab.tokenize_many(["a", b"b", None])  # type: ignore[list-item]
    for text in ("text", b"text"):
        with pytest.raises(InvalidArgumentError, match=r"^texts: it is one text"):
            vocab.tokenize_many(text)  # type: ignore[arg-type]


def test_text_of_2_gib(vocab: Vocab) -> None:
    huge = bytes(2**31)  # the system gives such zeros no memory until they are read
    with pytest.raises(InvalidArgumentError, match=r"^text: 2147483648 bytes; libllama takes 2147483647 at most"):
        vocab.tokenize(huge)
    with pytest.raises(InvalidArgumentError, match=r"^texts\[1\]: 2147483648 bytes"):
        vocab.tokenize_many(["a", huge])


@pytest.mark.parametrize("n_threads", [0, -1, 513, 2**40, 1.0, "2"])
def test_wrong_n_threads(n_threads: Any, vocab: Vocab) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^n_threads: "):
        vocab.tokenize_many(["a"], n_threads=n_threads)


@pytest.mark.parametrize("lstrip", [-1, 2**31, 0.5])
def test_wrong_lstrip(lstrip: Any, vocab: Vocab) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^lstrip: "):
        vocab.piece(5, lstrip=lstrip)


def test_a_model_without_vocabulary(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("none")
        writer.add_vocab_size(10)

    with Model(write_vocabulary(tmp_path / "v.gguf", fill), vocab_only=True) as model:
        vocab = model.vocab
        assert vocab.type == "none"
        assert [getattr(vocab, name) for name in SPECIAL] == [None] * len(SPECIAL)
        uses: list[Callable[[], object]] = [
            lambda: vocab.tokenize("a"),
            lambda: vocab.tokenize_many(["a"]),
            lambda: vocab.text(1),
            lambda: vocab.pieces([1]),
        ]
        for use in uses:
            with pytest.raises(InvalidArgumentError, match="the model has no vocabulary"):
                use()
