"""Rates that were measured, as a file keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rawllama.bench.stats import Estimate
from rawllama.errors import InvalidArgumentError
from rawllama.rows import DTYPES

FORMAT = 1


@dataclass(frozen=True)
class Length:
    """Documents of about one length.

    Attributes
    ----------
    tokens, text_bytes
        Of a document, in the mean.
    documents_per_second
        Documents that are embedded a second and core, while all cores compute.
    """

    tokens: float
    text_bytes: float
    documents_per_second: Estimate

    @property
    def tokens_per_second(self) -> float:
        """Tokens that are embedded a second and core."""
        return self.tokens * self.documents_per_second.middle


@dataclass(frozen=True)
class Rates:
    """What one core does a second, and the room that vectors take.

    Attributes
    ----------
    model, dims, processor, cores, rawllama, date
        What they belong to.
    lengths
        Embedding, from short documents to long ones.
    tokenized_per_second
        Tokens of text, alone.
    read_per_second
        Bytes of text from Parquet, those of the strings.
    written_per_second
        Bytes of float32 vectors to Parquet, with an fsync.
    text_share
        Bytes that text takes in Parquet, those of its strings being 1.
    vector_bytes
        Bytes that a vector takes in Parquet, by dtype.
    notes
        Why the numbers may be noisy.
    """

    model: str
    dims: int
    processor: str
    cores: int
    rawllama: str
    date: str
    lengths: tuple[Length, ...]
    tokenized_per_second: Estimate
    read_per_second: Estimate
    written_per_second: Estimate
    text_share: float
    vector_bytes: Mapping[str, float]
    notes: Sequence[str] = ()

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Rates:
        """Read what `save` wrote.

        Raises
        ------
        InvalidArgumentError
            It is something else.
        OSError
            It cannot be read.
        """
        try:
            return _rates(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            words = f"not rates of rawllama corpus-plan ({error!r}); measure some with --measure"
            raise InvalidArgumentError(f"{path}: {words}") from None


def _rates(found: dict[str, Any]) -> Rates:
    if found.pop("format") != FORMAT:
        raise ValueError("another format")
    if not found["lengths"] or found["vector_bytes"].keys() != set(DTYPES):
        raise ValueError("no lengths, or not all dtypes")
    for one in found["lengths"]:
        one["documents_per_second"] = Estimate(**one["documents_per_second"])
    found["lengths"] = tuple(Length(**one) for one in found["lengths"])
    for name in [name for name in found if name.endswith("_per_second")]:
        found[name] = Estimate(**found[name])
    found["notes"] = tuple(found["notes"])
    return Rates(**found)
