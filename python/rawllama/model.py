"""Models: the weights and what they say of themselves."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, ClassVar

from . import backend, modelfile
from ._handle import Handle
from ._params import (
    Name,
    Override,
    c_string,
    enum_name,
    enum_value,
    fill,
    kv_overrides_array,
    sized_text,
    text,
)
from .errors import InvalidArgumentError, LlamaError, ModelLoadError, failure
from .files import replacing
from .guard import guarded
from .interrupt import interruptible
from .raw import ffi, lib
from .vocab import Vocab

PathLike = str | os.PathLike[str]
Source = PathLike | Sequence[PathLike] | IO[bytes]
# libllama reserves logits for these too, and never writes them: they have no layer that gives any.
_WITHOUT_LOGITS = (
    "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert", "eurobert",
    "gemma-embedding", "t5encoder", "wavtokenizer-dec",
)  # fmt: skip


class Model(Handle):
    """A GGUF model. Several threads and contexts may share it.

    Parameters
    ----------
    source
        Path of a GGUF file, of the first one where a model is split under the usual names; or the paths of all splits
        in order; or an open binary file, which is read from its position.
    devices
        Names of the devices to offload to (see `rawllama.backend.devices`); an empty list means none.
    n_gpu_layers, split_mode, load_mode, lazy_mode, main_gpu, tensor_split, vocab_only, check_tensors, use_extra_bufts,
    no_host, load_mtp
        As in `struct llama_model_params`; None is libllama's own default. Enums by name: `split_mode="layer"`.
    kv_overrides
        Metadata to replace: key to int, float, bool or str (127 bytes at most).
    tensor_buft_overrides
        Where tensors go: regular expression over their names to the name of a device.
    kernels
        Which functions compute on the CPU: `ggml`, or rawllama's own, which also change the order of the weights in
        memory: `rawllama`. The latter are for F32, F16, BF16 and Q8_0 and leave all else to ggml; a row does not
        depend on the rows beside it, nor on the number of threads. None is `ggml`.
    progress
        Called with 0.0 to 1.0 as the weights are read. Returning False cancels; what it raises is raised again.

    Raises
    ------
    OSError
        The file cannot be read.
    ModelLoadError
        It is no model, it is damaged, or `progress` cancelled.
    InvalidArgumentError
        An argument that libllama does not know.
    KeyboardInterrupt
        Ctrl-C, on the main thread.

    Calls: llama_model_default_params, llama_model_load_from_file, llama_model_load_from_splits,
    llama_model_load_from_file_ptr, llama_model_free, llama_model_meta_count, llama_model_meta_key_by_index,
    llama_model_meta_val_str_by_index, llama_max_devices
    """

    _shared = True
    #: Parameters that no caller should set.
    _more_params: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init__(
        self,
        source: Source,
        *,
        devices: Sequence[str] | None = None,
        n_gpu_layers: int | None = None,
        split_mode: Name | None = None,
        load_mode: Name | None = None,
        lazy_mode: Name | None = None,
        main_gpu: int | None = None,
        tensor_split: Sequence[float] | None = None,
        kv_overrides: Mapping[str, Override] | None = None,
        tensor_buft_overrides: Mapping[str, str] | None = None,
        vocab_only: bool | None = None,
        check_tensors: bool | None = None,
        use_extra_bufts: bool | None = None,
        no_host: bool | None = None,
        load_mtp: bool | None = None,
        kernels: str | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> None:
        params = lib.llama_model_default_params()
        values: dict[str, Any] = {
            "devices": _devices(devices),
            "n_gpu_layers": n_gpu_layers,
            "split_mode": enum_value("split_mode", "LLAMA_SPLIT_MODE_", split_mode),
            "load_mode": enum_value("load_mode", "LLAMA_LOAD_MODE_", load_mode),
            "lazy_mode": enum_value("lazy_mode", "LLAMA_LAZY_MODE_", lazy_mode),
            "main_gpu": main_gpu,
            "tensor_split": _tensor_split(tensor_split),
            "kv_overrides": kv_overrides_array(kv_overrides),
            "vocab_only": vocab_only,
            "check_tensors": check_tensors,
            "use_extra_bufts": use_extra_bufts,
            "no_host": no_host,
            "load_mtp": load_mtp,
        } | dict(self._more_params)
        fill(params, values)  # `values` keeps what C reads during the load
        placed = _buft_overrides(tensor_buft_overrides)
        if placed is not None:
            params.tensor_buft_overrides = placed[0]
        #: The files that were given; none for an open file.
        self.paths = _paths(source)
        files = _read(source, self.paths)
        #: Positions that the model has learned one by one; 0 if it takes any.
        self.n_positions = max(file.positions for file in files)
        self._scores = max(file.scores for file in files)
        #: Whether only the vocabulary was loaded, which is not enough for a Context.
        self.vocab_only = bool(vocab_only)
        #: Which functions compute on the CPU: `ggml` or `rawllama`.
        self.kernels = _kernels(kernels)
        with _reporting(progress, params), _packing(self.kernels == "rawllama"):
            model = _load(source, params)
        self._loaded_with = (params, values, placed)
        super().__init__(model, lib.llama_model_free)
        #: The GGUF's scalar values by key, as libllama prints them; bytes that are not UTF-8 are surrogates.
        self.metadata: Mapping[str, str] = MappingProxyType(dict(_metadata(model)))
        # Weak, as the vocabulary holds the model: no cycle that only the garbage collector would free.
        self._vocab: Callable[[], Vocab | None] = lambda: None

    def __repr__(self) -> str:
        return f"<Model {'closed' if self.closed else self.description}>"

    @property
    def vocab(self) -> Vocab:
        """The vocabulary: text to tokens and back."""
        vocab = self._vocab()
        if vocab is None:
            vocab = Vocab(self)
            self._vocab = weakref.ref(vocab)
        return vocab

    @property
    def description(self) -> str:
        """Architecture, size and type, e.g. `bert 22M F32`. Calls: llama_model_desc."""
        with self._used as model:
            return sized_text(lambda buffer, size: guarded.llama_model_desc(model, buffer, size))

    @property
    def architecture(self) -> str:
        """The GGUF's `general.architecture`, e.g. `bert`."""
        return self.metadata.get("general.architecture", "")

    @property
    def ftype(self) -> str:
        """Type of most weights, e.g. `mostly_q8_0`. Calls: llama_model_ftype."""
        return enum_name("LLAMA_FTYPE_", self._fact("ftype"))

    @property
    def n_params(self) -> int:
        """Number of weights. Calls: llama_model_n_params."""
        return self._fact("n_params")

    @property
    def size(self) -> int:
        """Bytes of all tensors. Calls: llama_model_size."""
        return self._fact("size")

    @property
    def n_ctx_train(self) -> int:
        """Tokens a sequence in training. Calls: llama_model_n_ctx_train."""
        return self._fact("n_ctx_train")

    @property
    def n_embd(self) -> int:
        """Width of the hidden state. Calls: llama_model_n_embd."""
        return self._fact("n_embd")

    @property
    def n_embd_inp(self) -> int:
        """Width of the rows that a batch of vectors has. Calls: llama_model_n_embd_inp."""
        return self._fact("n_embd_inp" if hasattr(lib, "llama_model_n_embd_inp") else "n_embd")

    @property
    def n_embd_out(self) -> int:
        """Width of an embedding. Calls: llama_model_n_embd_out."""
        return self._fact("n_embd_out" if hasattr(lib, "llama_model_n_embd_out") else "n_embd")

    @property
    def n_cls_out(self) -> int:
        """Scores a sequence with pooling `rank`; 1 for models that are no classifiers. Calls: llama_model_n_cls_out."""
        return self._fact("n_cls_out")

    @property
    def cls_labels(self) -> tuple[str | None, ...]:
        """Names of the scores, None where the file has none. Calls: llama_model_cls_label."""
        with self._used as model:
            return tuple(text(guarded.llama_model_cls_label(model, index)) for index in range(self.n_cls_out))

    @property
    def n_layer(self) -> int:
        """Number of layers. Calls: llama_model_n_layer."""
        return self._fact("n_layer")

    @property
    def n_layer_nextn(self) -> int:
        """Number of layers that predict several tokens ahead. Calls: llama_model_n_layer_nextn."""
        return self._fact("n_layer_nextn")

    @property
    def n_head(self) -> int:
        """Number of attention heads of the first layer. Calls: llama_model_n_head."""
        return self._fact("n_head")

    @property
    def n_head_kv(self) -> int:
        """Number of key and value heads of the first layer. Calls: llama_model_n_head_kv."""
        return self._fact("n_head_kv")

    @property
    def n_swa(self) -> int:
        """Tokens of the sliding attention window, 0 without one. Calls: llama_model_n_swa."""
        return self._fact("n_swa")

    @property
    def rope_type(self) -> str:
        """How positions are rotated in: `none`, `norm`, `neox`, `mrope`, ... Calls: llama_model_rope_type."""
        return enum_name("LLAMA_ROPE_TYPE_", self._fact("rope_type"))

    @property
    def rope_freq_scale_train(self) -> float:
        """RoPE's frequency scale in training. Calls: llama_model_rope_freq_scale_train."""
        with self._used as model:
            return guarded.llama_model_rope_freq_scale_train(model)

    @property
    def n_pos(self) -> int:
        """Positions that each row of a batch of vectors has: 4 with M-RoPE, else 1. Calls: llama_model_rope_type."""
        return 4 if self.rope_type in ("mrope", "imrope") else 1

    @property
    def has_encoder(self) -> bool:
        """Whether there is an encoder for `Context.encode`; BERT-like models say no. Calls: llama_model_has_encoder."""
        return bool(self._fact("has_encoder"))

    @property
    def has_decoder(self) -> bool:
        """Whether `Context.decode` is for this model. Calls: llama_model_has_decoder."""
        return bool(self._fact("has_decoder"))

    @property
    def has_logits(self) -> bool:
        """Whether there is a layer that gives logits; embedding models have none."""
        return self.architecture not in _WITHOUT_LOGITS

    @property
    def has_scores(self) -> bool:
        """Whether there is a layer that gives the `n_cls_out` scores of pooling `rank`."""
        return self._scores == self.n_cls_out

    @property
    def decoder_start_token(self) -> int | None:
        """First token for the decoder of an encoder-decoder. Calls: llama_model_decoder_start_token."""
        token = self._fact("decoder_start_token")
        return None if token == lib.LLAMA_TOKEN_NULL else token

    @property
    def is_recurrent(self) -> bool:
        """Whether the memory is a state, as Mamba's. Calls: llama_model_is_recurrent."""
        return bool(self._fact("is_recurrent"))

    @property
    def is_hybrid(self) -> bool:
        """Whether the memory is a state and a cache, as Jamba's. Calls: llama_model_is_hybrid."""
        return bool(self._fact("is_hybrid"))

    @property
    def is_diffusion(self) -> bool:
        """Whether it generates by diffusion, as LLaDA. Calls: llama_model_is_diffusion."""
        return bool(self._fact("is_diffusion"))

    def chat_template(self, name: str | None = None) -> str | None:
        """The chat template of that name, or the default one; None without. Calls: llama_model_chat_template."""
        with self._used as model:
            return text(guarded.llama_model_chat_template(model, ffi.NULL if name is None else c_string(name, "name")))

    def save(self, path: PathLike) -> None:
        """Write the model as one GGUF file. What was at `path` is replaced when the new file is complete.

        Raises
        ------
        OSError
            The file cannot be written.
        LlamaError
            libllama did not write all of it: the disk is full, or it does not know how to for this architecture.
            `quantize` with `only_copy` copies any model.

        Calls: llama_model_save_to_file
        """
        with self._used as model, replacing(path) as temporary:
            guarded.llama_model_save_to_file(model, os.fsencode(temporary))
            if not self._is_saved(model, temporary):
                words = "libllama did not write the whole model; quantize() with only_copy=True copies its file"
                raise failure(LlamaError, "llama_model_save_to_file", f"{os.fspath(path)}: {words}")

    def _is_saved(self, model: Any, path: Path) -> bool:
        """Whether a file has all weights: the saver leaves out those it does not know, and tells of no failure."""
        params = ffi.new("struct llama_model_params *", self._loaded_with[0])
        params.progress_callback = ffi.NULL
        if hasattr(params, "no_alloc"):  # reads all but the weights, where it does not map them
            params.no_alloc, params.load_mode = True, lib.LLAMA_LOAD_MODE_NONE
        copy = guarded.llama_model_load_from_file(os.fsencode(path), params[0])
        try:
            return bool(copy) and all(
                getattr(guarded, name)(copy) == getattr(guarded, name)(model)
                for name in ("llama_model_n_params", "llama_model_size")
            )
        finally:
            guarded.llama_model_free(copy)

    def _fact(self, name: str) -> int:
        """The answer of the C function `llama_model_<name>`."""
        with self._used as model:
            return int(getattr(guarded, f"llama_model_{name}")(model))


def _paths(source: Source) -> tuple[str, ...]:
    if isinstance(source, (str, os.PathLike)):
        return (os.fspath(source),)
    if isinstance(source, Sequence):
        if not source:
            raise InvalidArgumentError("source: the list of splits is empty")
        return tuple(os.fspath(path) for path in source)
    if not hasattr(lib, "llama_model_load_from_file_ptr"):
        raise InvalidArgumentError("source: this version of libllama reads no open files; give a path")
    if not hasattr(source, "fileno"):
        raise InvalidArgumentError(f"source: {type(source).__name__} is no path, no list of paths and no open file")
    return ()


def _read(source: Source, paths: tuple[str, ...]) -> list[modelfile.ModelFile]:
    """Refuse files that are no models or are damaged; return what they say of themselves."""
    for path in paths:
        with Path(path).open("rb") as file:  # a missing file or a folder is Python's own error, which names it
            _require_gguf(path, file.read(4))
    files: Sequence[Any] = paths or (source,)
    return [modelfile.read(file) for file in files]


def _require_gguf(name: str, start: bytes) -> None:
    if start != b"GGUF":
        raise ModelLoadError(f"{name} is not a GGUF file; convert a Hugging Face folder with rawllama.convert")


def _load(source: Source, params: Any) -> Any:
    """Load, with libllama's own words if it cannot."""
    if isinstance(source, (str, os.PathLike)):
        function = "llama_model_load_from_file"
        model = guarded.llama_model_load_from_file(os.fsencode(source), params)
    elif isinstance(source, Sequence):
        function = "llama_model_load_from_splits"
        names = [ffi.new("char[]", os.fsencode(path)) for path in source]
        model = guarded.llama_model_load_from_splits(ffi.new("char *[]", names), len(names), params)
    else:
        function = "llama_model_load_from_file_ptr"
        with modelfile.c_file(source) as file:
            model = guarded.llama_model_load_from_file_ptr(file, params)
    if not model:
        name = ", ".join(_paths(source)) or "the file"
        raise failure(ModelLoadError, function, f"{name} could not be loaded")
    return model


def own_kernels() -> str | None:
    """The instruction set of rawllama's own kernels: `avx512`, `avx2`, `neon`; None where build or CPU have none."""
    return text(lib.rawllama_kernels_name())


def _kernels(wanted: str | None) -> str:
    if wanted not in (None, "ggml", "rawllama"):
        raise InvalidArgumentError(f"kernels: {wanted!r} is none of ggml, rawllama")
    if wanted == "rawllama" and own_kernels() is None:
        needs = "AVX2 or NEON, GCC or Clang at build time, and no RAWLLAMA_KERNELS=none"
        raise InvalidArgumentError(f"kernels: rawllama's own need {needs}; use 'ggml'")
    return wanted or "ggml"


@contextmanager
def _packing(wanted: bool) -> Iterator[None]:
    """Let the weights that this thread loads be packed for our kernels."""
    lib.rawllama_kernels_pack(wanted)
    try:
        yield
    finally:
        lib.rawllama_kernels_pack(False)


@contextmanager
def _reporting(progress: Callable[[float], object] | None, params: Any) -> Iterator[None]:
    """Let the load report, and end early where `progress` or Ctrl-C wants it."""
    errors: list[BaseException] = []

    def report(done: float, _: Any) -> bool:
        try:
            return progress is None or progress(done) is not False
        except BaseException as error:
            errors.append(error)
            return False

    def fail(_: object, error: BaseException, __: object) -> None:  # Ctrl-C on the way in or out, which cancels too
        errors.append(error)

    callback = ffi.callback("llama_progress_callback", report, onerror=fail) if progress is not None else None
    params.progress_callback = callback or ffi.addressof(lib, "rawllama_interrupt_progress")
    with interruptible():
        try:
            yield
        except ModelLoadError:
            if errors:
                raise errors[0] from None
            raise


def _devices(names: Sequence[str] | None) -> Any:
    """A list of devices that ends with NULL."""
    if names is None:
        return None
    return ffi.new("ggml_backend_dev_t[]", [*(backend.device_pointer(name, "devices") for name in names), ffi.NULL])


def _tensor_split(shares: Sequence[float] | None) -> Any:
    if shares is None:
        return None
    limit = lib.llama_max_devices()
    if len(shares) > limit or not all(0 <= share < float("inf") for share in shares):
        raise InvalidArgumentError(f"tensor_split: {list(shares)} is not up to {limit} shares, each 0 or more")
    return ffi.new("float[]", [*shares, *[0.0] * (limit - len(shares))])


def _buft_overrides(places: Mapping[str, str] | None) -> tuple[Any, list[Any]] | None:
    """A list that ends with NULL, and what it points to."""
    if places is None:
        return None
    patterns = [ffi.new("char[]", c_string(pattern, "tensor_buft_overrides")) for pattern in places]
    types = [backend.buffer_type(name, "tensor_buft_overrides") for name in places.values()]
    rows = [*zip(patterns, types, strict=True), (ffi.NULL, ffi.NULL)]
    return ffi.new("struct llama_model_tensor_buft_override[]", rows), patterns


def _metadata(model: Any) -> Iterator[tuple[str, str]]:
    for index in range(guarded.llama_model_meta_count(model)):
        key = sized_text(partial(guarded.llama_model_meta_key_by_index, model, index))
        yield key, sized_text(partial(guarded.llama_model_meta_val_str_by_index, model, index))
