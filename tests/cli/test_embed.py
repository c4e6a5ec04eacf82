"""`rawllama embed` as a user of Unix commands expects it."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import __version__

WIDTH = 32
# Texts enough that writing their rows takes a while.
MANY = 20_000

Run = Callable[..., subprocess.CompletedProcess[bytes]]
Start = Callable[..., "subprocess.Popen[bytes]"]


def lines_of(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    """JSON lines on standard output, and nothing else there."""
    assert done.stdout.endswith(b"\n") or not done.stdout
    return [json.loads(line) for line in done.stdout.split(b"\n")[:-1]]


def texts_of(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return [line["text"] for line in lines_of(done)]


def npy_of(done: subprocess.CompletedProcess[bytes]) -> NDArray[np.float32]:
    matrix: NDArray[np.float32] = np.load(io.BytesIO(done.stdout))
    return matrix


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def read(embed: Run) -> Callable[..., list[str]]:
    """The texts that the command takes from its standard input."""
    return lambda data, *arguments: texts_of(embed("--format", "jsonl", *arguments, feed=data))


# ---- texts in


def test_arguments(embed: Run) -> None:
    texts = ["hello world", "", "the cat", "two\nlines", "naïve 東京 👩‍🚀", "--", "-5 degrees"]
    assert texts_of(embed("--format", "jsonl", "--", *texts)) == texts


def test_arguments_leave_standard_input_alone(embed: Run) -> None:
    assert texts_of(embed("--format", "jsonl", "hello", feed=b"world\n")) == ["hello"]


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        pytest.param(b"hello\nworld\n", ["hello", "world"], id="lines"),
        pytest.param(b"hello\nworld", ["hello", "world"], id="no newline at the end"),
        pytest.param(b"hello\r\nworld\r\n", ["hello", "world"], id="CRLF"),
        pytest.param(b"hello\r\nworld", ["hello", "world"], id="CRLF, none at the end"),
        pytest.param(b"hello\rworld\n", ["hello\rworld"], id="CR inside a line"),
        pytest.param(b"\nhello\n\n", ["", "hello", ""], id="empty lines"),
        pytest.param(b"\n", [""], id="one empty line"),
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"  hello \t\n", ["  hello \t"], id="white space stays"),
        pytest.param(b"\xef\xbb\xbfhello\n", ["hello"], id="byte order mark"),
        pytest.param("\ufeffa\n\ufeffb\n".encode(), ["a", "\ufeffb"], id="byte order mark later on"),
        pytest.param("a\u2028b\u2029c\x85d\x0b\x0c\n".encode(), ["a\u2028b\u2029c\x85d\x0b\x0c"], id="U+2028 and such"),
        pytest.param("naïve 東京 👩‍🚀 e\u0301\n".encode(), ["naïve 東京 👩‍🚀 e\u0301"], id="Unicode"),
        pytest.param(b"a\x00b\x1b[31mc\n", ["a\x00b\x1b[31mc"], id="control characters"),
    ],
)
def test_lines(data: bytes, texts: list[str], read: Callable[..., list[str]], tmp_path: Path) -> None:
    assert read(data) == texts
    (tmp_path / "texts.txt").write_bytes(data)
    assert read(b"no\n", "--input", "texts.txt") == texts
    assert read(data, "--input", "-") == texts


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        pytest.param(b'"hello"\n{"text": "world"}\n', ["hello", "world"], id="strings and objects"),
        pytest.param(b'{"id": 1, "text": "a\\nb"}', ["a\nb"], id="newline in a text"),
        pytest.param(b'"\\u6771\\ud83d\\ude80"\r\n""\r\n', ["東🚀", ""], id="escapes and CRLF"),
        pytest.param('\ufeff"a\u2028b"\n'.encode(), ["a\u2028b"], id="byte order mark, U+2028"),
    ],
)
def test_json_lines(data: bytes, texts: list[str], read: Callable[..., list[str]], tmp_path: Path) -> None:
    assert read(data, "--input-format", "jsonl") == texts
    for name in ("texts.jsonl", "texts.NDJSON"):
        (tmp_path / name).write_bytes(data)
        assert read(b"", "--input", name) == texts


def test_field(read: Callable[..., list[str]]) -> None:
    assert read(b'{"body": "hello", "text": 1}\n', "--input-format", "jsonl", "--field", "body") == ["hello"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"hello", b"not JSON"),
        (b"", b"not JSON"),
        (b'{"text": "a"', b"not JSON"),
        (b"[" * 100_000, b"not JSON"),
        (b"1", b"a string, or an object"),
        (b"null", b"a string, or an object"),
        (b'["a"]', b"a string, or an object"),
        (b'{"text": ["a"]}', b"a string, or an object"),
        (b'{"text": null}', b"a string, or an object"),
        (b'{"body": "a"}', b"no key 'text'"),
    ],
)
def test_wrong_json(line: bytes, words: bytes, embed: Run) -> None:
    done = embed("--input-format", "jsonl", feed=b'"right"\n' + line + b"\n", status=1)
    assert b"standard input, line 2: " in done.stderr
    assert words in done.stderr


def test_a_lone_surrogate_in_json(embed: Run) -> None:
    done = embed("--input-format", "jsonl", feed=b'"a"\n"\\ud800"\n', status=1)
    assert b"texts[1]" in done.stderr


@pytest.mark.parametrize("data", [b"a\n\xff\xfe\n", "a\nnaïve".encode("latin-1"), b"\n" + bytes(range(256))])
def test_binary_input(data: bytes, embed: Run) -> None:
    done = embed(feed=data, status=1)
    assert b"standard input, line 2: not UTF-8" in done.stderr or b"line 3: not UTF-8" in done.stderr


def test_an_argument_that_is_not_utf8(embed: Run) -> None:
    assert b"texts[1]" in embed("a", b"\xff\xfe", status=1).stderr


def test_a_text_that_is_too_long(embed: Run, read: Callable[..., list[str]]) -> None:
    line = b"cat " * 100
    done = embed(feed=b"a\n" + line + b"\n", status=1)
    assert b"texts[1]: 102 tokens" in done.stderr
    assert b"overlong" in done.stderr
    for overlong in ("truncate", "chunk"):
        assert len(read(line, "--overlong", overlong)) == 1
    assert embed("--overlong", "truncate", feed=line + b"\n" + line + b"cat").stderr.startswith(b"2 texts were cut\n")


def test_a_very_long_line(read: Callable[..., list[str]]) -> None:
    assert read(b"hello " * 200_000 + b"\n" + b"x" * 200_000, "--overlong", "truncate")[1] == "x" * 200_000


def test_no_texts_on_a_terminal(embed: Run) -> None:
    master, terminal = pty.openpty()
    try:
        done = embed(stdin=terminal, status=1)
    finally:
        os.close(terminal)
        os.close(master)
    assert b"no texts: give some as arguments" in done.stderr


def test_texts_twice(embed: Run) -> None:
    assert b"use one of them" in embed("hello", "--input", "-", status=1).stderr


@pytest.mark.parametrize(
    ("name", "words"), [("missing.txt", b"missing.txt: No such file or directory"), (".", b".: Is a directory")]
)
def test_input_that_cannot_be_read(name: str, words: bytes, embed: Run) -> None:
    assert words in embed("--input", name, status=1).stderr


def test_closed_standard_streams(embed: Run) -> None:
    assert b"standard input: Bad file descriptor" in embed(status=1, preexec_fn=lambda: os.close(0)).stderr
    assert b"standard output: Bad file descriptor" in embed("a", status=1, preexec_fn=lambda: os.close(1)).stderr
    quiet = embed("a", "--format", "jsonl", preexec_fn=lambda: os.close(2))
    assert texts_of(quiet) == ["a"]


def test_an_error_with_standard_error_closed(start: Start) -> None:
    process = start("a", "--input", "b", preexec_fn=lambda: os.close(2))
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 1


# ---- vectors out

TEXTS = ("hello world", 'a "quoted", text', "two\nlines\r\nand \r a return", "", "naïve 東京 \0 \u2028")


@pytest.fixture
def rows(embed: Run) -> NDArray[np.float32]:
    matrix = npy_of(embed("--format", "npy", *TEXTS[:4], feed=b""))
    assert matrix.dtype == np.float32
    assert matrix.shape == (4, WIDTH)
    assert np.abs(np.linalg.norm(matrix, axis=1) - 1).max() < 1e-6
    return matrix


def test_npy_to_a_pipe_and_to_a_file(rows: NDArray[np.float32], embed: Run, tmp_path: Path) -> None:
    embed("-o", "rows.npy", *TEXTS[:4])
    assert np.load(tmp_path / "rows.npy").tobytes() == rows.tobytes()


def test_npy_to_a_terminal(embed: Run) -> None:
    master, terminal = pty.openpty()
    try:
        done = embed("--format", "npy", "hello", stdout=terminal, status=1)
    finally:
        os.close(terminal)
        os.close(master)
    assert b"npy is binary" in done.stderr


def test_json_lines_round_trip(rows: NDArray[np.float32], embed: Run) -> None:
    lines = lines_of(embed("--format", "jsonl", *TEXTS[:4]))
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    assert [line["text"] for line in lines] == list(TEXTS[:4])
    # The decimals are float32's shortest: read as doubles and rounded, they are the same bits.
    assert np.array([line["embedding"] for line in lines], np.float32).tobytes() == rows.tobytes()


def test_csv_round_trip(rows: NDArray[np.float32], embed: Run) -> None:
    done = embed("--format", "csv", *TEXTS[:4])
    header, *table = csv.reader(io.StringIO(done.stdout.decode(), newline=""))
    assert header == ["index", "text", *(f"e{i}" for i in range(WIDTH))]
    assert [row[:2] for row in table] == [[str(i), text] for i, text in enumerate(TEXTS[:4])]
    assert np.array([row[2:] for row in table], np.float32).tobytes() == rows.tobytes()


def test_table(rows: NDArray[np.float32], embed: Run) -> None:
    done = embed(*TEXTS[:4])
    shown = done.stdout.decode().split("\n")
    assert shown[0] == "4 x 32"
    assert [float(word) for word in shown[1].split()[1:4]] == [round(float(x), 5) for x in rows[0, :3]]
    assert shown[3].endswith("two\\nlines\\r\\nand \\r a return")
    assert shown[6] == "cosine similarity"
    matrix = np.array([[float(word) for word in line.split()[1:5]] for line in shown[8:12]])
    assert np.abs(matrix - rows @ rows.T).max() <= 5.01e-4
    assert b"embed 4 texts" in done.stderr  # how long it took


def test_rows_of_tokens(embed: Run, tmp_path: Path) -> None:
    texts = ["hello world", "", "the cat"]
    lines = lines_of(embed("--pooling", "none", "--format", "jsonl", *texts))
    assert [len(line["tokens"]) for line in lines] == [4, 2, 4]
    assert [np.shape(line["embedding"]) for line in lines] == [(4, WIDTH), (2, WIDTH), (4, WIDTH)]
    matrix = npy_of(embed("--pooling", "none", "--format", "npy", *texts))
    together = np.concatenate([np.array(line["embedding"], np.float32) for line in lines])
    assert matrix.tobytes() == together.tobytes()
    table = list(csv.reader(io.StringIO(embed("--pooling", "none", "--format", "csv", *texts).stdout.decode())))[1:]
    assert [row[0] for row in table] == list("0000112222")
    assert [int(row[1]) for row in table] == [token for line in lines for token in line["tokens"]]
    assert np.array([row[2:] for row in table], np.float32).tobytes() == matrix.tobytes()
    assert embed("--pooling", "none", *texts).stdout.startswith(b"10 x 32\n")


@pytest.mark.parametrize("pooling", ["mean", "none"])
@pytest.mark.parametrize("form", ["table", "jsonl", "csv", "npy"])
def test_no_texts_give_no_rows(form: str, pooling: str, embed: Run) -> None:
    done = embed("--format", form, "--pooling", pooling, feed=b"")
    if form == "npy":
        assert npy_of(done).shape == (0, WIDTH)
    else:
        assert len(done.stdout.splitlines()) == {"table": 1, "csv": 1, "jsonl": 0}[form]


@pytest.mark.parametrize(
    ("name", "beginning"),
    [("rows.npy", b"\x93NUMPY"), ("rows.NPY", b"\x93NUMPY"), ("rows.jsonl", b"{"), ("rows.ndjson", b"{"),
     ("rows.csv", b"index,"), ("rows.txt", b"1 x 32\n"), ("rows", b"1 x 32\n"), ("é rows.csv", b"index,")],
)
def test_format_by_ending(name: str, beginning: bytes, embed: Run, tmp_path: Path) -> None:
    assert not embed("-o", name, "hello").stdout
    assert (tmp_path / name).read_bytes().startswith(beginning)
    assert names_in(tmp_path) == [name]


def test_format_wins_over_ending(embed: Run, tmp_path: Path) -> None:
    embed("-o", "rows.npy", "--format", "csv", "hello")
    assert (tmp_path / "rows.npy").read_bytes().startswith(b"index,")


def test_unknown_ending(embed: Run, tmp_path: Path) -> None:
    assert b"rows.parquet: .parquet is no format's ending" in embed("-o", "rows.parquet", "hello", status=1).stderr
    assert not names_in(tmp_path)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("l2", lambda row: np.linalg.norm(row)),
        ("l1", lambda row: np.abs(row).sum()),
        ("3", lambda row: (np.abs(row) ** 3).sum() ** (1 / 3)),
        ("0.5", lambda row: np.sqrt(np.abs(row)).sum() ** 2),
        ("2000", lambda row: np.abs(row).max()),  # a power that no float holds
        ("max-abs", lambda row: np.abs(row).max() / 32760),
    ],
)
def test_normalize(name: str, norm: Callable[[NDArray[np.float64]], float], embed: Run) -> None:
    raw = npy_of(embed("--normalize", "none", "--format", "npy", "hello world", "cat")).astype(np.float64)
    rows = npy_of(embed("--normalize", name, "--format", "npy", "hello world", "cat"))
    wanted = np.stack([row / norm(row) for row in raw])
    assert np.abs(rows / wanted - 1).max() < 2e-3 if name == "2000" else np.allclose(rows, wanted, rtol=1e-6, atol=0)


# ---- the output file


def test_it_replaces_a_file_and_keeps_its_mode(embed: Run, tmp_path: Path) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("old")
    target.chmod(0o640)
    embed("-o", "rows.csv", "hello")
    assert target.read_bytes().startswith(b"index,")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_has_the_usual_mode(embed: Run, tmp_path: Path) -> None:
    embed("-o", "rows.csv", "hello", umask=0o027)
    assert stat.S_IMODE((tmp_path / "rows.csv").stat().st_mode) == 0o640


def test_a_symbolic_link_stays_one(embed: Run, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("folder/rows.csv")
    (tmp_path / "folder").mkdir()
    embed("-o", "link.csv", "hello")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "folder" / "rows.csv").read_bytes().startswith(b"index,")


def test_devices_and_pipes_are_written_to(embed: Run, tmp_path: Path) -> None:
    embed("-o", "/dev/null", "hello")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert b"1 x 32" in embed("-o", "/dev/stdout", "hello").stdout
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    embed("-o", "pipe", "hello")
    assert os.read(pipe, 10_000).startswith(b"1 x 32")
    os.close(pipe)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_standard_output_is_not_overwritten(embed: Run, tmp_path: Path) -> None:
    with (tmp_path / "all").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        for name in ("-", "/dev/stdout"):
            embed("-o", name, "hello", stdout=file)
    assert (tmp_path / "all").read_bytes().splitlines()[:2] == [b"before", b"1 x 32"]
    assert (tmp_path / "all").read_bytes().count(b"1 x 32") == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", b".: Is a directory"),
        ("missing/rows.csv", b"missing/rows.csv: No such file or directory"),
        ("/proc/rows.csv", b"/proc/rows.csv: "),
        ("/dev/full", b"No space left on device"),
    ],
)
def test_output_that_cannot_be_written(name: str, words: bytes, embed: Run, tmp_path: Path) -> None:
    assert words in embed("-o", name, "hello", status=1).stderr
    assert not names_in(tmp_path)


def test_an_output_is_refused_before_the_work(embed: Run) -> None:
    """A night's embedding is not done for a folder that is missing: not even the model is looked at."""
    done = embed("-o", "missing/rows.csv", "--model", "missing.gguf", "hello", status=1)
    assert done.stderr == b"rawllama: missing/rows.csv: No such file or directory\n"


def test_unwritable_folder(embed: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("root may write everywhere")
    assert b"folder/rows.csv: Permission denied" in embed("-o", "folder/rows.csv", "hello", status=1).stderr


def test_a_full_standard_output(embed: Run) -> None:
    with Path("/dev/full").open("wb") as full:
        assert b"No space left on device" in embed("hello", stdout=full, status=1).stderr


def test_a_write_that_fails_leaves_nothing(embed: Run, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    (tmp_path / "old.csv").write_text("old")
    for name in ("old.csv", "new.csv"):
        done = embed("-o", name, feed=b"hello\n" * 200, preexec_fn=limit, status=1)
        assert b"File too large" in done.stderr
    assert names_in(tmp_path) == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "old"


# ---- ended early


@pytest.fixture
def writing(start: Start, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command amid writing rows.csv, which held something before."""
    (tmp_path / "rows.csv").write_text("old")
    (tmp_path / "texts.txt").write_bytes(b"\n" * MANY)
    process = start("-o", "rows.csv", "--input", "texts.txt")
    while sum(path.stat().st_size for path in tmp_path.glob(".rawllama-*")) < 100_000:
        assert process.poll() is None, "too fast to be caught writing: raise MANY"
        time.sleep(0.001)
    yield process
    process.kill()
    process.communicate()


def test_killed(writing: subprocess.Popen[bytes], tmp_path: Path) -> None:
    writing.kill()
    writing.wait()
    assert (tmp_path / "rows.csv").read_text() == "old"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(
    number: signal.Signals, status: int, writing: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    writing.send_signal(number)
    out, err = writing.communicate(timeout=60)
    assert (writing.returncode, out, err) == (status, b"", b"")
    assert (tmp_path / "rows.csv").read_text() == "old"
    assert names_in(tmp_path) == ["rows.csv", "texts.txt"]


def test_interrupted_while_reading(start: Start) -> None:
    process = start(stdin=subprocess.PIPE)
    while "pipe" not in _waits_for(process.pid):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.communicate() == (b"", b"")


def _waits_for(pid: int) -> str:
    """The kernel's word for what a process sleeps in, e.g. `pipe_read`."""
    return Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")


def test_closed_pipe(start: Start, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(b"hello\n" * 3000)
    for form in ("jsonl", "csv", "table", "npy"):
        process = start("--input", "texts.txt", "--format", form)
        assert process.stdout is not None
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == -signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""


# ---- models


def test_minilm_by_name(minilm: str, start: Start) -> None:
    del minilm  # it is made, so that this takes no time
    process = start("--model", "minilm", "--format", "npy", "The cat sits outside")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, b"")
    assert np.load(io.BytesIO(out)).shape == (1, 384)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown", b"known are minilm"),
        ("missing.gguf", b"missing.gguf does not exist"),
        (".", b"is a folder"),
        ("", b"is a folder"),
        ("text.gguf", b"is not a GGUF file"),
        ("empty.gguf", b"is not a GGUF file"),
        ("magic.gguf", b"could not be loaded"),
        (b"\xff.gguf", b".gguf does not exist"),
    ],
)
def test_no_model(name: str | bytes, words: bytes, embed: Run, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("This is a text.")
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "magic.gguf").write_bytes(b"GGUF")
    assert words in embed("--model", name, "hello", "-o", "rows.csv", status=1).stderr
    assert not (tmp_path / "rows.csv").exists()


@pytest.mark.parametrize("size", [1024, 0.5, -1], ids=["1 KiB", "half", "all but one byte"])
@pytest.mark.parametrize("model", ["tiny", "minilm"])
def test_cut_model(model: str, size: float, embed: Run, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    cut = tmp_path / "cut.gguf"
    shutil.copy(request.getfixturevalue(model), cut)
    whole = cut.stat().st_size
    os.truncate(cut, whole - 1 if size < 0 else int(size if size > 1 else size * whole))
    try:
        done = embed("--model", cut.name, "hello", "-o", "rows.csv", status=1)
    finally:
        cut.unlink()  # pytest keeps folders, and this is 90 MB
    assert b"cut.gguf could not be loaded: " in done.stderr
    assert done.stderr.count(b"\n") == 1, "the library's log is in the message, not beside it"
    assert not names_in(tmp_path)


def test_a_model_of_another_user(embed: Run, tiny: str, tmp_path: Path) -> None:
    shutil.copy(tiny, tmp_path / "closed.gguf")
    (tmp_path / "closed.gguf").chmod(0)
    if os.access(tmp_path / "closed.gguf", os.R_OK):
        pytest.skip("root may read everything")
    assert b"closed.gguf: Permission denied" in embed("--model", "closed.gguf", "hello", status=1).stderr


# ---- options


@pytest.mark.parametrize(
    "arguments",
    [
        ["--pooling", "median"],
        ["--normalize", "l3"],
        ["--normalize", "0"],
        ["--normalize", "-1"],
        ["--normalize", "nan"],
        ["--normalize", "inf"],
        ["--threads", "0"],
        ["--threads", "-1"],
        ["--threads", "513"],
        ["--threads", "99999999999999999999"],
        ["--threads", "two"],
        ["--format", "xlsx"],
        ["--input-format", "xml"],
        ["--frobnicate"],
        ["-o"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str], embed: Run) -> None:
    done = embed("hello", *arguments, status=2)
    assert done.stderr.startswith(b"usage: rawllama ")
    assert arguments[0].encode() in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("count", ["1", "512"])
def test_threads(count: str, embed: Run) -> None:
    assert texts_of(embed("--threads", count, "--format", "jsonl", "hello")) == ["hello"]


def test_rank_without_a_layer_for_it(embed: Run) -> None:
    assert b"has no layer that gives scores" in embed("--pooling", "rank", "hello", status=1).stderr


def test_verbose(embed: Run) -> None:
    done = embed("--verbose", "--format", "jsonl", "hello")
    assert texts_of(done) == ["hello"]
    assert b"llama_model_loader" in done.stderr


def test_quiet(embed: Run) -> None:
    assert embed("--format", "jsonl", "hello").stderr == b""


def rawllama(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rawllama", *arguments], capture_output=True, text=True, check=False)


def test_help_and_version() -> None:
    done = rawllama("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"rawllama {__version__}\n", "")
    done = rawllama("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "embed" in done.stdout
    done = rawllama("embed", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--model", "--input", "--field", "--output", "--format", "--pooling", "--normalize", "--overlong"):
        assert option in done.stdout


@pytest.mark.parametrize("arguments", [[], ["frobnicate"]])
def test_no_command(arguments: list[str]) -> None:
    done = rawllama(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: rawllama")


def test_the_installed_script() -> None:
    script = Path(sys.executable).with_name("rawllama")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == f"rawllama {__version__}\n"
