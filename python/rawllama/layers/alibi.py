"""ALiBi: attention with linear biases. Positions are no part of the rows; distances are subtracted from the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rawllama.errors import InvalidArgumentError

from ._arguments import numbers, positive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def alibi_slopes(n_head: int, max_bias: float = 8.0) -> NDArray[np.float64]:
    """What each head multiplies distances by (Press 2022, section 3, and the authors' code for other numbers of heads).

    For n heads, a power of two: m_h = 2 ** (-max_bias h / n), h = 1 ... n. Else those of the next lower power of two n,
    then as many as are missing of 2n heads' slopes 1, 3, 5, ..., which lie between.

    Parameters
    ----------
    n_head
        Number of attention heads.
    max_bias
        The last slope's exponent: 8 in the paper and in Jina's BERT (`attention.max_alibi_bias` in GGUF).

    Returns
    -------
    ndarray
        float64, shape (n_head,).

    Raises
    ------
    InvalidArgumentError
        No heads, or a bias that is not above 0.
    """
    if not isinstance(n_head, (int, np.integer)) or n_head < 1:
        raise InvalidArgumentError(f"n_head: {n_head!r} is no number of heads")
    n = 1 << (int(n_head).bit_length() - 1)
    even = np.arange(1, n + 1) / n
    between = np.arange(1, 2 * (n_head - n), 2) / (2 * n)
    slopes: NDArray[np.float64] = 2.0 ** (-positive(max_bias, "max_bias") * np.concatenate([even, between]))
    return slopes


def alibi_bias(
    slopes: ArrayLike, query_positions: ArrayLike, key_positions: ArrayLike, *, causal: bool = False
) -> NDArray[np.float64]:
    """What is added to the scores of attention, after they are divided by sqrt(d): -m_h |i - j| (Press 2022).

    An encoder such as Jina's sees both sides, so that the bias is symmetric. A decoder's has the same numbers for keys
    up to the query and -inf beyond it (`causal`). Some implementations add m_h j, without the query's position: that
    differs by the same number in all columns of a row, which the softmax takes away.

    Parameters
    ----------
    slopes
        What `alibi_slopes` gives, shape (n_head,).
    query_positions, key_positions
        shape (n_q,) and (n_k,).
    causal
        Whether keys beyond the query are hidden.

    Returns
    -------
    ndarray
        float64, shape (n_head, n_q, n_k).

    Raises
    ------
    InvalidArgumentError
        What is no list of numbers.
    """
    queries, keys = numbers(query_positions, "query_positions"), numbers(key_positions, "key_positions")
    ahead = keys - queries[:, None]
    bias: NDArray[np.float64] = -numbers(slopes, "slopes")[:, None, None] * np.abs(ahead)
    return np.where(ahead > 0, -np.inf, bias) if causal else bias
