"""Rows in two dimensions, and in clusters: scikit-learn's and umap-learn's work, with fixed seeds."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from rawllama.errors import InvalidArgumentError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

METHODS = ("pca", "umap")
_UMAP_LEAST = 4  # rows; below, it has no neighbourhoods to keep
_UMAP_NEIGHBOURS = 15
_UMAP_SPECTRAL = 16  # rows; its usual start needs more of them than that


def project(rows: ArrayLike, method: str = "pca", *, seed: int = 0) -> NDArray[np.float64]:
    """Rows in two dimensions.

    Parameters
    ----------
    rows
        Shape (n, d).
    method
        `pca`: the two directions of most variance, by scikit-learn; distances shrink and none grows. `umap`: near rows
        stay near, by umap-learn with cosine distance; far distances and sizes of clusters mean nothing.
    seed
        Of what is random in it: the same seed gives the same map.

    Returns
    -------
    ndarray
        float64, shape (n, 2).

    Raises
    ------
    InvalidArgumentError
        Too few rows, rows that are not finite, or an unknown method.
    MissingExtraError
        The packages of the extra `plots` are not installed.
    """
    if method not in METHODS:
        raise InvalidArgumentError(f"method: {method!r} is none of {', '.join(METHODS)}")
    matrix = _matrix(rows, least=2 if method == "pca" else _UMAP_LEAST)
    return _pca(matrix, seed) if method == "pca" else _umap(matrix, seed)


def clusters(rows: ArrayLike, n: int, *, seed: int = 0) -> NDArray[np.int64]:
    """The cluster of each row, by scikit-learn's k-means; for rows of length 1 that is by cosine.

    Parameters
    ----------
    rows
        Shape (rows, d).
    n
        Number of clusters.
    seed
        Of its first guesses.

    Returns
    -------
    ndarray
        int64, shape (rows,): numbers from 0, in the order in which the clusters first appear.

    Raises
    ------
    InvalidArgumentError
        Not one row a cluster, or rows that are not finite.
    MissingExtraError
        scikit-learn is not installed.
    """
    if n < 1:
        raise InvalidArgumentError(f"n: {n} clusters; ask for at least 1")
    matrix = _matrix(rows, least=n)
    try:
        from sklearn.cluster import KMeans  # type: ignore[import-untyped, unused-ignore]
        from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise _missing("scikit-learn") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters: some stay empty
        labels = KMeans(n, n_init=10, random_state=seed).fit_predict(matrix)
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers].astype(np.int64)


def _pca(matrix: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    try:
        from sklearn.decomposition import PCA  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise _missing("scikit-learn") from None
    with np.errstate(invalid="ignore"):  # equal rows have no variance to share out
        points = PCA(min(2, matrix.shape[1]), svd_solver="full", random_state=seed).fit_transform(matrix)
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))).astype(np.float64)


def _umap(matrix: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    try:
        from umap import UMAP  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise _missing("umap-learn") from None
    n = len(matrix)
    start = "spectral" if n > _UMAP_SPECTRAL else "random"
    mapper = UMAP(
        n_neighbors=min(_UMAP_NEIGHBOURS, n - 1), metric="cosine", init=start, random_state=seed, n_jobs=1
    )  # one job: more are not reproducible
    points: Any = mapper.fit_transform(matrix)
    return np.asarray(points, np.float64)


def _matrix(rows: ArrayLike, least: int) -> NDArray[np.float64]:
    matrix = np.asarray(rows, np.float64)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise InvalidArgumentError(f"rows: shape {matrix.shape}; (n, d) is wanted")
    if len(matrix) < least:
        raise InvalidArgumentError(f"rows: {len(matrix)} of them; at least {least} are needed")
    if not np.isfinite(matrix).all():
        raise InvalidArgumentError("rows: some numbers are not finite")
    return matrix


def _missing(package: str) -> MissingExtraError:
    return MissingExtraError(f"{package} is not installed: pip install 'rawllama[plots]'")
