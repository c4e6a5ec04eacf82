"""The actors' number, resources and Embedders; and the errors that come back from them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama._options import one_of
from rawllama.arrow import BAD_ROWS, SCALE, embed_batches, vector_fields
from rawllama.embedder import Embedder
from rawllama.errors import InvalidArgumentError, MissingExtraError
from rawllama.hub import NAMES

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

#: How many actors: so many, from so many to so many, or as many as there is room for.
Actors = int | tuple[int, int] | None
_OWN = ("compute", "concurrency", "num_cpus", "num_gpus", "batch_size", "batch_format")


@dataclass(frozen=True)
class Task:
    """What an actor does to each batch: the arguments of `embed_batches`. It travels to the actor."""

    model: str
    column: str
    into: str
    prompt: str | None
    bad_rows: str
    settings: Mapping[str, Any]

    @classmethod
    def of(
        cls, model: object, column: str, into: str, prompt: str | None, bad_rows: str, settings: Mapping[str, Any]
    ) -> Task:
        """What can be checked without the model is checked here, before there are actors.

        Raises
        ------
        InvalidArgumentError
            One of them is not possible.
        """
        if not isinstance(model, (str, os.PathLike)):
            kind = type(model).__name__
            raise InvalidArgumentError(f"model: a {kind} stays in its process; pass its path or name, for each actor")
        one_of("bad_rows", bad_rows, BAD_ROWS)
        if column in (into, into + SCALE):
            raise InvalidArgumentError(f"into: {into!r} takes the name of the column of texts; give another name")
        known = list(inspect.signature(Embedder).parameters)[1:]
        if unknown := [name for name in settings if name not in known]:
            raise InvalidArgumentError(f"{', '.join(unknown)}: no keyword of Embedder; it has {', '.join(known)}")
        return cls(_for_actors(model), column, into, prompt, bad_rows, dict(settings))


class Worker:
    """A task and its Embedder, which is opened with the first batch: Ray hands on what a call raises as it is."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @cached_property
    def embedder(self) -> Embedder:
        """It lives as long as the actor's process."""
        return Embedder(self.task.model, **self.task.settings)

    def embed(self, batches: Any) -> Iterator[pa.RecordBatch]:
        """The batches with their vectors."""
        task = self.task
        return embed_batches(
            batches,
            model=self.embedder,
            column=task.column,
            into=task.into,
            prompt=task.prompt,
            bad_rows=task.bad_rows,
            progress=False,
        )

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """The schema of what `embed` makes of batches of this one."""
        import pyarrow as pa

        return pa.schema([*schema, *vector_fields(self.embedder, self.task.into)], schema.metadata)


@dataclass(frozen=True)
class Pool:
    """How many actors there are, and what each has."""

    actors: Actors
    cpus: float
    gpus: float
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_count(self.actors):
            raise InvalidArgumentError(f"actors: {self.actors!r} is neither a number nor two, least and most")
        least, most = self._bounds()
        if least < 1 or (most is not None and most < least):
            raise InvalidArgumentError(f"actors: {self.actors!r}; pass a number from 1, or two: least and most")
        for name, value in (("cpus_per_actor", self.cpus), ("gpus_per_actor", self.gpus)):
            if not value >= 0:
                raise InvalidArgumentError(f"{name}: {value!r} is negative")
        if own := [name for name in self.options if name in _OWN]:
            raise InvalidArgumentError(f"ray_options: {', '.join(own)} follows from the other arguments")

    @property
    def n_threads(self) -> int:
        """Threads of each actor's Embedder."""
        return max(1, int(self.cpus))

    def map_options(self, in_flight: int | None = None) -> dict[str, Any]:
        """Keywords of `ray.data.Dataset.map_batches`; `in_flight` batches are with an actor, if it is not Ray's choice.

        Ray Data starts an actor that died, and what it did, again without end; `ray_options` may say otherwise.
        """
        from ray.data import ActorPoolStrategy

        least, most = self._bounds()
        pool = ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=in_flight)
        resources = {"num_cpus": self.cpus, **({"num_gpus": self.gpus} if self.gpus else {})}
        return {"compute": pool, **resources, **self.options}

    def _bounds(self) -> tuple[int, int | None]:
        if self.actors is None:
            return 1, None
        return (self.actors, self.actors) if isinstance(self.actors, int) else self.actors


def _is_count(actors: object) -> bool:
    if actors is None or (isinstance(actors, int) and not isinstance(actors, bool)):
        return True
    return isinstance(actors, tuple) and len(actors) == 2 and all(isinstance(one, int) for one in actors)


def _for_actors(model: str | os.PathLike[str]) -> str:
    """The model's name as processes with another working directory understand it."""
    name = os.fspath(model)
    # Not resolved: what a link leads to may have no name that tells the other files of the model.
    return str(Path(name).absolute()) if name not in NAMES and Path(name).is_file() else name


def require_ray() -> None:
    """Raise MissingExtraError if Ray Data is not there."""
    try:
        import ray.data  # noqa: F401
    except ImportError:
        raise MissingExtraError("ray is not installed: pip install 'rawllama[ray]'") from None
