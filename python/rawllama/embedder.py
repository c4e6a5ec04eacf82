"""Texts in, one matrix out."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from . import _tokens
from ._engine import MAX_SEQUENCES, TOKEN_BUDGET, Engine, Sequences, Settings, plan
from ._options import (
    DOCUMENT_PROMPTS,
    MAX_THREADS,
    POOLINGS,
    Profile,
    between,
    one_of,
    open_model,
    require_embeddings,
    settings_of,
)
from ._pipeline import Encoding, Pipeline
from ._progress import Wanted, require_progress
from ._queue import Stop, Task, Worker
from ._sequences import OVERLONG
from ._single import Single
from ._stream import BLOCK_SIZE, stream, stream_blocks
from .errors import InvalidArgumentError
from .model import Model
from .normalize import parse
from .planning import Plan, plan_texts
from .rerank import Ranking, RerankOptions, rerank
from .rows import DTYPES, Int8Rows, RowFormat, Rows, TokenRows, take
from .similarity import similarity
from .texts import read
from .tuning import Tuning, remembered, tune

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ._pipeline import Options

__all__ = [
    "MAX_SEQUENCES",
    "MAX_THREADS",
    "OVERLONG",
    "POOLINGS",
    "TOKEN_BUDGET",
    "Embedder",
    "Int8Rows",
    "Plan",
    "Ranking",
    "Settings",
    "TokenRows",
    "Tuning",
    "plan",
]


class EncodeOptions(TypedDict, total=False):
    """Keywords of `Embedder.encode` but `prompt`."""

    normalize: str | float | None
    dims: int | None
    dtype: str | None
    overlong: str | None
    progress: Wanted


class PromptedOptions(EncodeOptions, total=False):
    """Keywords of `Embedder.encode`."""

    prompt: str | None


class Embedder:
    """Embeds texts with one model. Several threads may use it: their calls compute one after the other.

    Parameters
    ----------
    model
        Path of a GGUF file; or a name that `rawllama.hub` knows: `minilm`, `hf://owner/repository/file.gguf`; or a
        `Model`, which stays the caller's.
    pooling
        `none`, `mean`, `cls`, `last` or `rank`; by default what the file says.
    n_threads
        Threads that compute, 1 to 512; by default one a core.
    n_contexts
        Contexts that compute side by side, each with its share of the threads; by default one a thread, 8 at most,
        and one in all where there is a GPU. A text alone has all threads.
    normalize
        See `rawllama.normalize`; by default `l2`, and `none` for scores (`rank`) and rows a token (`none`).
    max_tokens
        Tokens that one text may have, special ones included; by default the positions that the model was trained on,
        which are the most.
    dims
        Columns that are kept, before the rows are normalised: for models that were trained so (Matryoshka). By default
        all.
    dtype
        `float32`; `float16`; `int8`, an `Int8Rows`; or `ubinary`, `numpy.packbits(row > 0)`.
    prompts
        Texts to put before texts, by names of the caller's: `{"query": "query: "}`. By default the model's, where its
        file has some.
    overlong
        What becomes of texts with more than `max_tokens`: `error`; `truncate`, which keeps the closing special token,
        counts in `truncated` and warns once; or `chunk`: overlapping windows, each with its special tokens and prompt,
        whose rows are averaged, each weighted with the tokens that no window before it has, and then normalised.
    overlap
        Tokens that a window shares with the one before; by default an eighth of `max_tokens`.
    token_budget
        Tokens that are computed at once, unless one text has more; 512 by default.
    flash_attn
        Flash attention: True, False, or None: libllama decides.
    devices, n_gpu_layers
        As in `Model`, for a model that is not given as one.
    kernels
        As in `Model`: `rawllama`, the default where processor and build have them, or `ggml`, which gives llama.cpp's
        own bits.
    progress
        None: a tqdm bar on a terminal, for work that takes more than about 2 s. True or False: a bar or none. Or what
        is called with the tokens done and those in all, an estimate where not all are known; None instead where
        nothing says how many texts there are.

    Attributes
    ----------
    model
        The `Model`.
    pooling, max_tokens, normalize, dims, dtype, overlong, overlap
        What is in use.
    prompts
        The prompts, by name.
    n_embd
        The model's width: columns of an embedding before `dims` cuts it.
    tuning
        What `tune` has found for this model on this machine, now or before, which is in use where none of `n_threads`,
        `n_contexts`, `token_budget` and `flash_attn` is given; else None.

    Raises
    ------
    InvalidArgumentError
        An argument that is not possible, or not with this model; or a model that cannot embed.
    OSError
        The file cannot be read.
    ModelLoadError
        The file is no model.
    ContextCreateError
        The model is damaged, or memory is short.
    MissingExtraError
        `progress=True` without tqdm; or what `rawllama.hub` needs for a name is not there.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        *,
        pooling: str | None = None,
        n_threads: int | None = None,
        n_contexts: int | None = None,
        normalize: str | float | None = None,
        max_tokens: int | None = None,
        dims: int | None = None,
        dtype: str = "float32",
        prompts: Mapping[str, str] | None = None,
        overlong: str = "error",
        overlap: int | None = None,
        token_budget: int | None = None,
        flash_attn: bool | None = None,
        devices: Sequence[str] | None = None,
        n_gpu_layers: int | None = None,
        kernels: str | None = None,
        progress: Wanted = None,
    ) -> None:
        self._given: dict[str, Any] = {
            name: value
            for name, value in (
                ("n_threads", n_threads),
                ("n_contexts", n_contexts),
                ("token_budget", token_budget),
                ("flash_attn", flash_attn),
            )
            if value is not None
        }
        settings = settings_of(**self._given)
        self._wanted_pooling = None if pooling is None else one_of("pooling", pooling, POOLINGS)
        one_of("dtype", dtype, DTYPES)
        one_of("overlong", overlong, OVERLONG)
        require_progress(progress)
        self._worker: Worker | None = None
        self._singles: dict[str | None, Single] = {}  # by prompt
        self._mutex = threading.Lock()
        self._owns_model = not isinstance(model, Model)
        self.model = open_model(model, devices, n_gpu_layers, kernels)
        with ExitStack() as undo:
            if self._owns_model:
                undo.callback(self.model.close)
            require_embeddings(self.model)
            self.tuning = None if self._given else remembered(self.model)
            settings = settings if self.tuning is None else self.tuning.settings
            engine = Engine(self.model, pooling, settings)
            undo.callback(engine.close)
            self._profile = profile = Profile(
                self.model,
                engine.pooling,
                normalize=normalize,
                max_tokens=max_tokens,
                dims=dims,
                dtype=dtype,
                prompts=prompts,
                overlong=overlong,
                overlap=overlap,
                progress=progress,
            )
            self._pipeline = Pipeline(engine, profile.sequencer(settings))
            undo.pop_all()
        self.pooling, self.max_tokens, self.n_embd, self.dims = (
            profile.pooling, profile.max_tokens, profile.n_embd, profile.dims
        )  # fmt: skip
        self.normalize, self.dtype, self.overlong, self.overlap, self.prompts = (
            profile.normalize, dtype, overlong, profile.overlap, profile.prompts
        )  # fmt: skip

    # ---- texts to rows

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        normalize: str | float | None = None,
        dims: int | None = None,
        dtype: str | None = None,
        overlong: str | None = None,
        progress: Wanted = None,
    ) -> Any:
        """Embed texts: one row each, in their order. Equal ones are computed once.

        Parameters
        ----------
        texts
            Any strings, empty ones too: a list, a numpy array, a column of pyarrow, pandas or polars, or any other
            iterable. Or one string.
        prompt
            Name of the one of `prompts` that is put before each text; "" for none. By default the one that the model's
            file wants where none is asked for; mostly there is none such.
        normalize, dims, dtype, overlong, progress
            As for the class; None is what the Embedder has.

        Returns
        -------
        ndarray or Int8Rows
            Shape (texts, dims), or (dims,) for one string: float32, or what `dtype` says. `ubinary` has
            ceil(dims / 8) columns; with pooling `rank`, the columns are the model's `n_cls_out` scores.

        Raises
        ------
        InvalidArgumentError
            A text is too long and `overlong` is `error`, or is no text; or the pooling is `none`; or an argument is not
            possible.
        LlamaError
            The computation failed, or a row is not finite: the message names the text. `rows` and `done` have what was
            computed before.
        Interrupted
            Ctrl-C, on the main thread; `rows` and `done` as well.

        Calls: llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
        """
        if all(option is None for option in (normalize, dims, dtype, overlong, progress)):
            rows = self._encode_one(texts, prompt)
            if rows is not None:
                return rows
        options = self._profile.options(prompt, normalize, dims, dtype, overlong, progress)
        return self._encode(texts, options, Stop())

    def encode_query(self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]) -> Any:
        """`encode` with the prompt `query`, where there is one. Calls: as `encode`."""
        return self.encode(texts, prompt="query" if "query" in self.prompts else "", **options)

    def encode_document(self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]) -> Any:
        """`encode` with the prompt `document`, `passage` or `corpus`, where there is one. Calls: as `encode`."""
        name = next((name for name in DOCUMENT_PROMPTS if name in self.prompts), "")
        return self.encode(texts, prompt=name, **options)

    async def encode_async(self, texts: str | Iterable[str], **options: Unpack[PromptedOptions]) -> Any:
        """`encode` in a thread of the Embedder's, which reads the texts too. Cancelling ends the computation.

        Parameters, result and errors are those of `encode`. Calls: as `encode`.
        """
        wanted = self._profile.options(**options)
        stop, ended = Stop(), asyncio.Event()
        loop = asyncio.get_running_loop()
        task = Task(partial(self._encode, texts, wanted, stop), stop, lambda: _tell(loop, ended))
        with self._mutex:
            self._pipeline.require_open()
            self._worker = self._worker or Worker("rawllama-encode-async")
            self._worker.submit(task)
        try:
            await ended.wait()
        except asyncio.CancelledError:
            stop.request()
            raise
        return task.result()

    def encode_iter(
        self, texts: Iterable[str], *, block_size: int = BLOCK_SIZE, **options: Unpack[PromptedOptions]
    ) -> Iterator[Any]:
        """Embed texts block by block, in memory that does not grow: each block's rows come as soon as they are there.

        The texts are read by the thread that asks for a block, three blocks ahead at most, while another one computes.

        Parameters
        ----------
        texts
            As in `encode`, but no single string.
        block_size
            Texts a block; within one, texts of like length are computed together, and equal ones once.
        options
            As in `encode`.

        Yields
        ------
        ndarray or Int8Rows
            The rows of the next `block_size` texts, in their order. After an error or Ctrl-C, those that came before
            are right: go on with the text behind them.

        Raises
        ------
        InvalidArgumentError, LlamaError
            As `encode`; the index in a message is that in the whole stream.
        KeyboardInterrupt
            Ctrl-C, on the main thread.

        Calls: as `encode`
        """
        wanted = self._profile.options(**options)
        self._require_pooled()
        if isinstance(texts, (str, bytes)):
            raise InvalidArgumentError("texts: it is one text; pass a list, e.g. [text]")
        self._pipeline.require_open()
        return stream(self._pipeline, texts, wanted, between("block_size", block_size, 1, 1 << 30))

    def encode_tokens(self, texts: str | Iterable[str], **options: Unpack[PromptedOptions]) -> TokenRows:
        """Embed texts with pooling `none`: one row a token. One string is taken for a list of it.

        Parameters and errors are those of `encode`. Calls: llama_tokenize, llama_encode or llama_decode,
        llama_get_embeddings_ith
        """
        if self.pooling != "none":
            raise InvalidArgumentError(f"pooling: {self.pooling} gives a row a text; use encode, or pooling='none'")
        wanted = self._profile.options(**options)
        source = read([texts] if isinstance(texts, str) else texts)
        return _tokens.encode_tokens(self._pipeline, source, wanted, Stop())

    def rerank(self, query: str, documents: Iterable[str], **options: Unpack[RerankOptions]) -> Ranking:
        """Score documents for a query, with pooling `rank`; keywords and errors: see `rawllama.rerank.rerank`.

        Calls: llama_model_chat_template, llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
        """
        return rerank(self, query, documents, **options)

    @staticmethod
    def similarity(a: Rows, b: Rows | None = None, metric: str = "cosine") -> Any:
        """How alike each row of `a` is to each of `b`, or of `a`: see `rawllama.similarity.similarity`."""
        return similarity(a, b, metric)

    def plan(self, texts: str | Iterable[str], *, prompt: str | None = None, overlong: str | None = None) -> Plan:
        """The batches that `encode` would compute, and what they cost: see `rawllama.planning.Plan`.

        Parameters and errors are those of `encode`. Calls: llama_tokenize
        """
        return plan_texts(self, texts, prompt=prompt, overlong=overlong)

    def tune(self, sample: Iterable[str], *, seconds: float = 30) -> Tuning:
        """Find the fastest settings for texts like these, use and remember them: see `rawllama.tuning.tune`.

        Calls: llama_tokenize, llama_encode or llama_decode
        """
        return tune(self, sample, seconds=seconds)

    def tokenize(self, text: str) -> NDArray[np.int32]:
        """Tokens of one text as `encode` computes them without a prompt, however many they are.

        Text that looks like a special token (`[SEP]`) is plain text. Shape (n,), int32.
        """
        return self._pipeline.sequencer.tokenize(text)

    # ---- the object

    @property
    def truncated(self) -> int:
        """Texts that `overlong="truncate"` has cut so far; of equal ones in one call, one counts."""
        return self._pipeline.truncated

    @property
    def closed(self) -> bool:
        """Whether it, or its model, is closed."""
        return self._pipeline.closed or self.model.closed

    def close(self) -> None:
        """End what another thread computes for `encode_async`, wait for the others, and free what is the Embedder's.

        A model that was given stays open. A second time does nothing. Calls: llama_free, llama_model_free.
        """
        with self._mutex:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
        self._pipeline.close()
        if self._owns_model:
            self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        what = "closed" if self.closed else f"of {self.model.description}, {self.pooling}, {self.dims} columns"
        return f"<Embedder {what}>"

    # ---- for the modules beside this one

    @property
    def _settings(self) -> Settings:
        return self._pipeline.engine.settings

    def _require_pooled(self) -> None:
        if self.pooling == "none":
            advice = "use encode_tokens, or pooling='mean', or 'last' for a decoder"
            raise InvalidArgumentError(f"pooling: none gives a row a token; {advice}")

    def _encode_one(self, texts: str | Iterable[str], prompt: str | None) -> Any:
        """`encode` of a string or a list of one, in the short way; None where that is not for them."""
        if isinstance(texts, str):
            rows = self._row_of(texts, prompt)
            return None if rows is None else take(rows, 0)
        if isinstance(texts, list) and len(texts) == 1 and isinstance(texts[0], str):
            return self._row_of(texts[0], prompt)
        return None

    def _row_of(self, text: str, prompt: str | None) -> Rows | None:
        single = self._singles.get(prompt)
        if single is None:
            options = self._profile.options(prompt)
            if self.pooling == "none" or options.progress is not None:
                return None
            single = self._singles[prompt] = Single(self._pipeline, options)
        return single.encode(text)

    def _encode(self, texts: str | Iterable[str], options: Options, stop: Stop) -> Any:
        """`encode`, which `stop` ends."""
        self._require_pooled()
        self._pipeline.require_open()
        if isinstance(texts, str):
            return take(Encoding(self._pipeline, read([texts]), options, stop).run(), 0)
        return Encoding(self._pipeline, read(texts), options, stop).run()

    def _encode_blocks(self, blocks: Iterable[Any], **options: Unpack[PromptedOptions]) -> Iterator[Any]:
        """`encode_iter` where the texts come in blocks: columns, or lists of strings."""
        wanted = self._profile.options(**options)
        self._require_pooled()
        self._pipeline.require_open()
        return stream_blocks(self._pipeline, blocks, wanted)

    def _lengths(
        self, texts: Iterable[str], prompt: str | None = None, overlong: str | None = None
    ) -> NDArray[np.int64]:
        """Tokens of each sequence that the texts would be computed as: int64; more than texts where windows are."""
        return _tokens.lengths(self._pipeline, read(texts), self._profile.options(prompt, overlong=overlong))

    def _encode_tokens(
        self,
        tokens: NDArray[np.int32],
        offsets: NDArray[np.int64],
        normalize: str | float = "none",
        name: Callable[[int], str] = "sequences[{}]".format,
    ) -> Any:
        """Rows of sequences of tokens of the vocabulary, float32, shape (n, columns); messages call them `name`.

        Parameters
        ----------
        tokens, offsets
            int32, shape (t,); int64, shape (n + 1,): sequence i is `tokens[offsets[i]:offsets[i + 1]]`.
        """
        target = RowFormat(self._profile.width, self._profile.width, "float32", parse(normalize))
        sequences = Sequences(tokens, offsets)
        return _tokens.encode_sequences(self._pipeline, sequences, target, Stop(), name, self.max_tokens)

    @property
    def _specials(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The special tokens before each text, and those behind it: int32."""
        return self._pipeline.sequencer.opening, self._pipeline.sequencer.closing

    def _apply(self, settings: Settings) -> None:
        """Compute with other settings from now on."""
        self._pipeline.replace(Engine(self.model, self._wanted_pooling, settings), self._profile.sequencer(settings))


def _tell(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Set the event, from another thread; a loop that is closed waits for nothing."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(ended.set)
