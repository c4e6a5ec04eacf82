"""Writes tables in each format that jobs read, and reads each that they write."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import lance
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import sqlite_vec
from numpy.typing import NDArray

Columns = dict[str, list[Any]]


def _lines(columns: Columns, path: Path) -> None:
    path.write_text("".join(f"{text}\n" for text in columns["text"]), encoding="utf-8")


def _jsonl(columns: Columns, path: Path) -> None:
    rows = zip(*columns.values(), strict=True)
    lines = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def _csv(columns: Columns, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _parquet(columns: Columns, path: Path) -> None:
    pq.write_table(pa.table(columns), path, row_group_size=5)


def _arrow(columns: Columns, path: Path) -> None:
    table = pa.table(columns)
    new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


def _feather(columns: Columns, path: Path) -> None:
    pyarrow.feather.write_feather(pa.table(columns), str(path), compression="lz4")


def _packed(pack: Callable[[bytes], bytes]) -> Callable[[Columns, Path], None]:
    def write(columns: Columns, path: Path) -> None:
        inner = path.with_suffix("")
        WRITERS[inner.suffix](columns, inner)
        path.write_bytes(pack(inner.read_bytes()))
        inner.unlink()

    return write


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


WRITERS: dict[str, Callable[[Columns, Path], None]] = {
    ".txt": _lines,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".arrows": _arrow,
    ".feather": _feather,
    ".gz": _packed(gzip.compress),
    ".bz2": _packed(bz2.compress),
    ".xz": _packed(lzma.compress),
    ".zst": _packed(_zstd),
}


def write(columns: Columns, name: str) -> Path:
    """Write columns in the format that the name's last ending tells."""
    path = Path(name)
    WRITERS[path.suffix](columns, path)
    return path


def _of_table(table: pa.Table) -> tuple[Columns, NDArray[Any]]:
    columns = table.drop_columns(["embedding"]).to_pydict()
    return columns, np.array(table.column("embedding").to_pylist())


def _read_jsonl(path: Path) -> tuple[Columns, NDArray[Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows_of = {name: [row[name] for row in rows] for name in rows[0]}
    return rows_of, np.array(rows_of.pop("embedding"))


def _read_csv(path: Path) -> tuple[Columns, NDArray[Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    first = header.index("e0")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header[:first])}
    return columns, np.array([row[first:] for row in rows], np.float64)


def open_database(path: str | Path) -> apsw.Connection:
    """A database with sqlite-vec, as its users open it."""
    connection = apsw.Connection(str(path))
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    return connection


def _read_sqlite(path: Path) -> tuple[Columns, NDArray[Any]]:
    connection = open_database(path)
    cursor = connection.execute("SELECT * FROM items ORDER BY rowid")
    names = [name for name, _ in cursor.getdescription()]
    values = list(zip(*cursor, strict=True))
    vectors = [np.frombuffer(data, np.float32) for (data,) in
               connection.execute("SELECT embedding FROM vectors ORDER BY rowid")]  # fmt: skip
    connection.close()
    return {name: list(column) for name, column in zip(names, values, strict=True)}, np.array(vectors)


READERS: dict[str, Callable[[Path], tuple[Columns, NDArray[Any]]]] = {
    ".parquet": lambda path: _of_table(pq.read_table(path)),
    ".arrow": lambda path: _of_table(pa.ipc.open_file(path.read_bytes()).read_all()),
    ".npy": lambda path: ({}, np.load(path)),
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".lance": lambda path: _of_table(lance.dataset(str(path)).to_table()),
    ".db": _read_sqlite,
}


def read(name: str | Path) -> tuple[Columns, NDArray[Any]]:
    """The columns of an output, and its vectors."""
    path = Path(name)
    return READERS[path.suffix](path)
