"""A column of vectors for a Ray dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rawllama._options import between
from rawllama.arrow import BLOCK_ROWS
from rawllama.errors import InvalidArgumentError
from rawllama.ray.actors import Actors, Pool, Task, Worker, require_ray

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    from ray.data import Dataset


def embed(
    dataset: Dataset,
    *,
    model: str | os.PathLike[str],
    column: str = "text",
    into: str = "embedding",
    prompt: str | None = None,
    bad_rows: str = "error",
    actors: Actors = None,
    cpus_per_actor: float = 1,
    gpus_per_actor: float = 0,
    batch_rows: int = BLOCK_ROWS,
    ray_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Dataset:
    """Add a column of vectors to a Ray dataset: `rawllama.arrow.embed_batches` in actors.

    Nothing is computed before the dataset is consumed. An actor that dies, or whose node does, starts again where there
    is room, and the batches that it had are computed again: each row comes once.

    Parameters
    ----------
    dataset
        A `ray.data.Dataset` with a column of strings.
    model
        Path or name, as for `Embedder`: each node must find it there.
    column, into, prompt, bad_rows
        As in `rawllama.arrow.embed_batches`.
    actors
        So many; from so many to so many; or None: as many as there is room for. Actors that have all CPUs of a cluster
        leave none to the tasks that read: give these fewer (`ray.data.read_parquet(..., ray_remote_args={"num_cpus":
        0.25})`), or the actors.
    cpus_per_actor
        CPUs that Ray keeps for an actor; its Embedder has as many threads, if `n_threads` is not among the settings.
    gpus_per_actor
        GPUs that Ray keeps for an actor and shows to it (`CUDA_VISIBLE_DEVICES`); 0.5 is half of one.
    batch_rows
        Rows that an actor gets at once. Texts of like length are found among them; 1024 and more cost nothing beside
        the computation.
    ray_options
        Further keywords of `ray.data.Dataset.map_batches`, such as `memory`, `resources`, `accelerator_type`,
        `runtime_env`.
    settings
        Keywords of `Embedder`.

    Returns
    -------
    Dataset
        The same rows with their vectors, in any order, unless `preserve_order` is set in Ray's `ExecutionOptions`.

    Raises
    ------
    InvalidArgumentError
        An argument that is not possible. What only an actor can find is raised when the dataset is consumed, as Ray's
        error that is also one of this class, or of the others that `Embedder.encode` raises.
    MissingExtraError
        Ray is not installed.

    Calls: llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
    """
    require_ray()
    if not hasattr(dataset, "map_batches"):
        kind = type(dataset).__name__
        raise InvalidArgumentError(f"dataset: {kind} is no ray.data.Dataset; make one, e.g. with ray.data.from_arrow")
    pool = Pool(actors, cpus_per_actor, gpus_per_actor, dict(ray_options or {}))
    task = Task.of(model, column, into, prompt, bad_rows, {"n_threads": pool.n_threads, **settings})
    return dataset.map_batches(
        _Actor,
        fn_constructor_args=(task,),
        batch_size=between("batch_rows", batch_rows, 1, 1 << 30),
        batch_format="pyarrow",
        udf_modifying_row_count=False,
        **pool.map_options(),
    )


class _Actor:
    """One Embedder, and the batches that Ray gives to it."""

    def __init__(self, task: Task) -> None:
        self._worker = Worker(task)

    def __call__(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_batches(self._worker.embed(table), self._worker.schema(table.schema))
