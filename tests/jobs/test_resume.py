"""Nothing lost: jobs that are killed, stopped or refused go on where they were, and give the same bytes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rawllama import ConcurrentUseError, Embedder, InvalidArgumentError
from rawllama.jobs import Report, embed_files

from .files import write
from .kills import Case, killed_after, killed_at, write_input

Job = Callable[..., Report]


@pytest.fixture
def job(small: Embedder) -> Job:
    """The job of these tests: 1000 texts in ten blocks, each of which is kept at once."""

    def run(source: Any = "in.parquet", target: str = "out.npy", **options: Any) -> Report:
        usual = {"model": small, "block_rows": 100, "checkpoint_seconds": 0, "progress": False}
        return embed_files(source, target, **{**usual, **options})

    return run


@pytest.fixture
def expected(texts: list[str], small: Embedder) -> np.ndarray[Any, Any]:
    """Writes the input; what comes out."""
    write({"text": texts}, "in.parquet")
    return np.concatenate([small.encode(texts[i : i + 100]) for i in range(0, 1000, 100)])


class Stop(Exception):
    """Ends a job from inside its progress."""


def stop_at(rows: int) -> Callable[[int, int], None]:
    def progress(done: int, _: int) -> None:
        if done >= rows:
            raise Stop

    return progress


def stopped(job: Job, rows: int = 500, **options: Any) -> None:
    with pytest.raises(Stop) as raised:
        job(progress=stop_at(rows), **options)
    assert f"{rows:,} of 1,000 rows are kept in" in raised.value.__notes__[0]


# ---- killed


@pytest.fixture
def undisturbed(bert: str, tmp_path: Path) -> Callable[[str], tuple[Case, dict[str, bytes], int]]:
    """A case, what an undisturbed run writes, and how many changes of files it takes."""

    def make(target: str) -> tuple[Case, dict[str, bytes], int]:
        write_input(tmp_path)
        case = Case(tmp_path, bert, target)
        changes = int(case.finish().split()[3])
        content = case.content()
        case.clear()
        return case, content, changes

    return make


@pytest.mark.parametrize("target", ["out.parquet", "out/"])
def test_killed_at_changes_of_files(target: str, undisturbed: Callable[..., Any]) -> None:
    """Begun, between a part's renaming and the log, in the middle, before and after the output has its name."""
    case, expected, changes = undisturbed(target)
    for number in (3, 8, 9, 10, changes // 2, changes - 2, changes - 1, changes):
        assert killed_at(case, number)
        case.finish()
        assert case.content() == expected, number
        case.clear()


def test_killed_several_times(undisturbed: Callable[..., Any]) -> None:
    case, expected, changes = undisturbed("out.parquet")
    for number in (changes // 3, changes // 4, 3):
        assert killed_at(case, number)
    resumed = int(case.finish().split()[2])
    assert 0 < resumed < 3000
    assert case.content() == expected


def test_killed_at_any_time(undisturbed: Callable[..., Any]) -> None:
    case, expected, _ = undisturbed("out.db")
    for seconds in (0.1, 0.45, 0.6):
        killed_after(case, seconds)
    case.finish()
    assert case.content() == expected


def test_a_line_of_the_log_that_was_not_finished(job: Job, expected: np.ndarray[Any, Any]) -> None:
    stopped(job)
    log = Path("out.npy.parts/job.log")
    log.write_bytes(log.read_bytes()[:-20])
    assert job().resumed == 400
    assert np.load("out.npy").tobytes() == expected.tobytes()


@pytest.mark.parametrize("place", [0, 0.4, 0.8])
def test_a_damaged_log(place: float, job: Job, expected: np.ndarray[Any, Any]) -> None:
    stopped(job)
    log = Path("out.npy.parts/job.log")
    data = bytearray(log.read_bytes())
    data[int(place * len(data))] ^= 1
    log.write_bytes(data)
    with pytest.raises(InvalidArgumentError, match=r"job.log, line \d: it is damaged; start anew with --restart"):
        job()
    assert len(list(Path("out.npy.parts").iterdir())) > 5, "nothing is removed that might be wanted"
    assert job(restart=True).resumed == 0
    assert np.load("out.npy").tobytes() == expected.tobytes()


@pytest.mark.parametrize("cut", [True, False])
def test_a_part_that_is_gone_or_cut(cut: bool, job: Job, expected: np.ndarray[Any, Any]) -> None:
    stopped(job)
    part = sorted(Path("out.npy.parts").glob("*.arrows"))[2]
    os.truncate(part, 100) if cut else part.unlink()
    with pytest.raises(InvalidArgumentError, match="the part is missing or cut; start anew"):
        job()
    job(restart=True)
    assert np.load("out.npy").tobytes() == expected.tobytes()


def test_a_file_of_the_folder_that_is_gone(job: Job, expected: np.ndarray[Any, Any]) -> None:
    stopped(job, target="out/", part_rows=200)
    Path("out/part-000001.parquet").unlink()
    with pytest.raises(InvalidArgumentError, match=r"its file part-000001.parquet is gone"):
        job(target="out/", part_rows=200)


# ---- stopped


def test_stopped_and_gone_on(job: Job, expected: np.ndarray[Any, Any]) -> None:
    stopped(job)
    assert not Path("out.npy").exists()
    report = job()
    assert (report.rows, report.resumed) == (1000, 500)
    assert np.load("out.npy").tobytes() == expected.tobytes()
    whole = job(target="whole.npy")
    assert (report.tokens, report.skipped) == (whole.tokens, whole.skipped)


def test_what_is_computed_at_an_error_is_kept(job: Job, expected: np.ndarray[Any, Any]) -> None:
    """Also where the part was not yet full."""
    stopped(job, checkpoint_seconds=1000)
    assert len(list(Path("out.npy.parts").glob("*.arrows"))) == 1
    assert job().resumed == 500
    assert np.load("out.npy").tobytes() == expected.tobytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number: signal.Signals, status: int, bert: str, texts: list[str]) -> None:
    write({"text": texts * 100}, "in.txt")
    embed = [sys.executable, "-m", "rawllama", "embed", "in.txt", "--model", bert]
    command = [*embed, "-o", "out.npy", "--checkpoint", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while len(list(Path().glob("out.npy.parts/*.arrows"))) < 2:  # the first one counts when there is a second
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"of 100,000 rows are kept in" in err
    assert b"Traceback" not in err
    refused = subprocess.run([*command, "--dtype", "float16"], stderr=subprocess.PIPE, check=False)
    error, kept = refused.stderr.decode().splitlines()
    assert "dtype was 'float32' and is 'float16'" in error
    assert "of 100,000 rows are kept in" in kept
    done = subprocess.run([*command, "--no-progress"], stderr=subprocess.PIPE, check=True)
    assert b"100,000 rows" in done.stderr
    assert b"of them from before" in done.stderr
    assert len(np.load("out.npy")) == 100_000


def test_the_end_of_a_folder_says_so(job: Job, expected: np.ndarray[Any, Any]) -> None:
    job(target="out/")
    before = Path("out/part-000000.parquet").stat()
    report = job(target="out/")
    assert (report.rows, report.resumed) == (1000, 1000)
    assert Path("out/part-000000.parquet").stat() == before
    os.utime("in.parquet", (1, 1))
    with pytest.raises(InvalidArgumentError, match=r"in.parquet has changed"):
        job(target="out/")
    assert job(target="out/", restart=True).resumed == 0


# ---- what has changed


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"into": "vector"}, "into was 'embedding' and is 'vector'"),
        ({"block_rows": 50}, "block_rows was 100 and is 50"),
        ({"format": "arrow"}, "format was 'npy' and is 'arrow'"),
        ({"settings": {"normalize": "none"}}, "normalize was 2.0 and is 'none'|normalize was 'l2' and is 'none'"),
        ({"settings": {"dims": 16}}, "dims was 32 and is 16"),
        ({"settings": {"dtype": "float16"}}, "dtype was 'float32' and is 'float16'"),
        ({"settings": {"pooling": "cls"}}, "pooling was 'mean' and is 'cls'"),
        ({"settings": {"max_tokens": 60}}, "max_tokens was 64 and is 60"),
        ({"settings": {"kernels": "ggml"}}, "kernels was 'rawllama' and is 'ggml'"),
        ({"settings": {"prompts": {"q": "query: "}}, "prompt": "q"}, "prompt was '' and is 'query: '"),
        ({"settings": {"token_budget": 256}}, "token_budget was 512 and is 256"),
    ],
)
def test_a_changed_setting(
    option: dict[str, Any], words: str, job: Job, bert: str, expected: np.ndarray[Any, Any]
) -> None:
    stopped(job)
    with Embedder(bert, progress=False, **option.pop("settings", {})) as embedder:
        with pytest.raises(InvalidArgumentError, match=words) as raised:
            job(model=embedder, **option)
        assert "pass --restart" in str(raised.value)
    assert job().resumed == 500


def test_the_column_changed(job: Job, texts: list[str]) -> None:
    write({"text": texts, "body": texts}, "in.parquet")
    stopped(job)
    with pytest.raises(InvalidArgumentError, match="column was 'text' and is 'body'"):
        job(column="body")


def test_threads_may_change(job: Job, bert: str, expected: np.ndarray[Any, Any]) -> None:
    stopped(job)
    with Embedder(bert, n_threads=1, progress=False) as embedder:
        assert job(model=embedder).resumed == 500
    assert np.load("out.npy").tobytes() == expected.tobytes()


def test_a_tuning_that_was_made_meanwhile_changes_nothing(job: Job, bert: str, expected: np.ndarray[Any, Any]) -> None:
    """The token budget of a job is that it was started with, where none is given."""
    with Embedder(bert, token_budget=256, progress=False) as embedder:
        stopped(job, model=embedder)
        rest = embedder.encode(pq.read_table("in.parquet").column("text").to_pylist()[900:])
    job(model=bert)
    assert np.load("out.npy")[900:].tobytes() == rest.tobytes()


def test_a_changed_model(job: Job, tiny: Callable[[str], Path], expected: np.ndarray[Any, Any]) -> None:
    shutil.copy(tiny("bert"), "model.gguf")
    stopped(job, model="model.gguf")
    shutil.copy("model.gguf", "moved.gguf")
    stopped(job, rows=700, model="moved.gguf")  # the content counts
    data = bytearray(Path("model.gguf").read_bytes())
    data[-5] ^= 1
    Path("model.gguf").write_bytes(data)
    with pytest.raises(InvalidArgumentError, match=r"the model was .*model.gguf, with other content"):
        job(model="model.gguf")
    job(model="moved.gguf")
    assert np.load("out.npy").tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: os.utime("data/b.parquet", (1, 1)), "the input data/b.parquet has changed"),
        (lambda: shutil.copy("data/a.parquet", "data/c.parquet"), "the input data/c.parquet is new"),
        (lambda: Path("data/a.parquet").unlink(), "the input data/a.parquet is gone"),
    ],
)
def test_changed_inputs(change: Callable[[], object], words: str, job: Job, texts: list[str]) -> None:
    Path("data").mkdir()
    write({"text": texts[:300]}, "data/a.parquet")
    write({"text": texts[300:]}, "data/b.parquet")
    stopped(job, source="data")
    change()
    with pytest.raises(InvalidArgumentError, match=words):
        job("data")


def test_another_order_of_inputs(job: Job, texts: list[str]) -> None:
    write({"text": texts[:300]}, "a.parquet")
    write({"text": texts[300:]}, "b.parquet")
    stopped(job, source=["a.parquet", "b.parquet"])
    with pytest.raises(InvalidArgumentError, match="another order"):
        job(["b.parquet", "a.parquet"])


def test_nothing_done_binds_to_nothing(job: Job, texts: list[str]) -> None:
    """A job that failed before its first rows leaves nothing, and the next may be another."""
    write({"text": [*texts[:10], None]}, "in.parquet")
    with pytest.raises(InvalidArgumentError, match=r"in.parquet, row 10: column 'text' is null"):
        job()
    assert [path.name for path in Path().iterdir()] == ["in.parquet"]
    assert job(bad_rows="skip", into="vector").rows == 10


def test_a_bad_row_late_in_the_night(job: Job, texts: list[str], small: Embedder) -> None:
    """What becomes of bad rows may be decided when the first one comes; the rows before it are kept."""
    write({"text": [*texts[:950], "a " * 99, *texts[951:]]}, "in.parquet")
    with pytest.raises(InvalidArgumentError, match=r"in.parquet, row 950: 101 tokens, and") as raised:
        job()
    assert "900 of 1,000 rows are kept" in raised.value.__notes__[0]
    report = job(bad_rows="skip")
    assert (report.rows, report.skipped, report.resumed) == (999, 1, 900)
    found = np.load("out.npy")
    assert found[:100].tobytes() == small.encode(texts[:100]).tobytes()
    assert found[900:].tobytes() == small.encode([*texts[900:950], *texts[951:]]).tobytes()


def test_after_a_bad_row_it_stays_so(job: Job, texts: list[str]) -> None:
    write({"text": [*texts[:50], None, *texts[51:]]}, "in.parquet")
    stopped(job, bad_rows="skip")
    with pytest.raises(InvalidArgumentError, match="bad_rows was 'skip' and is 'null'"):
        job(bad_rows="null")
    assert job(bad_rows="skip").rows == 999


def test_a_change_of_bad_rows_is_remembered(job: Job, texts: list[str]) -> None:
    write({"text": [*texts[:850], None, *texts[851:]]}, "in.parquet")
    stopped(job)
    stopped(job, rows=900, bad_rows="skip")
    with pytest.raises(InvalidArgumentError, match="bad_rows was 'skip' and is 'error'"):
        job()
    assert job(bad_rows="skip").rows == 999


# ---- inputs that vanish


def test_an_input_vanishes(job: Job, texts: list[str], small: Embedder) -> None:
    for name, part in (("a", texts[:300]), ("b", texts[300:])):
        write({"text": part}, f"{name}.parquet")

    def remove(done: int, _: int) -> None:
        Path("b.parquet").unlink(missing_ok=True)

    with pytest.raises(FileNotFoundError, match=r"b.parquet"):
        job(["a.parquet", "b.parquet"], progress=remove, block_rows=50)
    write({"text": texts[300:]}, "b.parquet")
    with pytest.raises(InvalidArgumentError, match=r"b.parquet has changed"):
        job(["a.parquet", "b.parquet"], block_rows=50)


@pytest.mark.parametrize("name", ["in.txt", "in.parquet"])
def test_an_input_changes_while_it_is_read(name: str, job: Job, texts: list[str]) -> None:
    write({"text": texts}, name)

    def touch(done: int, _: int) -> None:
        os.utime(name, (1, 1))

    with pytest.raises(InvalidArgumentError, match=f"{name}: it changed while it was read"):
        job(name, progress=touch)


# ---- outputs that cannot be written


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let writes fail behind so many bytes of a file, as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "npy", "jsonl", "csv", "db", "lance"])
def test_a_full_disk_at_the_end(kind: str, job: Job, expected: np.ndarray[Any, Any]) -> None:
    """Each part has room, and the output has not."""
    target = f"out.{kind}"
    with largest_file(60_000), pytest.raises(OSError) as raised:
        job(target=target)
    assert raised.value.errno in (errno.EFBIG, errno.EIO)  # SQLite does not tell
    assert target in str(raised.value)
    assert not Path(target).exists()
    report = job(target=target)
    assert (report.rows, report.resumed) == (1000, 1000)
    if target == "out.npy":
        assert np.load(target).tobytes() == expected.tobytes()


def test_a_full_disk_in_the_middle(job: Job, expected: np.ndarray[Any, Any]) -> None:
    with largest_file(60_000), pytest.raises(OSError, match=r"out.npy.parts") as raised:
        job(checkpoint_seconds=1000)
    assert raised.value.errno == errno.EFBIG
    with largest_file(2_500), pytest.raises(OSError, match=r"File too large"):
        job()
    job()
    assert np.load("out.npy").tobytes() == expected.tobytes()


def test_an_old_output_stays_until_the_end(job: Job, expected: np.ndarray[Any, Any]) -> None:
    Path("out.npy").write_bytes(b"old")
    stopped(job)
    assert Path("out.npy").read_bytes() == b"old"
    job()
    assert np.load("out.npy").tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("missing/out.npy", FileNotFoundError, "missing"),
        ("in.parquet", InvalidArgumentError, "in.parquet is an input; name another output"),
        ("out.xyz", InvalidArgumentError, "out.xyz: its ending tells no format for files"),
        ("out", InvalidArgumentError, "out: its ending tells no format for files"),
        ("folder.npy", InvalidArgumentError, "folder.npy: it has other files"),
        ("folder/", InvalidArgumentError, "it has other files"),
        ("file/", NotADirectoryError, "file/"),
        ("file.lance", OSError, "file.lance"),
        ("pipe.npy", InvalidArgumentError, "a device or a pipe"),
        ("busy.npy", InvalidArgumentError, "busy.npy.parts: the job keeps its parts there, and it has other files"),
    ],
)
def test_impossible_outputs(target: str, error: type[Exception], words: str, job: Job, texts: list[str]) -> None:
    write({"text": texts}, "in.parquet")
    for folder in ("folder", "folder.npy", "busy.npy.parts"):
        Path(folder).mkdir()
        Path(folder, "mine").touch()
    Path("file").touch()
    Path("file.lance").touch()
    os.mkfifo("pipe.npy")
    before = sorted(Path().rglob("*"))
    with pytest.raises(error, match=words):
        job(target=target)
    assert sorted(Path().rglob("*")) == before


def test_a_work_folder_elsewhere(job: Job, expected: np.ndarray[Any, Any]) -> None:
    stopped(job, work="work")
    assert Path("work/job.log").exists()
    assert not Path("out.npy.parts").exists()
    job(work="work")
    assert not Path("work").exists()
    assert np.load("out.npy").tobytes() == expected.tobytes()


# ---- two at once


def test_two_jobs_on_one_output(job: Job, bert: str, expected: np.ndarray[Any, Any]) -> None:
    inside, go = threading.Event(), threading.Event()

    def wait(done: int, _: int) -> None:
        inside.set()
        go.wait(60)

    with Embedder(bert, progress=False) as other:
        first = threading.Thread(target=lambda: job(model=other, progress=wait))
        first.start()
        assert inside.wait(60)
        try:
            with pytest.raises(ConcurrentUseError, match=r"out.npy: another process is writing it"):
                job()
            command = [sys.executable, "-m", "rawllama", "embed", "in.parquet", "-o", "out.npy", "--model", bert]
            done = subprocess.run(command, capture_output=True, check=False)
            assert done.returncode == 1
            assert done.stderr.startswith(b"rawllama: out.npy: another process is writing it")
        finally:
            go.set()
            first.join()
    assert np.load("out.npy").tobytes() == expected.tobytes()
    assert sorted(path.name for path in Path().iterdir()) == ["in.parquet", "out.npy"]
