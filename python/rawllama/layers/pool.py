"""From a row for each token to one for each text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama.errors import InvalidArgumentError
from rawllama.tensors import Source, Tensors

from ._arguments import choice, floats, integers
from .norm import layer_norm

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

POOLINGS = ("none", "mean", "cls", "last", "rank")
_MEAN = 1  # LLAMA_POOLING_TYPE_MEAN, as `classifier.pooling_type` has it
_SOFTMAX = ("qwen3", "qwen3vl")  # architectures whose scores are probabilities

Numbers = Any  # of any floating-point dtype


@dataclass(frozen=True)
class ClassificationHead:
    """What makes scores of a text's row: a dense layer with tanh, and a linear one (Devlin 2019; RoBERTa's code).

    softmax(output @ norm(tanh(dense @ x + dense_bias)) + output_bias), where a model has only some of that. ModernBERT
    has GELU, by its approximation with tanh, in tanh's place.
    """

    pooling: str
    """Which row it takes: `cls`, `last` or `mean`."""
    dense: NDArray[np.float32] | None = None
    dense_bias: NDArray[np.float32] | None = None
    norm: NDArray[np.float32] | None = None
    eps: float = 0.0
    output: NDArray[np.float32] | None = None
    output_bias: NDArray[np.float32] | None = None
    has_gelu: bool = False
    has_softmax: bool = False

    @classmethod
    def read(cls, source: Source) -> ClassificationHead:
        """The head that a GGUF file has: its tensors `cls.*`.

        Raises
        ------
        InvalidArgumentError
            The file has none.
        """
        tensors = Tensors.of(source)
        dense, output = (_matrix(tensors, f"{name}.weight") for name in ("cls", "cls.output"))
        if dense is None and output is None:
            raise InvalidArgumentError(f"source: {tensors.paths[0]} has no classification head; pooling rank needs one")
        return cls(
            _takes(tensors),
            dense,
            tensors.vector("cls.bias"),
            tensors.vector("cls.norm.weight"),
            tensors.number("attention.layer_norm_epsilon", 0),
            output,
            tensors.vector("cls.output.bias"),
            tensors.architecture == "modern-bert",
            tensors.architecture in _SOFTMAX,
        )

    def scores(self, rows: Numbers) -> Numbers:
        """Scores of each row: shape (n, d) to (n, scores)."""
        if self.dense is not None:
            rows = _linear(rows, self.dense, self.dense_bias)
            rows = _gelu(rows) if self.has_gelu else np.tanh(rows)
            rows = rows if self.norm is None else layer_norm(rows, self.norm, eps=self.eps)
        if self.output is not None:
            rows = _linear(rows, self.output, self.output_bias)
        return _softmax(rows) if self.has_softmax else rows


def pool(
    rows: ArrayLike, offsets: ArrayLike, pooling: str, head: ClassificationHead | None = None
) -> NDArray[np.floating[Any]]:
    """One row for each text: the mean of its tokens' (Reimers 2019), its first (Devlin 2019), or its last.

    Parameters
    ----------
    rows
        One for each token, shape (n_tokens, d): what the last layer gives.
    offsets
        Integers, shape (n + 1,): text i has the rows `offsets[i]` to before `offsets[i + 1]`.
    pooling
        `none`, `mean`, `cls`, `last`, or `rank`: scores in place of a row.
    head
        For `rank`: `ClassificationHead.read(model)`.

    Returns
    -------
    ndarray
        dtype of `rows`; shape (n, d), or (n, scores); for `none` the rows of all texts as they are.

    Raises
    ------
    InvalidArgumentError
        Offsets that do not fit the rows, a text without rows, an unknown pooling, `rank` without a head.
    """
    choice(pooling, POOLINGS, "pooling")
    values = floats(rows, "rows")
    bounds = _bounds(values, offsets)
    if pooling == "none":
        return values[bounds[0] : bounds[-1]]
    if pooling == "rank":
        if head is None:
            raise InvalidArgumentError("head: pooling rank needs one; pass ClassificationHead.read(model)")
        scores: NDArray[Any] = head.scores(_one(values.astype(np.float64), bounds, head.pooling))
        return scores.astype(values.dtype)
    return _one(values, bounds, pooling)


def _one(rows: NDArray[Any], bounds: NDArray[np.int64], pooling: str) -> NDArray[Any]:
    """A row for each text."""
    if pooling == "cls":
        return rows[bounds[:-1]]
    if pooling == "last":
        return rows[bounds[1:] - 1]
    sums = np.add.reduceat(rows[: bounds[-1]].astype(np.float64), bounds[:-1], axis=0)
    return (sums / np.diff(bounds)[:, None]).astype(rows.dtype)


def _bounds(rows: NDArray[Any], offsets: ArrayLike) -> NDArray[np.int64]:
    bounds = integers(offsets, "offsets")
    if rows.ndim != 2 or bounds.size < 2:
        raise InvalidArgumentError(f"rows: shape {rows.shape} is no matrix, or `offsets` are not n + 1 for n texts")
    if bounds[0] < 0 or bounds[-1] > len(rows) or (np.diff(bounds) < 1).any():
        raise InvalidArgumentError(f"offsets: a text has no rows, or they lie outside the {len(rows)}")
    return bounds


def _takes(tensors: Tensors) -> str:
    """What the head's row is: libllama takes the last one where attention is causal, else the first."""
    default = _MEAN if tensors.architecture == "modern-bert" else 0
    if tensors.number("classifier.pooling_type", default) == _MEAN:
        return "mean"
    return "cls" if tensors.architecture.endswith(("bert", "bert-v2", "bert-v3")) else "last"


def _matrix(tensors: Tensors, name: str) -> NDArray[np.float32] | None:
    return tensors[name].rows() if name in tensors else None


def _linear(rows: Numbers, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> Numbers:
    products = rows @ weight.T
    return products if bias is None else products + bias


def _gelu(x: Numbers) -> Numbers:
    """Hendrycks 2016: x times the normal distribution's function at x, approximated with tanh."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _softmax(x: Numbers) -> Numbers:
    grown = np.exp(x - x.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)
