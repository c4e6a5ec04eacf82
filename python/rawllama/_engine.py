"""Contexts that compute an Embedder's sequences, and the jobs that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ._queue import Stop, Task, Worker
from .context import Context
from .raw import ffi, lib
from .rows import RowError, RowFormat, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model import Model

#: Tokens a batch, unless one text has more. Attention is quadratic in them; 512 was the fastest of 256 to 2048.
TOKEN_BUDGET = 512
#: Sequences a batch: 512 tokens of the shortest texts there are.
MAX_SEQUENCES = min(128, lib.llama_max_parallel_sequences())
# C returns so often for progress, and for a program whose own handler takes Ctrl-C.
_SECONDS = 0.1
# Poolings whose row comes from the last of the pieces that a long sequence is computed in.
_OF_LAST_PIECE = ("last", "rank")


@dataclass(frozen=True)
class Settings:
    """How an Embedder computes; none of it changes what."""

    #: Threads in all, shared between the contexts.
    n_threads: int
    n_contexts: int
    #: Tokens a batch, unless one text has more.
    token_budget: int
    #: None: libllama decides.
    flash_attn: bool | None


@dataclass(frozen=True)
class Sequences:
    """Sequences of tokens, all of the vocabulary: sequence i is `tokens[offsets[i]:offsets[i + 1]]`."""

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return self.offsets.size - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each."""
        return self.offsets[1:] - self.offsets[:-1]


def plan(lengths: NDArray[np.int64], token_budget: int = TOKEN_BUDGET) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pack sequences of these lengths, in tokens, into batches: those of like length together, the longest first.

    Returns
    -------
    order : ndarray
        int64, shape (n,): the sequences in the order in which they are computed.
    bounds : ndarray
        int64, shape (batches + 1,): batch i has the sequences `order[bounds[i]:bounds[i + 1]]`.

    Calls: rawllama_plan
    """
    if lengths.size == 1:  # each step counts for a single text
        return np.zeros(1, np.int64), np.arange(2)
    order = np.argsort(-lengths, kind="stable").astype(np.int64, copy=False)
    bounds = np.zeros(lengths.size + 1, np.int64)
    in_order = _int64(lengths[order])
    count = lib.rawllama_plan(in_order, lengths.size, token_budget, MAX_SEQUENCES, _int64(bounds))
    return order, bounds[: count + 1]


def _int64(array: NDArray[np.int64]) -> Any:
    """For C; `pointer` checks what is known here, and takes longer."""
    return ffi.from_buffer("int64_t[]", array)


@dataclass
class Work:
    """Sequences to compute, and where their rows go.

    Attributes
    ----------
    sequences
        The tokens.
    chosen
        int64, shape (k,): those of the sequences that are computed.
    places
        int64, shape (sequences,): the row of each, or its first of one a token.
    target, rows
        How rows are written, and to where.
    per_token
        Whether there is a row a token.
    done
        bool, shape (sequences,): C sets those that are written.
    """

    sequences: Sequences
    chosen: NDArray[np.int64]
    places: NDArray[np.int64]
    target: RowFormat
    rows: Rows
    per_token: bool = False
    done: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.done = np.zeros(len(self.sequences), np.bool_)


class Job:
    """A `struct rawllama_job`: work, cut into batches. The last reference frees it."""

    def __init__(self, work: Work, token_budget: int) -> None:
        lengths = work.sequences.lengths[work.chosen]
        ranks, batches = plan(lengths, token_budget)
        self.work = work
        #: Tokens of the longest batch.
        self.largest = max(token_budget, int(lengths[ranks[0]]))
        self.n_batches = batches.size - 1
        self.lengths = lengths[ranks]
        self.bounds = batches
        values = {
            "tokens": ffi.from_buffer("llama_token[]", work.sequences.tokens),
            "offsets": _int64(work.sequences.offsets),
            "order": _int64(work.chosen[ranks]),
            "batches": _int64(batches),
            "n_batches": self.n_batches,
            "rows": _int64(work.places),
            "per_token": work.per_token,
            "target": work.target.c(work.rows),
            "done": ffi.from_buffer("uint8_t[]", work.done, require_writable=True),
        }
        self._keeps = values
        self.c = ffi.gc(lib.rawllama_job_init(ffi.new("struct rawllama_embed *", values)), lib.rawllama_job_free)

    def stop(self) -> None:
        """End its runs. Calls: rawllama_job_stop."""
        lib.rawllama_job_stop(self.c)

    @property
    def state(self) -> Any:
        """How far it is: `batches` and `tokens` done, and the sequence that `failed`. Calls: rawllama_job_look."""
        return lib.rawllama_job_look(self.c)


class Engine:
    """Contexts on one model, and the threads that compute with them. For one call at a time.

    Raises
    ------
    ContextCreateError
        The model is damaged, or memory is short.
    InvalidArgumentError
        The model does not do this pooling.
    """

    def __init__(self, model: Model, pooling: str | None, settings: Settings) -> None:
        self.model = model
        self.settings = settings
        self._pooling = pooling
        self._contexts: list[Context] = []
        self._shares: list[int] = []  # threads that each context has
        self._helpers: list[Worker] = []  # a thread for each context but the first
        self._splits = False
        first = self._reserve(1, settings.token_budget)[0]
        #: The pooling in force.
        self.pooling: str = first.pooling_type
        # A causal model's long texts in pieces: each needs room for its logits, which are computed and not read.
        self._splits = self.pooling in _OF_LAST_PIECE and first.causal_attn and first.memory is not None

    def run(self, work: Work, stop: Stop, report: Callable[[Job], object]) -> None:
        """Compute, in this thread and some of its own; `report` is called now and then, by this one.

        Raises
        ------
        RowError
            A row could not be written.
        LlamaError
            As `Context.decode`: DecodeAborted, where `stop` wanted it.
        KeyboardInterrupt
            Ctrl-C, on the main thread.
        """
        if not work.chosen.size:
            return
        job = Job(work, self.settings.token_budget)
        contexts = self._reserve(min(self.settings.n_contexts, job.n_batches), job.largest)
        self._share_threads(contexts)
        helpers = self._reserve_helpers(len(contexts) - 1)
        try:
            stop.watch(job.stop)
            drains = [Task(partial(self._drain, context, job), stop) for context in contexts[1:]]
            tasks = [helper.submit(drain) for helper, drain in zip(helpers, drains, strict=True)]
            self._drain(contexts[0], job, lambda: report(job))
            for task in tasks:
                while not task.wait(_SECONDS):
                    report(job)
            report(job)
        except BaseException:
            job.stop()
            raise
        finally:
            for helper in helpers:
                helper.drain()  # they write to the caller's rows
            stop.watch(None)
        for task in tasks:
            task.result()
        stop.require_not_requested()

    def run_text(self, how: Any, text: bytes, max_tokens: int, target: Any) -> int:
        """Compute one text, in this thread; arguments and result are those of rawllama_embed_text.

        Raises
        ------
        LlamaError
            As `Context.decode`.
        """
        contexts = self._reserve(1, self.settings.token_budget)
        self._share_threads(contexts)
        most = min(max_tokens, self.settings.token_budget)
        return contexts[0]._embed(lib.rawllama_embed_text, how, text, len(text), most, target)

    def close(self) -> None:
        """Free the contexts. Calls: llama_free."""
        for helper in self._helpers:
            helper.close()
        self._helpers.clear()
        for context in self._contexts:
            context.close()
        self._contexts.clear()
        self._shares.clear()

    @staticmethod
    def _drain(context: Context, job: Job, report: Callable[[], object] | None = None) -> None:
        """Compute batches until none is left or the job is stopped."""
        batch = ffi.new("int64_t *", -1)
        seconds = _SECONDS if report else 0
        while (code := context._embed(lib.rawllama_embed_run, job.c, batch, seconds)) == lib.RAWLLAMA_MORE:
            if report:
                report()
        if code in (lib.RAWLLAMA_NOT_FINITE, lib.RAWLLAMA_TOO_LARGE):
            raise RowError(code, job.state.failed)

    def _share_threads(self, contexts: list[Context]) -> None:
        each = max(1, self.settings.n_threads // len(contexts))
        for index, context in enumerate(contexts):
            if self._shares[index] != each:
                context.set_n_threads(each)
                self._shares[index] = each

    def _reserve(self, count: int, n_tokens: int) -> list[Context]:
        """So many contexts that take so many tokens at once."""
        for index in range(count):
            if index == len(self._contexts):
                self._contexts.append(self._make(n_tokens))
                self._shares.append(self.settings.n_threads)
            elif not self._contexts[index].usable or self._contexts[index].n_batch < n_tokens:
                self._contexts[index].close()
                self._contexts[index] = self._make(n_tokens)
                self._shares[index] = self.settings.n_threads
        return self._contexts[:count]

    def _reserve_helpers(self, count: int) -> list[Worker]:
        while len(self._helpers) < count:
            self._helpers.append(Worker("rawllama-embedder"))
        return self._helpers[:count]

    def _make(self, n_tokens: int) -> Context:
        budget = self.settings.token_budget
        flash = self.settings.flash_attn
        # libllama plans its memory for MAX_SEQUENCES sequences of one length, and asserts where that leaves a rest.
        n_tokens, budget = (count + -count % MAX_SEQUENCES for count in (n_tokens, budget))
        return Context(
            self.model,
            n_ctx=n_tokens,
            n_batch=n_tokens,
            # Pooling sees one ubatch at a time, so most poolings let no text be split.
            n_ubatch=min(n_tokens, budget) if self._splits else n_tokens,
            n_seq_max=MAX_SEQUENCES,
            n_threads=self.settings.n_threads,
            n_threads_batch=self.settings.n_threads,
            pooling_type=self._pooling,
            flash_attn_type=None if flash is None else "enabled" if flash else "disabled",
            embeddings=True,
            kv_unified=True,
            taps=False,
        )
