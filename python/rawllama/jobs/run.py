"""One run of a job: blocks to parts, and parts to outputs."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rawllama.arrow import embed_batches, vector_fields
from rawllama.embedder import Embedder
from rawllama.errors import InvalidArgumentError, LlamaError

from . import identity, origin, sinks
from .inputs import InputFile
from .parts import PartWriter
from .progress import Progress, Wanted
from .sources import Source
from .state import Output, State
from .system import naming
from .target import Target

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Options:
    """What a caller wants of a job; see `embed_files`."""

    column: str
    into: str
    prompt: str | None
    bad_rows: str
    part_rows: int
    block_rows: int
    checkpoint_seconds: float
    cache: Any

    @property
    def is_lenient(self) -> bool:
        """Whether bad rows are no error."""
        return self.bad_rows != "error"


class Job:
    """One run of a job.

    Parameters
    ----------
    state
        What is done.
    target
        Where the output goes.
    embedder
        What computes.
    options
        What is wanted.
    """

    def __init__(self, state: State, target: Target, embedder: Embedder, options: Options) -> None:
        self._state = state
        self._target = target
        self._embedder = embedder
        self._options = options
        self._source: Source
        self._schema: pa.Schema

    def start(self, files: list[InputFile]) -> None:
        """Look into the inputs and begin the job, or go on with the one that was begun, if it is the same."""
        import pyarrow as pa

        self._embedder._require_pooled()
        known = self._state.header
        options = self._options
        settings = self._settings()
        changes: dict[str, Any] = {}
        if known is not None:
            had_bad_rows = any(part.skipped for part in self._state.parts)
            changes = identity.changes(known, settings, self._target.name, had_bad_rows=had_bad_rows)
        model = identity.model_entry(self._embedder.model.paths, known and known["model"], self._target.name)
        if known is None:
            self._source = Source.scan(files, options.column, options.is_lenient)
        else:
            self._source = identity.source_of(known, files, options.column, options.is_lenient)
        added = vector_fields(self._embedder, options.into)
        if taken := {field.name for field in added} & set(self._source.schema.names):
            raise InvalidArgumentError(f"into: there is a column {taken.pop()!r} already; give another name")
        self._schema = origin.described(
            pa.schema([*self._source.schema, *added]),
            self._embedder, model["sha256"], options.column, options.into, options.prompt,
        )  # fmt: skip
        sinks.require_possible(self._target.kind, self._schema, options.into, options.bad_rows == "null")
        if known is None:
            self._state.start(identity.header(self._source, model, settings))
        else:
            self._state.change(changes)

    def run(self, progress: Wanted) -> None:
        """Compute what is missing, and put it out."""
        bar = Progress(progress, self._source.n_rows, self._state.done)
        try:
            self._put_out_full()
            if self._state.done < self._source.n_rows:
                self._compute(bar)
            if self._state.waiting() or not self._state.outputs:
                self._put_out()
        finally:
            bar.close()

    def _settings(self) -> dict[str, Any]:
        options = self._options
        return identity.settings_of(
            self._embedder,
            options.prompt,
            format=self._target.kind,
            column=options.column,
            into=options.into,
            bad_rows=options.bad_rows,
            block_rows=options.block_rows,
            part_rows=options.part_rows if self._target.is_folder else None,
            cache=options.cache is not None,
        )

    def _compute(self, bar: Progress) -> None:
        counter = _Counter()
        first = self._state.done
        writer = PartWriter(self._state, self._schema, self._options.checkpoint_seconds)
        with closing(self._embedded(first, counter)) as batches, self._located(first):
            try:
                for batch in batches:
                    kept, skipped = self._kept(batch)
                    writer.add(kept, batch.num_rows, skipped, counter.tokens)
                    bar.add(batch.num_rows, counter.tokens)
                    if self._is_full(writer.rows):
                        writer.close()
                        self._put_out_full()
            except OSError:
                writer.abandon()
                raise
            except BaseException:
                with suppress(OSError):
                    writer.close()  # what came before is right
                raise
            writer.close()

    def _embedded(self, first: int, counter: _Counter) -> Generator[pa.RecordBatch, None, None]:
        options = self._options
        batches = embed_batches(
            self._source.blocks(first, options.block_rows),
            model=self._embedder,
            column=options.column,
            into=options.into,
            prompt=options.prompt,
            bad_rows="null" if options.is_lenient else "error",
            block_rows=1,
            progress=counter,
            cache=options.cache,
        )
        return cast("Generator[pa.RecordBatch, None, None]", batches)

    def _kept(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """The rows that are written, and how many are bad."""
        vectors = batch.column(self._options.into)
        bad = vectors.null_count
        if bad and self._options.bad_rows == "skip":
            batch = batch.filter(vectors.is_valid())
        return batch, bad

    @contextmanager
    def _located(self, first: int) -> Iterator[None]:
        """Let errors that name a text by its number name its file."""
        try:
            yield
        except LlamaError as error:
            if not self._options.is_lenient and self._options.cache is None:  # else not all texts are counted
                place = re.compile(r"texts\[(\d+)\]")
                words = place.sub(lambda found: self._source.place(first + int(found[1])), str(error))
                error.args = (words,)
            raise

    def _is_full(self, rows: int) -> bool:
        """Whether so many rows more fill a file of the folder."""
        waiting = sum(part.rows for part in self._state.waiting())
        return self._target.is_folder and waiting + rows >= self._options.part_rows

    def _put_out_full(self) -> None:
        if self._is_full(0):
            self._put_out()

    def _put_out(self) -> None:
        """Make an output of the parts that wait."""
        parts = self._state.waiting()
        rows = sum(part.rows for part in parts)
        table = sinks.Table(self._schema, self._options.into, rows, lambda: self._state.batches(parts))
        name = self._target.part(len(self._state.outputs)) if self._target.is_folder else ""
        made = self._state.temporary("output")
        with naming(self._target.name):
            sinks.write(self._target.kind, table, made)
            self._state.add_output(made, Output(name, self._state.done, rows))


class _Counter:
    """Takes an Embedder's reports of tokens."""

    def __init__(self) -> None:
        self.tokens = 0

    def __call__(self, tokens: int, total: int | None) -> None:
        self.tokens = tokens
