"""LoRA adapters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import modelfile
from ._handle import Handle
from ._params import sized_text
from .errors import ModelLoadError, failure
from .guard import guarded
from .raw import lib

if TYPE_CHECKING:
    from .model import Model


class LoraAdapter(Handle):
    """A LoRA adapter for a model; `Context.set_adapters` uses it.

    Parameters
    ----------
    model
        The model that it was made for.
    path
        A GGUF file with the adapter.

    Raises
    ------
    OSError
        The file cannot be read.
    ModelLoadError
        It is no adapter, or for another model.

    Calls: llama_adapter_lora_init, llama_adapter_lora_free, llama_adapter_meta_count, llama_adapter_meta_key_by_index,
    llama_adapter_meta_val_str_by_index
    """

    _shared = True
    _rank = 1  # contexts that use it are closed first

    def __init__(self, model: Model, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        with Path(name).open("rb"):  # a missing file or a folder is Python's own error, which names it
            pass
        modelfile.read(name)
        with model._used as pointer:
            adapter = guarded.llama_adapter_lora_init(pointer, os.fsencode(name))
            if not adapter:
                raise failure(ModelLoadError, "llama_adapter_lora_init", f"{name} could not be loaded")
            super().__init__(adapter, lib.llama_adapter_lora_free, model)
        self.path = name
        self.model = model
        #: The GGUF's scalar values by key, as libllama prints them.
        self.metadata: Mapping[str, str] = MappingProxyType(dict(_metadata(adapter)))

    @property
    def alora_invocation_tokens(self) -> tuple[int, ...]:
        """Tokens that switch the adapter on, where it is an activated one; empty otherwise.

        Calls: llama_adapter_get_alora_n_invocation_tokens, llama_adapter_get_alora_invocation_tokens
        """
        with self._used as adapter:
            count = guarded.llama_adapter_get_alora_n_invocation_tokens(adapter)
            tokens = guarded.llama_adapter_get_alora_invocation_tokens(adapter)
            return tuple(tokens[index] for index in range(count))


def _metadata(adapter: Any) -> Iterator[tuple[str, str]]:
    for index in range(guarded.llama_adapter_meta_count(adapter)):
        key = sized_text(partial(guarded.llama_adapter_meta_key_by_index, adapter, index))
        yield key, sized_text(partial(guarded.llama_adapter_meta_val_str_by_index, adapter, index))
