"""Thread pools of ggml's CPU backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ._handle import Handle
from ._params import Name, enum_value, fill
from .errors import ContextCreateError, InvalidArgumentError, failure
from .guard import guarded
from .raw import ffi, lib

# Functions of the CPU backend, which is no library of ours where it is a plugin: it hands these out by name.
_TYPES = {
    "ggml_threadpool_new": "struct ggml_threadpool *(*)(struct ggml_threadpool_params *)",
    "ggml_threadpool_free": "void (*)(struct ggml_threadpool *)",
    "ggml_backend_get_features": "struct ggml_backend_feature *(*)(ggml_backend_reg_t)",
}


class ThreadPool(Handle):
    """Threads that compute, for `Context.attach_threadpool`: with priority and processors of one's choice.

    Parameters
    ----------
    n_threads
        How many, 1 to 512.
    prio
        `low`, `normal`, `medium`, `high` or `realtime`.
    poll
        How eagerly they wait for work, 0 (sleep) to 100 (spin).
    cpus
        Numbers of the processors that they may run on; all by default. In a build with OpenMP the thread that calls
        computes too, and stays on them afterwards.
    strict_cpu
        One processor a thread.

    Raises
    ------
    InvalidArgumentError
        A number out of its range.

    Calls: ggml_threadpool_params_default, ggml_threadpool_new, ggml_threadpool_free
    """

    _rank = 1  # contexts that use it are closed first

    def __init__(
        self,
        n_threads: int,
        *,
        prio: Name | None = None,
        poll: int | None = None,
        cpus: Sequence[int] | None = None,
        strict_cpu: bool | None = None,
    ) -> None:
        #: Number of threads.
        self.n_threads = require_threads("n_threads", n_threads)
        if poll is not None and not 0 <= poll <= 100:
            raise InvalidArgumentError(f"poll: {poll} is not from 0 to 100")
        params = ffi.new("struct ggml_threadpool_params *", lib.ggml_threadpool_params_default(n_threads))
        fill(params, {"prio": enum_value("prio", "GGML_SCHED_PRIO_", prio), "poll": poll, "strict_cpu": strict_cpu})
        for cpu in cpus or ():
            if not 0 <= cpu < lib.GGML_MAX_N_THREADS:
                raise InvalidArgumentError(f"cpus: {cpu} is not from 0 to {lib.GGML_MAX_N_THREADS - 1}")
            params.cpumask[cpu] = True
        super().__init__(_new(params), _function("ggml_threadpool_free"))

    def pause(self) -> None:
        """Let the threads sleep until the next computation or `resume`. Calls: ggml_threadpool_pause.

        Raises
        ------
        InvalidArgumentError
            The CPU backend is a plugin (`GGML_BACKEND_DL`), which does not offer this; `resume` neither.
        """
        with self._used as pool:
            _function("ggml_threadpool_pause")(pool)

    def resume(self) -> None:
        """Wake the threads. Calls: ggml_threadpool_resume."""
        with self._used as pool:
            _function("ggml_threadpool_resume")(pool)


class OwnThreads:
    """Threads of one context, in a build without OpenMP: ggml would make new ones for each computation."""

    def __init__(self) -> None:
        self._pool = ffi.NULL

    def attach(self, context: Any, n_threads: int) -> None:
        """Have the context compute with so many, where that matters: threads without work would wait for it in vain.

        Calls: ggml_threadpool_params_default, ggml_threadpool_new, llama_attach_threadpool, llama_detach_threadpool,
        ggml_backend_reg_by_name, ggml_backend_reg_get_proc_address
        """
        pool = ffi.NULL
        if n_threads > 1 and not _has_openmp():
            params = lib.ggml_threadpool_params_default(n_threads)
            pool = _new(ffi.new("struct ggml_threadpool_params *", params))
            guarded.llama_attach_threadpool(context, pool, pool)
        else:
            guarded.llama_detach_threadpool(context)
        self.free()
        self._pool = pool

    def free(self) -> None:
        """End them; the context must be gone, or have others. Calls: ggml_threadpool_free."""
        if self._pool:
            _function("ggml_threadpool_free")(self._pool)
        self._pool = ffi.NULL


def _new(params: Any) -> Any:
    pool = _function("ggml_threadpool_new")(params)
    if not pool:
        raise failure(ContextCreateError, "ggml_threadpool_new", "the threads could not be made")
    return pool


@cache
def _function(name: str) -> Callable[..., Any]:
    """A function of the CPU backend."""
    function: Callable[..., Any] | None = getattr(lib, name, None)
    if function is None and name in _TYPES:
        address = lib.ggml_backend_reg_get_proc_address(_registry(), name.encode())
        function = ffi.cast(_TYPES[name], address) if address else None
    if function is None:
        raise InvalidArgumentError(f"{name}: the CPU backend of this build is a plugin, which does not offer it")
    return function


@cache
def _has_openmp() -> bool:
    """Whether OpenMP's threads compute, which stay from one computation to the next."""
    feature = _function("ggml_backend_get_features")(_registry())
    while feature.name:
        if ffi.string(feature.name) == b"OPENMP":
            return True
        feature += 1
    return False


def _registry() -> Any:
    return lib.ggml_backend_reg_by_name(b"CPU")


# So many threads were seen to start.
_proven = 1


def require_threads(argument: str, count: int) -> int:
    """A number of threads that ggml takes and the system can start; more would end the process.

    Calls: rawllama_startable_threads
    """
    global _proven
    if not isinstance(count, int) or not 1 <= count <= lib.GGML_MAX_N_THREADS:
        raise InvalidArgumentError(f"{argument}: {count!r} is not from 1 to {lib.GGML_MAX_N_THREADS}")
    if count > _proven:
        started = 1 + lib.rawllama_startable_threads(count - 1)
        if started < count:
            raise InvalidArgumentError(f"{argument}: {count}, and the system lets this process start {started} only")
        _proven = count
    return count
