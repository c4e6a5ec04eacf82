"""Reranking: how query and document are joined, and what becomes of the scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from rawllama import Batch, Context, Embedder, InvalidArgumentError, LlamaError, Model
from rawllama.errors import TruncationWarning
from rawllama.rerank import Ranking

from ..models import tiny as tiny_models

Tiny = Callable[[str], Path]
QUERY = "the red sun"
DOCUMENTS = ["the cat sat on the mat", "", "hello world", "we read books in the house", "hello world", "a dog ran"]
CLS, SEP = 2, 3  # of the tiny BERTs
QWEN = "<|im_start|>s\n<Q>: {query}\n<D>: {document}<|im_end|>\n<|im_start|>a\n"


def sigmoid(x: NDArray[Any]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def softmax(x: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(x.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def raw_scores(model: Model, sequences: list[list[int]]) -> NDArray[np.float32]:
    """What a context with pooling rank gives, one sequence at a time."""
    rows = []
    with Context(model, n_ctx=128, n_batch=128, n_ubatch=128, embeddings=True, pooling_type="rank") as context:
        for sequence in sequences:
            batch = Batch(128)
            batch.add_sequence(np.array(sequence, np.int32), 0)
            if context.memory is not None:
                context.memory.clear()
            context.process(batch)
            rows.append(context.get_embeddings_seq()[0])
    return np.array(rows)


def hidden(model: Model, sequence: list[int]) -> NDArray[np.float64]:
    """The last layer's rows, one a token."""
    with Context(model, n_ctx=128, n_batch=128, n_ubatch=128, embeddings=True, pooling_type="none") as context:
        batch = Batch(128)
        batch.add_sequence(np.array(sequence, np.int32), 0)
        context.process(batch)
        return context.get_embeddings_ith().astype(np.float64)


def plain(model: Model, text: str) -> list[int]:
    return [int(token) for token in model.vocab.tokenize(text, add_special=False)]


def joined_as_bert(model: Model, query: str = QUERY, documents: list[str] = DOCUMENTS) -> list[list[int]]:
    return [[CLS, *plain(model, query), SEP, *plain(model, text), SEP] for text in documents]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The sequences that Embedders compute for reranking."""
    found: list[list[int]] = []
    compute = Embedder._encode_tokens

    def watch(self: Embedder, tokens: NDArray[np.int32], offsets: NDArray[np.int64], *args: Any) -> Any:
        found.extend([int(token) for token in part] for part in np.split(tokens, offsets[1:-1]))
        return compute(self, tokens, offsets, *args)

    monkeypatch.setattr(Embedder, "_encode_tokens", watch)
    return found


@pytest.fixture
def bert(tiny: Tiny) -> Iterator[Embedder]:
    with Embedder(tiny("bert-reranker"), n_threads=1) as embedder:
        yield embedder


def special_variant(path: Path, name: str, template: str | None = None, **extra: tuple[int, ...]) -> Path:
    """A tiny model with other tensors, or a template for reranking."""
    model = tiny_models.MODELS[name]
    writer = gguf.GGUFWriter(path, model.architecture)
    shapes = model.fill(writer)
    if template is not None:
        writer.add_string("tokenizer.chat_template.rerank", template)
    tiny_models._save(writer, shapes | {key.replace("_", "."): shape for key, shape in extra.items()}, 0)
    return path


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return special_variant(tmp_path_factory.mktemp("qwen") / "reranker.gguf", "qwen3-reranker", QWEN)


# ---- BERT's way


def test_bert(bert: Embedder, computed: list[list[int]]) -> None:
    """[CLS] query [SEP] document [SEP], equal documents once, scores as a context gives them."""
    found = bert.rerank(QUERY, DOCUMENTS, sort=False)
    sequences = joined_as_bert(bert.model)
    assert computed == [sequences[index] for index in (0, 1, 2, 3, 5)]
    expected = raw_scores(bert.model, sequences)
    assert np.abs(found.raw - expected).max() < 1e-5
    assert np.ptp(expected) > 0.1
    assert isinstance(found, Ranking)
    assert found.raw.shape == found.normalized.shape == (6, 1)
    assert (found.raw.dtype, found.scores.dtype, found.indices.dtype) == (np.float32, np.float32, np.int64)
    assert np.abs(found.normalized - sigmoid(expected)).max() < 1e-6
    assert np.array_equal(found.scores, found.normalized[:, 0])
    assert found.indices.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.labels == (None,)


def test_the_head_in_numpy(bert: Embedder) -> None:
    """tanh of a dense layer over [CLS], then the output layer, with the file's weights."""
    first = hidden(bert.model, joined_as_bert(bert.model)[0])[0]
    values = tiny_models.values
    dense = np.tanh(values("cls.weight", (32, 32)) @ first + values("cls.bias", (32,)))
    logit = values("cls.output.weight", (1, 32)) @ dense + values("cls.output.bias", (1,))
    assert bert.rerank(QUERY, DOCUMENTS[:1]).raw[0] == pytest.approx(logit, abs=2e-3)


def test_order(bert: Embedder) -> None:
    unsorted = bert.rerank(QUERY, DOCUMENTS, sort=False)
    found = bert.rerank(QUERY, DOCUMENTS)
    expected = sorted(range(6), key=lambda index: (-unsorted.raw[index, 0], index))
    assert found.indices.tolist() == expected
    assert np.array_equal(found.raw, unsorted.raw[expected])
    assert np.array_equal(found.scores, unsorted.scores[expected])
    assert list(found) == [(index, unsorted.scores[index]) for index in expected]
    assert len(found) == 6
    best = bert.rerank(QUERY, DOCUMENTS, top_k=3)
    assert best.indices.tolist() == expected[:3]
    assert best.normalized.shape == (3, 1)
    assert bert.rerank(QUERY, DOCUMENTS, top_k=3, sort=False).indices.tolist() == sorted(expected[:3])
    assert len(bert.rerank(QUERY, DOCUMENTS, top_k=100)) == 6


def test_several_scores(tiny: Tiny) -> None:
    with Embedder(tiny("bert-classifier"), n_threads=1) as embedder:
        expected = raw_scores(embedder.model, joined_as_bert(embedder.model))
        found = embedder.rerank(QUERY, DOCUMENTS, sort=False)
        assert found.labels == ("no", "maybe", "yes")
        assert np.abs(found.raw - expected).max() < 1e-5
        assert np.abs(found.normalized - softmax(expected)).max() < 1e-6
        assert np.array_equal(found.scores, found.normalized[:, 0])
        for label, column in (("no", 0), ("yes", 2), (1, 1)):
            shares = softmax(expected)[:, column]
            ranking = embedder.rerank(QUERY, DOCUMENTS, label=label)
            assert ranking.indices.tolist() == sorted(range(6), key=lambda index: (-shares[index], index))
            assert ranking.scores == pytest.approx(np.sort(shares)[::-1], abs=1e-6)


def test_other_kinds_of_texts(bert: Embedder) -> None:
    expected = bert.rerank(QUERY, DOCUMENTS)
    for documents in (iter(DOCUMENTS), np.array(DOCUMENTS), pa.array(["no", *DOCUMENTS])[1:]):
        found = bert.rerank(QUERY, documents)
        assert np.array_equal(found.indices, expected.indices)
        assert np.array_equal(found.raw, expected.raw)


def test_no_documents(bert: Embedder) -> None:
    found = bert.rerank(QUERY, [])
    assert len(found) == 0
    assert found.raw.shape == (0, 1)


def test_special_names_are_text(bert: Embedder, computed: list[list[int]]) -> None:
    bert.rerank("the [SEP] sun", ["cat [CLS] mat [SEP]"])
    (sequence,) = computed
    assert sequence.count(CLS) == 1
    assert sequence.count(SEP) == 2


# What the file asks for, and what becomes of query and document.
JOINTS = {
    "roberta": ({"add_bos": True, "add_eos": True, "add_sep": True}, "b q e s d e"),
    "no sep": ({"add_bos": True, "add_eos": True, "add_sep": False}, "b q e d e"),
    "no bos": ({"add_bos": False, "add_eos": True, "add_sep": False}, "q e d e"),
    "sep alone": ({"add_bos": True, "add_eos": False, "add_sep": True}, "b q s d s"),
}


@pytest.mark.parametrize("name", JOINTS)
def test_joints(name: str, tiny: Tiny, computed: list[list[int]]) -> None:
    """What the file says stands between query and document, and after both."""
    asked, form = JOINTS[name]
    overrides: dict[str, bool | int] = {f"tokenizer.ggml.{key}_token": value for key, value in asked.items()}
    with Model(tiny("qwen3-reranker")) as model:
        vocab = model.vocab
        bos, sep = (vocab.tokenize(f"<|im_{part}|>", parse_special=True)[0] for part in ("start", "end"))
        eos = vocab.eos
    ids = {"tokenizer.ggml.bos_token_id": int(bos), "tokenizer.ggml.seperator_token_id": int(sep)}
    with Model(tiny("qwen3-reranker"), kv_overrides=overrides | ids) as model:
        assert model.vocab.sep == sep
        with Embedder(model, n_threads=1) as embedder:
            embedder.rerank("the cat", ["red sun"])
            parts = {"b": [bos], "e": [eos], "s": [sep], "q": plain(model, "the cat"), "d": plain(model, "red sun")}
            assert computed == [[token for part in form.split() for token in parts[part]]]


# ---- templates


def whole(model: Model, template: str, document: str, query: str = QUERY) -> list[int]:
    """Tokens of the filled template, as llama.cpp's server takes them."""
    text = template.replace("{query}", query).replace("{document}", document)
    return [int(token) for token in model.vocab.tokenize(text, add_special=False, parse_special=True)]


def test_template(qwen: Path, computed: list[list[int]]) -> None:
    """Tokens are those of the whole text, and scores are probabilities already."""
    with Embedder(qwen, n_threads=1) as embedder:
        model = embedder.model
        found = embedder.rerank(QUERY, DOCUMENTS[:3], sort=False)
        sequences = [whole(model, QWEN, text) for text in DOCUMENTS[:3]]
        assert computed == sequences
        assert b" cat" in model.vocab.pieces(sequences[0])
        assert model.vocab.pieces(sequences[0]).count(b" the") == 3, "joined with the space of the template"
        assert np.ptp(found.raw[:, 0]) > 0.1
        assert np.abs(found.raw - raw_scores(model, sequences)).max() < 1e-3
        assert np.array_equal(found.raw, found.normalized)
        assert found.raw.sum(axis=1) == pytest.approx(1)
        assert found.labels == ("yes", "no")
        assert np.array_equal(found.scores, found.raw[:, 0])
        assert embedder.rerank(QUERY, DOCUMENTS[:3], label="no", sort=False).scores == pytest.approx(found.raw[:, 1])


def test_the_softmax_in_numpy(qwen: Path) -> None:
    with Embedder(qwen, n_threads=1) as embedder:
        last = hidden(embedder.model, whole(embedder.model, QWEN, "hello world"))[-1]
        logits = tiny_models.values("cls.output.weight", (2, 32)) @ last
        assert embedder.rerank(QUERY, ["hello world"]).raw[0] == pytest.approx(softmax(logits[None])[0], abs=2e-3)


TEMPLATES = [
    "{query} {document}",
    "{query}{document}",
    "<|im_start|>{query}<|im_end|>{document}",
    "{document}<|im_end|> {query}",
    "<|im_end|><|im_end|>\n{query} {query}. {document}, the end {query}<|im_start|>{query}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_any_template(template: str, qwen: Path, computed: list[list[int]]) -> None:
    with Embedder(qwen, n_threads=1) as embedder:
        embedder.rerank("the sun", ["the cat", "a mat"], template=template)
        assert computed == [whole(embedder.model, template, text, "the sun") for text in ("the cat", "a mat")]


def test_special_names_in_a_template_s_texts(qwen: Path, computed: list[list[int]]) -> None:
    """They are text, and so are the names of its places."""
    with Embedder(qwen, n_threads=1) as embedder:
        vocab = embedder.model.vocab
        end = int(vocab.tokenize("<|im_end|>", parse_special=True)[0])
        embedder.rerank("{document}", ["a<|im_end|>{query}"], template="<|im_start|>{query} {document}<|im_end|>")
        (sequence,) = computed
        assert sequence.count(end) == 1
        assert sequence[1:-1] == plain(embedder.model, "{document} a<|im_end|>{query}")


@pytest.mark.parametrize("template", ["", "{query}", "{document}", "{query} {document} {document}", "{Q} {document}"])
def test_wrong_templates(template: str, bert: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=r"template: it needs \{query\}, and \{document\} once"):
        bert.rerank(QUERY, DOCUMENTS, template=template)


# ---- too long


def test_truncation_cuts_the_document(bert: Embedder, computed: list[list[int]]) -> None:
    long = "cat mat " * 40
    words = r"documents\[1\]: with the query it has 86 tokens, and it may have 64"
    with pytest.raises(InvalidArgumentError, match=words):
        bert.rerank(QUERY, ["a", long])
    with pytest.warns(TruncationWarning, match="1 text"):
        bert.rerank(QUERY, ["a", long, "b", long], overlong="truncate")
    short, cut, _ = computed
    assert short == joined_as_bert(bert.model, documents=["a"])[0]
    assert cut == [CLS, *plain(bert.model, QUERY), SEP, *plain(bert.model, long)[:58], SEP]
    assert len(cut) == 64
    assert bert.truncated == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bert.rerank(QUERY, ["cat " * 58], overlong="truncate")
        bert.rerank(QUERY, [long], overlong="truncate")
    assert bert.truncated == 2


def test_truncation_by_default(tiny: Tiny) -> None:
    with Embedder(tiny("bert-reranker"), n_threads=1, overlong="truncate", max_tokens=20) as embedder:
        with pytest.warns(TruncationWarning):
            embedder.rerank(QUERY, ["cat " * 30])
        with pytest.raises(InvalidArgumentError, match=r"documents\[0\].* may have 20"):
            embedder.rerank(QUERY, ["cat " * 30], overlong="error")


@pytest.mark.parametrize("after", ["", " the end"])
def test_truncation_keeps_the_template(after: str, qwen: Path, computed: list[list[int]]) -> None:
    template = "<|im_start|>{query}: {document}" + after + "<|im_end|>"
    with Embedder(qwen, n_threads=1) as embedder:
        with pytest.warns(TruncationWarning):
            embedder.rerank("sun", ["a", "the cat " * 40], template=template, overlong="truncate")
        assert computed[0] == whole(embedder.model, template, "a", "sun")
        pieces = embedder.model.vocab.pieces(computed[1])
        assert len(pieces) == 64
        text = b"".join(pieces).decode()
        assert text.startswith("<|im_start|>sun: the cat the cat")
        assert text.endswith(f"the{after}<|im_end|>") or text.endswith(f"cat{after}<|im_end|>")


@pytest.mark.parametrize("overlong", ["error", "truncate"])
def test_a_query_that_leaves_no_room(overlong: str, bert: Embedder) -> None:
    words = "query: with what belongs to it, it has 64 tokens, which leaves no room for a document; max_tokens is 64"
    with pytest.raises(InvalidArgumentError, match=words):
        bert.rerank("cat " * 61, ["a"], overlong=overlong)
    assert len(bert.rerank("cat " * 60, ["a"], overlong=overlong)) == 1


# ---- models


def test_a_model_of_embeddings(tiny: Tiny) -> None:
    with (
        Embedder(tiny("bert"), n_threads=1) as embedder,
        pytest.raises(InvalidArgumentError, match="pooling: mean gives embeddings; the model has no layer that gives"),
    ):
        embedder.rerank(QUERY, DOCUMENTS)
    with (
        Embedder(tiny("bert-reranker"), pooling="cls", n_threads=1) as embedder,
        pytest.raises(InvalidArgumentError, match="pooling: cls gives embeddings; open the Embedder with"),
    ):
        embedder.rerank(QUERY, DOCUMENTS)


def test_a_model_without_separators(tiny: Tiny) -> None:
    overrides = {"tokenizer.ggml.add_eos_token": False}
    with Model(tiny("qwen3-reranker"), kv_overrides=overrides) as model, Embedder(model, n_threads=1) as embedder:
        with pytest.raises(InvalidArgumentError, match="template: the model's file has neither a template"):
            embedder.rerank(QUERY, DOCUMENTS)
        assert len(embedder.rerank(QUERY, DOCUMENTS, template="{query} {document}")) == 6


def test_a_softmax_over_one_score(tmp_path: Path) -> None:
    path = special_variant(tmp_path / "one.gguf", "qwen3", cls_output_weight=(1, 32))
    with (
        Embedder(path, pooling="rank", n_threads=1) as embedder,
        pytest.raises(InvalidArgumentError, match="model: its only score is 1 for any text, as libllama"),
    ):
        embedder.rerank(QUERY, DOCUMENTS)


def test_a_tanh_at_the_end(tmp_path: Path) -> None:
    """jina-bert-v2: what libllama gives is the tanh of the logit, the normalised score the logit's sigmoid."""
    path = special_variant(tmp_path / "jina.gguf", "jina-bert-v2", cls_weight=(1, 32))
    with Embedder(path, pooling="rank", n_threads=1) as embedder:
        found = embedder.rerank(QUERY, DOCUMENTS[:2], sort=False, template="[CLS]{query}[SEP]{document}[SEP]")
        sequences = [whole(embedder.model, "[CLS]{query}[SEP]{document}[SEP]", text) for text in DOCUMENTS[:2]]
        logits = [tiny_models.values("cls.weight", (1, 32)) @ hidden(embedder.model, one)[0] for one in sequences]
    assert found.raw == pytest.approx(np.tanh(logits), abs=2e-3)
    assert found.normalized == pytest.approx(sigmoid(np.array(logits)), abs=4e-3)


def test_a_score_that_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the document, though equal ones before it were left out."""
    values = tiny_models.values

    def damaged(name: str, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
        found = values(name, shape, seed)
        if name == "token_embd.weight":
            found[plain_cat] = np.inf
        return found

    with Model(special_variant(tmp_path / "whole.gguf", "bert-reranker")) as model:
        plain_cat = plain(model, "cat")[0]
    monkeypatch.setattr(tiny_models, "values", damaged)
    path = special_variant(tmp_path / "damaged.gguf", "bert-reranker")
    with Embedder(path, n_threads=1) as embedder, pytest.raises(LlamaError, match=r"documents\[2\]: .* not finite"):
        embedder.rerank(QUERY, ["a", "a", "the cat"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 0}, "top_k: 0 is not between 1"),
        ({"top_k": 1.5}, "top_k: 1.5 is no integer"),
        ({"label": 1}, "label: 1 is not between 0 and 0"),
        ({"label": "yes"}, "label: 'yes' is none of"),
        ({"overlong": "chunk"}, "overlong: 'chunk' is none of error, truncate"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], words: str, bert: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        bert.rerank(QUERY, DOCUMENTS, **options)


@pytest.mark.parametrize(
    ("query", "documents", "words"),
    [
        (7, ["a"], "query: it is int, not str"),
        ("\ud800", ["a"], r"query: UTF-8 cannot hold the surrogate U\+D800"),
        ("a", ["a", None], r"documents\[1\]: it is missing"),
        ("a", "a", "documents: it is one text; pass a list"),
    ],
)
def test_what_is_no_text(query: Any, documents: Any, words: str, bert: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        bert.rerank(query, documents)
