"""What a search finds: the rows that numpy finds among the vectors of `encode`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rawllama import Embedder, InvalidArgumentError
from rawllama.cli import main
from rawllama.jobs import embed_files, search
from rawllama.jobs.search import MOST

from ..tools import run_python

WORDS = ("cat", "guitar", "river", "tax", "bread", "moon", "train", "doctor")
TEXTS = [f"a {first} and a {second}, number {i}" for i, first in enumerate(WORDS) for second in WORDS]
QUERY = "kittens"
DTYPES = ("float32", "float16", "int8", "ubinary")
# Of the cosine, by dtype: what int8 rounds, and float32's own; bits are compared with bits in SQLite.
BOUNDS = {"float32": 1e-6, "float16": 1e-3, "int8": 0.01}


def made(target: str, model: Any, rows: list[str | None] | None = None, **options: Any) -> str:
    texts = TEXTS if rows is None else rows
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), "in.parquet")
    embed_files("in.parquet", target, model=model, progress=False, **options)
    return target


def cosines(model: str, **settings: Any) -> Any:
    with Embedder(model, progress=False, **settings) as embedder:
        return embedder.encode(TEXTS) @ embedder.encode(QUERY)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", ["out.parquet", "out.arrow", "out.lance", "out.db", "out/"])
def test_all_are_compared(target: str, dtype: str, minilm: str) -> None:
    made(target, minilm, dtype=dtype, part_rows=20, block_rows=10)
    expected = cosines(minilm)
    hits = search(target, QUERY, model=minilm, top=64)
    assert sorted(hit.row["id"] for hit in hits) == list(range(64))
    found = [hit.similarity for hit in hits]
    assert found == sorted(found, reverse=True)
    if dtype in BOUNDS:
        assert found == pytest.approx([expected[hit.row["id"]] for hit in hits], abs=BOUNDS[dtype])
    else:
        assert np.corrcoef(found, [expected[hit.row["id"]] for hit in hits])[0, 1] > 0.8
    few = search(target, QUERY, model=minilm, top=3)
    assert [(hit.similarity, hit.row) for hit in few] == [(hit.similarity, hit.row) for hit in hits[:3]]
    assert set(few[0].row) == {"id", "text"}
    assert few[0].row["text"] == TEXTS[few[0].row["id"]]
    assert "cat" in few[0].row["text"]


def test_bits_of_a_width_that_no_byte_ends(minilm: str) -> None:
    for target in ("out.parquet", "out.db"):
        made(target, minilm, dtype="ubinary", dims=60)
        hits = search(target, QUERY, model=minilm, top=64)
        assert len(hits) == 64
        assert "cat" in hits[0].row["text"]


@pytest.mark.parametrize("target", ["out.parquet", "out.db"])
def test_settings_are_the_outputs(target: str, minilm: str) -> None:
    made(target, minilm, dims=32, pooling="cls", normalize="none", into="v")
    expected = cosines(minilm, dims=32, pooling="cls")
    hits = search(target, QUERY, model=minilm, top=5)
    assert [hit.row["id"] for hit in hits] == np.argsort(-expected)[:5].tolist()
    assert [hit.similarity for hit in hits] == pytest.approx(np.sort(expected)[:-6:-1], abs=1e-6)


@pytest.mark.parametrize("target", ["out.parquet", "out.db", "out.lance"])
def test_rows_without_a_vector_are_not_found(target: str, minilm: str) -> None:
    made(target, minilm, ["a cat", None, "a guitar"], bad_rows="null")
    hits = search(target, QUERY, model=minilm)
    assert [hit.row["id"] for hit in hits] == [0, 2]


def test_an_embedder_stays_open(minilm: str) -> None:
    made("out.parquet", minilm)
    with Embedder(minilm, progress=False) as embedder:
        hits = search("out.parquet", QUERY, model=embedder, top=1)
        assert hits == search("out.parquet", QUERY, model=minilm, top=1)
        assert embedder.encode("still open").shape == (384,)
        with pytest.raises(InvalidArgumentError, match="n_threads: the Embedder that is given"):
            search("out.parquet", QUERY, model=embedder, n_threads=1)


def test_remote(minilm: str) -> None:
    import fsspec

    made("out.parquet", minilm)
    fsspec.filesystem("memory").put_file("out.parquet", "/search/out.parquet")
    assert search("memory://search/out.parquet", QUERY, model=minilm) == search("out.parquet", QUERY, model=minilm)


def test_vectors_of_others(minilm: str) -> None:
    """Without a word about the model, its width must do."""
    made("out.parquet", minilm)
    table = pq.read_table("out.parquet").replace_schema_metadata(None)
    pq.write_table(table, "plain.parquet")
    assert search("plain.parquet", QUERY, model=minilm) == search("out.parquet", QUERY, model=minilm)


@pytest.mark.parametrize("target", ["out.parquet", "out.db"])
def test_another_model_is_refused(target: str, minilm: str, bert: str) -> None:
    made(target, minilm)
    with pytest.raises(InvalidArgumentError, match=rf"{target} was made with {Path(minilm).name}, and this is another"):
        search(target, QUERY, model=bert, dims=None)


def test_mistakes(minilm: str, bert: str) -> None:
    made("out.parquet", minilm)
    pq.write_table(pq.read_table("out.parquet").replace_schema_metadata(None), "plain.parquet")
    for name in ("missing.parquet", "missing.db"):
        with pytest.raises(FileNotFoundError, match=name):
            search(name, QUERY, model=minilm)
    Path("rows.jsonl").write_text("{}\n")
    Path("no.ending").touch()
    Path("cut.parquet").write_bytes(Path("out.parquet").read_bytes()[:-20])
    Path("mixed").mkdir()
    for name in ("a.arrow", "b.parquet"):
        made(f"mixed/{name}", minilm)
    Path("broken.db").write_bytes(b"no database at all, but longer than a header" * 9)
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("rows.jsonl", {}, "rows.jsonl: it has jsonl files; one of parquet, arrow, lance and sqlite is searched"),
        ("mixed", {}, "mixed: it has arrow and parquet files; one of"),
        ("no.ending", {}, "no.ending: its name does not tell its format"),
        ("cut.parquet", {}, "cut.parquet: it cannot be read as its name says"),
        ("broken.db", {}, "broken.db: it has no vectors of rawllama's, or is damaged"),
        ("in.parquet", {}, "into: in.parquet has no column 'embedding'; it has id, text"),
        ("out.parquet", {"into": "text"}, "is of string, and no fixed-size lists"),
        ("plain.parquet", {"model": bert}, "its vectors have 32 columns, those of plain.parquet 384"),
        ("out.parquet", {"top": 0}, "top: 0"),
        ("out.parquet", {"top": MOST + 1}, "top: 4097"),
    ]
    for name, options, words in cases:
        with pytest.raises(InvalidArgumentError, match=words):
            search(name, QUERY, **{"model": minilm, **options})


def test_files_that_were_made_otherwise(minilm: str, bert: str) -> None:
    """One file of a folder is not what the others are."""
    Path("folder").mkdir()
    made("folder/a.parquet", minilm)
    made("folder/b.parquet", minilm, pooling="cls")
    with pytest.raises(InvalidArgumentError, match=r"b.parquet: its vectors were made in another way"):
        search("folder", QUERY, model=minilm)


def test_columns_of_later_files(minilm: str) -> None:
    Path("folder").mkdir()
    made("folder/a.parquet", minilm, ["a guitar"])
    table = pa.table({"text": ["a cat"], "more": [7]})
    pq.write_table(table, "in2.parquet")
    embed_files("in2.parquet", "folder/b.parquet", model=minilm, progress=False)
    assert [hit.row for hit in search("folder", QUERY, model=minilm)] == [
        {"id": None, "text": "a cat", "more": 7},
        {"id": 0, "text": "a guitar", "more": None},
    ]


def test_what_is_no_number_is_not_found(minilm: str) -> None:
    made("out.parquet", minilm)
    table = pq.read_table("out.parquet")
    rows = np.stack(table["embedding"].to_numpy())
    rows[[10, 20]] = np.nan
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    pq.write_table(table.set_column(2, "embedding", vectors), "nan.parquet", row_group_size=16)
    expected = [hit for hit in search("out.parquet", QUERY, model=minilm, top=64) if hit.row["id"] not in (10, 20)]
    assert search("nan.parquet", QUERY, model=minilm, top=64) == expected
    assert search("nan.parquet", QUERY, model=minilm, top=20) == expected[:20]


@pytest.mark.parametrize("target", ["out.parquet", "out.db"])
def test_an_embedder_of_another_kind(target: str, minilm: str) -> None:
    made(target, minilm)
    for options, words in (({"dims": 32}, "dims is 32"), ({"pooling": "cls"}, "pooling is cls")):
        with (
            Embedder(minilm, progress=False, **options) as other,  # type: ignore[arg-type]
            pytest.raises(InvalidArgumentError, match=f"model: its {words}, and that of {target}"),
        ):
            search(target, QUERY, model=other)
    with Embedder(minilm, progress=False, dtype="float16") as close:
        found, expected = (search(target, QUERY, model=model, top=5) for model in (close, minilm))
    assert [hit.row for hit in found] == [hit.row for hit in expected]


def test_sqlite_of_another_type_or_column(minilm: str) -> None:
    made("out.db", minilm)
    words = r"model: its dtype is int8, and that of out\.db float32"
    with Embedder(minilm, progress=False, dtype="int8") as other, pytest.raises(InvalidArgumentError, match=words):
        search("out.db", QUERY, model=other)
    with pytest.raises(InvalidArgumentError, match=r"into: out\.db has no vectors 'foo'; it has 'embedding'"):
        search("out.db", QUERY, model=minilm, into="foo")


def test_large_columns_take_no_memory(minilm: str) -> None:
    run_python(
        """
import sys
import pyarrow as pa, pyarrow.parquet as pq
from rawllama.jobs import embed_files, search
from tests.memory import forget_peak, peak_kb
texts = [f"text {i % 50}" for i in range(4000)]
table = pa.table({"text": texts, "more": [f"{i:0100000}" for i in range(4000)]})
pq.write_table(table, "big.parquet", row_group_size=100)
embed_files("big.parquet", "big.vectors.parquet", model=sys.argv[1], progress=False, dtype="ubinary")
forget_peak()
before = peak_kb()
assert search("big.vectors.parquet", "text 7", model=sys.argv[1], top=3)[0].row["text"] == "text 7"
assert peak_kb() - before < 300_000, peak_kb() - before  # kB; the column has 400,000
""",
        minilm,
    )


def test_the_folder_of_a_job_that_goes_on(minilm: str) -> None:
    """Its own files are none of its vectors."""
    made("out/", minilm, part_rows=20, block_rows=10)
    shutil.copy("out/part-000000.parquet", "out/_rawllama/part-000009.parquet")
    assert len(search("out/", QUERY, model=minilm, top=100)) == 64


def test_command(minilm: str, capsys: pytest.CaptureFixture[str]) -> None:
    made("out.parquet", minilm)
    expected = search("out.parquet", QUERY, model=minilm, top=2)
    assert main(["search", "out.parquet", QUERY, "--model", minilm, "-k", "2", "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"similarity": round(hit.similarity, 6), "row": hit.row} for hit in expected]
    assert main(["search", "out.parquet", QUERY, "--model", minilm, "--top", "2", "--column", "text"]) == 0
    assert capsys.readouterr().out == "".join(f"{hit.similarity:6.3f}  {hit.row['text']}\n" for hit in expected)
    assert main(["search", "out.parquet", QUERY, "--model", minilm, "--column", "x"]) == 1
    assert "--column: there is no 'x'; the columns are id, text" in capsys.readouterr().err
