"""RoPE against ggml_rope_ext, and what the papers say of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from numpy.typing import NDArray
from rawllama import InvalidArgumentError
from rawllama.layers import NTK, Linear, Scaling, YaRN, rope, rope_frequencies
from rawllama.layers.check import operations
from rawllama.layers.check.comparison import turned
from rawllama.layers.rope import PAIRINGS

NEAR = np.array([0, 1, 2, 3, 7, 31, 100, 255, 511], np.int32)
FAR = np.array([0, 1023, 4096, 8191, 32767], np.int32)
SCALINGS: tuple[Scaling | None, ...] = (
    None,
    Linear(4),
    Linear(0.5),
    NTK(8),
    YaRN(4, 128),
    YaRN(16, 4096, beta_fast=24, beta_slow=2),
    YaRN(8, 512, ext_factor=0.5, attn_factor=1.3),
    YaRN(4, 128, ext_factor=0, attn_factor=0.7),
)


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def magnitude(scaling: Scaling | None) -> float:
    return scaling.magnitude if isinstance(scaling, YaRN) else 1.0


# ---- against ggml


@pytest.mark.parametrize("n_rot", [64, 32, 6], ids="n_rot={}".format)
@pytest.mark.parametrize("base", [10000.0, 160000.0, 1e6], ids="{:g}".format)
@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_as_ggml(pairing: str, scaling: Scaling | None, base: float, n_rot: int) -> None:
    """All of a head's columns, or the first; the others stay as they are, to the bit."""
    x, frequencies = random(NEAR.size, 3, 64), rope_frequencies(n_rot, base, scaling)
    ours = rope(x, NEAR, frequencies, pairing, magnitude=magnitude(scaling))
    theirs = operations.rope(x, NEAR, n_rot, pairing, base, scaling)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= turned(x, NEAR, frequencies, magnitude(scaling)).value < 2e-3
    assert np.array_equal(theirs[..., n_rot:], x[..., n_rot:])
    assert np.array_equal(ours[..., n_rot:], x[..., n_rot:])


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_factors_as_ggml(pairing: str) -> None:
    """Llama 3's rope_freqs.weight, also together with an extension."""
    x, factors = random(NEAR.size, 2, 32), np.linspace(1, 8, 16).astype(np.float32)
    for scaling in (None, YaRN(4, 128)):
        frequencies = rope_frequencies(32, 500000.0, scaling, factors)
        ours = rope(x, NEAR, frequencies, pairing, magnitude=magnitude(scaling))
        theirs = operations.rope(x, NEAR, 32, pairing, 500000.0, scaling, factors)
        assert np.abs(ours - theirs).max() <= turned(x, NEAR, frequencies, magnitude(scaling)).value


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_far_positions_differ_by_the_angles_rounding_alone(scaling: Scaling | None) -> None:
    """ggml's float32 angles, multiplied up pair by pair, leave nothing but the products' rounding."""
    x, d, base = random(FAR.size, 2, 64), 64, 10000.0
    if isinstance(scaling, NTK):
        base *= scaling.factor ** (d / (d - 2))
    step = np.float32(np.float32(base) ** np.float32(-2 / d))
    angles = [FAR.astype(np.float32)]
    for _ in range(d // 2 - 1):
        angles.append(angles[-1] * step)
    ratio = rope_frequencies(d, scaling=scaling) / (base ** (-2 * np.arange(d // 2) / d))
    theirs = operations.rope(x, FAR, d, "half", scaling=scaling)
    for token in range(FAR.size):
        exact = np.array([angle[token] for angle in angles], np.float64) * ratio
        ours = rope(x[[token]], [1], exact, "half", magnitude=magnitude(scaling))
        # A position of 32767 has 9 bits left behind the point; a factor of 1/4 costs none, YaRN's mixture one.
        bound = 4e-7 if not isinstance(scaling, YaRN) or not scaling.ext_factor else 4e-7 + FAR[token] * 1.2e-7
        assert np.abs(ours - theirs[[token]]).max() <= bound * np.abs(x).max() * max(1, magnitude(scaling))


@settings(max_examples=500, deadline=None)
@given(
    half=some.integers(1, 128),
    base=some.floats(100, 1e7, width=32),
    n_ctx_orig=some.integers(16, 1 << 20),
    beta_fast=some.floats(2, 128, width=32),
    beta_slow=some.floats(0.125, 2, width=32),
)
def test_ends_of_the_ramp_as_ggml(half: int, base: float, n_ctx_orig: int, beta_fast: float, beta_slow: float) -> None:
    scaling = YaRN(4, n_ctx_orig, beta_fast, beta_slow)
    assert scaling.ends(2 * half, base) == operations.yarn_ends(2 * half, base, scaling)


@pytest.mark.parametrize(
    ("d", "n_ctx_orig", "base", "ends"),
    [(220, 602557, 10000.0, (95, 137)), (210, 286488, 160000.0, (63, 94)), (188, 797854, 160000.0, (65, 93))],
)
def test_ends_that_float64_would_move(d: int, n_ctx_orig: int, base: float, ends: tuple[int, int]) -> None:
    scaling = YaRN(4, n_ctx_orig)
    assert operations.yarn_ends(d, base, scaling) == scaling.ends(d, base) == ends


# ---- what it is for


POSITIONS = some.integers(0, 100_000)


@given(position=POSITIONS, pairing=some.sampled_from(PAIRINGS), seed=some.integers(0, 1000))
def test_it_keeps_the_norm(position: int, pairing: str, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((1, 4, 32))
    turned_x = rope(x, [position], rope_frequencies(32), pairing)
    assert np.allclose(np.linalg.norm(turned_x, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-12)


@given(
    query=POSITIONS,
    key=POSITIONS,
    shift=some.integers(-50_000, 50_000),
    pairing=some.sampled_from(PAIRINGS),
    scaling=some.sampled_from([None, Linear(4), NTK(8), YaRN(4, 2048)]),
)
def test_products_depend_on_the_distance_only(
    query: int, key: int, shift: int, pairing: str, scaling: Scaling | None
) -> None:
    rng = np.random.default_rng(7)
    q, k = rng.standard_normal((2, 1, 32))
    frequencies = rope_frequencies(32, scaling=scaling)

    def product(i: int, j: int) -> float:
        return float((rope(q, [i], frequencies, pairing) @ rope(k, [j], frequencies, pairing).T)[0, 0])

    assert product(query, key) == pytest.approx(product(query + shift, key + shift), abs=1e-8)
    assert product(query, key) == pytest.approx(product(query - key, 0), abs=1e-8)


def test_the_pairings_are_one_rotation_of_columns_in_another_order() -> None:
    x, frequencies = random(5, 2, 16).astype(np.float64), rope_frequencies(16)
    order = np.arange(16).reshape(8, 2).T.ravel()  # 0, 2, 4, ..., 1, 3, 5, ...
    assert np.allclose(rope(x, range(5), frequencies)[..., order], rope(x[..., order], range(5), frequencies, "half"))


def test_by_hand() -> None:
    """Position 3, two pairs: the first turns by 3, the second by 3 / 100."""
    found = rope([[1.0, 0.0, 0.0, 2.0]], [3], rope_frequencies(4))
    assert np.allclose(found, [[math.cos(3), math.sin(3), -2 * math.sin(0.03), 2 * math.cos(0.03)]])
    half = rope([[1.0, 0.0, 0.0, 2.0]], [3], rope_frequencies(4), "half")
    assert np.allclose(half, [[math.cos(3), -2 * math.sin(0.03), math.sin(3), 2 * math.cos(0.03)]])


# ---- the extensions


def test_limits_of_the_extensions() -> None:
    plain = rope_frequencies(64)
    assert np.allclose(rope_frequencies(64, scaling=Linear(1)), plain)
    assert np.allclose(rope_frequencies(64, scaling=Linear(4)), plain / 4)
    assert np.allclose(rope_frequencies(64, scaling=NTK(1)), plain)
    assert np.allclose(rope_frequencies(64, scaling=YaRN(1, 2048)), plain)
    assert YaRN(1, 2048).magnitude == 1
    assert np.allclose(rope_frequencies(64, scaling=YaRN(4, 2048, ext_factor=0)), plain / 4)
    assert YaRN(4, 2048, ext_factor=0, attn_factor=1.5).magnitude == 1.5


def test_linear_is_interpolation_of_positions() -> None:
    x = random(6, 2, 16)
    interpolated = rope(x, np.arange(6) / 4, rope_frequencies(16))
    assert np.allclose(rope(x, range(6), rope_frequencies(16, scaling=Linear(4))), interpolated, atol=1e-6)


def test_ntk_keeps_the_fastest_and_interpolates_the_slowest() -> None:
    ratio = rope_frequencies(64, scaling=NTK(8)) / rope_frequencies(64)
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(1 / 8)
    assert (np.diff(ratio) < 0).all()


def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones() -> None:
    scaling, plain = YaRN(4, 2048), rope_frequencies(64)
    ratio, turns = rope_frequencies(64, scaling=scaling) / plain, 2048 * plain / (2 * math.pi)
    low, high = scaling.ends(64, 10000.0)
    assert np.allclose(ratio[: low + 1], 1)
    assert np.allclose(ratio[high:], 1 / 4)
    assert (np.diff(ratio) <= 0).all()
    assert turns[low] >= 32 > turns[low + 1]  # beta_fast
    assert turns[high - 1] > 1 >= turns[high]  # beta_slow
    assert scaling.magnitude == pytest.approx(1 + 0.1 * math.log(4))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rope_frequencies(7), "d: 7 is no even number above 0"),
        (lambda: rope_frequencies(0), "d: 0 is no even number"),
        (lambda: rope_frequencies(8, 0), "base: 0 is no number above 0"),
        (lambda: rope_frequencies(8, math.nan), "base: nan is no number above 0"),
        (lambda: rope_frequencies(2, scaling=NTK(2)), "NTK needs two pairs of columns or more; use Linear"),
        (lambda: rope_frequencies(8, factors=[1, 2]), "factors: 2 of them for 4 pairs"),
        (lambda: Linear(0), "factor: 0 is no number above 0"),
        (lambda: NTK(-1), "factor: -1 is no number above 0"),
        (lambda: YaRN(2, 0), "n_ctx_orig: 0 is no number above 0"),
        (lambda: YaRN(2, 64, beta_slow=math.inf), "beta_slow: inf is no number above 0"),
        (lambda: rope(random(3, 8), [0, 1], rope_frequencies(8)), r"x: shape \(3, 8\) does not begin with the 2"),
        (lambda: rope(random(8), [0] * 8, rope_frequencies(8)), r"x: shape \(8,\) does not begin"),
        (lambda: rope(random(3, 8), range(3), rope_frequencies(16)), "frequencies: 8 pairs are more than the 8"),
        (lambda: rope(random(3, 8), range(3), rope_frequencies(8), "neox"), "pairing: .neox. is none of adjacent"),
        (lambda: rope([["a"]], [0], rope_frequencies(2)), "x: <U1, shape"),
    ],
)  # fmt: skip
def test_refused(call: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        call()


def test_no_tokens() -> None:
    assert rope(random(0, 2, 8), [], rope_frequencies(8)).shape == (0, 2, 8)
