"""Two small tasks for MTEB, of our own texts."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, DatasetDict
from mteb import TaskMetadata
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.sts import AbsTaskSTS

from .conftest import DOCUMENTS, QUERIES


def metadata(name: str, kind: Any, main_score: str) -> TaskMetadata:
    """Metadata of a task of our own; its data set is at no address."""
    return TaskMetadata(
        name=name,
        type=kind,
        main_score=main_score,
        description="A few texts of rawllama's tests.",
        reference=None,
        dataset={"path": "none", "revision": "1"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        modalities=["text"],
        category="t2t",
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )


class OwnSTS(AbsTaskSTS):
    """Each document with each query: 5 where they belong together, else 0."""

    metadata = metadata("OwnSTS", "STS", "cosine_spearman")

    def load_data(self, **kwargs: Any) -> None:
        numbers = range(len(DOCUMENTS))
        rows = [
            {"sentence1": DOCUMENTS[i], "sentence2": QUERIES[j], "score": 5.0 * (i == j)}
            for i in numbers
            for j in numbers
        ]
        self.dataset = DatasetDict({"test": Dataset.from_list(rows)})
        self.data_loaded = True


class OwnRetrieval(AbsTaskRetrieval):
    """Each query belongs to the document of its index."""

    metadata = metadata("OwnRetrieval", "Retrieval", "ndcg_at_10")

    def load_data(self, **kwargs: Any) -> None:
        ids = [str(i) for i in range(len(DOCUMENTS))]
        split = RetrievalSplitData(
            corpus=Dataset.from_dict({"id": [f"d{i}" for i in ids], "title": [""] * len(ids), "text": DOCUMENTS}),
            queries=Dataset.from_dict({"id": [f"q{i}" for i in ids], "text": QUERIES}),
            relevant_docs={f"q{i}": {f"d{i}": 1} for i in ids},
            top_ranked=None,
        )
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True
