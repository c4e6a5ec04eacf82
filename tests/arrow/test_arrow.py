"""`embed_batches`: the same vectors as `Embedder.encode`, beside the columns that came in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from rawllama import Embedder, InvalidArgumentError
from rawllama.arrow import BLOCK_ROWS, embed_batches, vector_fields

TEXTS = ["The cat sits outside", "A man plays the guitar", "", "naïve 東京", "The cat sits outside", "word " * 40]


@pytest.fixture(scope="module")
def embedder(minilm: str) -> Iterator[Embedder]:
    with Embedder(minilm, progress=False) as opened:
        yield opened


def batch_of(texts: Any, name: str = "text") -> pa.RecordBatch:
    column = texts if isinstance(texts, (pa.Array, pa.ChunkedArray)) else pa.array(texts, pa.string())
    return pa.RecordBatch.from_arrays([pa.array(range(len(column)), pa.int64()), column], names=["id", name])


def matrix(table: pa.Table, name: str = "embedding") -> NDArray[Any]:
    column = table.column(name).combine_chunks()
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column) - column.null_count, -1)


def run(batches: Any, **options: Any) -> pa.Table:
    return pa.Table.from_batches(embed_batches(batches, **options))


def test_same_as_encode(embedder: Embedder) -> None:
    table = run([batch_of(TEXTS)], model=embedder)
    assert table.column_names == ["id", "text", "embedding"]
    assert table.column("text").to_pylist() == TEXTS
    assert matrix(table).tobytes() == embedder.encode(TEXTS).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "ubinary"])
def test_dtypes(dtype: str, minilm: str) -> None:
    with Embedder(minilm, dtype=dtype, dims=60, progress=False) as embedder:
        rows = embedder.encode(TEXTS)
        table = run(batch_of(TEXTS), model=embedder)
        assert [*table.schema][2:] == vector_fields(embedder)
    if dtype == "int8":
        assert matrix(table).tobytes() == rows.values.tobytes()
        assert table.column("embedding_scale").to_numpy().tobytes() == rows.scales.tobytes()
    else:
        assert matrix(table).tobytes() == rows.tobytes()
    assert run(batch_of(TEXTS), model=minilm, dtype=dtype, dims=60, progress=False).equals(table)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda column: column, id="string"),
        pytest.param(lambda column: column.cast(pa.large_string()), id="large_string"),
        pytest.param(lambda column: column.cast(pa.string_view()), id="string_view"),
        pytest.param(lambda column: column.dictionary_encode(), id="dictionary"),
        pytest.param(lambda column: pa.concat_arrays([column.slice(3), column, column])[3:9], id="slice"),
    ],
)
def test_layouts(change: Callable[[pa.Array], pa.Array], embedder: Embedder) -> None:
    column = change(pa.array(TEXTS))
    for bad_rows in ("error", "null"):
        table = run(batch_of(column), model=embedder, bad_rows=bad_rows)
        assert matrix(table).tobytes() == embedder.encode(TEXTS).tobytes()


def test_sources(embedder: Embedder, tmp_path: Path) -> None:
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    table = pa.Table.from_batches([batch_of(TEXTS[:2]), batch_of([]), batch_of(TEXTS[2:])])
    pq.write_table(table, tmp_path / "texts.parquet")
    expected = embedder.encode(TEXTS).tobytes()
    for source in (table, table.to_reader(), table.to_batches(), iter([table]), ds.dataset(tmp_path)):
        found = run(source, model=embedder)
        assert matrix(found).tobytes() == expected
        assert found.column("id").to_pylist() == [0, 1, 0, 1, 2, 3]
    assert list(embed_batches([], model=embedder)) == []


def test_blocks(embedder: Embedder) -> None:
    """Batches are put together to blocks, and `block_rows=1` leaves each alone."""
    texts = [f"text {i % 7} of {i}" for i in range(12)]
    batches = [batch_of(texts[start : start + 3]) for start in range(0, 12, 3)]
    together = run(batches, model=embedder)
    assert matrix(together).tobytes() == embedder.encode(texts).tobytes()
    alone = list(embed_batches(batches, model=embedder, block_rows=1))
    for start, batch in zip(range(0, 12, 3), alone, strict=True):
        rows = embedder.encode(texts[start : start + 3])
        assert matrix(pa.Table.from_batches([batch])).tobytes() == rows.tobytes()
    pairs = run(batches, model=embedder, block_rows=6)
    wanted = np.concatenate([embedder.encode(texts[:6]), embedder.encode(texts[6:])])
    assert matrix(pairs).tobytes() == wanted.tobytes()


def test_it_streams(tiny: Callable[[str], Path]) -> None:
    """Few blocks are read before the first rows are there."""
    read = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for _ in range(20):
            read += 1
            yield batch_of(["a b c"] * BLOCK_ROWS)

    found = embed_batches(batches(), model=tiny("bert"), progress=False)
    next(found)
    assert read <= 4
    assert sum(batch.num_rows for batch in found) == 19 * BLOCK_ROWS


def test_progress_and_prompt(minilm: str) -> None:
    tokens = []
    prompts = {"query": "query: "}
    with Embedder(minilm, prompts=prompts, progress=False) as embedder:
        found = run(batch_of(TEXTS), model=embedder, prompt="query", progress=lambda done, _: tokens.append(done))
        assert matrix(found).tobytes() == embedder.encode(TEXTS, prompt="query").tobytes()
        assert tokens[-1] == int(embedder.plan(list(dict.fromkeys(TEXTS)), prompt="query").tokens.sum())


def test_null_where_bad(minilm: str) -> None:
    texts = ["a cat", None, "word " * 400, "", "word " * 9, "internationalization of it"]
    with Embedder(minilm, max_tokens=12, dtype="int8", progress=False) as embedder:
        found = run(batch_of(texts), model=embedder, bad_rows="null")
        rows = embedder.encode(["a cat", "", "word " * 9, "internationalization of it"])
    assert found.column("embedding").is_valid().to_pylist() == [True, False, False, True, True, True]
    assert matrix(found).tobytes() == rows.values.tobytes()
    assert found.column("embedding_scale").to_pylist() == [rows.scales[0], None, None, *rows.scales[1:]]


def test_long_texts_are_good_where_they_are_cut(minilm: str) -> None:
    with Embedder(minilm, max_tokens=12, overlong="chunk", progress=False) as embedder:
        texts = ["word " * 400, None]
        found = run(batch_of(texts), model=embedder, bad_rows="null")
        assert matrix(found).tobytes() == embedder.encode(texts[:1]).tobytes()


def test_texts_without_tokens(tiny: Callable[[str], Path]) -> None:
    """A decoder that adds no token makes none of an empty text."""
    with Embedder(tiny("gpt2"), pooling="last", progress=False) as embedder:
        assert not embedder.tokenize("").size
        found = run(batch_of(["a", "", " "]), model=embedder, bad_rows="null")
        assert found.column("embedding").is_valid().to_pylist()[:2] == [True, False]
        with pytest.raises(InvalidArgumentError, match=r"texts\[1\]: it has no tokens"):
            run(batch_of(["a", ""]), model=embedder)


def test_all_null(embedder: Embedder) -> None:
    for column in (pa.nulls(3), pa.nulls(3, pa.string()), pa.nulls(3, pa.string()).dictionary_encode()):
        found = run(batch_of(column), model=embedder, bad_rows="null")
        assert found.column("embedding").null_count == 3


@pytest.mark.parametrize(
    ("batch", "options", "words"),
    [
        (batch_of(["a"]), {"column": "body"}, "column: there is no 'body'; the columns are id, text"),
        (batch_of(["a"]), {"into": "id"}, "into: there is a column 'id' already"),
        (batch_of(["a"]), {"into": "text"}, "into: 'text' is the column of texts"),
        (batch_of(["a"]), {"column": "id"}, "column: 'id' is of int64, not of strings"),
        (batch_of(["a", None]), {}, "column: 'text' is null in row 1"),
        (batch_of(["a", "word " * 600]), {}, r"texts\[1\]: 602 tokens"),
        (batch_of(["a"]), {"bad_rows": "skip"}, "bad_rows: 'skip' is none of error, null"),
        (batch_of(["a"]), {"block_rows": 0}, "block_rows: 0 is not between 1"),
        (batch_of(["a"]), {"progress": 3}, "progress: 3 is none of"),
        (batch_of(["a"]), {"dtype": "float32"}, "dtype: the Embedder that is given has its own"),
        ({"text": ["a"]}, {}, "batches: one is a str"),
    ],
)
def test_refused(batch: Any, options: dict[str, Any], words: str, embedder: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        run(batch, model=embedder, **options)


def test_scale_is_taken(minilm: str) -> None:
    with pytest.raises(InvalidArgumentError, match="into: there is a column 'x_scale' already"):
        run(batch_of(["a"]).append_column("x_scale", pa.array([1])), model=minilm, into="x", dtype="int8")


def test_columns_that_are_wrong(minilm: str) -> None:
    batch = pa.record_batch({"text": ["a"]})
    twice = pa.RecordBatch.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([twice], {}, "column: there are several 'text'"),
        ([batch], {"into": None}, "into: None is no column's name"),
        ([batch], {"column": ""}, "column: '' is no column's name"),
        ([batch], {"cache": "folder"}, "cache: 'folder' is no rawllama.cache.Cache"),
        (None, {}, "batches: NoneType has no record batches"),
    ]
    for batches, options, words in cases:
        with pytest.raises(InvalidArgumentError, match=words):
            list(embed_batches(batches, model=minilm, **options))


def test_strings_of_several_layouts_in_one_block(minilm: str) -> None:
    kinds = [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
    texts = [pa.array([f"text {i}", None], pa.string()).cast(kind) for i, kind in enumerate(kinds)]
    batches = [pa.record_batch({"text": column}) for column in texts]
    made = embed_batches(batches, model=minilm, bad_rows="null", block_rows=100)
    rows = [batch.column("embedding") for batch in made]
    assert [column.is_null().to_pylist() for column in rows] == [[False, True]] * 3
    with Embedder(minilm) as embedder:
        expected = embedder.encode([f"text {i}" for i in range(3)])
    assert np.abs(np.stack([column[0].values.to_numpy() for column in rows]) - expected).max() < 1e-6


def test_a_column_that_only_int8_would_write(minilm: str) -> None:
    batch = pa.record_batch({"text": ["a"], "embedding_scale": [1]})
    assert next(embed_batches([batch], model=minilm)).schema.names == ["text", "embedding_scale", "embedding"]
    with pytest.raises(InvalidArgumentError, match="into: there is a column 'embedding_scale' already"):
        next(embed_batches([batch], model=minilm, dtype="int8"))


def test_rows_that_are_too_long_by_a_token(tiny: Callable[[str], Path]) -> None:
    """SentencePiece puts a sign before a text: it may have more tokens than bytes."""
    model = str(tiny("gemma-embedding"))
    with Embedder(model) as embedder:
        size = next(n for n in range(1, 100) if len(embedder.tokenize("z" * n)) > embedder.max_tokens)
        texts = ["ok", "z" * size, "z" * (size - 1)]
        batch = pa.record_batch({"text": texts})
        rows = next(embed_batches([batch], model=embedder, bad_rows="null")).column("embedding")
    assert rows.is_null().to_pylist() == [False, True, False]


def test_a_long_text_that_is_no_utf8(minilm: str) -> None:
    """Arrow does not look at the bytes; it counts as too long, and not as an error."""
    data = b"good" + b"\xff\xfe word " * 600
    ends = np.array([0, 4, len(data)], np.int32)
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(ends), pa.py_buffer(data))
    rows = next(embed_batches([pa.record_batch({"text": texts})], model=minilm, bad_rows="null")).column("embedding")
    assert rows.is_null().to_pylist() == [False, True]
