"""Ctrl-C during long calls of C: KeyboardInterrupt at once, everything usable afterwards, handlers as they were."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..tools import run_python

# A timer sends SIGINT; the latency is from the signal to the exception. Most runs see 1 to 50 ms, see the printed line;
# the bound is wide because the tests' machine may be busy.
LENIENT = 1.0

START = """
import os, re, signal, sys, threading, time
import numpy as np
from rawllama.model import Model
from tests.tools import batch_of, context_of, some_tokens

sent = []

def send():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

def interrupted(work, delay):
    timer = threading.Timer(delay, send)
    start = time.perf_counter()
    timer.start()
    try:
        work()
    except KeyboardInterrupt as error:
        end = time.perf_counter()
        print(f"latency {end - sent[-1]:.6f}")
        assert end - start > 0.9 * delay, "before the signal"
        timer.join()
        return error
    raise SystemExit(f"it was not interrupted; it took {time.perf_counter() - start:.3f} s")

before = signal.getsignal(signal.SIGINT)
"""


def latencies(stdout: str, count: int) -> list[float]:
    found = [float(one) for one in re.findall(r"^latency (\S+)$", stdout, re.MULTILINE)]
    print(f"from the signal to KeyboardInterrupt: {max(found) * 1000:.1f} ms at most of {len(found)}")
    assert len(found) == count
    assert max(found) < LENIENT
    return found


def test_decode(smollm2: Path) -> None:
    """In the middle of thousands of tokens, three times; then the context computes as a fresh one does."""
    code = START + """
with Model(sys.argv[1]) as model:
    tokens = some_tokens(model, 2000)
    with context_of(model) as context:
        context.decode(batch_of([5, 6, 7]))
        expected = context.get_logits_ith()
    with context_of(model, n_ctx=4096, n_batch=4096, n_ubatch=512, n_threads=2, n_threads_batch=2) as context:
        for delay in (0.1, 0.35, 0.7):
            interrupted(lambda: context.decode(batch_of(tokens, logits="last")), delay)
            assert signal.getsignal(signal.SIGINT) is before
            assert context.n_tokens == 0
            at = context.memory.positions(0)
            assert at is None or at[1] < 1999  # whole ubatches stay
            context.memory.clear()
            context.decode(batch_of([5, 6, 7]))
            assert np.abs(context.get_logits_ith() - expected).max() < 0.05
            context.memory.clear()
"""
    latencies(run_python(code, smollm2).stdout, 3)


def test_encode(minilm: str) -> None:
    """A model without memory, one thread. The call ends after the operation in progress, so all 2,000 tokens' worth."""
    code = START + """
with Model(sys.argv[1]) as model, context_of(
    model, embeddings=True, n_ctx=2048, n_batch=2048, n_ubatch=2048, n_seq_max=32
) as context:
    texts = [some_tokens(model, 500, seed) for seed in range(4)]
    context.process(batch_of(*texts[:2]))
    expected = context.get_embeddings_seq()
    for delay in (0.05, 0.3):
        interrupted(lambda: context.process(batch_of(*texts)), delay)
        assert signal.getsignal(signal.SIGINT) is before
        context.process(batch_of(*texts[:2]))
        assert np.array_equal(context.get_embeddings_seq(), expected)
"""
    latencies(run_python(code, minilm).stdout, 2)


@pytest.mark.parametrize(
    "settings", ["load_mode='none'", "check_tensors=True", "load_mode='none', progress=seen.append"]
)
def test_load(settings: str, smollm2: Path, tmp_path: Path) -> None:
    """Reading weights ends between two tensors; afterwards the model loads."""
    code = START + f"""
from rawllama._handle import live
seen = []
Model(sys.argv[1], {settings}).close()
start = time.perf_counter()
Model(sys.argv[1], {settings}).close()
taken = time.perf_counter() - start
def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

before_loads = resident()
caught = 0
for part in (0.8, 0.6, 0.7, 0.5, 0.75, 0.9):
    timer = threading.Timer(part * taken, send)
    timer.start()
    try:
        Model(sys.argv[1], {settings}).close()
        while timer.is_alive():  # the load was faster this time: the signal comes now
            time.sleep(0.001)
        timer.join()
        time.sleep(0.05)
    except KeyboardInterrupt:
        print(f"latency {{time.perf_counter() - sent[-1]:.6f}}")
        caught += 1
    timer.join()
    assert signal.getsignal(signal.SIGINT) is before
assert caught == 6
print("grown", resident() - before_loads)
assert resident() - before_loads < 250, "whole models were left behind"  # each has about 100 MB
with Model(sys.argv[1], {settings}) as model, context_of(model) as context:
    context.decode(batch_of([5, 6, 7]))
"""
    latencies(run_python(code, smollm2).stdout, 6)


def test_a_handler_of_ones_own(smollm2: Path) -> None:
    """It runs; the decode ends with DecodeAborted if it raises nothing, and it stays in place."""
    code = START + """
from rawllama.errors import DecodeAborted
calls = []
def mine(number, frame):
    calls.append(number)
signal.signal(signal.SIGINT, mine)
with Model(sys.argv[1]) as model, context_of(model, n_ctx=2048, n_batch=2048, n_ubatch=512) as context:
    tokens = some_tokens(model, 1500)
    timer = threading.Timer(0.3, send)
    timer.start()
    try:
        context.decode(batch_of(tokens, logits="last"))
    except DecodeAborted:
        print(f"latency {time.perf_counter() - sent[-1]:.6f}")
    timer.join()
    assert calls == [signal.SIGINT], calls
    assert signal.getsignal(signal.SIGINT) is mine
    context.memory.clear()

    class Stop(Exception):
        pass

    def raising(number, frame):
        raise Stop
    signal.signal(signal.SIGINT, raising)
    timer = threading.Timer(0.3, send)
    timer.start()
    try:
        context.decode(batch_of(tokens, logits="last"))
    except Stop:
        print(f"latency {time.perf_counter() - sent[-1]:.6f}")
    timer.join()
    assert signal.getsignal(signal.SIGINT) is raising
"""
    latencies(run_python(code, smollm2).stdout, 2)


def test_an_ignored_signal_is_ignored(smollm2: Path) -> None:
    code = START + """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with Model(sys.argv[1]) as model, context_of(model, n_ctx=1024, n_batch=512, n_ubatch=512) as context:
    timer = threading.Timer(0.1, send)
    timer.start()
    context.decode(batch_of(some_tokens(model, 400), logits="last"))
    timer.join()
    assert context.n_tokens == 400
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
signal.signal(signal.SIGINT, signal.SIG_DFL)
"""
    run_python(code, smollm2)


def test_another_thread_is_not_interrupted(smollm2: Path) -> None:
    """Only the main thread gets Ctrl-C, as with all of Python; what another thread computes is finished."""
    code = START + """
with Model(sys.argv[1]) as model, context_of(model, n_ctx=1024, n_batch=512, n_ubatch=512) as context:
    batch = batch_of(some_tokens(model, 400), logits="last")
    failed = []
    def run():
        try:
            context.decode(batch)
        except BaseException as error:
            failed.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    interrupted(lambda: time.sleep(30), 0.1)
    assert thread.is_alive()
    thread.join()
    assert failed == []
    assert context.n_tokens == 400
    assert len(context.get_logits_ith()) == 1
"""
    latencies(run_python(code, smollm2).stdout, 1)


def test_the_signal_before_the_call(smollm2: Path) -> None:
    """One that came earlier, and was handled, ends nothing."""
    code = START + """
with Model(sys.argv[1]) as model, context_of(model) as context:
    for _ in range(3):
        interrupted(lambda: time.sleep(30), 0.02)
        context.memory.clear()
        context.decode(batch_of([5, 6, 7]))
        assert context.n_tokens == 3
"""
    latencies(run_python(code, smollm2).stdout, 3)


def test_a_call_within_a_call(minilm: str, smollm2: Path) -> None:
    """A model's progress is told while another tokenizes: Ctrl-C reaches both, and the handler is what it was."""
    code = START + """
with Model(sys.argv[1]) as other:
    def progress(done):
        other.vocab.tokenize_many(["a cat"] * 3)
        if done > 0.5:
            send()
        return True

    try:
        Model(sys.argv[2], load_mode="none", progress=progress).close()
        raise SystemExit("it was not interrupted")
    except KeyboardInterrupt:
        pass
assert signal.getsignal(signal.SIGINT) is before
"""
    run_python(code, minilm, str(smollm2))


def test_an_end_that_was_missed(minilm: str) -> None:
    """Ctrl-C between two instructions may keep a block from its end: the next ones work, and Ctrl-C too."""
    code = START + """
from rawllama.raw import lib
assert lib.rawllama_interrupt_begin()
assert not lib.rawllama_interrupt_begin()
with Model(sys.argv[1]) as model:
    texts = [("the cat sat on the mat " * 40).encode()] * 200_000
    for _ in range(2):
        interrupted(lambda: model.vocab.tokenize_many(texts), 0.1)
    assert lib.rawllama_interrupted()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lib.rawllama_interrupt_end()  # what the program has set meanwhile stays
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGINT)
"""
    latencies(run_python(code, minilm).stdout, 2)
