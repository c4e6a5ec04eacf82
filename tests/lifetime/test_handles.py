"""rawllama._handle: closing in any order, use after it, by several threads, in forked children, and not at all."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawllama._handle import Handle, live
from rawllama.adapter import LoraAdapter
from rawllama.context import Context
from rawllama.errors import BorrowedError, ClosedError, ConcurrentUseError, NativeAssertError
from rawllama.model import Model
from rawllama.threadpool import ThreadPool

from ..tools import batch_of, context_of, run_python, some_tokens

Tiny = Callable[[str], Path]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = +live
    yield
    gc.collect()
    assert +live == before


def open_all(tiny: Tiny) -> dict[str, Handle]:
    model = Model(tiny("llama"))
    context, other = context_of(model), context_of(model)
    adapter, pool = LoraAdapter(model, tiny("llama-lora")), ThreadPool(1)
    for one in (context, other):
        one.set_adapters({adapter: 1.0})
        one.attach_threadpool(pool)
        one.decode(batch_of(some_tokens(model, 5)))
    return {"model": model, "context": context, "other": other, "adapter": adapter, "pool": pool}


def test_any_order_of_closing(tiny: Tiny) -> None:
    """What others use is freed when they let it go; the model takes everything of it along; in the end all is freed."""
    for order in itertools.permutations(["model", "context", "other", "adapter", "pool"]):
        handles = open_all(tiny)
        for name in order:
            handles[name].close()
            handles[name].close()
            assert handles[name].closed
        assert all(handle.closed for handle in handles.values())
        assert +live == {}


def test_counts(tiny: Tiny) -> None:
    handles = open_all(tiny)
    assert +live == {"Model": 1, "Context": 2, "LoraAdapter": 1, "ThreadPool": 1}
    handles["model"].close()
    assert +live == {"ThreadPool": 1}
    handles["pool"].close()
    assert +live == {}


def test_with_blocks_close_after_errors(tiny: Tiny) -> None:
    with pytest.raises(KeyError), ThreadPool(1) as pool, Model(tiny("llama")) as model, context_of(model) as context:
        context.attach_threadpool(pool)
        raise KeyError
    assert model.closed
    assert context.closed
    assert pool.closed


def test_closed_handles_say_so(tiny: Tiny) -> None:
    handles = open_all(tiny)
    model: Any = handles["model"]
    vocab = model.vocab
    model.close()
    handles["pool"].close()
    for use in (
        lambda: model.n_embd, lambda: model.description, model.chat_template, lambda: model.cls_labels, lambda: model.c,
        lambda: Context(model), lambda: LoraAdapter(model, tiny("llama-lora")), lambda: vocab.n_tokens,
        lambda: handles["context"].c, handles["pool"].pause, handles["pool"].resume,  # type: ignore[attr-defined]
    ):  # fmt: skip
        with pytest.raises(ClosedError, match="closed"):
            use()
    assert model.metadata["general.architecture"] == "llama"  # read once


def test_a_failed_init_leaves_nothing(tiny: Tiny) -> None:
    with Model(tiny("llama")) as model:
        for _ in range(20):
            with pytest.raises(ValueError, match="scores"):
                context_of(model, pooling_type="rank")
            with pytest.raises(OSError, match="could not be loaded"):
                LoraAdapter(model, tiny("llama"))
        assert +live == {"Model": 1}


@pytest.mark.parametrize("name", ["model", "context", "adapter", "pool"])
def test_they_stay_in_their_process(name: str, tiny: Tiny) -> None:
    handles = open_all(tiny)
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="one process"):
            way(handles[name])
    handles["model"].close()
    handles["pool"].close()


# ---- forgotten


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_forgotten_warns_and_is_freed(tiny: Tiny) -> None:
    def forget(make: Callable[[], object]) -> None:
        with pytest.warns(ResourceWarning, match="was not closed"):
            make()
            gc.collect()
        assert +live == {}

    forget(lambda: Model(tiny("llama")))
    forget(lambda: ThreadPool(1))
    forget(lambda: context_of(Model(tiny("llama"))))
    forget(lambda: LoraAdapter(Model(tiny("llama")), tiny("llama-lora")))
    forget(lambda: open_all(tiny))

    def in_a_circle() -> None:
        circle: list[object] = [context_of(Model(tiny("llama")))]
        circle.append(circle)

    forget(in_a_circle)


@pytest.mark.parametrize("circle", [False, True])
def test_garbage_is_freed_in_order(circle: bool, tiny: Tiny) -> None:
    """What is forgotten together is finalised in any order, without weak references; children are freed first."""
    order: list[str] = []

    def forget() -> None:
        handles = open_all(tiny)
        for name, handle in handles.items():

            def free(pointer: Any, name: str = name, free: Callable[[Any], object] = handle._free) -> None:
                order.append(name)
                free(pointer)

            handle._free = free
        if circle:
            together: list[object] = [handles]
            together.append(together)

    with pytest.warns(ResourceWarning, match="was not closed"):
        forget()
        gc.collect()
    assert sorted(order) == ["adapter", "context", "model", "other", "pool"]
    for user in ("context", "other"):
        for used in ("adapter", "pool", "model"):
            assert order.index(user) < order.index(used), order
    assert order.index("adapter") < order.index("model")


def test_a_context_keeps_its_model(tiny: Tiny) -> None:
    model = Model(tiny("llama"))
    context = context_of(model)
    expected = model.n_embd
    del model
    gc.collect()
    assert context.model.n_embd == expected
    context.decode(batch_of([5, 6]))
    context.model.close()
    assert context.closed


def test_views_outlive_what_is_forgotten(tiny: Tiny) -> None:
    """A lent view keeps the memory; when it goes, so does the context."""
    with Model(tiny("llama")) as model:
        context = context_of(model)
        context.decode(batch_of(some_tokens(model, 5)))
        with pytest.raises(BorrowedError), context.lend_logits() as view:
            kept = np.asarray(view)
        expected = context._outcome.n_tokens, kept.copy()
        with pytest.raises(BorrowedError):
            model.close()
        gc.collect()
        assert np.array_equal(kept, expected[1])
        del kept, view
        context.close()


def test_at_exit(tiny: Tiny) -> None:
    """An interpreter that ends with open handles, and one that ends in a view's block, end well."""
    code = (
        "import sys, threading\n"
        "import numpy as np\n"
        "from rawllama.model import Model\n"
        "from rawllama.threadpool import ThreadPool\n"
        "from tests.tools import batch_of, context_of\n"
        "model = Model(sys.argv[1])\n"
        "context, pool = context_of(model), ThreadPool(2)\n"
        "context.attach_threadpool(pool)\n"
        "context.decode(batch_of([5, 6]))\n"
        "lent = context.lend_logits()\n"
        "kept = np.asarray(lent.__enter__())\n"
        "print(kept.shape)\n"
    )
    done = run_python(code, tiny("llama"))
    assert "(2, 367)" in done.stdout
    assert "Traceback" not in done.stderr, done.stderr


# ---- threads


def test_two_threads_at_once(smollm2: Path) -> None:
    """The second is refused, whatever it asks for, and so is closing; afterwards all is as it was."""
    with Model(smollm2) as model, context_of(model, n_ctx=1024, n_batch=1024, n_ubatch=1024) as context:
        failed: list[BaseException] = []

        def run() -> None:
            try:
                context.decode(batch_of([5] * 200))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        end = time.monotonic() + 20
        while not context._users:
            assert time.monotonic() < end
        time.sleep(0.02)
        memory = context.memory
        assert memory is not None
        for use in (
            lambda: context.decode(batch_of([5])), context.get_logits_ith, context.state.save, memory.clear,
            lambda: context.n_threads, context.close, model.close, lambda: context.set_adapters({}),
        ):  # fmt: skip
            with pytest.raises(ConcurrentUseError):
                use()
        assert model.n_embd == 576  # models are shared
        assert thread.is_alive()
        thread.join()
        assert failed == []
        assert memory.positions(0) == (0, 199)
        context.decode(batch_of([5], start=200))


def test_closing_from_many_threads(tiny: Tiny) -> None:
    """Each pointer is freed once."""
    for _ in range(30):
        model = Model(tiny("llama"))
        contexts = [context_of(model) for _ in range(3)]
        start = threading.Barrier(8)
        failed: list[BaseException] = []

        def close(index: int, model: Model = model, contexts: list[Context] = contexts,
                  start: threading.Barrier = start, failed: list[BaseException] = failed) -> None:  # fmt: skip
            start.wait()
            try:
                (model if index % 2 else contexts[index % 3]).close()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=close, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert model.closed
        assert all(context.closed for context in contexts)
    assert +live == {}


def test_contexts_made_while_the_model_is_closed(tiny: Tiny) -> None:
    for _ in range(10):
        model = Model(tiny("llama"))
        made: list[Context] = []
        failed: list[BaseException] = []

        def make(model: Model = model, made: list[Context] = made, failed: list[BaseException] = failed) -> None:
            try:
                while True:
                    made.append(context_of(model))
                    time.sleep(0.002)
            except ClosedError:
                pass
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=make) for _ in range(2)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 20
        while not model.closed:
            assert time.monotonic() < end
            try:
                model.close()
            except ConcurrentUseError:  # a context is just being made
                time.sleep(0.0005)
        for thread in threads:
            thread.join()
        assert failed == []
        assert all(context.closed for context in made)
    assert +live == {}


# ---- after an assert


def test_after_an_assert_only_closing_works(tiny: Tiny) -> None:
    """Its state is unknown; others of the same model go on."""
    with Model(tiny("llama")) as model, context_of(model) as other:
        context = context_of(model)
        with pytest.raises(NativeAssertError), context._used:
            raise NativeAssertError("as if")
        memory = context.memory
        assert memory is not None
        for use in (lambda: context.decode(batch_of([5])), memory.clear, context.state.save, lambda: context.n_threads):
            with pytest.raises(NativeAssertError, match="failed inside the library before"):
                use()
        other.decode(batch_of([5]))
        context.close()
        assert context.closed
        with pytest.raises(NativeAssertError), model._used:  # a model does not change
            raise NativeAssertError("as if")
        assert model.n_embd


# ---- forks


def test_fork(tiny: Tiny) -> None:
    """In the child every use says why not, and closing touches nothing; new objects work, and so do the parent's."""
    code = """
import gc, os, sys, warnings
from rawllama._handle import live
from rawllama.adapter import LoraAdapter
from rawllama.errors import ForkedError
from rawllama.model import Model
from rawllama.threadpool import ThreadPool
from tests.tools import batch_of, context_of, some_tokens
warnings.simplefilter("ignore", DeprecationWarning)
warnings.simplefilter("error", ResourceWarning)

def work(model, context):
    context.memory.clear()
    context.decode(batch_of(some_tokens(model, 9)))
    return context.get_logits_ith().tobytes()

model, pool = Model(sys.argv[1]), ThreadPool(2)
adapter = LoraAdapter(model, sys.argv[2])
context = context_of(model, n_threads=2, n_threads_batch=2)
context.attach_threadpool(pool)
context.set_adapters({adapter: 1.0})
before = work(model, context)
child = os.fork()
if child == 0:
    uses = [
        lambda: model.n_embd, lambda: context.n_threads, lambda: context.decode(batch_of([5])), context.get_logits_ith,
        context.memory.clear, context.state.save, pool.pause, lambda: adapter.alora_invocation_tokens,
        lambda: context_of(model), lambda: LoraAdapter(model, sys.argv[2]), lambda: model.c, context.warmup,
    ]
    for index, use in enumerate(uses):
        try:
            use()
        except ForkedError:
            continue
        os._exit(10 + index)
    with Model(sys.argv[1]) as own, context_of(own) as other:
        work(own, other)
    for handle in (model, context, adapter, pool):
        handle._free = lambda pointer: os._exit(9)
    if len(sys.argv) > 3:
        model.close()
        pool.close()
        assert context.closed and adapter.closed
        assert not +live, live
    else:
        del model, context, adapter, pool, uses, use, handle
        gc.collect()
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert status == 0, status
assert work(model, context) == before
model.close()
pool.close()
assert not +live
"""
    run_python(code, tiny("llama"), tiny("llama-lora"))
    run_python(code, tiny("llama"), tiny("llama-lora"), "close")


def test_fork_during_work(tiny: Tiny) -> None:
    """Another thread computes while the process forks: the child's own objects work."""
    code = """
import os, sys, threading, warnings
from rawllama.model import Model
from tests.tools import batch_of, context_of, some_tokens
warnings.simplefilter("ignore", DeprecationWarning)
model = Model(sys.argv[1])
ended = threading.Event()

def work():
    with context_of(model, n_ctx=512) as context:
        while not ended.is_set():
            context.memory.clear()
            context.decode(batch_of([5] * 64))

thread = threading.Thread(target=work)
thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        with Model(sys.argv[1]) as own, context_of(own) as context:
            context.decode(batch_of([5] * 64))
            context.get_logits_ith()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
ended.set()
thread.join()
model.close()
"""
    run_python(code, tiny("llama"))
    assert os.getpid()
