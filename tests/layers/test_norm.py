"""Both norms against ggml, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama import InvalidArgumentError
from rawllama.layers import layer_norm, rms_norm
from rawllama.layers.check import operations


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("d", [1, 32, 384, 1000])
@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.1])
def test_as_ggml(d: int, eps: float) -> None:
    x, weight, bias = 3 * random(9, d) + 0.5, random(d), random(d, 1)[:, 0]
    ours, theirs = layer_norm(x, weight, bias, eps), operations.layer_norm(x, weight, bias, eps)
    assert ours.dtype == np.float32
    assert np.allclose(ours, theirs, rtol=1e-5, atol=2e-6)
    assert np.allclose(rms_norm(x, weight, eps), operations.rms_norm(x, weight, eps), rtol=1e-5, atol=2e-6)


def test_by_hand() -> None:
    assert np.allclose(layer_norm([[1.0, 2.0, 3.0, 6.0]], eps=0), (np.array([-2, -1, 0, 3]) / np.sqrt(3.5)))
    assert np.allclose(rms_norm([[1.0, 1.0, 1.0, 5.0]], eps=0), np.array([1, 1, 1, 5]) / np.sqrt(7))
    x = random(2, 3, 16).astype(np.float64)
    found = layer_norm(x)
    assert found.dtype == np.float64
    assert np.allclose(found.mean(axis=-1), 0)
    assert np.allclose(found.std(axis=-1), 1)
    assert np.allclose(layer_norm(5 + 7 * x), found)  # neither shift nor scale of a row matters
    assert np.allclose(rms_norm(7 * x, eps=0), rms_norm(x, eps=0))


def test_the_argument_stays_as_it_is() -> None:
    x = random(3, 8).astype(np.float64)
    before = x.copy()
    layer_norm(x, np.ones(8), np.ones(8))
    rms_norm(x, np.ones(8))
    assert np.array_equal(x, before)


def test_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"x: <U1, shape \(1,\) is no array of numbers"):
        layer_norm(["a"])
    with pytest.raises(InvalidArgumentError, match=r"x: int64, shape \(\) is no array of numbers"):
        rms_norm(3)
