"""What is not this job's stays as it is: other outputs' states, other people's files, a finished output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rawllama import InvalidArgumentError
from rawllama.jobs import Report, embed_files, search

PRECIOUS = b"precious"


def job(target: str, bert: str, **options: Any) -> Report:
    usual = {"progress": False, "part_rows": 20, "block_rows": 10}
    return embed_files("in.parquet", target, model=bert, **(usual | options))


@pytest.fixture(autouse=True)
def rows(in_folder: Path) -> None:
    pq.write_table(pa.table({"id": range(64), "text": [f"text {i}" for i in range(64)]}), "in.parquet")


def test_two_addresses_of_one_name(bert: str) -> None:
    store = fsspec.filesystem("memory")
    for bucket in ("first", "second"):
        assert job(f"memory://{bucket}/vectors/", bert).resumed == 0
        assert len(store.ls(f"/{bucket}/vectors")) == 4
    assert job("memory://first/vectors/", bert).resumed == 64
    store.rm_file("/first/vectors/part-000001.parquet")
    with pytest.raises(InvalidArgumentError, match=r"its file part-000001.parquet is gone"):
        job("memory://first/vectors/", bert)


@pytest.mark.parametrize("options", [{}, {"work": "w"}])
def test_a_folder_of_others(options: dict[str, str], bert: str) -> None:
    Path("other").mkdir()
    Path("w").mkdir()
    Path("other/part-000001.parquet").write_bytes(PRECIOUS)
    for target in ("other/", f"file://{Path('other').absolute()}/"):
        for restart in (False, True):
            with pytest.raises(InvalidArgumentError, match=r"it has other files \(part-000001.parquet\)"):
                job(target, bert, restart=restart, **options)
    assert [path.read_bytes() for path in Path("other").iterdir()] == [PRECIOUS]


def test_work_of_another_output(bert: str) -> None:
    def stop(done: int, _: int) -> None:
        if done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job("one.npy", bert, work="w", checkpoint_seconds=0, progress=stop)
    for restart in (False, True):
        with pytest.raises(InvalidArgumentError, match=r"w: it is of the job on .*one.npy; name another with --work"):
            job("two.npy", bert, work="w", restart=restart)
    assert job("one.npy", bert, work="w").resumed == 30


def test_a_work_folder_for_a_new_folder(bert: str) -> None:
    assert job("new/", bert, work="w").rows == 64
    assert len(list(Path("new").glob("part-*.parquet"))) == 4


def test_a_work_folder_on_another_disk(bert: str, tmp_path: Path) -> None:
    here = tmp_path.stat().st_dev
    places = [path for path in map(Path, ("/dev/shm", "/var/tmp", Path.home())) if path.is_dir()]
    other = next((path for path in places if path.stat().st_dev != here), None)
    if other is None:
        pytest.skip("there is one file system here")
    with pytest.raises(InvalidArgumentError, match=r"work: .* is not on the file system of"):
        job("out.npy", bert, work=str(other / f"{tmp_path.name}-work"))
    assert not (other / f"{tmp_path.name}-work").exists()


@pytest.mark.parametrize("mistake", [{"column": "txet"}, {"into": "text"}, {"dims": 9999}])
def test_a_restart_that_cannot_start_removes_nothing(mistake: dict[str, Any], bert: str) -> None:
    job("out/", bert)
    before = {path.name: path.stat().st_mtime_ns for path in Path("out").iterdir() if path.is_file()}
    with pytest.raises(InvalidArgumentError):
        job("out/", bert, restart=True, **mistake)
    assert {path.name: path.stat().st_mtime_ns for path in Path("out").iterdir() if path.is_file()} == before
    assert job("out/", bert).resumed == 64
    assert job("out/", bert, restart=True).resumed == 0


def test_changes_that_sqlite_left_beside(bert: str) -> None:
    """A database with a write-ahead log is replaced; the log is not for the new one."""
    job("out.db", bert)
    connection = apsw.Connection("out.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("UPDATE items SET text = 'changed'")
    left = Path("out.db-wal").read_bytes()
    connection.close()
    Path("out.db-wal").write_bytes(left)
    job("out.db", bert)
    assert not Path("out.db-wal").exists()
    assert len(search("out.db", "text", model=bert, top=64)) == 64


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"RowID": [1]}, {}, "column 'RowID': SQLite takes it for 'the number of the row'"),
        ({"a\0b": [1]}, {}, "SQLite does not take the columns"),
        ({f"c{i}": [1] for i in range(2100)}, {}, "SQLite does not take the columns: too many columns"),
        ({}, {"into": "distance"}, "SQLite does not take the columns: .*distance.*named with --into"),
        ({}, {"into": "k"}, "SQLite does not take the columns"),
    ],
)
def test_sqlite_says_no_at_once(
    columns: dict[str, Any], options: dict[str, str], words: str, bert: str, in_folder: Path
) -> None:
    pq.write_table(pa.table({"text": ["a"], **columns}), "in.parquet")
    with pytest.raises(InvalidArgumentError, match=words):
        job("out.db", bert, **options)
    assert sorted(path.name for path in in_folder.iterdir()) == ["in.parquet"]


def test_lance_takes_all_types(bert: str) -> None:
    from decimal import Decimal

    columns = {"text": ["a", "b"], "b": [True, None], "d": [Decimal("1.5"), Decimal("2.25")]}
    pq.write_table(pa.table(columns), "in.parquet")
    job("out.lance/", bert)
    assert search("out.lance/", "a", model=bert)[0].row == {"text": "a", "b": True, "d": Decimal("1.50")}


def test_values_that_one_type_does_not_hold(bert: str) -> None:
    Path("more").mkdir()
    pq.write_table(pa.table({"text": ["a"], "id": [2**60 + 1]}), "more/a.parquet")
    pq.write_table(pa.table({"text": ["a"], "id": [0.5]}), "more/b.parquet")
    with pytest.raises(InvalidArgumentError, match=r"more/a.parquet: .*let the column have one type"):
        embed_files("more", "out.npy", model=bert, progress=False)
