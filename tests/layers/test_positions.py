"""Sinusoidal positions: the paper's numbers, and its remark on shifts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from rawllama import InvalidArgumentError
from rawllama.layers import rope, rope_frequencies, sinusoidal_positions
from rawllama.layers.check import operations


def test_by_hand() -> None:
    found = sinusoidal_positions([0, 1, 50], 6)
    assert found.dtype == np.float64
    for row, p in zip(found, (0, 1, 50), strict=True):
        expected = [f(p / 10000 ** (2 * i / 6)) for i in range(3) for f in (math.sin, math.cos)]
        assert np.allclose(row, expected, atol=1e-15)
    assert np.array_equal(found[0], [0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("d", [2, 64, 384])
def test_as_ggml(d: int) -> None:
    at = np.array([0, 1, 2, 17, 511], np.float32)
    assert np.abs(sinusoidal_positions(at, d) - operations.sinusoidal(at, d, 10000.0)).max() < 1e-4
    assert np.abs(sinusoidal_positions(at[:3], d) - operations.sinusoidal(at[:3], d, 10000.0)).max() < 1e-6


@given(start=some.integers(0, 5000), shift=some.integers(-500, 500), base=some.sampled_from([100.0, 10000.0]))
def test_a_shift_is_a_linear_map_wherever_it_begins(start: int, shift: int, base: float) -> None:
    """The map is made of rotations, which positions 0 to 7 tell alone."""
    d = 8
    at = np.arange(start, start + 5)
    fitted = np.linalg.lstsq(
        sinusoidal_positions(np.arange(64), d, base), sinusoidal_positions(np.arange(64) + shift, d, base), rcond=None
    )[0]
    moved = sinusoidal_positions(at, d, base) @ fitted
    assert np.allclose(moved, sinusoidal_positions(at + shift, d, base), atol=1e-6)
    # The same as a formula: sine and cosine are RoPE's pair, turned backwards.
    turned = rope(sinusoidal_positions(at, d, base), [-shift] * 5, rope_frequencies(d, base))
    assert np.allclose(turned, sinusoidal_positions(at + shift, d, base), atol=1e-9)


@given(p=some.integers(0, 5000), q=some.integers(0, 5000))
def test_products_depend_on_the_distance_only(p: int, q: int) -> None:
    rows = sinusoidal_positions([p, q, p - q, 0], 64)
    assert rows[0] @ rows[1] == pytest.approx(rows[2] @ rows[3], abs=1e-9)
    assert rows[0] @ rows[0] == pytest.approx(32)


@pytest.mark.parametrize(
    ("positions", "d", "words"),
    [
        ([0], 5, "d: 5 is no even number"),
        ([[0]], 4, r"positions: int64, shape \(1, 1\) is no list of numbers"),
        (["a"], 4, "positions: <U1"),
    ],
)
def test_refused(positions: Any, d: int, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        sinusoidal_positions(positions, d)


def test_none() -> None:
    assert sinusoidal_positions([], 4).shape == (0, 4)
