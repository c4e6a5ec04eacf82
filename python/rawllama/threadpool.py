"""Thread pools of ggml's CPU backend."""

from __future__ import annotations

from collections.abc import Sequence

from ._handle import Handle
from ._params import Name, enum_value, fill
from .errors import ContextCreateError, InvalidArgumentError, failure
from .raw import ffi, lib


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
        pool = lib.ggml_threadpool_new(params)
        if not pool:
            raise failure(ContextCreateError, "ggml_threadpool_new", "the threads could not be made")
        super().__init__(pool, lib.ggml_threadpool_free)

    def pause(self) -> None:
        """Let the threads sleep until the next computation or `resume`. Calls: ggml_threadpool_pause."""
        with self._used as pool:
            lib.ggml_threadpool_pause(pool)

    def resume(self) -> None:
        """Wake the threads. Calls: ggml_threadpool_resume."""
        with self._used as pool:
            lib.ggml_threadpool_resume(pool)


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
