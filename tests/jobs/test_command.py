"""`rawllama embed INPUT -o OUTPUT`."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rawllama import Embedder

from .files import read, write

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def embed(bert: str) -> Run:
    def run(*arguments: str, status: int = 0, feed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "rawllama", "embed", "--model", bert, "--threads", "1", *arguments]
        done = subprocess.run(command, input=feed, capture_output=True, check=False)
        assert b"Traceback" not in done.stderr
        assert done.returncode == status, done.stderr.decode()
        return done

    return run


def test_files(embed: Run, texts: list[str], small: Embedder) -> None:
    write({"body": texts[:300], "n": list(range(300))}, "a.parquet")
    Path("more").mkdir()
    write({"body": texts[300:], "n": list(range(700))}, "more/b.jsonl")
    done = embed("a.parquet", "more", "--column", "body", "--into", "vector", "-o", "out.parquet")
    assert done.stdout == b""
    assert done.stderr.startswith(b"out.parquet: 1,000 rows, ")
    table = pq.read_table("out.parquet")
    assert table.column("body").to_pylist() == texts
    rows = np.array(table.column("vector").to_pylist(), np.float32)
    assert rows.tobytes() == small.encode(texts).tobytes()


def test_settings(embed: Run, bert: str) -> None:
    write({"text": ["a cat", None, "b " * 99]}, "in.parquet")
    done = embed("in.parquet", "-o", "out.npy", "--dims", "8", "--dtype", "float16", "--normalize", "none",
                 "--pooling", "cls", "--bad-rows", "skip", "--overlong", "truncate")  # fmt: skip
    assert b"2 rows, 1 bad rows, 1 texts cut" in done.stderr
    settings = {"dims": 8, "dtype": "float16", "normalize": "none", "pooling": "cls", "overlong": "truncate"}
    with Embedder(bert, **settings) as embedder, pytest.warns(match="cut"):
        expected = embedder.encode(["a cat", "b " * 99])
    assert np.load("out.npy").tobytes() == expected.tobytes()


def test_folders(embed: Run, texts: list[str]) -> None:
    write({"text": texts}, "in.txt")
    command = ["in.txt", "-o", "out/", "--part-rows", "10", "--format", "jsonl"]
    embed(*command)
    assert len(read("out/part-000000.jsonl")[1]) == 1000, "a part is whole blocks"
    assert b"1,000 of them from before" in embed(*command).stderr
    assert b"from before" not in embed("in.txt", "-o", "out/", "--restart").stderr
    assert sorted(path.name for path in Path("out").iterdir()) == ["_rawllama", "part-000000.parquet"]


def test_the_option_input_names_one_too(embed: Run, texts: list[str]) -> None:
    write({"text": texts}, "in.csv")
    embed("--input", "in.csv", "-o", "out.parquet")
    assert pq.read_table("out.parquet").column("text").to_pylist() == texts
    embed("--input", "in.csv", "-o", "lines.jsonl")
    assert read("lines.jsonl")[0]["text"] == ["text", *texts], "as before: its lines, where the output is one of texts"
    embed("--input", "in.csv", "--input-format", "csv", "-o", "rows.jsonl")
    assert read("rows.jsonl")[0]["text"] == texts


def test_cache(embed: Run, texts: list[str]) -> None:
    write({"text": texts}, "in.txt")
    assert b", 0 tokens" not in embed("in.txt", "-o", "a.npy", "--cache", "cache").stderr
    assert b", 0 tokens" in embed("in.txt", "-o", "b.npy", "--cache", "cache").stderr
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_a_bar_on_a_terminal(bert: str, texts: list[str]) -> None:
    write({"text": texts}, "in.txt")
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    command = [sys.executable, "-m", "rawllama", "embed", "in.txt", "-o", "out.npy", "--model", bert]
    subprocess.run(command, stderr=terminal, check=True)
    os.close(terminal)
    shown = os.read(master, 100_000)
    os.close(master)
    assert b"1.00k/1.00k" in shown
    assert b"tokens/s" in shown


def test_texts_stay_texts(embed: Run) -> None:
    """Without -o, or where no argument is an input, they are what they were."""
    write({"text": ["a"]}, "in.txt")
    assert b"in.txt" in embed("in.txt", "--format", "jsonl").stdout
    embed("std::vector", "**bold**", "x" * 5000, "a/b", "-o", "out.jsonl", "--overlong", "truncate")
    assert read("out.jsonl")[0]["text"] == ["std::vector", "**bold**", "x" * 5000, "a/b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in.txt", "other", "-o", "out.npy"], "other: no such input, and others of the arguments are some"),
        (["in.tx.parquet", "-o", "out.npy"], "in.tx.parquet: No such file or directory (to embed the name, pipe"),
        (["a text", "-o", "out.parquet"], "out.parquet: .parquet is no format's ending for texts; put them"),
        (["a text", "-o", "out.npy", "--cache", "c"], "--cache is for files: rawllama embed FILE -o OUTPUT"),
        (["a text", "--format", "parquet"], "--format parquet is for files"),
        (["--input", "-", "-o", "out.db"], "standard input cannot be read again after a kill"),
        (["--input-format", "csv"], "--input-format csv is for files"),
        (["in.txt", "-o", "out.xlsx"], "out.xlsx: its ending tells no format for files; choose one with --format"),
        (["in.txt", "-o", "out.npy", "--format", "table"], "out.npy: table is no format for files"),
        (["in.txt", "-o", "out.npy", "--actors", "2"], "--actors is for --engine ray"),
        (["in.txt", "-o", "out.npy", "--engine", "ray", "--cache", "c"], "--cache is not for --engine ray"),
        (["in.txt", "-o", "missing/out.npy"], "missing/out.npy: No such file or directory"),
        (["in.txt", "-o", "out.npy", "--column", "body", "--into", "body"], "into: "),
        (["s3:// x", "in.txt", "-o", "out.npy"], "s3:// x: no such input"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused(arguments: list[str], words: str, embed: Run) -> None:
    write({"text": ["a"]}, "in.txt")
    done = embed(*arguments, status=1)
    assert done.stderr.decode().startswith(f"rawllama: {words}")
    assert sorted(path.name for path in Path().iterdir()) == ["in.txt"]


@pytest.mark.parametrize("arguments", [["--bad-rows", "drop"], ["--part-rows", "0"], ["--checkpoint", "-1"]])
def test_wrong_usage(arguments: list[str], embed: Run) -> None:
    assert arguments[0].encode() in embed("in.txt", "-o", "out.npy", *arguments, status=2).stderr
