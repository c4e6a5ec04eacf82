"""From files of texts to files of vectors, through parts that outlive the process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawllama._options import between, one_of
from rawllama.arrow import BLOCK_ROWS, _require_pyarrow
from rawllama.embedder import Embedder
from rawllama.errors import InvalidArgumentError

from . import identity, sinks
from .inputs import InputFile, find
from .lock import locked
from .progress import Wanted
from .report import Report
from .run import Job, Options
from .state import LOCK, State
from .target import Target, open_target

if TYPE_CHECKING:
    from rawllama.model import Model

#: What becomes of rows that are no text, or one that the model does not take.
BAD_ROWS = ("error", "null", "skip")
#: Rows of a file, where the output is a folder.
PART_ROWS = 65536
#: Seconds of work that a kill may cost, beside the blocks that are being computed.
CHECKPOINT_SECONDS = 5.0
# Settings of the Embedder's that change the last digits and are not always given: a job goes on with its own.
_KEPT = ("token_budget", "flash_attn")

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def embed_files(
    source: Paths,
    target: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model | Embedder,
    column: str = "text",
    into: str = "embedding",
    prompt: str | None = None,
    bad_rows: str = "error",
    input_format: str | None = None,
    format: str | None = None,
    part_rows: int = PART_ROWS,
    block_rows: int = BLOCK_ROWS,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    restart: bool = False,
    work: str | os.PathLike[str] | None = None,
    cache: Any = None,
    progress: Wanted = None,
    **settings: Any,
) -> Report:
    """Embed the texts of files, in memory that does not grow. Killed and called again, it goes on where it was.

    What is computed is kept beside the output, in the folder `NAME.parts`, and the output appears when it is whole.
    Each row is there once, with the bytes that an undisturbed run on such a machine gives it; with a cache, whose rows
    were perhaps computed beside other texts, with the same numbers but for rounding.

    Parameters
    ----------
    source
        Files, folders, globs or fsspec addresses: lines (`.txt`), JSON lines (`.jsonl`), CSV (`.csv`, `.tsv`), all of
        these also as `.gz`, `.bz2`, `.xz` or `.zst`; Parquet; Arrow files and streams, Feather. Several are one table,
        in the order that is given, and by name within folders and globs.
    target
        A file: `.parquet`, `.arrow`, `.npy`, `.jsonl`, `.csv`, `.lance`, or `.db`: SQLite with the tables `items` and
        `vectors`, which sqlite-vec searches. Or a folder, which ends with `/` or is there: it gets a file for each
        `part_rows` rows, as soon as these are computed. Or an fsspec address of one of them.
    model
        As for `Embedder`; or an Embedder, which stays open.
    column, into, prompt
        As for `rawllama.arrow.embed_batches`. The other columns are passed on; the values of CSV as strings.
    bad_rows
        A row that cannot be read, or that has no text, or one that is too long where `overlong` is `error`: an `error`,
        or a vector that is `null`, or a row to `skip`. The last two are counted.
    input_format, format
        Where the names do not tell it: `rawllama.jobs.inputs.KINDS`, `rawllama.jobs.sinks.KINDS`.
    part_rows
        Rows of a file in a folder, about: it ends with a block.
    block_rows
        Rows that are computed together; fewer where they are long.
    checkpoint_seconds
        Seconds of work that a kill may cost, beside the blocks that are being computed.
    restart
        Forget what runs before have done.
    work
        Folder for what is computed and not yet put out, in place of `NAME.parts`; on the same file system.
    cache
        A `rawllama.cache.Cache`, or None.
    progress
        None: a tqdm bar on a terminal. True or False: a bar or none. Or what is called with the rows done and the
        tokens that this run has computed.
    settings
        Keywords of `Embedder`.

    Returns
    -------
    Report
        Rows, bad rows, tokens, seconds.

    Raises
    ------
    InvalidArgumentError
        An argument that is not possible; a bad row; or an input, a setting or the model is not what an unfinished job
        on this output was started with.
    ConcurrentUseError
        Another process writes this output.
    OSError
        An input or the output cannot be read or written. What was computed before is kept.
    MissingExtraError
        A package for a format or an address is not installed; the message names the extra.
    LlamaError
        As `Embedder` and its `encode`. What was computed before is kept.

    Calls: llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
    """
    started = time.monotonic()
    one_of("bad_rows", bad_rows, BAD_ROWS)
    _require_pyarrow()
    if not checkpoint_seconds >= 0:
        raise InvalidArgumentError(f"checkpoint_seconds: {checkpoint_seconds!r} is no time")
    options = Options(
        column, into, prompt, bad_rows, between("part_rows", part_rows, 1, 1 << 40),
        between("block_rows", block_rows, 1, 1 << 24), checkpoint_seconds, cache,
    )  # fmt: skip
    output = open_target(target, format, work)
    sinks.require_extra(output.kind)
    output.require_possible()
    files = find(source, input_format, output.work)
    _require_other(files, output)
    with _state(output, restart) as state:
        resumed = state.done
        if state.header is not None:
            identity.require_same_inputs(state.header, files, output.name)
        with _opened(model, settings, state) as embedder:
            truncated = -embedder.truncated
            job = Job(state, output, embedder, options)
            job.start(files)
            if not state.is_complete:
                job.run(progress)
            truncated += embedder.truncated
        state.finish()
        return Report(
            output.name,
            sum(part.rows for part in state.parts),
            sum(part.skipped for part in state.parts),
            sum(part.tokens for part in state.parts),
            time.monotonic() - started,
            resumed,
            truncated,
        )


@contextmanager
def _state(target: Target, restart: bool) -> Iterator[State]:
    """The state of the job on this output, which no other process has; nothing is left of a job that did not begin."""
    outside = target.work.parent
    made = not outside.exists()
    target.require_same_device()
    target.work.mkdir(parents=True, exist_ok=True)
    state = State(target)
    state.require_own()
    with locked(target.work / LOCK, target.name):
        if restart:
            state.forget()
        else:
            state.load()
        try:
            yield state
        except BaseException as error:
            if state.header is not None and state.has_work and not state.is_complete:
                rows = f"{state.done:,} of {sum(state.header['rows']):,} rows"
                remedy = "the command that made them goes on from there"
                error.add_note(f"{target.name}: {rows} are kept in {target.work}; {remedy}")
            raise
        finally:
            if not state.has_work:
                with suppress(OSError):
                    state.clear()
                    _remove_empty(target.work, outside if made else None)


def _remove_empty(work: Path, outside: Path | None) -> None:
    (work / LOCK).unlink(missing_ok=True)
    work.rmdir()
    if outside is not None:
        outside.rmdir()


@contextmanager
def _opened(model: Any, settings: dict[str, Any], state: State) -> Iterator[Embedder]:
    if isinstance(model, Embedder):
        if settings:
            raise InvalidArgumentError(f"{', '.join(settings)}: the Embedder that is given has its own; set it there")
        yield model
        return
    before = state.header["settings"] if state.header else {}
    kept = {name: before[name] for name in _KEPT if before.get(name) is not None}
    with Embedder(model, progress=False, **{**kept, **settings}) as embedder:
        yield embedder


def _require_other(files: list[InputFile], target: Target) -> None:
    """Refuse an output that is one of the inputs."""
    for file in files:
        if file.store is None and target.store is None and _is_at(Path(os.path.realpath(file.name)), Path(target.path)):
            raise InvalidArgumentError(f"{target.name}: {file.name} is an input; name another output")


def _is_at(file: Path, place: Path) -> bool:
    return file == place or file.is_relative_to(place)
