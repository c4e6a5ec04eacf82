"""An encoder for MTEB: `mteb.evaluate(RawllamaEncoder("minilm"), tasks)`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..embedder import Embedder
from ..errors import MissingExtraError
from ._source import ModelLike, Source, float32, vector_settings

try:
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction
except ImportError as error:
    raise MissingExtraError("mteb is not installed: pip install 'rawllama[mteb]'") from error

if TYPE_CHECKING:
    import numpy as np
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType
    from numpy.typing import NDArray


class RawllamaEncoder(AbsEncoder):
    """A model for MTEB's tasks.

    Texts that are too long are truncated, as MTEB's own models do it, unless `overlong` says something else. Prompts
    are those of the Embedder, by MTEB's keys: `query`, `document`, a task or its type, or both as in `STS-query`.
    Vectors come as float32, so that a `dtype` is judged by what it does to them.

    Parameters
    ----------
    model
        An `Embedder`, which stays the caller's; or the model of one, which is made now and ends with `close()` or this.
    name
        `organisation/model`, under which MTEB keeps the results; by default `rawllama/` and the name of the file.
    revision
        By default what the file is, e.g. `bert 22M F32`.
    settings
        Keywords of `Embedder`.
    """

    def __init__(
        self, model: ModelLike, *, name: str | None = None, revision: str | None = None, **settings: Any
    ) -> None:
        if not isinstance(model, Embedder):
            settings = {"overlong": "truncate", **settings}
        self._source = Source(model, settings)
        self.model = self._source.open()
        self.model_prompts = dict(self.model.prompts)
        self.mteb_model_meta = _meta(self.model, name, revision)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any] | str],
        *,
        task_metadata: TaskMetadata | None = None,
        hf_split: str | None = None,
        hf_subset: str | None = None,
        prompt_type: PromptType | None = None,
        prompt_name: str | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Embed the texts of a task.

        Parameters
        ----------
        inputs
            Batches with the key `text`, as MTEB 2 gives them; or the texts themselves.
        task_metadata, prompt_type
            What MTEB chooses the prompt by.
        hf_split, hf_subset
            Nothing depends on them.
        prompt_name
            A key of the prompts, before MTEB's choice.
        kwargs
            `show_progress_bar`; the Embedder makes batches of its own.

        Returns
        -------
        ndarray
            float32, shape (texts, dims).
        """
        if prompt_name is None and task_metadata is not None:
            prompt_name = self.get_prompt_name(task_metadata, prompt_type)
        texts = [text for batch in inputs for text in ([batch] if isinstance(batch, str) else batch["text"])]
        embedder = self._source.open()
        if prompt_name is not None or prompt_type is None:
            encode: Callable[..., Any] = partial(embedder.encode, prompt=prompt_name)
        else:
            encode = embedder.encode_query if prompt_type.value == "query" else embedder.encode_document
        return float32(encode(texts, progress=kwargs.get("show_progress_bar")), embedder.dims)

    def close(self) -> None:
        """Close the Embedder that was made here; the next use makes another."""
        self._source.close()


def _meta(embedder: Embedder, name: str | None, revision: str | None) -> ModelMeta:
    """The model card. MTEB keeps results of other `experiment_kwargs` apart."""
    model = embedder.model
    settings = vector_settings(embedder)
    if prompts := settings.pop("prompts"):  # MTEB makes the name of a folder of all this
        settings["prompts"] = hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()[:8]
    return ModelMeta.create_empty(
        {
            "name": name or f"rawllama/{Path(*model.paths[:1]).stem or model.architecture}",
            "revision": revision or model.description,
            "n_parameters": model.n_params,
            "memory_usage_mb": model.size / 2**20,
            "max_tokens": embedder.max_tokens,
            "embed_dim": embedder.dims,
            "framework": ["GGUF"],
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": any(embedder.prompts.values()),
            "experiment_kwargs": settings,
        }
    )
