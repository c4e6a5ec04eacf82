"""MTEB's encoder as MTEB calls it. Whole tasks need torch: tests/integrations/mteb_evaluate.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mteb import TaskMetadata
from mteb.models import EncoderProtocol
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from rawllama import Embedder, InvalidArgumentError
from rawllama.errors import TruncationWarning
from rawllama.integrations.mteb import RawllamaEncoder

from .conftest import DOCUMENTS, PROMPTS, QUERIES
from .mteb_tasks import metadata

TASK = metadata("OwnRetrieval", "Retrieval", "ndcg_at_10")


def batches(texts: list[str]) -> list[dict[str, list[str]]]:
    """What MTEB's loader gives."""
    return [{"text": texts[start : start + 2]} for start in range(0, len(texts), 2)]


def encode(
    face: RawllamaEncoder, texts: list[str], prompt_type: PromptType | None, task: TaskMetadata = TASK
) -> np.ndarray:
    """As MTEB's evaluators call it."""
    return face.encode(
        batches(texts), task_metadata=task, hf_split="test", hf_subset="default", prompt_type=prompt_type, batch_size=32
    )


def test_vectors_are_the_embedders(embedder: Embedder, documents: np.ndarray, queries: np.ndarray) -> None:
    face = RawllamaEncoder(embedder)
    assert isinstance(face, EncoderProtocol)
    assert np.array_equal(encode(face, DOCUMENTS, PromptType.document), documents)
    assert np.array_equal(encode(face, QUERIES, PromptType.query), queries)
    assert np.array_equal(encode(face, QUERIES, None), embedder.encode(QUERIES))


def test_texts_and_prompt_names_as_older_callers_give_them(embedder: Embedder, queries: np.ndarray) -> None:
    face = RawllamaEncoder(embedder)
    assert np.array_equal(face.encode(QUERIES, prompt_name="query", batch_size=8), queries)
    assert np.array_equal(face.encode(QUERIES), embedder.encode(QUERIES))


def test_prompts_by_mtebs_order(embedder: Embedder) -> None:
    prompts = {"query": "a: ", "Retrieval": "b: ", "Retrieval-query": "c: ", "Own": "d: ", "Own-query": "e: "}
    expected = {
        ("Other", "STS", PromptType.query): "a: ",
        ("Other", "STS", None): "",
        ("Other", "Retrieval", PromptType.document): "b: ",
        ("Other", "Retrieval", PromptType.query): "c: ",
        ("Own", "Retrieval", PromptType.document): "d: ",
        ("Own", "Retrieval", PromptType.query): "e: ",
    }
    with Embedder(embedder.model, prompts=prompts) as other:
        face = RawllamaEncoder(other)
        for (name, kind, prompt_type), prompt in expected.items():
            rows = encode(face, QUERIES, prompt_type, metadata(name, kind, "ndcg_at_10"))
            assert np.array_equal(rows, embedder.encode([prompt + text for text in QUERIES])), (name, kind, prompt_type)


def test_documents_get_their_prompt_by_any_of_its_names(embedder: Embedder) -> None:
    with Embedder(embedder.model, prompts={"passage": "a: "}) as other:
        face = RawllamaEncoder(other)
        assert np.array_equal(encode(face, DOCUMENTS, PromptType.document), other.encode_document(DOCUMENTS))
        assert np.array_equal(encode(face, DOCUMENTS, PromptType.query), embedder.encode(DOCUMENTS))


def test_long_texts_are_truncated_as_by_mtebs_own_models(tiny: Callable[[str], Path]) -> None:
    face = RawllamaEncoder(tiny("bert"))
    long = "a" + " a" * 5000
    with pytest.warns(TruncationWarning):
        assert np.isfinite(face.encode([long])).all()
    face.close()
    strict = RawllamaEncoder(tiny("bert"), overlong="error")
    with pytest.raises(InvalidArgumentError, match=r"texts\[0\]"):
        strict.encode([long])
    strict.close()


def test_quantised_vectors_come_as_float32(minilm: str, documents: np.ndarray) -> None:
    face = RawllamaEncoder(minilm, dtype="int8", prompts=PROMPTS)
    rows = encode(face, DOCUMENTS, PromptType.document)
    assert rows.dtype == np.float32
    assert 0 < np.abs(rows - documents).max() < 4e-3
    face.close()


def test_model_card(embedder: Embedder, minilm: str) -> None:
    card = RawllamaEncoder(embedder).mteb_model_meta
    assert (card.name, card.revision) == (f"rawllama/{Path(minilm).stem}", embedder.model.description)
    assert (card.n_parameters, card.max_tokens, card.embed_dim) == (embedder.model.n_params, 512, 384)
    assert card.framework == ["GGUF"]
    assert card.similarity_fn_name is ScoringFunction.COSINE
    assert card.use_instructions
    assert card.memory_usage_mb == pytest.approx(90, rel=0.05)


def test_the_model_cards_tell_embedders_apart(embedder: Embedder) -> None:
    changes: list[dict[str, Any]] = [{}, {"dims": 64}, {"dtype": "int8"}, {"prompts": PROMPTS}, {"overlong": "chunk"}]
    names = set()
    for settings in changes:
        with Embedder(embedder.model, **settings) as other:
            names.add(RawllamaEncoder(other).mteb_model_meta.experiment_name)
    assert len(names) == len(changes)
    assert max(len(name) for name in names if name) < 200
    named = RawllamaEncoder(embedder, name="me/mine", revision="7").mteb_model_meta
    assert (named.name, named.revision) == ("me/mine", "7")
