"""Opening, using and closing again and again takes no memory, file or thread."""

from __future__ import annotations

import ctypes
import gc
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rawllama._handle import live
from rawllama.adapter import LoraAdapter
from rawllama.batch import Batch
from rawllama.errors import InvalidArgumentError, LlamaError
from rawllama.model import Model
from rawllama.threadpool import ThreadPool

from ..tools import batch_of, context_of, some_tokens

Tiny = Callable[[str], Path]


def resident() -> int:
    """Bytes of the process in memory that are its own and in use."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps freed buffers at will
        trim(0)
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def count(what: str) -> int:
    """Open files (fd) or threads (task) of the process."""
    return len(list((Path("/proc/self") / what).iterdir()))


def growth(work: Callable[[], None], times: int) -> float:
    """Bytes that each of the times has left behind, after some that warm up."""
    for _ in range(max(20, times // 5)):
        work()
    before = resident()
    for _ in range(times):
        work()
    return (resident() - before) / times


@pytest.fixture(autouse=True)
def nothing_is_left() -> object:
    yield
    assert +live == {}


def test_contexts(tiny: Tiny) -> None:
    """1,000 of them, each used: less than 1 kB each, where one takes 700 kB."""
    with Model(tiny("llama")) as model:
        batch = batch_of(some_tokens(model, 9))

        def work() -> None:
            with context_of(model, embeddings=True) as context:
                context.decode(batch)
                context.get_embeddings_ith()
                context.get_logits_ith()
                with context.lend_logits():
                    pass
                context.state.load(context.state.save())

        per_context = growth(work, 1000)
        assert not model._children
    print(f"{per_context:.0f} bytes a context")
    assert per_context < 1024


def test_models(tiny: Tiny) -> None:
    """200 of them, each with a context and an adapter."""

    def work() -> None:
        with (
            Model(tiny("llama"), load_mode="none") as model,
            LoraAdapter(model, tiny("llama-lora")) as adapter,
            context_of(model) as context,
        ):
            context.set_adapters({adapter: 1.0})
            context.decode(batch_of([5, 6, 7]))

    per_model = growth(work, 200)
    print(f"{per_model:.0f} bytes a model")
    assert per_model < 8 * 1024  # the file alone has 180 kB


def test_models_that_fail(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused files, cancelled loads, wrong parameters, contexts that cannot be."""
    monkeypatch.setattr(logging.getLogger("rawllama"), "disabled", True)  # pytest would keep all lines
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny("llama").read_bytes()[:-1000])

    def work() -> None:
        for call in (
            lambda: Model(cut), lambda: Model(tiny("llama"), progress=lambda done: False),
            lambda: Model(tiny("llama"), n_gpu_layers="x"), lambda: context_of(model, n_seq_max=1000),  # type: ignore[arg-type]
            lambda: context_of(model, pooling_type="rank"), lambda: LoraAdapter(model, cut),
        ):  # fmt: skip
            with pytest.raises(LlamaError):
                call()

    with Model(tiny("llama")) as model:
        per_round = growth(work, 100)
    print(f"{per_round:.0f} bytes a round of failures")
    assert per_round < 8 * 1024


def test_open_files(tiny: Tiny) -> None:
    """Descriptors too."""

    def work() -> None:
        with tiny("llama").open("rb") as file, Model(file) as model:
            assert model.n_embd

    work()
    before = count("fd")
    per_model = growth(work, 100)
    gc.collect()
    assert count("fd") <= before
    print(f"{per_model:.0f} bytes a model from an open file")
    assert per_model < 8 * 1024


def test_batches_that_are_refused(tiny: Tiny) -> None:
    with Model(tiny("llama")) as model, context_of(model) as context:
        assert context.memory is not None
        wrong = batch_of([5, 6, 100_000])

        def work() -> None:
            for _ in range(20):
                with pytest.raises(InvalidArgumentError):
                    context.decode(wrong)
                batch = Batch(64)
                batch.add_sequence([5] * 64)
                context.decode(batch)
                context.memory.clear()

        per_round = growth(work, 100)
    print(f"{per_round:.0f} bytes a round of 20 batches")
    assert per_round < 2 * 1024


def test_thread_pools() -> None:
    before = threading.active_count(), count("task")

    def work() -> None:
        ThreadPool(4).close()

    per_pool = growth(work, 200)
    assert (threading.active_count(), count("task")) <= (before[0], before[1] + 1)
    assert per_pool < 2 * 1024
