"""Every format in, every format out: the columns are passed on, and the vectors are `Embedder.encode`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rawllama import Embedder, InvalidArgumentError
from rawllama.jobs import Report, embed_files

from .files import READERS, open_database, read, write

TEXTS = ["The cat sits outside", 'A "man", the guitar', "", "naïve 東京 👩‍🚀", "The cat sits outside", "word " * 9]
COLUMNS = {
    "id": [7, 8, 9, 10, 11, 12],
    "text": TEXTS,
    "größe": [0.5, -1.25, 3.0, 1e300, 0.0, 1e-7],
}
INPUTS = ("in.txt", "in.jsonl", "in.csv", "in.tsv", "in.parquet", "in.arrow", "in.arrows", "in.feather", "in.jsonl.gz",
          "in.csv.bz2", "in.txt.xz", "in.jsonl.zst")  # fmt: skip


def job(source: Any, target: str, model: Any, **options: Any) -> Report:
    return embed_files(source, target, model=model, progress=False, **options)


@pytest.mark.parametrize("target", [f"out{ending}" for ending in READERS])
@pytest.mark.parametrize("source", INPUTS)
def test_round_trip(source: str, target: str, embedder: Embedder) -> None:
    write(COLUMNS, source)
    report = job(source, target, embedder)
    assert (report.rows, report.skipped, report.resumed, report.path) == (6, 0, 0, target)
    assert report.tokens == int(embedder.plan(list(dict.fromkeys(TEXTS))).tokens.sum())
    columns, vectors = read(target)
    # JSON, CSV and Python write the fewest digits that give the same float32.
    assert vectors.astype(np.float32).tobytes() == embedder.encode(TEXTS).tobytes()
    if target != "out.npy":
        expected = COLUMNS if not source.startswith("in.txt") else {"text": TEXTS}
        if target == "out.csv" or source.startswith(("in.csv", "in.tsv")):
            assert {name: [str(x) for x in column] for name, column in columns.items()} == {
                name: [str(x) for x in column] for name, column in expected.items()
            }
        else:
            assert columns == expected
    assert sorted(path.name for path in Path().iterdir()) == sorted([source, target])


@pytest.mark.parametrize("dtype", ["float16", "int8", "ubinary"])
@pytest.mark.parametrize("target", [f"out{ending}" for ending in READERS])
def test_dtypes(target: str, dtype: str, minilm: str) -> None:
    write(COLUMNS, "in.parquet")
    with Embedder(minilm, dtype=dtype, progress=False) as embedder:
        rows = embedder.encode(TEXTS)
        if (target, dtype) == ("out.npy", "int8"):
            with pytest.raises(InvalidArgumentError, match="npy holds one array"):
                job("in.parquet", target, embedder)
            assert not Path("out.npy.parts").exists()
            return
        job("in.parquet", target, embedder)
    values = rows.values if dtype == "int8" else rows
    if target == "out.db":
        type_ = {"float16": np.float32, "int8": np.int8, "ubinary": np.uint8}[dtype]
        found = open_database(target).execute("SELECT embedding FROM vectors ORDER BY rowid")
        vectors = np.array([np.frombuffer(data, type_) for (data,) in found])
    else:
        _, vectors = read(target)
    assert vectors.astype(values.dtype).tobytes() == values.tobytes()
    if dtype == "int8":
        columns, _ = read(target) if target != "out.db" else (_items(target), None)
        assert np.array(columns["embedding_scale"], np.float64).astype(np.float32).tobytes() == rows.scales.tobytes()


def _items(name: str) -> dict[str, list[Any]]:
    return {"embedding_scale": [x for (x,) in open_database(name).execute("SELECT embedding_scale FROM items")]}


def test_a_database_is_searched_at_once(embedder: Embedder) -> None:
    write(COLUMNS, "in.csv")
    job("in.csv", "out.db", embedder)
    question = embedder.encode("Where is the kitten?")
    found = list(open_database("out.db").execute(
        "SELECT items.text, distance FROM vectors JOIN items ON items.rowid = vectors.rowid "
        "WHERE embedding MATCH ? AND k = 3 ORDER BY distance", (question.tobytes(),)
    ))  # fmt: skip
    assert [text for text, _ in found[:2]] == ["The cat sits outside"] * 2
    assert found[0][1] == pytest.approx(1 - float(embedder.encode(TEXTS[0]) @ question), abs=1e-5)


def test_types_pass(small: Embedder) -> None:
    """What Parquet and Arrow have beyond strings and numbers."""
    import datetime
    import decimal

    day = datetime.datetime(2026, 11, 23, 8, 30)
    table = pa.table({
        "text": pa.array(["a", "b", "a"]).dictionary_encode(),
        "when": [day, None, day],
        "list": [[1, 2], None, []],
        "object": [{"x": 1, "y": "é"}, {"x": None, "y": "b"}, None],
        "bytes": [b"\0\xff", b"", None],
        "price": [decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")],
        "flag": [True, False, None],
        "nothing": pa.nulls(3),
        "number": [float("nan"), float("inf"), None],
        "big": pa.array([2**63, 1, None], pa.uint64()),
    })  # fmt: skip
    pq.write_table(table, "in.parquet")
    for target in ("out.parquet", "out.arrow", "out.lance"):
        job("in.parquet", target, small)
        columns, _ = read(target)
        assert str({**columns}) == str(table.to_pydict())
    job("in.parquet", "out.jsonl", small)
    columns, _ = read("out.jsonl")
    assert columns["when"] == ["2026-11-23T08:30:00", None, "2026-11-23T08:30:00"]
    assert columns["object"] == table.column("object").to_pylist()
    assert (columns["bytes"], columns["price"]) == (["AP8=", "", None], ["1.50", None, "-2.25"])
    assert (columns["number"], columns["big"]) == ([None] * 3, [2**63, 1, None])
    job("in.parquet", "out.db", small)
    columns, _ = read("out.db")
    assert columns["list"] == ["[1, 2]", None, "[]"]
    assert columns["bytes"] == [b"\0\xff", b"", None]
    assert columns["big"] == [str(2**63), 1, None]


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("target", [f"out{ending}" for ending in READERS if ending not in (".jsonl", ".db")])
@pytest.mark.parametrize("source", ["in.txt", "in.jsonl", "in.csv", "in.parquet", "in.arrow", "in.arrows"])
def test_few_rows(source: str, target: str, rows: int, small: Embedder) -> None:
    column = pa.array(TEXTS[:rows], pa.string())
    write({"text": column if source in ("in.parquet", "in.arrow", "in.arrows") else TEXTS[:rows]}, source)
    assert job(source, target, small).rows == rows
    _, vectors = read(target)
    assert vectors.size == rows * small.dims


@pytest.mark.parametrize("target", ["out.jsonl", "out.db", "out/"])
def test_no_rows(target: str, small: Embedder) -> None:
    Path("in.csv").write_bytes(b"")
    assert job("in.csv", target, small).rows == 0
    if target == "out/":
        assert pq.read_table("out").schema.field("embedding").type.list_size == small.dims
    elif target == "out.db":
        assert list(open_database(target).execute("SELECT count(*) FROM items")) == [(0,)]
    else:
        assert Path(target).read_bytes() == b""


@pytest.mark.parametrize("target", ["out.parquet", "out.lance", "out.db", "out.npy", "out/"])
def test_an_output_is_replaced(target: str, small: Embedder) -> None:
    for texts in (TEXTS, TEXTS[:2]):
        write({"text": texts}, "in.jsonl")
        rows = job("in.jsonl", target, small, restart=True).rows
        assert rows == len(texts)
        if target == "out/":
            assert pq.read_table("out").num_rows == rows
        else:
            assert len(read(target)[1]) == rows
    assert len(list(Path().iterdir())) == 2


def test_mode_and_link_stay(small: Embedder) -> None:
    write(COLUMNS, "in.csv")
    Path("folder").mkdir()
    Path("folder/out.npy").touch(0o640)
    Path("folder/out.npy").chmod(0o640)
    Path("link.npy").symlink_to("folder/out.npy")
    job("in.csv", "link.npy", small)
    assert Path("link.npy").is_symlink()
    assert Path("folder/out.npy").stat().st_mode & 0o777 == 0o640
    assert len(np.load("folder/out.npy")) == 6


@pytest.mark.parametrize("kind", ["parquet", "arrow", "npy", "jsonl", "csv", "sqlite"])
def test_a_folder_of_parts(kind: str, small: Embedder, texts: list[str]) -> None:
    write({"id": list(range(1000)), "text": texts}, "in.parquet")
    job("in.parquet", "out/", small, format=kind, part_rows=300, block_rows=100)
    ending = {"sqlite": ".db"}.get(kind, f".{kind}")
    names = [f"part-{i:06d}{ending}" for i in range(4)]
    assert sorted(path.name for path in Path("out").iterdir()) == ["_rawllama", *names]
    found = np.concatenate([read(Path("out", name))[1] for name in names]).astype(np.float32)
    expected = np.concatenate([small.encode(texts[i : i + 100]) for i in range(0, 1000, 100)])
    assert found.tobytes() == expected.tobytes()
    assert [len(read(Path("out", name))[1]) for name in names] == [300, 300, 300, 100]
    again = job("in.parquet", "out/", small, format=kind, part_rows=300, block_rows=100)
    assert (again.rows, again.resumed) == (1000, 1000)


def test_row_groups_and_batches_do_not_matter(small: Embedder, texts: list[str]) -> None:
    """The blocks are the same, wherever the files' own blocks end."""
    found = set()
    for group in (1000, 333, 7):
        pq.write_table(pa.table({"text": texts}), "in.parquet", row_group_size=group)
        job("in.parquet", "out.npy", small, block_rows=100)
        found.add(Path("out.npy").read_bytes())
    for start in range(0, 1000, 250):
        write({"text": texts[start : start + 250]}, f"in-{start:04d}.csv")
    job("in-*.csv", "out.npy", small, block_rows=100)
    found.add(Path("out.npy").read_bytes())
    assert len(found) == 1


def test_long_documents_come_in_small_blocks(small: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    from rawllama.jobs import sources

    monkeypatch.setattr(sources, "_BLOCK_BYTES", 100)
    lengths = [10, 95, 10, 200, 1, 1, 99, 1, 1]
    write({"text": ["a" * n for n in lengths]}, "in.txt")
    source = sources.Source.scan(sources_of("in.txt"), "text", False)
    assert [batch.num_rows for batch in source.blocks(0, 4)] == [2, 2, 3, 2]
    assert [batch.num_rows for batch in source.blocks(2, 4)] == [2, 3, 2]


def sources_of(name: str) -> Any:
    from rawllama.jobs.inputs import find

    return find(name)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_matter(threads: int, minilm: str, texts: list[str]) -> None:
    """So that a job may go on with more of them, or with less."""
    with Embedder(minilm, n_threads=threads, progress=False) as some, Embedder(minilm, progress=False) as usual:
        assert some.encode(texts[:200]).tobytes() == usual.encode(texts[:200]).tobytes()
