"""Files on shared storage to Parquet with vectors: a job that a cluster does, and that goes on where it stopped."""

from __future__ import annotations

import os
import pickle
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama._options import between
from rawllama.arrow import SCALE
from rawllama.errors import InvalidArgumentError, LlamaError
from rawllama.jobs import origin, sinks
from rawllama.jobs.inputs import InputFile, find, is_address, open_store
from rawllama.jobs.sinks import Table
from rawllama.ray import manifest, parts
from rawllama.ray.actors import Actors, Pool, Task, Worker, require_ray
from rawllama.ray.parts import Part

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

#: Rows of an output file: 16 blocks, some minutes of one core.
PART_ROWS = 65536
# Ray handles so many blocks well; beyond, several parts make one.
_BLOCKS = 10_000
_TEXT = re.compile(r"texts\[(\d+)\]")


@dataclass(frozen=True)
class Report:
    """What a job did; printed, a line.

    Attributes
    ----------
    path
        The output.
    rows, parts
        Rows in it, and files.
    computed_rows, computed_parts
        Of these, what this run computed; the others were there.
    skipped
        Computed rows whose vector is null (`bad_rows="null"`).
    seconds
        From the call to its end.
    """

    path: str
    rows: int
    parts: int
    computed_rows: int
    computed_parts: int
    skipped: int
    seconds: float

    def __str__(self) -> str:
        words = f"{self.path}: {self.rows:,} rows in {self.parts:,} {'file' if self.parts == 1 else 'files'}"
        if self.skipped:
            words += f", {self.skipped:,} bad rows without a vector"
        if before := self.rows - self.computed_rows:
            words += f", {before:,} rows from before"
        return f"{words}, {self.seconds:.1f} s"


def embed_files(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    column: str = "text",
    into: str = "embedding",
    prompt: str | None = None,
    bad_rows: str = "error",
    input_format: str | None = None,
    actors: Actors = None,
    cpus_per_actor: float = 1,
    gpus_per_actor: float = 0,
    part_rows: int = PART_ROWS,
    restart: bool = False,
    ray_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Report:
    """Embed files on a Ray cluster: each part of them is read, computed and written by one actor.

    Nothing but names goes through Ray: rows never enter its object store. A part appears in the target when it is
    whole; an actor that dies, or whose node does, starts again where there is room, and its part is done again. A job
    that was stopped and is called again in the same way computes the parts that are missing.

    Parameters
    ----------
    source
        As in `rawllama.jobs.embed_files`. Driver and actors must find the files under the same names. Parquet is read
        from any row on; of other formats, each part's actor reads what stands before its rows.
    target
        A folder, or the address of one: it gets `part-000000.parquet` and so on, in the order of the source, and
        `_rawllama.json`, which says what they were made of.
    part_rows
        Rows of a part: what is lost with an actor, and what the output files have.
    restart
        Remove the parts that are there, and begin anew.
    input_format
        As in `rawllama.jobs.embed_files`.
    model, column, into, prompt, bad_rows, actors, cpus_per_actor, gpus_per_actor, ray_options, settings
        As in `rawllama.ray.embed`.

    Returns
    -------
    Report
        What was done.

    Raises
    ------
    InvalidArgumentError
        An argument that is not possible, also if an actor found it; or the parts that are there were made of other
        files, with another model, or with other settings.
    MissingExtraError
        Ray is not installed.
    ConcurrentUseError
        Another job writes to the target. On storage that is not one of files it is found as soon as both have begun.
    OSError
        A file cannot be read or written, by the driver or an actor; or actors write where the driver does not look.
    LlamaError
        As `Embedder.encode`.

    Calls: llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
    """
    start = time.monotonic()
    require_ray()
    pool = Pool(actors, cpus_per_actor, gpus_per_actor, dict(ray_options or {}))
    task = Task.of(model, column, into, prompt, bad_rows, {"n_threads": pool.n_threads, **settings})
    if sinks.kind_of(os.fspath(target)):
        words = "it is named like a file, and would be a folder of Parquet files; name one such as vectors/"
        raise InvalidArgumentError(f"target: {os.fspath(target)}: {words}")
    store, folder = open_store(os.fspath(target))
    files = _inputs(source, os.fspath(target), input_format)
    sources = parts.scan(files, column, bad_rows == "null")
    added = {into, into + SCALE} if settings.get("dtype") == "int8" else {into}
    if taken := added & set(sources[0].schema.names):
        raise InvalidArgumentError(f"into: there is a column {taken.pop()!r} already; give another name")
    whole = parts.cut(sources, between("part_rows", part_rows, 1, 1 << 40))
    digest = manifest.digest(task.model)
    described = manifest.describe(task, files, part_rows, digest)
    with manifest.only_one(store, folder):
        job = manifest.begin(store, folder, described, restart=restart)
        there = manifest.parts_there(store, folder)
        missing = [part for part in whole if part.name not in there]
        skipped = _compute(missing, _Maker(task, store, folder, digest, job), pool) if missing else 0
        _require_whole(whole, manifest.parts_there(store, folder), folder)
        parts.clear_unfinished(store, folder)
    return Report(
        path=os.fspath(target),
        rows=sum(part.n_rows for part in whole),
        parts=len(whole),
        computed_rows=sum(part.n_rows for part in missing),
        computed_parts=len(missing),
        skipped=skipped,
        seconds=time.monotonic() - start,
    )


def _inputs(source: Any, target: str, kind: str | None) -> list[InputFile]:
    """The files, by names that are the same wherever an actor works."""
    names = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    files = find([_place(name) for name in names], kind)
    place = _place(target)
    if inside := [file.name for file in files if file.name.startswith(f"{place.rstrip('/')}/")]:
        raise InvalidArgumentError(f"target: {inside[0]}, an input, lies in it; name another folder")
    return files


def _place(name: str | os.PathLike[str]) -> str:
    text = os.fspath(name)
    return text if is_address(text) else str(Path(text).absolute())


def _compute(missing: list[Part], maker: _Maker, pool: Pool) -> int:
    """Let actors make the parts; the number of rows without a vector."""
    import ray.data

    rows = [{"part": part} for part in missing]
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).map_batches(
        _Actor, fn_constructor_args=(maker,), batch_size=1, batch_format="numpy", **pool.map_options(in_flight=1)
    )
    skipped = 0
    for row in dataset.iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        skipped += int(row["skipped"])
    return skipped


def _require_whole(whole: list[Part], there: set[str], folder: str) -> None:
    if lost := [part.name for part in whole if part.name not in there]:
        words = f"{lost[0]} and {len(lost) - 1} others" if lost[1:] else lost[0]
        raise OSError(f"target: actors wrote {words}, and there is none in {folder} here; name a folder that all share")


@dataclass(frozen=True)
class _Maker:
    """What makes parts; it travels to the actors."""

    task: Task
    store: Any
    folder: str
    digest: str
    job: str

    def make(self, part: Part, worker: Worker) -> int:
        """Read, compute and write a part; the number of rows without a vector."""
        skipped = 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal skipped
            for batch in worker.embed(part.batches()):
                skipped += batch.column(self.task.into).null_count
                yield batch

        task = self.task
        columns = worker.schema(part.source.schema)
        schema = origin.described(columns, worker.embedder, self.digest, task.column, task.into, task.prompt)
        table = Table(schema, self.task.into, part.n_rows, batches)
        parts.write(self.store, self.folder, part.name, table, self._require_current)
        return skipped

    def _require_current(self) -> None:
        manifest.require_current(self.store, self.folder, self.job)


class _Actor:
    """One Embedder, and the parts that Ray gives to it."""

    def __init__(self, maker: _Maker) -> None:
        self._maker = maker
        self._worker: Worker | None = None

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        for part in batch["part"]:
            # Errors come as values: raised, Ray would wrap them, and log them once for each actor.
            try:
                skipped, error = self._maker.make(part, self._opened()), b""
            except (LlamaError, OSError) as found:
                skipped, error = 0, _packed(found, part)
            yield {"part": [part.name], "skipped": [skipped], "error": [error]}

    def _opened(self) -> Worker:
        if self._worker is None:
            manifest.require_same_model(self._maker.task.model, self._maker.digest)
            self._worker = Worker(self._maker.task)
        return self._worker


def _packed(error: LlamaError | OSError, part: Part) -> bytes:
    """The error, with the place of the text that it names; without the rows: they are large, and the part is undone."""
    if isinstance(error, LlamaError):
        error.rows = error.done = None
        error.args = (_TEXT.sub(lambda found: part.place(int(found[1])), str(error)), *error.args[1:])
    return pickle.dumps(error)
