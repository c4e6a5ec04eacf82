"""Files to Parquet on a cluster: what is written, and what a second call does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rawllama import cli
from rawllama.errors import ConcurrentUseError, InvalidArgumentError
from rawllama.jobs import search
from rawllama.jobs.inputs import open_store
from rawllama.jobs.sinks import Table
from rawllama.ray import embed_files, manifest, parts

pytestmark = pytest.mark.usefixtures("nodes")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_are_in_order_and_the_embedders(
    corpus: Path, minilm: str, texts: list[str], vectors: np.ndarray, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    report = embed_files(corpus, target, model=minilm, actors=2, part_rows=100)
    # The first file has 205 rows, the second 275: no part is of both.
    assert names(target) == ["_rawllama.json", *(f"part-{number:06d}.parquet" for number in range(6))]
    assert [pq.read_metadata(path).num_rows for path in sorted(target.glob("*.parquet"))] == [100, 100, 5, 100, 100, 75]
    assert (report.rows, report.parts, report.computed_rows, report.skipped) == (480, 6, 480, 0)
    assert str(report).startswith(f"{target}: 480 rows in 6 files, ")
    table = pq.read_table(target)
    assert table["id"].to_pylist() == list(range(480))
    assert table["text"].to_pylist() == texts
    assert np.abs(np.stack(table["embedding"].to_numpy()) - vectors).max() <= 1e-6
    assert manifest.digest(minilm) in (target / "_rawllama.json").read_text()
    assert [hit.row["text"] for hit in search(target, texts[207], model=minilm, top=1)] == [texts[207]]


def test_only_what_is_missing_is_computed(corpus: Path, minilm: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    embed_files(corpus / "a.parquet", target, model=minilm, part_rows=60)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in target.iterdir()}
    (target / "part-000001.parquet").unlink()
    (target / ".part-000001.parquet.dead.tmp").write_bytes(b"left by an actor that died")
    report = embed_files(corpus / "a.parquet", target, model=minilm, part_rows=60)
    assert (report.computed_rows, report.computed_parts, report.rows) == (60, 1, 205)
    assert "145 rows from before" in str(report)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in target.iterdir()}
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    assert [name for name in after if after[name][1] != before[name][1]] == ["part-000001.parquet"]


def test_another_job_is_refused(corpus: Path, minilm: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    target, source = tmp_path / "out", tmp_path / "in.parquet"
    source.write_bytes((corpus / "a.parquet").read_bytes())

    def call(**changes: Any) -> int:
        return embed_files(**{"source": source, "target": target, "model": minilm, "part_rows": 120} | changes).rows

    def refused(words: str, **changes: Any) -> None:
        with pytest.raises(InvalidArgumentError, match=words):
            call(**changes)

    call()
    assert call(dtype="float32", pooling=None) == 205  # the defaults
    refused('settings was {}, is {"dtype": "float16"}; call it as before to go on', dtype="float16")
    refused("part_rows was 120, is 50", part_rows=50)
    refused('into was "embedding", is "row"', into="row")
    refused(r"the files of the source have changed, or are others \(1 then, 3 now\)", source=[source, corpus])
    refused("with another model", model=tiny("bert"))
    pq.write_table(pq.read_table(corpus / "b.parquet"), source)
    refused(r"the files of the source have changed, or are others \(1 then, 1 now\)")
    assert call(restart=True) == 275
    assert pq.read_table(target).num_rows == 275
    (target / "_rawllama.json").unlink()
    refused("has 3 parts, and no _rawllama.json that tells of what")


def test_the_command(
    corpus: Path, minilm: str, vectors: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["embed", str(corpus), "-o", f"{tmp_path}/out/", "--model", minilm, "--engine", "ray", "--actors", "2"]
    assert cli.main([*words, "--part-rows", "150"]) == 0
    assert "480 rows in 4 files" in capsys.readouterr().err
    rows = np.stack(pq.read_table(tmp_path / "out")["embedding"].to_numpy())
    assert np.abs(rows - vectors).max() <= 1e-6


def test_a_folder_with_brackets_is_a_folder(corpus: Path, minilm: str, tmp_path: Path) -> None:
    target = tmp_path / "out[1]"
    assert embed_files(corpus / "a.parquet", target, model=minilm).computed_rows == 205
    assert embed_files(corpus / "a.parquet", target, model=minilm).computed_rows == 0
    assert embed_files(corpus / "a.parquet", target, model=minilm, restart=True).computed_rows == 205


def test_a_mistake_does_not_bind_the_next_call(corpus: Path, minilm: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(InvalidArgumentError, match="dims: 9999"):
        embed_files(corpus / "a.parquet", target, model=minilm, dims=9999)
    assert embed_files(corpus / "a.parquet", target, model=minilm, dims=64).rows == 205


def test_one_driver_at_a_time(corpus: Path, minilm: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    store, folder = open_store(str(target))
    with manifest.only_one(store, folder), pytest.raises(ConcurrentUseError, match="another process is writing it"):
        embed_files(corpus, target, model=minilm)
    assert not target.exists()


def test_a_part_of_an_older_job_is_dropped(corpus: Path, minilm: str, tmp_path: Path) -> None:
    """An actor may outlive its driver by a part."""
    target = tmp_path / "out"
    embed_files(corpus / "a.parquet", target, model=minilm)
    store, folder = open_store(str(target))
    current = json.loads((target / "_rawllama.json").read_text())["job"]
    manifest.require_current(store, folder, current)
    with pytest.raises(ConcurrentUseError, match="another job has begun"):
        manifest.require_current(store, folder, "an older one")


def test_what_is_no_folder_for_it(corpus: Path, minilm: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="it is named like a file"):
        embed_files(corpus, tmp_path / "out.db", model=minilm)
    (tmp_path / "local" / "_rawllama").mkdir(parents=True)
    with pytest.raises(InvalidArgumentError, match="what a job without Ray made"):
        embed_files(corpus, tmp_path / "local", model=minilm, restart=True)
    for actors in (1.5, "2", (1, 2, 3), True):
        with pytest.raises(InvalidArgumentError, match=r"actors: .* is neither a number nor two"):
            embed_files(corpus, tmp_path / "out", model=minilm, actors=actors)  # type: ignore[arg-type]


def test_bad_rows(minilm: str, tmp_path: Path) -> None:
    lines = [{"text": "good", "n": 1}, {"text": None, "n": 2}, {"text": "word " * 600, "n": 3}, {"text": "", "n": 4}]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    report = embed_files(source, tmp_path / "out", model=minilm, bad_rows="null")
    assert report.skipped == 2
    assert "2 bad rows without a vector" in str(report)
    table = pq.read_table(tmp_path / "out")
    assert table["n"].to_pylist() == [1, 2, 3, 4]
    assert table["embedding"].is_null().to_pylist() == [False, True, True, False]


def test_an_actors_error_is_the_callers(minilm: str, tmp_path: Path) -> None:
    """With the row's place in its file, whichever part it is of."""
    source = tmp_path / "rows.parquet"
    texts = [*(f"text {i}" for i in range(150)), "word " * 600]
    pq.write_table(pa.table({"text": texts}), source)
    with pytest.raises(InvalidArgumentError, match=r"rows.parquet, row 150: 602 tokens, and the model takes 512"):
        embed_files(source, tmp_path / "out", model=minilm, part_rows=100)
    assert [name for name in names(tmp_path / "out") if not name.startswith((".", "_"))] in (
        [],
        ["part-000000.parquet"],
    )
    report = embed_files(source, tmp_path / "cut", model=minilm, part_rows=100, overlong="truncate")
    assert report.rows == 151
    with pytest.raises(InvalidArgumentError, match="dims: 999 is not between 1 and 384"):
        embed_files(source, tmp_path / "dims", model=minilm, dims=999)


def test_no_rows(minilm: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    report = embed_files(tmp_path / "rows.parquet", tmp_path / "out", model=minilm)
    assert (report.rows, report.parts) == (0, 1)
    assert pq.read_table(tmp_path / "out").schema.field("embedding").type == pa.list_(pa.float32(), 384)


def test_refused(corpus: Path, minilm: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="'body'"):
        embed_files(corpus, tmp_path / "out", model=minilm, column="body")
    with pytest.raises(InvalidArgumentError, match=r"target: .*a.parquet, an input, lies in it; name another folder"):
        embed_files(corpus, corpus, model=minilm)
    with pytest.raises(InvalidArgumentError, match="into: there is a column 'id' already"):
        embed_files(corpus, tmp_path / "out", model=minilm, into="id")
    with pytest.raises(FileNotFoundError, match=r"missing\.gguf"):
        embed_files(corpus, tmp_path / "out", model="missing.gguf")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_shared(corpus: Path, minilm: str) -> None:
    """A store in each process's memory is as good as a local disk for showing it."""
    with pytest.raises(OSError, match=r"target: /not-shared: on .* there is no .*; name a folder that all share"):
        embed_files(corpus, "memory://not-shared", model=minilm)


def test_another_model_of_the_same_name(minilm: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is another file than where the job was started"):
        manifest.require_same_model(minilm, "0" * 64)


def test_a_part_is_whole_or_not_there(tmp_path: Path) -> None:
    """Also where the store is none of the local disk."""
    schema = pa.schema([("text", pa.string()), ("embedding", pa.list_(pa.float32(), 2))])
    whole = pa.RecordBatch.from_pylist([{"text": "a", "embedding": [1.0, 2.0]}], schema)
    seen: list[list[str]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        yield whole
        seen.append([path.rpartition("/")[2] for path in store.glob(f"{folder}/part-*.parquet")])

    def broken() -> Iterator[pa.RecordBatch]:
        yield whole
        raise OSError("the disk is full")

    for address in (str(tmp_path), "memory://whole"):
        store, folder = open_store(address)
        store.makedirs(folder, exist_ok=True)
        with pytest.raises(OSError, match="the disk is full"):
            parts.write(store, folder, "part-000000.parquet", Table(schema, "embedding", 1, broken), str)
        assert manifest.parts_there(store, folder) == set()
        parts.write(store, folder, "part-000001.parquet", Table(schema, "embedding", 1, batches), str)
        assert manifest.parts_there(store, folder) == {"part-000001.parquet"}
        with store.open(f"{folder}/part-000001.parquet", "rb") as file:
            assert pq.read_table(file).num_rows == 1
        parts.clear_unfinished(store, folder)
        assert [path.rpartition("/")[2] for path in store.find(folder)] == ["part-000001.parquet"]
    assert seen == [[], []]
