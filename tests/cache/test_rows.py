"""An Embedder's rows in a cache: what is computed, what is read, and what makes a row another one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pyarrow as pa
import pytest
from rawllama import Embedder, Int8Rows, Model
from rawllama.arrow import embed_batches
from rawllama.cache import Cache
from rawllama.cache.fingerprint import model_hash
from rawllama.errors import ClosedError, InvalidArgumentError, LlamaError
from rawllama.rows import DTYPES, arrays

from ..models import splits
from ..tools import run_python

Computed = Callable[[], int]
TEXTS = ["The cat sits outside", "", "Straße 雪 🙂", "A man plays the guitar " * 20, "The cat sits outside", "no\0end"]
DISTINCT = len(set(TEXTS))


PAIR = ["a text", "and another"]  # one alone is computed in another way, which `computed` does not see


def corpus(n: int, changed: range = range(0)) -> list[str]:
    return [f"row {i} of the corpus" + (" has changed" if i in changed else "") for i in range(n)]


def assert_same(rows: Any, others: Any) -> None:
    """The same bits."""
    for a, b in zip(arrays(rows), arrays(others), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_dtypes(embedder: Embedder, cache: Cache, computed: Computed, dtype: str) -> None:
    expected = embedder.encode(TEXTS, dtype=dtype, dims=100)
    computed()
    first = cache.encode(embedder, TEXTS, dtype=dtype, dims=100)
    assert computed() == DISTINCT
    second = cache.encode(embedder, TEXTS[::-1], dtype=dtype, dims=100)
    assert computed() == 0
    assert type(first) is type(second) is type(expected)
    assert_same(first, expected)
    assert_same(second, Int8Rows(*(a[::-1] for a in expected)) if dtype == "int8" else expected[::-1])
    for rows in arrays(second):
        rows[:] = 0  # they are the caller's
    assert_same(cache.encode(embedder, TEXTS, dtype=dtype, dims=100), expected)


def test_one_text_gives_one_row(embedder: Embedder, cache: Cache, computed: Computed) -> None:
    for dtype in DTYPES:
        expected = embedder.encode("one text", dtype=dtype)
        computed()
        for _ in range(2):
            assert_same(cache.encode(embedder, "one text", dtype=dtype), expected)
        assert computed() == 1
    assert cache.encode(embedder, []).shape == (0, 384)


@pytest.mark.parametrize(
    "kind", [tuple, np.array, pa.array, iter, lambda texts: pa.chunked_array([texts[:2], texts[2:]])]
)
def test_texts_of_any_kind(
    embedder: Embedder, cache: Cache, computed: Computed, kind: Callable[[list[str]], Any]
) -> None:
    texts = corpus(10)
    expected = cache.encode(embedder, texts)
    computed()
    assert_same(cache.encode(embedder, kind(texts)), expected)
    assert computed() == 0
    assert cache.encode(embedder, kind([*texts, "another", "third"])).shape == (12, 384)
    assert computed() == 2


def test_what_makes_another_row(tiny: Callable[[str], Path], cache: Cache, computed: Computed) -> None:
    """Each of these is computed, though the text is the same; and each once."""
    prompts = {"query": "query: ", "title": "title: "}
    options: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({}, {"prompt": "query"}),
        ({}, {"prompt": "title"}),
        ({}, {"normalize": "none"}),
        ({}, {"normalize": 3}),
        ({}, {"dims": 31}),
        ({}, {"dtype": "float16"}),
        ({}, {"dtype": "ubinary"}),
        ({}, {"dtype": "ubinary", "dims": 31}),  # as many bytes
        ({}, {"overlong": "truncate"}),
        ({}, {"overlong": "chunk"}),
        ({"overlap": 3}, {"overlong": "chunk"}),
        ({"pooling": "cls"}, {}),
        ({"max_tokens": 60}, {}),
        ({"kernels": "ggml"}, {}),
        ({"flash_attn": False}, {}),
    ]
    for settings, option in options:
        for count in (2, 0):
            with Embedder(tiny("bert"), n_threads=1, prompts=prompts, **settings) as embedder:
                rows = cache.encode(embedder, PAIR, **option)
                assert computed() == count, (settings, option)
                assert_same(rows, embedder.encode(PAIR, **option))
                computed()


def test_what_only_rounds_is_the_same_row(minilm: str, cache: Cache, computed: Computed) -> None:
    for settings in ({"n_threads": 1}, {"n_threads": 2, "n_contexts": 1}, {"token_budget": 64}, {"overlap": 5}):
        with Embedder(minilm, **settings) as embedder:  # type: ignore[arg-type]
            cache.encode(embedder, TEXTS)
    assert computed() == DISTINCT


def test_the_models_content_counts(
    tiny: Callable[[str], Path], tmp_path: Path, cache: Cache, computed: Computed
) -> None:
    """Not its path: a copy has the same rows, another file under the old name has not."""
    path = tmp_path / "model.gguf"
    shutil.copy(tiny("bert"), path)
    for source in (tiny("bert"), path):
        with Embedder(source) as embedder:
            cache.encode(embedder, PAIR)
    assert computed() == 2
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    times = path.stat()
    path.write_bytes(data)  # as large as before, and as old
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with Embedder(path) as embedder:
        cache.encode(embedder, PAIR)
    assert computed() == 2
    with Model(path, kv_overrides={"bert.attention.layer_norm_epsilon": 0.1}) as model, Embedder(model) as embedder:
        cache.encode(embedder, PAIR)
    assert computed() == 2


def test_the_hash_of_a_model_is_remembered(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    path, memory = tmp_path / "model.gguf", tmp_path / "memory"
    shutil.copy(tiny("bert"), path)
    with Model(path) as model:
        expected = model_hash(model, memory)
        assert not memory.exists(), "it may be written again at the same time"
        time.sleep(2.1)
        assert model_hash(model, memory) == expected
        (note,) = memory.iterdir()
        wrong = note.read_text().replace(note.read_text().split('"')[-2], "0" * 64)
        note.write_text(wrong)
        assert model_hash(model, memory) != expected, "it is read from the note"
        for damaged in ("", "{}", wrong.replace("000", "xyz"), wrong.replace("model.gguf", "other.gguf")):
            note.write_text(damaged)
            assert model_hash(model, memory) == expected
        times, data = path.stat(), bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert model_hash(model, memory) != expected, "as large and as old as before, but written since"


def test_all_splits_count(tmp_path: Path) -> None:
    first, *others = splits.write("bert", tmp_path)
    with Model(first) as model:
        before = model_hash(model, tmp_path / "memory")
        with Model([first, *others]) as same:
            assert model_hash(same, tmp_path / "memory") == before
        others[-1].write_bytes(others[-1].read_bytes() + b"\0")
        assert model_hash(model, tmp_path / "memory") != before


def test_a_model_from_an_open_file(tiny: Callable[[str], Path], cache: Cache) -> None:
    with (
        tiny("bert").open("rb") as file,
        Model(file) as model,
        Embedder(model) as embedder,
        pytest.raises(InvalidArgumentError, match="cache: the model was read from an open file"),
    ):
        cache.encode(embedder, PAIR)


# Where something fails ------------------------------------------------------------------------------------------------


def test_errors_name_the_callers_text(embedder: Embedder, cache: Cache) -> None:
    long = "word " * 600
    cache.encode(embedder, corpus(100))
    with pytest.raises(InvalidArgumentError, match=r"^texts\[100\]: 602 tokens"):
        cache.encode(embedder, [*corpus(100), long])
    with pytest.raises(InvalidArgumentError, match=r"^texts\[1\]: it is int, not str"):
        cache.encode(embedder, ["a", 1])  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError, match="prompt: 'x' is the name of none"):
        cache.encode(embedder, corpus(3), prompt="x")


def test_pooling_none_and_closed_ones(minilm: str, cache: Cache) -> None:
    with Embedder(minilm, pooling="none") as embedder, pytest.raises(InvalidArgumentError, match="encode_tokens"):
        cache.encode(embedder, ["a"])
    with Embedder(minilm) as embedder:
        pass
    with pytest.raises(ClosedError, match="the Embedder is closed"):
        cache.encode(embedder, ["a"])


def test_what_was_computed_before_an_error_is_kept(
    tiny: Callable[[str], Path], tmp_path: Path, cache: Cache, computed: Computed
) -> None:
    """One word's vector is NaN: the rows of its batch are done but for one, and in the cache."""
    path = Path(shutil.copy(tiny("bert"), tmp_path / "poisoned.gguf"))
    with Embedder(path) as embedder:
        token = embedder.tokenize("cat")[1]
    reader = gguf.GGUFReader(path, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight").data[token] = np.nan
    reader.data.flush()
    texts = [f"hello the mat {i}" for i in range(40)]
    with Embedder(path, n_threads=1) as embedder:
        cache.encode(embedder, texts[:10])
        texts[17] += " cat"
        with pytest.raises(LlamaError, match=r"^texts\[17\]: its embedding is not finite") as caught:
            cache.encode(embedder, texts)
        rows, done = caught.value.rows, caught.value.done
        assert done is not None
        assert done[:10].all() and not done[17] and 10 < done.sum() < 40
        assert not rows[~done].any()
        computed()
        texts[17] += "!"
        texts += ["hello"]
        with pytest.raises(LlamaError, match=r"^texts\[17\]"):
            cache.encode(embedder, texts)
        assert computed() == 41 - done.sum(), "only these are tried again"


def test_ctrl_c_keeps_what_was_computed(minilm: str, folder: Path) -> None:
    code = """
import os, signal, sys, threading, time
from rawllama import Embedder, Interrupted
from rawllama.cache import Cache
texts = [f"row {i} " + "word " * 60 for i in range(3000)]
with Cache(sys.argv[2]) as cache, Embedder(sys.argv[1]) as embedder:
    cache.encode(embedder, texts[:10])
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        cache.encode(embedder, texts)
    except Interrupted as stopped:
        assert stopped.done[:10].all() and 10 < stopped.done.sum() < 3000
        assert stopped.rows.shape == (3000, 384) and abs(stopped.rows[:10]).sum() > 0
        print(stopped.done.sum())
    print(cache.stats().rows)
"""
    said = run_python(code, minilm, folder).stdout.split()
    assert said[0] == said[1]


def test_a_cache_that_cannot_be_written_any_more(minilm: str, folder: Path) -> None:
    """The rows are right, and one warning tells."""
    code = """
import resource, sys, warnings
import numpy as np
from rawllama import Embedder
from rawllama.cache import Cache
with Cache(sys.argv[2]) as cache, Embedder(sys.argv[1]) as embedder:
    expected = embedder.encode(["a", "b"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (cache.encode(embedder, ["a", "b"]) == expected).all()
    print(*(warning.message for warning in caught))
"""
    said = run_python(code, minilm, folder).stdout
    assert said.startswith("what is computed from now on is not cached: ")
    assert said.count("\n") == 1


# Arrow ----------------------------------------------------------------------------------------------------------------


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())})


def embedded(batches: Any, **options: Any) -> pa.Table:
    return pa.Table.from_batches(list(embed_batches(batches, **options)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrow(minilm: str, cache: Cache, computed: Computed, dtype: str) -> None:
    with Embedder(minilm, dtype=dtype, dims=64) as embedder:
        source = table([*TEXTS, None, *corpus(50)]).to_batches(max_chunksize=10)
        settings = {"model": embedder, "bad_rows": "null", "block_rows": 20}
        expected = embedded(source, **settings)
        assert computed() > 0
        first = embedded(source, cache=cache, **settings)
        assert computed() == DISTINCT + 50
        assert first.drop_columns(first.column_names[2:]).equals(expected.drop_columns(expected.column_names[2:]))
        assert first["embedding"].is_null().equals(expected["embedding"].is_null())
        for name in expected.column_names[2:]:  # computed beside other rows: the same but for rounding
            ours, others = (np.stack(one[name].drop_null().to_numpy()).astype(float) for one in (first, expected))
            np.testing.assert_allclose(ours, others, atol={"int8": 1, "float16": 1e-3}.get(dtype, 1e-5))
        for rows in (20, 1, 4096):
            found = embedded(source, cache=cache, **(settings | {"block_rows": rows}))
            assert found.equals(first), "the same bits, in whatever blocks"
            assert found.schema.equals(expected.schema)
            assert computed() == 0


def test_arrow_columns_of_any_layout(minilm: str, cache: Cache, computed: Computed) -> None:
    """Blocks of which little is computed are put together: their texts are of one type, and of several chunks."""
    texts = corpus(40)
    with Embedder(minilm) as embedder:
        expected = cache.encode(embedder, texts)
        for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
            values = pa.array([*texts, *(f"{text} {kind}" for text in texts)])
            column = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
            computed()
            batches = pa.table({"text": column}).to_batches(max_chunksize=7)
            found = embedded(batches, model=embedder, cache=cache, block_rows=7)
            assert computed() == 40
            rows = np.stack(found["embedding"].to_numpy())
            np.testing.assert_array_equal(rows[:40], expected)
            np.testing.assert_allclose(rows[40:], embedder.encode(values[40:]), atol=1e-5)


def test_a_cold_cache_changes_no_bits(tiny: Callable[[str], Path], cache: Cache) -> None:
    """Blocks of a usual size are computed as they are without one."""
    with Embedder(tiny("bert")) as embedder:
        source = table(list(corpus(3000))).to_batches(max_chunksize=1500)
        expected = embedded(source, model=embedder, block_rows=1500)
        assert embedded(source, model=embedder, cache=cache, block_rows=1500).equals(expected)


def test_a_corpus_that_changed_by_one_percent(tiny: Callable[[str], Path], cache: Cache, computed: Computed) -> None:
    n, changed = 20_000, range(1234, 1434)
    with Embedder(tiny("bert")) as embedder:
        before = embedded(table(corpus(n)), model=embedder, cache=cache)
        assert computed() == n
        after = embedded(table(corpus(n, changed)), model=embedder, cache=cache)
        assert computed() == len(changed)
        old, new = (np.stack(one["embedding"].to_numpy()) for one in (before, after))
        same = np.ones(n, bool)
        same[list(changed)] = False
        np.testing.assert_array_equal(new[same], old[same])
        np.testing.assert_allclose(new[changed], embedder.encode([corpus(n, changed)[i] for i in changed]), atol=1e-5)
    assert (cache.hits, cache.misses) == (n - len(changed), n + len(changed))


def test_arrow_errors_name_the_row(minilm: str, cache: Cache) -> None:
    texts: list[str | None] = [*corpus(100), "word " * 600, *corpus(10)]
    with Embedder(minilm) as embedder:
        embedded(table(list(corpus(100))), model=embedder, cache=cache)
        for rows in (4096, 10, 1):
            batches = table(texts).to_batches(max_chunksize=10)
            with pytest.raises(InvalidArgumentError, match=r"^texts\[100\]: 602 tokens"):
                embedded(batches, model=embedder, cache=cache, block_rows=rows)


def test_arrow_without_rows(minilm: str, cache: Cache) -> None:
    with Embedder(minilm) as embedder:
        for texts in ([], [None, None]):
            for _ in range(2):
                found = embedded(table(texts), model=embedder, cache=cache, bad_rows="null") if texts else []
                assert len(found) == len(texts)
