"""What an Embedder was asked for, checked, and what its model says where it was not asked."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ._engine import TOKEN_BUDGET, Settings
from ._params import enum_names
from ._pipeline import Options
from ._progress import Wanted, require_progress
from ._sequences import OVERLONG, Sequencer
from .errors import InvalidArgumentError, ModelLoadError
from .model import Model, own_kernels
from .normalize import parse
from .raw import lib
from .rows import DTYPES, RowFormat
from .texts import encode
from .vocab import _cores

#: Names of the poolings.
POOLINGS = tuple(name for number, name in sorted(enum_names("LLAMA_POOLING_TYPE_").items()) if number >= 0)
#: ggml's own limit; tens of thousands would end the process.
MAX_THREADS: int = lib.GGML_MAX_N_THREADS
# Threads that each have a context do not wait for each other at every operation, as those of one context do: a fifth
# faster on two idle cores, and several times on busy ones. Each context takes memory for a batch.
_CONTEXTS = 8
# Far more than any batch is fast with.
_MOST_TOKENS = 1 << 20
#: GGUF keys of a model's prompts, by name, and of the name of the one that texts get where none is asked for.
PROMPTS_KEY, DEFAULT_PROMPT_KEY = "rawllama.prompts.", "rawllama.default_prompt"
#: Names that models give the prompt for what is searched in; the first that a model has is used.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def one_of(argument: str, value: str, known: tuple[str, ...]) -> str:
    """`value`, if it is known."""
    if value not in known:
        raise InvalidArgumentError(f"{argument}: {value!r} is none of {', '.join(known)}")
    return value


def between(argument: str, value: Any, least: int, most: int) -> int:
    """`value`, if it is an integer from `least` to `most`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{argument}: {value!r} is no integer") from None
    if not least <= number <= most:
        raise InvalidArgumentError(f"{argument}: {number} is not between {least} and {most}")
    return number


def settings_of(
    n_threads: int | None = None,
    n_contexts: int | None = None,
    token_budget: int | None = None,
    flash_attn: bool | None = None,
) -> Settings:
    """How to compute; None is the default."""
    if not (flash_attn is None or isinstance(flash_attn, bool)):
        raise InvalidArgumentError(f"flash_attn: {flash_attn!r} is none of True, False, None")
    threads = _cores() if n_threads is None else between("n_threads", n_threads, 1, MAX_THREADS)
    contexts = _contexts(threads) if n_contexts is None else between("n_contexts", n_contexts, 1, threads)
    budget = TOKEN_BUDGET if token_budget is None else between("token_budget", token_budget, 1, _MOST_TOKENS)
    return Settings(threads, contexts, budget, flash_attn)


def _contexts(n_threads: int) -> int:
    """Contexts by default: one where a GPU may compute, which they would only share."""
    return 1 if lib.llama_supports_gpu_offload() else min(n_threads, _CONTEXTS)


def require_embeddings(model: Model) -> None:
    """Refuse a model that cannot turn texts into vectors."""
    name = ", ".join(model.paths) or "the file"
    if model.vocab_only:
        raise InvalidArgumentError("model: it was loaded with vocab_only=True; load it with its weights")
    if model.vocab.type == "none":
        raise InvalidArgumentError(f"model: {name} has no tokenizer, so it cannot take texts")
    if model.has_encoder and model.has_decoder:
        raise InvalidArgumentError(f"model: {name} is an encoder-decoder, which gives no embeddings")
    if model.n_ctx_train < 2:
        raise ModelLoadError(f"{name} says that it takes {model.n_ctx_train} tokens; the file is damaged")


def prompts_of(model: Model, given: Mapping[str, str] | None) -> Mapping[str, str]:
    """The prompts that were given, else those of the model's file."""
    if given is None:
        prompts = {
            key.removeprefix(PROMPTS_KEY): value
            for key, value in model.metadata.items()
            if key.startswith(PROMPTS_KEY)
        }
        return MappingProxyType(prompts)
    for name, text in given.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise InvalidArgumentError(f"prompts: {name!r}: {text!r} is not a name and a text")
    return MappingProxyType(dict(given))


def open_model(
    model: str | os.PathLike[str] | Model,
    devices: Sequence[str] | None,
    n_gpu_layers: int | None,
    kernels: str | None,
) -> Model:
    """The model of this path or of a name of `hub`'s, or the one that is given."""
    if isinstance(model, Model):
        for name, value in (("devices", devices), ("n_gpu_layers", n_gpu_layers), ("kernels", kernels)):
            if value is not None:
                raise InvalidArgumentError(f"{name}: the Model that is given has its own; pass it there")
        return model
    if isinstance(model, str):
        from .hub import is_name, resolve  # with the converter

        model = resolve(model) if is_name(model) else model
    chosen = kernels or ("rawllama" if own_kernels() else "ggml")
    # Weights that are packed anew would take memory twice if the file were mapped.
    load_mode = "none" if chosen == "rawllama" else None
    return Model(model, devices=devices, n_gpu_layers=n_gpu_layers, kernels=chosen, load_mode=load_mode)


class Profile:
    """What an Embedder gives, and what a call wants where it says nothing else.

    Raises
    ------
    InvalidArgumentError
        An argument that is not possible with this model and pooling.
    """

    def __init__(
        self,
        model: Model,
        pooling: str,
        *,
        normalize: str | float | None,
        max_tokens: int | None,
        dims: int | None,
        dtype: str,
        prompts: Mapping[str, str] | None,
        overlong: str,
        overlap: int | None,
        progress: Wanted,
    ) -> None:
        self._model = model
        self.pooling, self.dtype, self.overlong, self._progress = pooling, dtype, overlong, progress
        require_kind(pooling, dims, dtype, overlong)
        trained = model.n_ctx_train  # no more than a table of positions has: libllama compares them
        self.max_tokens = trained if max_tokens is None else between("max_tokens", max_tokens, 2, trained)
        self.overlap = self.max_tokens // 8 if overlap is None else between("overlap", overlap, 0, self.max_tokens)
        self.n_embd = model.n_embd_out
        #: Columns that the model gives.
        self.width = model.n_cls_out if pooling == "rank" else self.n_embd
        self.dims = self.width if dims is None else between("dims", dims, 1, self.width)
        default = "none" if pooling in ("rank", "none") else "l2"
        self.normalize = parse(default if normalize is None else normalize)
        self.prompts = prompts_of(model, prompts)
        self._prompt = model.metadata.get(DEFAULT_PROMPT_KEY, "") if prompts is None else ""

    def sequencer(self, settings: Settings) -> Sequencer:
        """What makes sequences of texts."""
        trained = self.max_tokens == self._model.n_ctx_train
        return Sequencer(
            self._model.vocab,
            max_tokens=self.max_tokens,
            limit=f"the model takes {self.max_tokens}" if trained else f"max_tokens is {self.max_tokens}",
            overlap=self.overlap,
            n_threads=settings.n_threads,
        )

    def options(
        self,
        prompt: str | None = None,
        normalize: str | float | None = None,
        dims: int | None = None,
        dtype: str | None = None,
        overlong: str | None = None,
        progress: Wanted = None,
    ) -> Options:
        """What a call wants, from its arguments."""
        dtype = self.dtype if dtype is None else one_of("dtype", dtype, DTYPES)
        overlong = self.overlong if overlong is None else one_of("overlong", overlong, OVERLONG)
        require_kind(self.pooling, dims, dtype, overlong)
        kept = self.dims if dims is None else between("dims", dims, 1, self.width)
        target = RowFormat(self.width, kept, dtype, self.normalize if normalize is None else parse(normalize))
        shown = self._progress if progress is None else require_progress(progress)
        return Options(self._prefix(self._prompt if prompt is None else prompt), target, overlong, shown)

    def _prefix(self, name: str) -> bytes:
        if not name:
            return b""
        if name not in self.prompts:
            known = f"known are {', '.join(self.prompts)}" if self.prompts else "the Embedder has no prompts"
            raise InvalidArgumentError(f"prompt: {name!r} is the name of none; {known}")
        return encode(f"prompts[{name!r}]", self.prompts[name])


def require_kind(pooling: str, dims: int | None, dtype: str, overlong: str) -> None:
    """Refuse what has no meaning with a pooling."""
    if pooling == "rank" and dims is not None:
        raise InvalidArgumentError("dims: rank gives scores, all of which count; leave it out")
    if pooling == "rank" and dtype in ("int8", "ubinary"):
        raise InvalidArgumentError(f"dtype: rank gives scores, which {dtype} would spoil; use 'float32' or 'float16'")
    if pooling in ("rank", "none") and overlong == "chunk":
        words = "scores of parts make no score" if pooling == "rank" else "none pools no rows"
        raise InvalidArgumentError(f"overlong: {words}, so 'chunk' is not for pooling {pooling!r}; use 'truncate'")
