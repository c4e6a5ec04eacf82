"""What all faces do with the model they are given, and what they say when their library is missing."""

from __future__ import annotations

import asyncio
import gc
import pickle
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rawllama import Embedder, InvalidArgumentError, Model
from rawllama._handle import live
from rawllama.integrations._source import Source, float32

from .conftest import DOCUMENTS, LONG_TEXTS, PROMPTS, QUERIES

FACES = {
    "langchain": ("langchain_core", "langchain-core", "langchain"),
    "llamaindex": ("llama_index.core", "llama-index-core", "llama-index"),
    "chroma": ("chromadb", "chromadb", "chroma"),
    "haystack": ("haystack", "haystack-ai", "haystack"),
    "mteb": ("mteb", "mteb", "mteb"),
}
EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


@pytest.mark.parametrize("face", FACES)
def test_a_missing_package_names_the_extra_that_brings_it(face: str) -> None:
    module, package, extra = FACES[face]
    assert any(line.startswith(package) for line in EXTRAS[extra])
    program = f"""
import sys
sys.modules[{module!r}] = None
from rawllama.errors import MissingExtraError
try:
    import rawllama.integrations.{face}
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{package} is not installed: pip install 'rawllama[{extra}]'\n"


def test_the_package_imports_no_library() -> None:
    packages = {module.partition(".")[0] for module, _, _ in FACES.values()}
    program = f"import sys, rawllama.integrations._source; print({packages} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_embedder_that_is_given_stays_the_callers(embedder: Embedder) -> None:
    source = Source(embedder, {})
    assert source.open() is embedder
    source.close()
    assert embedder.encode("still open").shape == (384,)


def test_settings_beside_an_embedder_are_refused(embedder: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^n_threads, dims: the Embedder that is given has its own"):
        Source(embedder, {"n_threads": 1, "dims": 64})


def test_an_unknown_setting_is_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(TypeError, match="n_thread"):
        Source("no such file.gguf", {"n_thread": 1})


def test_an_embedder_is_made_once_and_closed(tiny: Callable[[str], Path]) -> None:
    gc.collect()
    before = live["Model"]
    source = Source(tiny("bert"), {"n_threads": 1})
    assert live["Model"] == before
    embedder = source.open()
    assert source.open() is embedder
    assert live["Model"] == before + 1
    source.close()
    source.close()
    assert live["Model"] == before
    source.open()
    assert live["Model"] == before + 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del source, embedder
        gc.collect()
    assert live["Model"] == before
    assert not caught  # a Model that nobody closes says so


def test_an_embedder_of_a_model_that_is_given_leaves_it_open(tiny: Callable[[str], Path]) -> None:
    with Model(tiny("bert")) as model:
        source = Source(model, {"n_threads": 1})
        source.open()
        source.close()
        assert model.usable


def test_recipe_and_pickle_make_it_again(minilm: str, documents: np.ndarray) -> None:
    settings = {"prompts": PROMPTS, "n_threads": 2}
    source = Source(Path(minilm), settings)
    assert source.recipe() == {"model": minilm, **settings}
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(again.documents(DOCUMENTS), documents)
    again.close()


def test_what_lives_in_this_process_has_no_recipe(embedder: Embedder) -> None:
    for model in (embedder, embedder.model):
        kind = type(model).__name__
        with pytest.raises(InvalidArgumentError, match=rf"^model: an? {kind} cannot be saved; pass the model's name"):
            Source(model, {}).recipe()


@pytest.mark.parametrize(("dtype", "worst"), [("float16", 1e-3), ("int8", 4e-3)])
def test_any_dtype_comes_as_float32(minilm: str, documents: np.ndarray, dtype: str, worst: float) -> None:
    source = Source(minilm, {"dtype": dtype, "prompts": PROMPTS})
    rows = source.documents(DOCUMENTS)
    one = source.documents(DOCUMENTS[0])
    assert (rows.dtype, rows.shape, one.dtype, one.shape) == (np.float32, (5, 384), np.float32, (384,))
    assert 0 < np.abs(rows - documents).max() < worst
    assert np.abs(one - rows[0]).max() < worst
    source.close()


def test_bits_come_as_signs(minilm: str, queries: np.ndarray) -> None:
    source = Source(minilm, {"dtype": "ubinary", "dims": 100, "prompts": PROMPTS})
    rows = source.queries(QUERIES)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, np.where(queries[:, :100] > 0, 1, -1))
    source.close()


def test_float32_is_not_copied(documents: np.ndarray) -> None:
    assert float32(documents, 384) is documents


@pytest.mark.parametrize("kind", ["queries", "documents"])
def test_async_gives_the_same(embedder: Embedder, kind: str) -> None:
    source = Source(embedder, {})
    rows = asyncio.run(getattr(source, f"{kind}_async")(QUERIES))
    assert np.array_equal(rows, getattr(source, kind)(QUERIES))
    assert np.allclose(asyncio.run(getattr(source, f"{kind}_async")(QUERIES[0])), rows[0], atol=1e-5)


def test_async_takes_the_prompt_of_documents_by_any_of_its_names(embedder: Embedder) -> None:
    with Embedder(embedder.model, prompts={"passage": "about: "}) as other:
        source = Source(other, {})
        rows = embedder.encode([f"about: {text}" for text in DOCUMENTS])
        assert np.array_equal(asyncio.run(source.documents_async(DOCUMENTS)), rows)
        assert np.array_equal(source.documents(DOCUMENTS), rows)
        assert np.array_equal(asyncio.run(source.queries_async(DOCUMENTS)), embedder.encode(DOCUMENTS))


@pytest.mark.parametrize("kind", ["queries", "documents"])
def test_cancelling_ends_the_computation(minilm: str, kind: str) -> None:
    reports: list[tuple[int, int | None]] = []
    source = Source(minilm, {"progress": lambda done, total: reports.append((done, total))})

    async def cancel() -> None:
        work = asyncio.create_task(getattr(source, f"{kind}_async")([f"{text} {text}" for text in LONG_TEXTS]))
        while not any(done for done, _ in reports):
            await asyncio.sleep(0.001)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(cancel())
    source.close()  # waits for what still computes
    done, total = reports[-1]
    assert total is not None
    assert done < total
