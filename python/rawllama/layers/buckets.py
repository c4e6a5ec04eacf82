"""T5's relative positions: each distance falls into a bucket, and each bucket has a learned bias for each head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rawllama.errors import InvalidArgumentError

from ._arguments import integers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def relative_buckets(
    query_positions: ArrayLike,
    key_positions: ArrayLike,
    n_buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool = True,
) -> NDArray[np.int32]:
    """The bucket of each distance j - i of a key from a query (Raffel 2020, section 2.1; the formula is in their code).

    With n buckets a side and e = n // 2: a distance below e has a bucket of its own; above, they widen by the
    logarithm, e + floor(ln(distance / e) / ln(max_distance / e) * (n - e)), and all from `max_distance` on share the
    last, n - 1.

    Parameters
    ----------
    query_positions, key_positions
        shape (n_q,) and (n_k,).
    n_buckets
        Of both sides together.
    max_distance
        128 in all T5 models, and in libllama.
    bidirectional
        Encoders: half of the buckets, the upper one, is for keys after the query. Decoders: all are for keys before it,
        and later ones, which attention does not see, count as distance 0.

    Returns
    -------
    ndarray
        int32, shape (n_q, n_k): rows of the tensor `attn_rel_b.weight`.

    Raises
    ------
    InvalidArgumentError
        Fewer than two buckets a side, or a `max_distance` that they hold one by one.
    """
    n = n_buckets // 2 if bidirectional else n_buckets
    exact = n // 2
    if exact < 1 or max_distance <= exact:
        words = f"{n_buckets} buckets and {max_distance} positions leave none to widen"
        raise InvalidArgumentError(f"n_buckets, max_distance: {words}; use 32 and 128, as T5 does")
    ahead = integers(key_positions, "key_positions") - integers(query_positions, "query_positions")[:, None]
    distance = np.abs(ahead) if bidirectional else np.maximum(-ahead, 0)
    bucket = np.where(distance < exact, distance, _wide(distance, exact, n, max_distance))
    return (bucket + (n * (ahead > 0) if bidirectional else 0)).astype(np.int32)


def _wide(distance: NDArray[np.int64], exact: int, n: int, max_distance: int) -> NDArray[np.int64]:
    """Buckets by the logarithm, in the precision of C: a distance at the edge of a bucket depends on it."""
    ratio = (np.maximum(distance, exact) / exact).astype(np.float32)
    logarithm = np.log(ratio.astype(np.float64)).astype(np.float32)
    widened = exact + (logarithm * np.float32(n - exact)).astype(np.float64) / math.log(max_distance / exact)
    return np.minimum(np.floor(widened.astype(np.float32)).astype(np.int64), n - 1)
