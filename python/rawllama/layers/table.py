"""Rows of an embedding table, read one by one from the GGUF file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rawllama.errors import InvalidArgumentError
from rawllama.tensors import Source, Tensors

from ._arguments import integers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TOKENS, POSITIONS, SEGMENTS = "token_embd.weight", "position_embd.weight", "token_types.weight"


class EmbeddingTable:
    """A table of a GGUF file: only the rows that are asked for are read, and the model is not loaded.

    Parameters
    ----------
    source
        Path of the GGUF file, or of the first where the model is split; or a Model that was loaded from paths.
    name
        The tensor.

    Attributes
    ----------
    shape : tuple
        Rows, and numbers a row.
    type : str
        The type of its numbers in the file, e.g. `f16` or `q4_K`.
    n_bytes : int
        Bytes in the file, and in memory once the model is loaded.

    Raises
    ------
    OSError
        The file cannot be read.
    ModelLoadError
        It is no GGUF, or it ends too early.
    InvalidArgumentError
        It has no such tensor; the message names the closest.
    """

    def __init__(self, source: Source, name: str = TOKENS) -> None:
        self._tensor = Tensors.of(source)[name]
        self.name = name
        self.shape = (self._tensor.n_rows, self._tensor.width)
        self.type = self._tensor.type
        self.n_bytes = self._tensor.n_bytes

    def __repr__(self) -> str:
        return f"<EmbeddingTable {self.name}, {self.shape[0]} x {self.shape[1]} {self.type}>"

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, ids: ArrayLike) -> NDArray[np.float32]:
        """The rows of these ids, in their order; ggml itself makes float32 of them.

        Parameters
        ----------
        ids
            Integers, shape (n,): tokens, positions or segments.

        Returns
        -------
        ndarray
            float32, shape (n, width).

        Raises
        ------
        InvalidArgumentError
            An id below 0 or beyond the last row, or a type of numbers that ggml cannot read.

        Calls: ggml_get_type_traits (its to_float)
        """
        wanted = integers(ids, "ids")
        outside = (wanted < 0) | (wanted >= len(self))
        if outside.any():
            first = int(wanted[outside][0])
            raise InvalidArgumentError(f"ids: {first} is no row of {self.name}, which are 0 to {len(self) - 1}")
        return self._tensor.rows(wanted)


def learned_positions(source: Source, positions: ArrayLike) -> NDArray[np.float32]:
    """The learned row of each position, which is added to the token's (Devlin 2019, section 3, and GPT-2).

    Parameters
    ----------
    source
        As for `EmbeddingTable`.
    positions
        Integers, shape (n,).

    Returns
    -------
    ndarray
        float32, shape (n, d): rows of `position_embd.weight`.
    """
    return EmbeddingTable(source, POSITIONS).rows(positions)


def learned_segments(source: Source, segments: ArrayLike) -> NDArray[np.float32]:
    """The learned row of each token's segment: 0 for the first sentence, 1 for the second (Devlin 2019, section 3).

    Parameters
    ----------
    source
        As for `EmbeddingTable`.
    segments
        Integers, shape (n,). libllama takes all for 0, also the second text of a reranker's pair.

    Returns
    -------
    ndarray
        float32, shape (n, d): rows of `token_types.weight`.
    """
    return EmbeddingTable(source, SEGMENTS).rows(segments)


def scaled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows times the square root of their width (Vaswani 2017, section 3.4; Gemma).

    Token rows of variance 1 / d then have variance 1, as sinusoidal positions nearly have.

    Parameters
    ----------
    rows
        float32, shape (n, d).

    Returns
    -------
    ndarray
        float32, shape (n, d); the factor is rounded to float32 first, as in libllama.
    """
    factor = np.float32(math.sqrt(np.shape(rows)[-1]))
    grown: NDArray[np.float32] = np.asarray(rows, np.float32) * factor
    return grown
