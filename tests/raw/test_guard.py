"""csrc/guard.cpp: failed asserts of the calling thread come back as values; all others still end the process."""

from __future__ import annotations

import signal
import threading
from typing import Any

import numpy as np
import pytest
from rawllama import ffi, lib, view

# What llama.cpp says of a batch that its encoders cannot take.
TOO_MANY = "n_ubatch >= n_tokens"

# A child process with MiniLM in a context that takes 8 tokens, and a batch of 64 that makes it abort.
CHILD = """
import sys, threading, time
from rawllama import ffi, lib

model = lib.llama_model_load_from_file(sys.argv[1].encode(), lib.llama_model_default_params())

def make_context(n_ubatch):
    params = lib.llama_context_default_params()
    params.embeddings = True
    params.n_ctx = params.n_batch = 512
    params.n_ubatch = n_ubatch
    params.n_threads = params.n_threads_batch = 1
    return lib.llama_init_from_model(model, params)

def make_batch(count):
    batch = lib.llama_batch_init(count, 0, 1)
    batch.n_tokens = count
    for i in range(count):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = 2023, i, 1, 1
        batch.seq_id[i][0] = 0
    return batch

small, fatal = make_context(8), make_batch(64)
"""


def message() -> str | None:
    said = lib.rawllama_guard_message()
    return ffi.string(said).decode() if said else None


def caught(function: Any, *arguments: Any) -> bool:
    """Whether the guard caught something in this call; it then returned zero."""
    assert not function(*arguments)
    return message() is not None


def test_too_many_tokens_come_back_as_a_value(make_context: Any, make_batch: Any) -> None:
    context = make_context(n_ubatch=8)
    assert lib.llama_n_ubatch(context) == 8
    for _ in range(3):
        assert caught(lib.rawllama_guarded_llama_decode, context, make_batch(9))
        assert TOO_MANY in (message() or "")
    assert caught(lib.rawllama_guarded_llama_encode, context, make_batch(9))
    assert TOO_MANY in (message() or "")


def test_the_library_works_on_after_it(make_context: Any, make_batch: Any) -> None:
    before, batch = make_context(), make_batch(8)
    assert lib.rawllama_guarded_llama_decode(before, batch) == 0
    expected = view(lib.llama_get_embeddings_seq(before, 0), 384).copy()
    assert caught(lib.rawllama_guarded_llama_decode, make_context(n_ubatch=8), make_batch(64))
    after = make_context()
    assert lib.rawllama_guarded_llama_decode(after, batch) == 0
    assert message() is None  # it says what the last call caught
    assert np.array_equal(view(lib.llama_get_embeddings_seq(after, 0), 384), expected)


def test_results_are_those_of_the_bare_functions(make_context: Any, make_batch: Any) -> None:
    context, batch = make_context(), make_batch(8)
    assert lib.llama_decode(context, batch) == 0
    bare = view(lib.llama_get_embeddings_seq(context, 0), 384).copy()
    assert lib.rawllama_guarded_llama_decode(context, batch) == 0
    assert np.array_equal(view(lib.llama_get_embeddings_seq(context, 0), 384), bare)
    empty = make_batch(1)
    empty.n_tokens = 0
    assert lib.rawllama_guarded_llama_decode(context, empty) == lib.llama_decode(context, empty) == -1
    assert message() is None  # an error that llama_decode returns is no assert

    vocab = lib.llama_model_get_vocab(lib.llama_get_model(context))
    text = b"guarded, or not"
    rows = []
    for tokenize in (lib.llama_tokenize, lib.rawllama_guarded_llama_tokenize):
        tokens = ffi.new("llama_token[]", 32)
        rows.append([tokenize(vocab, text, len(text), tokens, 32, True, False), *tokens])
        rows[-1].append(tokenize(vocab, text, len(text), tokens, 1, True, False))  # too small: minus the size
    assert rows[0] == rows[1]
    assert rows[0][0] > 4 and rows[0][-1] == -rows[0][0]


def test_exceptions_of_cpp_come_back_as_values(make_context: Any) -> None:
    """A negative length becomes a std::string of 2**64 - 1 bytes, which throws."""
    vocab = lib.llama_model_get_vocab(lib.llama_get_model(make_context()))
    tokens = ffi.new("llama_token[]", 8)
    assert caught(lib.rawllama_guarded_llama_tokenize, vocab, b"text", -1, tokens, 8, True, False)
    assert "basic_string" in (message() or "")
    assert lib.rawllama_guarded_llama_tokenize(vocab, b"text", 4, tokens, 8, True, False) == 3
    assert message() is None


def test_an_exception_that_nobody_guards_ends_the_process(python: Any, minilm: str) -> None:
    code = (
        'lib.llama_tokenize(lib.llama_model_get_vocab(model), b"text", -1, ffi.new("llama_token[8]"), 8, True, False)'
    )
    assert python(CHILD + code, minilm, fails=True).returncode == -signal.SIGABRT


def test_a_model_that_is_none_comes_back_as_null(tmp_path: Any) -> None:
    file = tmp_path / "model.gguf"
    for content in (b"", b"GGUF", b"GGUF" + bytes(range(256)), b"no model"):
        file.write_bytes(content)
        assert not lib.rawllama_guarded_llama_model_load_from_file(bytes(file), lib.llama_model_default_params())


def test_each_thread_has_its_own_message(make_context: Any, make_batch: Any) -> None:
    small, large, batch = make_context(n_ubatch=8), make_context(), make_batch(64)
    assert caught(lib.rawllama_guarded_llama_decode, small, batch)
    seen: list[Any] = []

    def other() -> None:
        seen.extend([message(), lib.rawllama_guarded_llama_decode(large, batch), message()])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [None, 0, None]
    assert TOO_MANY in (message() or "")


@pytest.mark.parametrize(
    "code",
    [
        "lib.llama_decode(small, fatal)",
        "lib.rawllama_guarded_llama_decode(small, fatal); lib.llama_decode(small, fatal)",
        "lib.rawllama_guarded_llama_decode(small, fatal); thread(lib.llama_decode, small, fatal)",
        # While this thread is inside a guarded call, the other one is not.
        "thread(in_a_while, wait=False); [lib.rawllama_guarded_llama_decode(big, long) for _ in range(1000)]",
    ],
    ids=["bare", "bare-after-guarded", "other-thread", "beside-guarded"],
)
def test_unguarded_aborts_end_the_process_and_say_why(python: Any, minilm: str, code: str) -> None:
    done = python(
        CHILD
        + """
big, long = make_context(512), make_batch(512)

def thread(function, *args, wait=True):
    started = threading.Thread(target=function, args=args)
    started.start()
    if wait:
        started.join()

def in_a_while():
    time.sleep(0.3)
    lib.llama_decode(small, fatal)

"""
        + code,
        minilm,
        fails=True,
    )
    assert done.returncode == -signal.SIGABRT
    assert TOO_MANY in done.stderr
    assert "terminate called" not in done.stderr  # not an exception that nobody caught
    assert done.stdout == ""


# Positions that the model has not learned: ggml's threads, argv[2] of them, find no rows for them.
UNLEARNED = """
batch = make_batch(64)
for i in range(64):
    batch.pos[i] = 600 + i
params = lib.llama_context_default_params()
params.embeddings = True
params.n_threads = params.n_threads_batch = int(sys.argv[2])
assert lib.rawllama_guarded_llama_decode(lib.llama_init_from_model(model, params), batch) == 0
print(ffi.string(lib.rawllama_guard_message()).decode())
"""


def test_an_assert_inside_the_graph_comes_back_from_the_calling_thread(python: Any, minilm: str) -> None:
    assert "GGML_ASSERT(" in python(CHILD + UNLEARNED, minilm, 1).stdout


def test_an_assert_on_a_worker_thread_ends_the_process_and_says_why(python: Any, minilm: str) -> None:
    done = python(CHILD + UNLEARNED, minilm, 2, fails=True)
    assert done.returncode == -signal.SIGABRT
    assert "GGML_ASSERT(" in done.stderr
