"""Norms of rows, also of rows that a careless sum of powers would lose."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from rawllama import InvalidArgumentError
from rawllama.normalize import normalize_rows

rows_of_floats = hn.arrays(
    np.float32, st.tuples(st.integers(0, 5), st.integers(1, 8)), elements=st.floats(-(2.0**100), 2.0**100, width=32)
)


@given(rows_of_floats, st.floats(0.5, 50))
def test_the_norm_is_one(rows: Any, p: float) -> None:
    rows[np.abs(rows).max(axis=1, initial=0) < 1e-30] = 0  # what is left of the quotients of those is not a float32
    result = normalize_rows(rows, p).astype(np.float64)
    norms = (np.abs(result) ** p).sum(axis=1) ** (1 / p)
    assert np.abs(norms[rows.any(axis=1)] - 1).max(initial=0) < 1e-5
    assert not result[~rows.any(axis=1)].any()


@given(rows_of_floats)
def test_max_abs(rows: Any) -> None:
    result = normalize_rows(rows, "max-abs")
    assert np.allclose(np.abs(result).max(axis=1)[rows.any(axis=1)], 32760)
    assert np.array_equal(np.sign(result), np.sign(rows)) or (np.abs(rows) < 1e-30).any()


def test_names() -> None:
    rows = np.array([[3, -4], [0, 0]], np.float32)
    assert normalize_rows(rows, "none") is rows
    assert np.allclose(normalize_rows(rows, "l2"), [[0.6, -0.8], [0, 0]])
    assert np.allclose(normalize_rows(rows, "l1"), [[3 / 7, -4 / 7], [0, 0]])
    assert np.allclose(normalize_rows(rows, "max-abs"), [[24570, -32760], [0, 0]])
    assert np.array_equal(normalize_rows(rows, "2"), normalize_rows(rows, 2))
    assert rows.tolist() == [[3, -4], [0, 0]]  # the caller's matrix stays as it is


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-20, 1, 1e20, 1e38])
@pytest.mark.parametrize("p", [0.01, 1, 2, 3, 100, 1e6])
def test_extremes(p: float, scale: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = normalize_rows(np.array([[1, -1], [1, 0]], np.float32) * np.float32(scale), p)
    expected = np.array([[1, -1], [1, 0]]) / [[2 ** (1 / p)], [1]]
    assert np.allclose(result, expected, rtol=1e-6, atol=1e-30)


def test_many_rows() -> None:
    rows = np.random.default_rng(3).standard_normal((10_001, 3)).astype(np.float32)
    assert np.allclose(normalize_rows(rows, "l2"), rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("value", ["l3", "", "L2", 0, -1, "-1", float("nan"), float("inf"), None, [2]])
def test_wrong_values(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="is none of none, max-abs, l1, l2, or a number p > 0"):
        normalize_rows(np.ones((1, 1), np.float32), value)
