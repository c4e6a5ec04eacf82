"""What jobs read: files by any name, rows that are broken, columns that differ."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rawllama import Embedder, InvalidArgumentError
from rawllama.errors import MissingExtraError
from rawllama.jobs import Report, embed_files
from rawllama.jobs.inputs import exists, is_address

from .files import read, write

Job = Callable[..., Report]


@pytest.fixture
def job(small: Embedder) -> Job:
    def run(source: Any, target: str = "out.jsonl", **options: Any) -> Report:
        return embed_files(source, target, **{"model": small, "progress": False, **options})

    return run


def rows_of(name: str = "out.jsonl") -> list[Any]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").split("\n")[:-1]]


def texts_of(name: str = "out.jsonl") -> list[Any]:
    return [row["text"] for row in rows_of(name)]


# ---- names


def test_names_of_any_kind(job: Job, small: Embedder) -> None:
    names = ["größe 東京 👩‍🚀.txt", "[1].txt", "a b.txt", "*.txt", "-o.txt", os.fsdecode(b"\xff.txt")]
    for name in names:
        write({"text": [name.encode("utf-8", "replace").decode()]}, name)
    assert job(names).rows == 6
    assert job("[1].txt", "one.jsonl").rows == 1, "a file of this name wins over the glob"
    assert texts_of()[:2] == names[:2]
    job(["größe 東京 👩‍🚀.txt"], "größe 👩‍🚀.npy")
    assert np.load("größe 👩‍🚀.npy").tobytes() == small.encode([names[0]]).tobytes()


def test_folders_and_globs(job: Job) -> None:
    for name in ("a/x.txt", "b/x.csv", "b/c/x.jsonl", "b/_hidden/y.txt", "b/.y.txt", "b/notes.md", "z.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write({"text": [name]}, name) if not name.endswith("md") else Path(name).touch()
    for source, found in (
        (".", ["a/x.txt", "b/c/x.jsonl", "b/x.csv", "z.txt"]),
        ("b", ["b/c/x.jsonl", "b/x.csv"]),
        ("*/x.*", ["a/x.txt", "b/x.csv"]),
        ("**/x.*", ["a/x.txt", "b/c/x.jsonl", "b/x.csv"]),
        (["z.txt", "a", "b/*.csv"], ["z.txt", "a/x.txt", "b/x.csv"]),
        (Path("z.txt"), ["z.txt"]),
    ):  # fmt: skip
        job(source)
        assert texts_of() == found
        Path("out.jsonl").unlink()
    job(".", input_format="csv")
    assert texts_of() == ["b/x.csv"]


def test_files_of_one_name(job: Job) -> None:
    for number, folder in enumerate("ba"):
        Path(folder).mkdir()
        write({"text": [folder], "n": [number]}, f"{folder}/x.csv")
    job(["b/x.csv", "a/x.csv"])
    assert texts_of() == ["b", "a"]
    with pytest.raises(InvalidArgumentError, match=r"b/x.csv: it is named twice"):
        job(["b/x.csv", "b"])


def test_the_output_beside_the_inputs(job: Job) -> None:
    """Neither what a stopped job left nor the output are read as inputs."""
    write({"text": ["a", "b"]}, "a.txt")
    job(".", "out/")
    with pytest.raises(InvalidArgumentError, match="is an input; name another output"):
        job(".", "out/")
    job("*.txt", "out.parquet")
    with pytest.raises(InvalidArgumentError, match=r"out.parquet: out.parquet is an input"):
        job(".", "out.parquet")


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("missing.txt", FileNotFoundError, r"missing.txt"),
        ("*.csv", FileNotFoundError, r"\*.csv"),
        ("empty", FileNotFoundError, "No files of a known format in it: 'empty'"),
        ([], InvalidArgumentError, "source: it names no inputs"),
        ("a.doc", InvalidArgumentError, r"a.doc: its name does not tell its format; name one with --input-format"),
        ("memory://nothing.txt", FileNotFoundError, "nothing.txt"),
        ("nosuch://a.txt", InvalidArgumentError, "nosuch://a.txt: Protocol not known"),
    ],
)
def test_no_inputs(source: Any, error: type[Exception], words: str, job: Job) -> None:
    Path("empty").mkdir()
    Path("a.doc").touch()
    with pytest.raises(error, match=words):
        job(source)
    assert sorted(os.listdir()) == ["a.doc", "empty"]  # noqa: PTH208


def test_what_is_an_address() -> None:
    assert all(map(is_address, ["s3://b/c", "simplecache::s3://b", "file:///x"]))
    assert not any(map(is_address, ["std::vector", "a://", "see http://x", "C:\\x", "", "what: //"]))
    assert not any(map(exists, ["", "no", "**bold**", "a\0b", "x" * 100_000, "[]"]))


# ---- addresses


@pytest.mark.parametrize("name", ["in.parquet", "in.jsonl.gz", "in.arrow", "in.arrows", "in.csv"])
@pytest.mark.parametrize("target", ["out.npy", "out.lance", "out/"])
def test_addresses(name: str, target: str, job: Job, texts: list[str], small: Embedder, tmp_path: Path) -> None:
    """Another store in, another store out, and stopped between."""
    write({"text": texts}, name)
    store = fsspec.filesystem("memory")
    for path in store.find("/"):
        store.rm(path)
    store.pipe(f"/in/{name}", Path(name).read_bytes())

    def stop(done: int, _: int) -> None:
        if done >= 500:
            raise KeyboardInterrupt

    options = {"block_rows": 100, "checkpoint_seconds": 0, "part_rows": 300}
    with pytest.raises(KeyboardInterrupt):
        job("memory://in", f"memory://{target}", progress=stop, **options)
    assert len(list(Path().glob(f"{target.rstrip('/')}.*.parts"))) == 1
    report = job("memory://in/*", f"memory://{target}", **options)
    assert (report.rows, report.resumed) == (1000, 500)
    expected = np.concatenate([small.encode(texts[i : i + 100]) for i in range(0, 1000, 100)])
    store.get(f"/{target}", str(tmp_path / "copy" / target), recursive=target != "out.npy")
    copy = tmp_path / "copy" / target
    if target == "out/":
        vectors = np.concatenate([read(path)[1] for path in sorted(copy.rglob("part-*"))])
    else:
        vectors = read(copy)[1]
    assert vectors.astype(np.float32).tobytes() == expected.tobytes()


def test_a_changed_object(job: Job, texts: list[str]) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/in.txt", "\n".join(texts).encode())

    def stop(done: int, _: int) -> None:
        if done >= 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job("memory://in.txt", progress=stop, block_rows=100, checkpoint_seconds=0)
    store.pipe("/in.txt", "\n".join(reversed(texts)).encode())
    with pytest.raises(InvalidArgumentError, match=r"in.txt has changed"):
        job("memory://in.txt", block_rows=100)


# ---- rows

TABLES = {
    "out.parquet": lambda: pq.read_table("out.parquet"),
    "out.arrow": lambda: pa.ipc.open_file("out.arrow").read_all(),
    "out.lance": lambda: lance.dataset("out.lance").to_table(),
}
LINES = [
    ("in.jsonl", b'{"text": "a", "n": 1}\n{"text": \n{"text": "c", "n": 3}\n', "line 2: not JSON"),
    ("in.jsonl", b'"a"\n\n"c"\n', "line 2: not JSON"),
    ("in.jsonl", b'"a"\n[1]\n"c"\n', "line 2: a string, or an object with a string under 'text', is wanted"),
    ("in.jsonl", b'"a"\n{"text": 5}\n"c"\n', "line 2: no string"),
    ("in.jsonl", b'"a"\n{"text": null, "n": 2}\n"c"\n', "line 2: no string under 'text'"),
    ("in.jsonl", b'"a"\n"\\ud800"\n"c"\n', "line 2: not JSON"),
    ("in.jsonl", b'"a"\n"\xff"\n"c"\n', "line 2: not JSON"),
    ("in.txt", b"a\n\xff\xfe\nc\n", "line 2: not UTF-8"),
    ("in.csv", b"text,n\na,1\nb\nc,3\n", "line 3: 1 values for 2 columns"),
    ("in.csv", b"text,n\na,1\nb,2,3\nc,3\n", "line 3: 3 values for 2 columns"),
    ("in.csv", b'text,n\na,1\n"b"x,2\nc,3\n', "line 3: not CSV"),
    ("in.csv", b"text,n\na,1\n\xff,2\nc,3\n", "line 3: not UTF-8"),
]


@pytest.mark.parametrize(("name", "data", "words"), LINES)
def test_broken_rows(name: str, data: bytes, words: str, job: Job, small: Embedder) -> None:
    Path(name).write_bytes(data)
    with pytest.raises(InvalidArgumentError, match=f"{name}, {words}"):
        job(name)
    report = job(name, bad_rows="null")
    assert (report.rows, report.skipped) == (3, 1)
    assert texts_of() == ["a", None, "c"]
    assert [row["embedding"] is None for row in rows_of()] == [False, True, False]
    report = job(name, "skip.npy", bad_rows="skip")
    assert (report.rows, report.skipped) == (2, 1)
    assert np.load("skip.npy").tobytes() == small.encode(["a", "c"]).tobytes()


def test_bad_rows_in_every_output(job: Job, small: Embedder) -> None:
    write({"text": ["a", None, "b " * 99, "c"]}, "in.parquet")
    for target in ("out.parquet", "out.arrow", "out.lance"):
        assert job("in.parquet", target, bad_rows="null").skipped == 2
        vectors = TABLES[target]().column("embedding")
        assert vectors.is_valid().to_pylist() == [True, False, False, True]
        assert vectors.to_pylist()[3] == small.encode("c").tolist()
    job("in.parquet", "out.npy", bad_rows="null")
    assert np.isnan(np.load("out.npy")).all(axis=1).tolist() == [False, True, True, False]
    job("in.parquet", "out.csv", bad_rows="null")
    assert Path("out.csv").read_text().splitlines()[2] == "," * small.dims
    assert job("in.parquet", "out.db", bad_rows="null").rows == 4
    from .files import open_database

    assert list(open_database("out.db").execute("SELECT rowid FROM vectors")) == [(1,), (4,)]


def test_bits_have_no_null_in_npy(bert: str) -> None:
    write({"text": ["a"]}, "in.txt")
    with pytest.raises(InvalidArgumentError, match="bad_rows: null is NaN in npy"):
        embed_files("in.txt", "out.npy", model=bert, dtype="ubinary", bad_rows="null")


def test_lines(job: Job) -> None:
    Path("in.txt").write_bytes("\ufeffa\r\nb\rc\n\n\u2028d\x85\n".encode())
    job("in.txt", column="body")
    assert [row["body"] for row in rows_of()] == ["a", "b\rc", "", "\u2028d\x85"]


def test_csv_is_passed_on_as_it_is(job: Job) -> None:
    Path("in.csv").write_bytes('\ufefftext,n\r\n"two\nlines, ""quoted""",007\r\n\r\n"",\r\n'.encode())
    job("in.csv")
    assert [(row["text"], row["n"]) for row in rows_of()] == [('two\nlines, "quoted"', "007"), ("", "")]


def test_json_of_many_types(job: Job) -> None:
    """Values that have no one type are passed on as JSON, others as what they are."""
    rows = [
        {"text": "a", "n": 1, "mixed": 1, "list": [], "empty": {}, "huge": 2**70},
        {"text": "b", "n": 2.5, "mixed": "x", "list": [1], "object": {"x": 1}},
        {"text": "c", "none": None, "mixed": [1], "object": {"y": "z"}},
    ]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job("in.jsonl", "out.parquet")
    table = pq.read_table("out.parquet")
    assert table.column("n").to_pylist() == [1.0, 2.5, None]
    assert table.column("mixed").to_pylist() == ["1", "x", "[1]"]
    assert table.column("list").to_pylist() == [[], [1], None]
    assert table.column("object").to_pylist() == [None, {"x": 1, "y": None}, {"x": None, "y": "z"}]
    assert table.column("empty").to_pylist() == ["{}", None, None]
    assert table.column("huge").to_pylist() == [str(2**70), None, None]
    assert table.column("none").to_pylist() == [None] * 3


def test_columns_of_several_files(job: Job) -> None:
    write({"text": ["a"], "n": pa.array([1], pa.int8()), "x": [None]}, "a.parquet")
    write({"n": pa.array([2.5]), "text": pa.array(["b"]).dictionary_encode(), "x": ["y"], "z": [True]}, "b.parquet")
    write({"text": ["c"], "n": [3]}, "c.jsonl")
    job(["a.parquet", "b.parquet", "c.jsonl"])
    found = [{name: row[name] for name in ("text", "n", "x", "z")} for row in rows_of()]
    assert found == [{"text": "a", "n": 1.0, "x": None, "z": None}, {"text": "b", "n": 2.5, "x": "y", "z": True},
                     {"text": "c", "n": 3.0, "x": None, "z": None}]  # fmt: skip
    write({"text": ["c"], "n": ["three"]}, "d.jsonl")
    with pytest.raises(InvalidArgumentError, match=r"d.jsonl: its columns are not those of the files before"):
        job(["a.parquet", "d.jsonl"])


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow", "in.csv", "in.jsonl"])
def test_no_such_column(name: str, job: Job) -> None:
    write({"text": ["a"], "id": [1]}, name)
    with pytest.raises(InvalidArgumentError, match=rf"{name}.*'body'.* text, id"):
        job(name, column="body")
    with pytest.raises(InvalidArgumentError, match="into: there is a column 'id' already"):
        job(name, into="id")


def test_wrong_columns(job: Job) -> None:
    pq.write_table(pa.table({}), "none.parquet")
    with pytest.raises(InvalidArgumentError, match="there is no column 'text'; it has none"):
        job("none.parquet")
    write({"text": [1]}, "number.parquet")
    with pytest.raises(InvalidArgumentError, match="column 'text' is of int64, not of strings"):
        job("number.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"]), "twice.parquet")
    with pytest.raises(InvalidArgumentError, match="two columns have the name 'text'"):
        job("twice.parquet")
    Path("twice.csv").write_text("a,text,a\n1,2,3\n")
    with pytest.raises(InvalidArgumentError, match="two columns have the name 'a'"):
        job("twice.csv")
    Path("other.jsonl").write_text('{"body": "a"}\n' * 3)
    with pytest.raises(InvalidArgumentError, match="there is no column 'text'; the columns are body"):
        job("other.jsonl", bad_rows="null")
    write({"text": ["a"], "Text": ["b"]}, "case.parquet")
    with pytest.raises(InvalidArgumentError, match="SQLite takes it for 'text'"):
        job("case.parquet", "out.db")
    write({"text": ["a"], "e3": ["b"]}, "e.csv")
    with pytest.raises(InvalidArgumentError, match="CSV has the vectors' numbers under this name"):
        job("e.csv", "out.csv")


@pytest.mark.parametrize(
    "name", ["in.parquet", "in.arrow", "in.arrows", "in.feather", "in.csv.gz", "in.txt.bz2", "in.txt.xz"]
)
@pytest.mark.parametrize("how", ["cut", "text"])
def test_damaged_files(name: str, how: str, job: Job, texts: list[str]) -> None:
    write({"text": texts}, name)
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[: len(data) // 2] if how == "cut" else b"This is a text of enough bytes.")
    with pytest.raises((InvalidArgumentError, OSError)) as raised:
        job(name)
    assert name in str(raised.value)
    assert sorted(os.listdir()) == [name]  # noqa: PTH208


def test_text_in_a_column_of_null(job: Job) -> None:
    write({"text": pa.nulls(3)}, "in.parquet")
    assert job("in.parquet", bad_rows="null").skipped == 3


def test_texts_that_are_cut_are_counted(bert: str) -> None:
    write({"text": ["a", "b " * 99]}, "in.txt")
    with Embedder(bert, overlong="truncate", progress=False) as embedder, pytest.warns(match="1 texts were cut"):
        report = embed_files("in.txt", "out.npy", model=embedder)
    assert report.truncated == 1
    assert "1 texts cut" in str(report)


def test_memory_is_flat(job: Job, small: Embedder) -> None:
    """Ten times the rows take no more of Arrow's memory, which holds all batches."""
    peaks = []
    for rows in (20_000, 200_000):
        write({"text": [f"a {i}" for i in range(rows)], "more": ["x" * 100] * rows}, "in.parquet")
        before = pa.total_allocated_bytes()
        most = 0

        def look(done: int, _: int, before: int = before) -> None:
            nonlocal most
            most = max(most, pa.total_allocated_bytes() - before)

        embed_files("in.parquet", f"out-{rows}.npy", model=small, progress=look)
        peaks.append(most)
    assert peaks[1] < 1.5 * peaks[0] + (1 << 20)


@pytest.mark.parametrize(
    ("module", "source", "target", "extra"),
    [
        ("pyarrow", "in.txt", "out.npy", "arrow"),
        ("lance", "in.txt", "out.lance", "lance"),
        ("apsw", "in.txt", "out.db", "sqlite"),
        ("sqlite_vec", "in.txt", "out.db", "sqlite"),
        ("fsspec.core", "memory://in.txt", "out.npy", "fsspec"),
        ("fsspec.core", "in.txt", "memory://out.npy", "fsspec"),
        ("tqdm.auto", "in.txt", "out.npy", "progress"),
    ],
)
def test_missing_extras(
    module: str, source: str, target: str, extra: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({"text": ["a"]}, "in.txt")
    monkeypatch.setitem(sys.modules, module, None)  # so it is not installed
    with pytest.raises(MissingExtraError, match=rf"pip install 'rawllama\[{extra}\]'"):
        job(source, target, progress=True)
    assert os.listdir() == ["in.txt"]  # noqa: PTH208
