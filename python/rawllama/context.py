"""Contexts: a model at work, with its memory and its results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

from . import interrupt
from ._params import Name, enum_name, enum_value, fill, require_float
from .batch import Batch
from .errors import (
    ClosedError,
    ContextCreateError,
    InvalidArgumentError,
    InvalidBatchError,
    LlamaError,
    NativeAssertError,
    decode_failure,
    failure,
)
from .footprint import Footprint, footprints
from .guard import caught, guarded
from .hidden import hidden_states
from .memory import Memory
from .raw import ffi, lib
from .results import Results
from .state import State
from .tap import Tap
from .threadpool import OwnThreads, ThreadPool, require_threads

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .adapter import LoraAdapter
    from .model import Model

# What the CPU backend can write while it computes, as the cache's types must be.
_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
# Poolings that see one ubatch of a sequence at a time; `last` and `rank` take their row from the last one.
_WITHIN_UBATCH = ("mean", "cls")
_rawllama_run = lib.rawllama_run  # looked up once: a decode of one token takes microseconds
# What rawllama_embed_run and rawllama_embed_text return where the computation did not fail.
_EMBED_CODES = (
    0, lib.RAWLLAMA_MORE, lib.RAWLLAMA_STOPPED, lib.RAWLLAMA_NOT_FINITE, lib.RAWLLAMA_TOO_LARGE, lib.RAWLLAMA_REFUSED
)  # fmt: skip
# What rawllama_run finds wrong with a batch, and what to do about it.
_FAULTS = {
    lib.RAWLLAMA_FAULT_EMPTY: ("it has no tokens", "add_sequence() some"),
    lib.RAWLLAMA_FAULT_CAPACITY: ("n_tokens is {value}, with room for {limit}", "set n_tokens to what you filled"),
    lib.RAWLLAMA_FAULT_N_BATCH: ("{value} tokens, and n_batch is {limit}", "split it, or make the Context with more"),
    lib.RAWLLAMA_FAULT_N_UBATCH: (
        "{value} tokens must be computed at once, and n_ubatch is {limit}",
        "split it between sequences, or make the Context with a larger n_ubatch and n_batch",
    ),
    lib.RAWLLAMA_FAULT_N_OUTPUTS: ("{value} outputs, and n_outputs_max is {limit}", "flag fewer, or split the batch"),
    lib.RAWLLAMA_FAULT_TOKEN: ("token[{index}] is {value}, and the vocabulary has {limit}", "use ids from 0 to {last}"),
    lib.RAWLLAMA_FAULT_POS: (
        "pos of token {index} is {value}, and positions are from 0 to {last}",
        "shorten the sequence; where the model has learned its positions, it knows no more",
    ),
    lib.RAWLLAMA_FAULT_N_SEQ_ID: ("n_seq_id[{index}] is {value}, not 1 to {limit}", "give the Batch more n_seq_max"),
    lib.RAWLLAMA_FAULT_SEQ_ID: (
        "a seq_id of token {index} is {value}, and they are from 0 to {last}",
        "make the Context with a larger n_seq_max",
    ),
    lib.RAWLLAMA_FAULT_N_EMBD: ("its rows have {value} floats, and the model takes {limit}", "use Model.n_embd_inp"),
    lib.RAWLLAMA_FAULT_N_POS: ("its rows have {value} positions, and the model takes {limit}", "use Model.n_pos"),
}


@dataclass(frozen=True)
class Perf:
    """Performance counters of a context; times in ms. They grow while `no_perf` is off."""

    t_start_ms: float
    t_load_ms: float
    t_p_eval_ms: float
    t_eval_ms: float
    n_p_eval: int
    n_eval: int
    n_reused: int


class Context(Results):
    """A model with memory for its sequences and room for its results. For one thread at a time.

    Parameters
    ----------
    model
        The model; closing it closes the context.
    n_ctx, n_batch, n_ubatch, n_seq_max, n_rs_seq, n_outputs_max, n_outputs_max_per_seq, n_threads, n_threads_batch,
    ctx_type, rope_scaling_type, pooling_type, attention_type, flash_attn_type, rope_freq_base, rope_freq_scale,
    yarn_ext_factor, yarn_attn_factor, yarn_beta_fast, yarn_beta_slow, yarn_orig_ctx, type_k, type_v, embeddings,
    offload_kqv, no_perf, op_offload, swa_full, kv_unified
        As in `struct llama_context_params`; None is libllama's own default. Enums by name: `pooling_type="mean"`,
        `flash_attn_type="enabled"`, `type_k="q8_0"`. What libllama made of sizes is in the attributes of these names.
    taps
        Whether `tap` and `hidden_states` can be used. It costs next to nothing on the CPU and is on there; libllama
        would wait for a GPU after each part of the graph, so where there is one it is off unless asked for.

    Raises
    ------
    InvalidArgumentError
        A value that libllama does not know, or the model cannot do.
    ContextCreateError
        libllama refused; the message has its words.

    Calls: llama_context_default_params, llama_init_from_model, llama_free, llama_n_ctx, llama_n_ctx_seq, llama_n_batch,
    llama_n_ubatch, llama_n_seq_max, llama_n_rs_seq, llama_pooling_type, llama_get_memory
    """

    _fragile = True

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int | None = None,
        n_batch: int | None = None,
        n_ubatch: int | None = None,
        n_seq_max: int | None = None,
        n_rs_seq: int | None = None,
        n_outputs_max: int | None = None,
        n_outputs_max_per_seq: int | None = None,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        ctx_type: Name | None = None,
        rope_scaling_type: Name | None = None,
        pooling_type: Name | None = None,
        attention_type: Name | None = None,
        flash_attn_type: Name | None = None,
        rope_freq_base: float | None = None,
        rope_freq_scale: float | None = None,
        yarn_ext_factor: float | None = None,
        yarn_attn_factor: float | None = None,
        yarn_beta_fast: float | None = None,
        yarn_beta_slow: float | None = None,
        yarn_orig_ctx: int | None = None,
        type_k: Name | None = None,
        type_v: Name | None = None,
        embeddings: bool | None = None,
        offload_kqv: bool | None = None,
        no_perf: bool | None = None,
        op_offload: bool | None = None,
        swa_full: bool | None = None,
        kv_unified: bool | None = None,
        taps: bool | None = None,
    ) -> None:
        params = lib.llama_context_default_params()
        fill(params, {
            "n_ctx": n_ctx,
            "n_batch": n_batch,
            "n_ubatch": n_ubatch,
            "n_seq_max": n_seq_max,
            "n_rs_seq": n_rs_seq,
            "n_outputs_max": n_outputs_max,
            "n_outputs_max_per_seq": n_outputs_max_per_seq,
            "n_threads": require_threads("n_threads", _or(n_threads, params.n_threads)),
            "n_threads_batch": require_threads("n_threads_batch", _or(n_threads_batch, params.n_threads_batch)),
            "ctx_type": enum_value("ctx_type", "LLAMA_CONTEXT_TYPE_", ctx_type),
            "rope_scaling_type": enum_value("rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_", rope_scaling_type),
            "pooling_type": enum_value("pooling_type", "LLAMA_POOLING_TYPE_", pooling_type),
            "attention_type": enum_value("attention_type", "LLAMA_ATTENTION_TYPE_", attention_type),
            "flash_attn_type": enum_value("flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_", flash_attn_type),
            "rope_freq_base": rope_freq_base,
            "rope_freq_scale": rope_freq_scale,
            "yarn_ext_factor": yarn_ext_factor,
            "yarn_attn_factor": yarn_attn_factor,
            "yarn_beta_fast": yarn_beta_fast,
            "yarn_beta_slow": yarn_beta_slow,
            "yarn_orig_ctx": yarn_orig_ctx,
            "type_k": _cache_type("type_k", type_k),
            "type_v": _cache_type("type_v", type_v),
            "embeddings": embeddings,
            "offload_kqv": offload_kqv,
            "no_perf": no_perf,
            "op_offload": op_offload,
            "swa_full": swa_full,
            "kv_unified": kv_unified,
        })  # fmt: skip
        for name, value in (("rope_freq_base", rope_freq_base), ("rope_freq_scale", rope_freq_scale)):
            if value is not None and value < 0:
                raise InvalidArgumentError(f"{name}: {value} is negative; 0 is the model's own")
        if n_batch == 0:
            raise InvalidArgumentError("n_batch: 0 leaves no room for a token")
        if n_outputs_max and not model.has_encoder and n_outputs_max < (n_seq_max or params.n_seq_max):
            raise InvalidArgumentError(f"n_outputs_max: {n_outputs_max} is less than n_seq_max, which needs as many")
        if model.vocab_only:
            raise InvalidArgumentError("model: it was loaded with vocab_only=True; load it with its weights")
        #: Whether `tap` and `hidden_states` can be used.
        self.taps = _has_no_gpu(model) if taps is None else bool(taps)
        socket = ffi.gc(lib.rawllama_socket_init(), lib.rawllama_socket_free) if self.taps else ffi.NULL
        if self.taps:
            params.cb_eval, params.cb_eval_user_data = ffi.addressof(lib, "rawllama_tap_eval"), socket
        with model._used as pointer:
            context = guarded.llama_init_from_model(pointer, params)
            if not context:
                words = "the context could not be made"
                if params.n_ubatch % max(1, params.n_seq_max):  # libllama asserts it for pooling `mean`, in other words
                    words += "; make n_ubatch a multiple of n_seq_max"
                raise failure(ContextCreateError, "llama_init_from_model", words)
            # libllama ignores n_outputs_max for encoders, and asserts it for each batch where it is given.
            most = 2**31 - 1 if model.has_encoder or not n_outputs_max else n_outputs_max
            limits = ffi.new("struct rawllama_limits *", [model.n_positions, model.n_embd_inp, model.n_pos, most])
            runner = lib.rawllama_runner_init(context, limits[0])
            self._own_threads = OwnThreads()
            super().__init__(context, functools.partial(_free, runner, self._own_threads, socket), model)
        self.model = model
        self._runner = runner
        self._socket = socket
        self._tap: Tap | None = None
        self._outcome = ffi.new("struct rawllama_outcome *")
        self._embeddings = bool(params.embeddings)
        #: Whether all sequences share one cache.
        self.kv_unified = bool(params.kv_unified)
        try:
            self._learn(context)
        except BaseException:
            self.close()
            raise

    def _learn(self, context: Any) -> None:
        """What libllama made of the parameters."""
        self._has_memory = bool(guarded.llama_get_memory(context))
        self._causal = _is_causal(context)
        self._adapters: tuple[LoraAdapter, ...] = ()
        self._pools: tuple[ThreadPool, ...] = ()
        #: Tokens that the memory holds; with `kv_unified` off, `n_ctx_seq` for each sequence.
        self.n_ctx: int = guarded.llama_n_ctx(context)
        #: Tokens that the memory holds for one sequence.
        self.n_ctx_seq: int = guarded.llama_n_ctx_seq(context) if hasattr(lib, "llama_n_ctx_seq") else self.n_ctx
        #: Tokens that one batch may have.
        self.n_batch: int = guarded.llama_n_batch(context)
        #: Tokens that are computed at once.
        self.n_ubatch: int = guarded.llama_n_ubatch(context)
        #: Number of sequence ids.
        self.n_seq_max: int = guarded.llama_n_seq_max(context)
        #: Snapshots of a recurrent state that each sequence can go back to.
        self.n_rs_seq: int = guarded.llama_n_rs_seq(context) if hasattr(lib, "llama_n_rs_seq") else 0
        #: The pooling in force: `none`, `mean`, `cls`, `last` or `rank`.
        self.pooling_type: str = enum_name("LLAMA_POOLING_TYPE_", guarded.llama_pooling_type(context))
        self._own_threads.attach(context, _most_threads(context))
        self._set_flags()
        if self.pooling_type == "rank" and not self.model.has_scores:
            raise InvalidArgumentError(f"pooling_type: {self.model.description} has no layer that gives scores")

    def _set_flags(self) -> None:
        """How rawllama_run is to encode and to decode."""
        flags = 0
        if not self._causal or (self._embeddings and self.pooling_type in _WITHIN_UBATCH):
            flags |= lib.RAWLLAMA_RUN_ONE_UBATCH
        if self._embeddings:
            flags |= lib.RAWLLAMA_RUN_ALL_OUTPUTS
        encode = lib.RAWLLAMA_RUN_ENCODE | lib.RAWLLAMA_RUN_ONE_UBATCH | lib.RAWLLAMA_RUN_ALL_OUTPUTS
        self._encode_flags = encode
        self._decode_flags = flags if self._has_memory else encode  # libllama does so itself, without memory

    def __repr__(self) -> str:
        return f"<Context {'closed' if self.closed else f'of {self.model.description}'}>"

    @property
    def memory(self) -> Memory | None:
        """What the sequences remember; None for encoders."""
        return Memory(self) if self._has_memory else None

    @property
    def state(self) -> State:
        """Saving and restoring what they remember."""
        return State(self)

    # ---- settings

    @property
    def embeddings(self) -> bool:
        """Whether embeddings are kept, by token or pooled. Calls: llama_set_embeddings."""
        return self._embeddings

    @embeddings.setter
    def embeddings(self, value: bool) -> None:
        with self._used as context:
            guarded.llama_set_embeddings(context, value)
            self._embeddings = bool(value)
            self._set_flags()
            self._forget()

    @property
    def causal_attn(self) -> bool:
        """Whether tokens see only those before them. Calls: llama_get_causal_attn, llama_set_causal_attn."""
        return self._causal

    @causal_attn.setter
    def causal_attn(self, value: bool) -> None:
        with self._used as context:
            guarded.llama_set_causal_attn(context, value)
            self._causal = bool(value)
            self._set_flags()

    @property
    def n_threads(self) -> int:
        """Threads that compute a single token. Calls: llama_n_threads."""
        with self._used as context:
            return guarded.llama_n_threads(context)

    @property
    def n_threads_batch(self) -> int:
        """Threads that compute several tokens. Calls: llama_n_threads_batch."""
        with self._used as context:
            return guarded.llama_n_threads_batch(context)

    def set_n_threads(self, n_threads: int, n_threads_batch: int | None = None) -> None:
        """Set the threads for a single token and for several: 1 to 512, and no more than an attached pool has.

        Calls: llama_set_n_threads
        """
        both = (n_threads, n_threads if n_threads_batch is None else n_threads_batch)
        with self._used as context:
            for count in both:
                require_threads("n_threads", count)
            self._require_pools(self._pools, both, "n_threads")
            if not self._pools:
                self._own_threads.attach(context, max(both))
            guarded.llama_set_n_threads(context, *both)

    def attach_threadpool(self, pool: ThreadPool, pool_batch: ThreadPool | None = None) -> None:
        """Compute with these threads: `pool` for a single token, `pool_batch` (or the same) for several.

        Several contexts may have one pool, if they do not compute at the same time.
        Raises InvalidArgumentError for a pool with fewer threads than the context uses. Calls: llama_attach_threadpool
        """
        pools = (pool, pool_batch or pool)
        self._require_pools(pools, (self.n_threads, self.n_threads_batch), "pool")
        with self._used as context, ExitStack() as stack:
            pointers = [stack.enter_context(one._used) for one in dict.fromkeys(pools)]
            guarded.llama_attach_threadpool(context, pointers[0], pointers[-1])
            self._hold_pools(tuple(dict.fromkeys(pools)))

    def detach_threadpool(self) -> None:
        """Compute with the context's own threads again, which are OpenMP's where the build has that."""
        with self._used as context:
            self._own_threads.attach(context, _most_threads(context))
            self._hold_pools(())

    @staticmethod
    def _require_pools(pools: Sequence[ThreadPool], counts: tuple[int, int], argument: str) -> None:
        """Each pool has the threads that are used, or ggml would write behind its end."""
        for one, count in zip((pools[0], pools[-1]) if pools else (), counts, strict=False):
            if one.n_threads < count:
                words = f"{argument}: the pool has {one.n_threads} threads, fewer than the {count} of the context"
                raise InvalidArgumentError(f"{words}; set_n_threads() first, or make a larger pool")

    def _hold_pools(self, pools: tuple[ThreadPool, ...]) -> None:
        for pool in self._pools:
            pool._take_back(self)
        for pool in pools:
            pool._lend_to(self)
        self._pools = pools

    def set_adapters(self, adapters: Mapping[LoraAdapter, float]) -> None:
        """Use these LoRA adapters with these scales, and no others. Calls: llama_set_adapters_lora."""
        for adapter in adapters:
            if adapter.model is not self.model:
                raise InvalidArgumentError(f"adapters: {adapter.path} was loaded for another Model")
        with self._used as context, ExitStack() as stack:
            pointers = [stack.enter_context(adapter._used) for adapter in adapters]
            scales = ffi.new("float[]", [require_float("adapters", scale) for scale in adapters.values()])
            array = ffi.new("struct llama_adapter_lora *[]", pointers)
            code = guarded.llama_set_adapters_lora(context, array, len(pointers), scales)
            if code != 0:
                raise failure(LlamaError, "llama_set_adapters_lora", f"llama_set_adapters_lora returned {code}", code)
            for adapter in self._adapters:
                adapter._take_back(self)
            for adapter in adapters:
                adapter._lend_to(self)
            self._adapters = tuple(adapters)

    def set_control_vector(self, data: ArrayLike | None, il_start: int = 1, il_end: int | None = None) -> None:
        """Add a vector to the hidden state behind each layer from `il_start` to `il_end`, both included.

        Parameters
        ----------
        data
            float32, shape (n_layer - 1, n_embd): the vectors of layers 1, 2, ...; None for no vectors.
        il_start, il_end
            Layers; all by default.

        Raises
        ------
        InvalidArgumentError
            Another shape, values that are not finite, or layers that are not there.

        Calls: llama_set_adapter_cvec
        """
        n_embd, last = self.model.n_embd, self.model.n_layer - 1
        end = last if il_end is None else il_end
        with self._used as context:
            if data is None:
                guarded.llama_set_adapter_cvec(context, ffi.NULL, 0, n_embd, -1, -1)
                return
            try:
                with np.errstate(over="ignore"):  # then it is not finite
                    rows = np.ascontiguousarray(data, np.float32)
            except (TypeError, ValueError) as error:
                raise InvalidArgumentError(f"data: {error}") from None
            if rows.shape != (last, n_embd) or not np.isfinite(rows).all():
                raise InvalidArgumentError(f"data: finite values of shape {(last, n_embd)} wanted, not {rows.shape}")
            if not 1 <= il_start <= end <= last:
                raise InvalidArgumentError(f"il_start, il_end: {il_start} to {end} is not within layers 1 to {last}")
            vectors = ffi.from_buffer("float[]", rows)
            code = guarded.llama_set_adapter_cvec(context, vectors, rows.size, n_embd, il_start, end)
            if code != 0:
                raise failure(LlamaError, "llama_set_adapter_cvec", "the control vector was refused", code)

    # ---- computing

    def process(self, batch: Batch) -> None:
        """Encode or decode, as the model wants it. For an encoder-decoder call `encode` or `decode` yourself.

        Raises
        ------
        InvalidArgumentError
            The model has an encoder and a decoder.
        LlamaError
            As `decode`.

        Calls: llama_encode, llama_decode
        """
        if self._is_both:
            raise InvalidArgumentError("batch: this model has an encoder and a decoder; call encode() or decode()")
        self._run(batch, self._only_encodes)

    def encode(self, batch: Batch) -> None:
        """Compute without memory, each token seeing all of its sequence. Raises as `decode`. Calls: llama_encode."""
        if self._has_memory and not self._has_encoder:
            raise InvalidArgumentError("batch: this model has no encoder; call decode()")
        self._run(batch, True)

    def decode(self, batch: Batch) -> None:
        """Compute a batch and remember it. Results are those of the last batch.

        Raises
        ------
        InvalidBatchError
            What is wrong with the batch, at which token. Nothing was computed.
        ContextFullError
            The memory has no room for it. Nothing was computed.
        DecodeAborted
            `abort` was called. Ubatches done before stay in the memory.
        KeyboardInterrupt
            Ctrl-C, on the main thread; the same holds.
        DecodeError
            It failed otherwise.
        NativeAssertError
            An assert failed; this context cannot be used any more.

        Calls: llama_decode, or llama_process with llama_batch_ext, which is what llama_decode turns a batch into
        """
        if not self._has_decoder:
            raise InvalidArgumentError("batch: this model has no decoder; call encode()")
        if self._adapters or self._pools:
            self._run(batch, False)
        else:
            self._compute(batch, False)

    @functools.cached_property
    def _has_encoder(self) -> bool:
        return self.model.has_encoder

    @functools.cached_property
    def _has_decoder(self) -> bool:
        return self.model.has_decoder

    @property
    def _is_both(self) -> bool:
        return self._has_encoder and self._has_decoder

    @property
    def _only_encodes(self) -> bool:
        return self._has_encoder and not self._has_decoder

    def _run(self, batch: Batch, encode: bool) -> None:
        for adapter in self._adapters:
            if adapter.closed:
                raise ClosedError(f"{adapter!r}, which this context uses, is closed; call set_adapters() without it")
        with ExitStack() as stack:
            for pool in self._pools:  # two contexts must not compute with one pool
                stack.enter_context(pool._used)
            self._compute(batch, encode)

    def _compute(self, batch: Batch, encode: bool) -> None:
        self._acquire()
        try:
            flags = self._encode_flags if encode else self._decode_flags
            if get_ident() == interrupt.main:
                flags |= lib.RAWLLAMA_RUN_INTERRUPTIBLE
            code = _rawllama_run(self._runner, batch.c, flags, self._outcome)
            if code != 0:
                raise self._failure("llama_encode" if encode else "llama_decode", code)
        except NativeAssertError as error:
            self._failed = error
            raise
        finally:
            self._users = 0  # not by a call, before which Ctrl-C might come

    def _embed(self, function: Callable[..., int], *arguments: Any) -> int:
        """Call rawllama_embed_run or rawllama_embed_text with arguments that were checked.

        Returns what that does; where the computation fails, raises as `decode`.
        """
        self._acquire()
        try:
            self._forget()
            flags = self._encode_flags if self._has_encoder else self._decode_flags
            if get_ident() == interrupt.main:
                flags |= lib.RAWLLAMA_RUN_INTERRUPTIBLE
            code = function(self._runner, flags, *arguments)
            if code not in _EMBED_CODES:
                raise self._failure("llama_encode" if self._has_encoder else "llama_decode", code)
            return code
        except NativeAssertError as error:
            self._failed = error
            raise
        finally:
            self._users = 0  # not by a call, before which Ctrl-C might come

    def _failure(self, function: str, code: int) -> LlamaError:
        """The exception for what rawllama_run returned."""
        if code == lib.RAWLLAMA_CAUGHT:
            return caught(function)
        return self._fault() if code == lib.RAWLLAMA_REFUSED else decode_failure(function, code)

    def _fault(self) -> InvalidBatchError:
        """What rawllama_run found wrong with a batch."""
        fault = self._outcome
        what, remedy = _FAULTS[fault.kind]
        words = f"batch: {what}; {remedy}"
        return InvalidBatchError(
            words.format(index=fault.index, value=fault.value, limit=fault.limit, last=fault.limit - 1)
        )

    def require_sequence(self, argument: str, seq_id: int) -> int:
        """`seq_id`, if this context has such a sequence; InvalidArgumentError names `argument` if not."""
        if not isinstance(seq_id, int) or not 0 <= seq_id < self.n_seq_max:
            raise InvalidArgumentError(f"{argument}: {seq_id!r} is not from 0 to {self.n_seq_max - 1}, see n_seq_max")
        return seq_id

    def abort(self) -> None:
        """End the computation that another thread has this context do: it gets `DecodeAborted`. Else no effect.

        On the CPU within the time of one operation of the graph. Calls: llama_set_abort_callback
        """
        with self._mutex:  # not `_used`: the context is in use
            if self._pointer is not None:
                lib.rawllama_runner_abort(self._runner)

    def synchronize(self) -> None:
        """Wait until a device has computed everything; reading results does so too. Calls: llama_synchronize."""
        with self._used as context:
            guarded.llama_synchronize(context)

    def warmup(self) -> None:
        """Compute one token, so that weights are in memory and buffers made; then forget it.

        Raises InvalidArgumentError if the memory is not empty. Calls: llama_decode, llama_encode
        """
        memory = self.memory
        if memory is not None and any(memory.positions(seq_id) for seq_id in range(self.n_seq_max)):
            raise InvalidArgumentError("the memory is in use; warm up before the first batch, or clear it")
        batch = Batch(1)
        vocab = self.model.vocab
        batch.add_sequence([vocab.bos if vocab.bos is not None else vocab.eos or 0])
        self._run(batch, self._has_encoder)
        if memory is not None:
            memory.clear()
        with self._used:
            self._forget()
        self.reset_perf()

    def _forget(self) -> None:
        """There are no results any more."""
        self._outcome.n_tokens = self._outcome.n_outputs = 0

    # ---- inside the graph

    def tap(
        self, *patterns: str, layers: Sequence[int] | None = None, rows: Sequence[int] | None = None
    ) -> Tap:
        """Copy tensors of the graph while they are computed, within a `with` block; `Tap` says how they are had.

        Parameters
        ----------
        patterns
            Names of tensors, where `*` stands for any characters but spaces: `Qcur-*`, `kq_soft_max-3`, `inp_pos`.
            `OP@name` is what an operation makes of a tensor of that name, and `@name` what any does:
            `GET_ROWS@position_embd.weight`. `layer_output-*` is what each layer gives, in all architectures.
            `rawllama.tap.names(model)` lists the names of a graph.
        layers
            Of tensors whose names tell a layer, only these; negative ones count from the last.
        rows
            Only these along the first axis (of most tensors: the tokens); negative ones count from the last.

        Raises
        ------
        InvalidArgumentError
            Layers or rows that are not there; at the end of the block, a pattern that nothing matched. A context made
            with `taps=False`, or with a tap that is still in use.
        ClosedError
            The context is closed.

        Calls: rawllama_tap_init, rawllama_tap_plug, rawllama_tap_eval
        """
        self._require_taps()
        return Tap(self, patterns, layers, rows)

    def hidden_states(
        self, batch: Batch, layers: Sequence[int] | None = None, *, pooling: str | None = None
    ) -> NDArray[np.float32]:
        """Compute a batch, and return what each layer hands to the next.

        Parameters
        ----------
        batch
            As `process` takes it. Results of the context are those of this batch.
        layers
            0 is what enters the first layer, i what layer i - 1 gives, and `n_layer` (or -1) the final state, behind
            the last norm where the model has one: the row that pooling and output layers see. All by default.
        pooling
            `mean`, `cls` (the first token) or `last`, over each sequence's tokens; None is a row a token.

        Returns
        -------
        ndarray
            float32, shape (layers, n_tokens, n_embd), tokens as in the batch; or, with `pooling`, (layers, sequences,
            n_embd), in the order of the sequence ids.

        Raises
        ------
        InvalidArgumentError
            Layers that are not there; an architecture that does not name them; sequences whose tokens libllama does
            not compute in the batch's order. As `tap`.
        LlamaError
            As `decode`.

        Calls: rawllama_tap_init, rawllama_tap_plug, llama_decode, llama_encode
        """
        self._require_taps()
        return hidden_states(self, batch, layers, pooling)

    def _require_taps(self) -> None:
        with self._used:
            pass  # raises ClosedError
        if not self.taps:
            raise InvalidArgumentError("taps: they are off, as this context may use a GPU; make it with taps=True")

    def _compute_all(self, batch: Batch) -> None:
        """As `process`, with a row for each token in all layers."""
        flags = self._decode_flags
        self._decode_flags |= lib.RAWLLAMA_RUN_ALL_OUTPUTS
        try:
            self.process(batch)
        finally:
            self._decode_flags = flags

    def _plug(self, tap: Tap) -> None:
        with self._used:
            if self._tap is not None:
                raise InvalidArgumentError("tap: this context has one in use; end its block first")
            lib.rawllama_tap_plug(self._socket, tap._c)
            self._tap = tap

    def _unplug(self, tap: Tap) -> None:
        with self._mutex:
            if self._tap is tap:
                self._tap = None
                if self._pointer is not None:
                    lib.rawllama_tap_plug(self._socket, ffi.NULL)

    # ---- performance counters

    @property
    def perf(self) -> Perf:
        """The performance counters. Calls: llama_perf_context."""
        with self._used as context:
            data = guarded.llama_perf_context(context)
            return Perf(*(getattr(data, field.name) for field in fields(Perf)))

    @property
    def footprints(self) -> tuple[Footprint, ...]:
        """What the model and this context take, by kind of memory, as libllama counts it.

        Raises InvalidArgumentError where libllama is too old to tell. Calls: rawllama_footprints
        """
        return footprints(self)

    def reset_perf(self) -> None:
        """Set the counters to zero. Calls: llama_perf_context_reset."""
        with self._used as context:
            guarded.llama_perf_context_reset(context)


def _free(runner: Any, threads: OwnThreads, socket: Any, context: Any) -> None:
    lib.llama_free(context)  # first: its callbacks are the runner's and the socket's
    lib.rawllama_runner_free(runner)
    threads.free()
    if socket:
        ffi.release(socket)


def _has_no_gpu(model: Model) -> bool:
    """Whether nothing but the CPU can compute. Calls: llama_supports_gpu_offload."""
    devices = model._loaded_with[0].devices
    return bool(devices and not devices[0]) or not lib.llama_supports_gpu_offload()


def _most_threads(context: Any) -> int:
    return max(guarded.llama_n_threads(context), guarded.llama_n_threads_batch(context))


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _is_causal(context: Any) -> bool:
    if hasattr(lib, "llama_get_causal_attn"):
        return bool(guarded.llama_get_causal_attn(context))
    return True  # an older llama.cpp does not tell; its own assert is then caught


def _cache_type(argument: str, value: Name | None) -> int | None:
    number = enum_value(argument, "GGML_TYPE_", value)
    if number is not None and enum_name("GGML_TYPE_", number) not in _CACHE_TYPES:
        raise InvalidArgumentError(f"{argument}: {value!r} is none of {', '.join(_CACHE_TYPES)}")
    return number
