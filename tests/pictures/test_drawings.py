"""What is drawn is what the numbers are: on the axes given, or on new ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from rawllama import Embedder, InvalidArgumentError, Model, pictures
from rawllama.geometry import clusters, project
from rawllama.layers import (
    NTK,
    EmbeddingTable,
    Linear,
    YaRN,
    alibi_bias,
    alibi_slopes,
    rope_frequencies,
    sinusoidal_positions,
)
from rawllama.pictures import samples
from rawllama.pictures.placing import place_labels
from rawllama.pictures.rope import score_at
from rawllama.pictures.style import with_fonts
from rawllama.planning import Plan
from rawllama.similarity import similarity

TEXTS = list(samples.PAIRS)
Tiny = Callable[[str], Path]


@pytest.fixture
def axes() -> Axes:
    return Figure(layout="constrained").subplots()


@pytest.fixture(scope="module")
def model(minilm: str) -> Iterator[Model]:
    with Model(minilm) as opened:
        yield opened


@pytest.fixture(scope="module")
def embedder(model: Model) -> Iterator[Embedder]:
    with Embedder(model) as opened:
        yield opened


def image(axes: Axes) -> NDArray[Any]:
    (drawn,) = axes.images
    return np.ma.asarray(drawn.get_array())


def lines(axes: Axes) -> dict[str, NDArray[Any]]:
    """The named lines by their names: shape (2, points)."""
    return {str(line.get_label()): np.array(line.get_data()) for line in axes.lines if line.get_label()[0] != "_"}


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def is_complete(axes: Axes) -> bool:
    """It has a title and says what its axes are, and can be drawn."""
    figure = axes.get_figure()
    assert figure is not None
    figure.draw_without_rendering()
    return bool(axes.get_title() and axes.get_xlabel())


# ---- positions


def test_sinusoidal_positions(axes: Axes) -> None:
    assert pictures.positions(n=20, d=16, base=100.0, axes=axes) is axes
    assert np.array_equal(image(axes), sinusoidal_positions(np.arange(20), 16, 100.0))
    assert is_complete(axes)


def test_products_of_positions(axes: Axes) -> None:
    """The cosines, for sinusoidal rows dot products over d / 2."""
    pictures.position_products(n=20, d=16, axes=axes)
    rows = sinusoidal_positions(np.arange(20), 16)
    np.testing.assert_allclose(image(axes), rows @ rows.T / 8, atol=1e-6)
    assert is_complete(axes)


def test_learned_positions(minilm: str, axes: Axes) -> None:
    rows = EmbeddingTable(minilm, "position_embd.weight").rows(range(30))
    pictures.positions(rows, axes=axes)
    assert np.array_equal(image(axes), rows.astype(np.float64))
    assert axes.get_title() == "Learned positions"
    assert axes.images[0].get_clim()[0] == -axes.images[0].get_clim()[1]  # white is 0
    np.testing.assert_allclose(image(pictures.position_products(rows)), similarity(rows), atol=1e-5)


def test_rope(axes: Axes) -> None:
    pictures.rope(32, base=500.0, n_ctx=100, factor=8.0, axes=axes)
    drawn = lines(axes)
    assert tuple(drawn) == pictures.SCALINGS
    for name, scaling in zip(drawn, (None, Linear(8.0), NTK(8.0), YaRN(8.0, 100)), strict=True):
        turns = rope_frequencies(32, 500.0, scaling) * 800 / (2 * np.pi)
        np.testing.assert_allclose(drawn[name], [np.arange(16), turns])
    assert axes.get_yscale() == "log"
    assert is_complete(axes)


def test_rope_decay(axes: Axes) -> None:
    pictures.rope_decay(32, base=500.0, n_ctx=100, factor=8.0, axes=axes)
    drawn = lines(axes)
    assert tuple(drawn) == pictures.SCALINGS
    distances, scores = drawn["linear"]
    assert (distances[0], distances[-1]) == (1, 800)
    np.testing.assert_allclose(scores, score_at(distances, rope_frequencies(32, 500.0, Linear(8.0))))
    assert is_complete(axes)
    assert pictures.rope_decay(legend=False).get_legend() is None


def test_the_score_is_the_mean_of_scores() -> None:
    """What `score_at` says of itself: the mean over distances of the score of rotated vectors."""
    frequencies = rope_frequencies(32)
    near = np.linspace(0.75, 1.25, 4001) * 60
    by_hand = np.cos(near[:, None] * frequencies).mean()
    assert score_at([60], frequencies)[0] == pytest.approx(by_hand, abs=1e-4)
    assert score_at([0], frequencies)[0] == 1


def test_alibi(axes: Axes) -> None:
    pictures.alibi_slopes(12, max_bias=4.0, axes=axes)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), alibi_slopes(12, 4.0))
    assert is_complete(axes)


def test_alibi_bias(axes: Axes) -> None:
    pictures.alibi_bias(12, max_bias=4.0, n=10, axes=axes)
    expected = alibi_bias(alibi_slopes(12, 4.0), np.array([0]), np.arange(-10, 11))[:, 0]
    drawn = lines(axes)
    assert len(drawn) == 12
    for head, row in enumerate(expected):
        np.testing.assert_allclose(drawn[f"head {head}"], [np.arange(-10, 11), row])
    assert is_complete(axes)


# ---- texts


def test_similarity(embedder: Embedder, axes: Axes) -> None:
    assert pictures.similarity(embedder, TEXTS, axes=axes) is axes
    expected = similarity(embedder.encode(TEXTS))
    np.testing.assert_allclose(image(axes), expected, atol=1e-6)
    assert words(axes) == [f"{number:.2f}" for number in expected.ravel().tolist()]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == TEXTS
    assert axes.get_title()


def test_similarity_of_many(embedder: Embedder) -> None:
    """Neither numbers nor words where there is no room for them."""
    axes = pictures.similarity(embedder, [f"text {number}" for number in range(50)], metric="euclid")
    assert image(axes).shape == (50, 50)
    assert not words(axes)
    assert not any(tick.get_text() for tick in axes.get_xticklabels())


def test_layers(model: Model, embedder: Embedder, axes: Axes) -> None:
    states = pictures.layer_states(model, TEXTS)
    assert states.shape == (7, 8, 384)
    np.testing.assert_allclose(states[-1], embedder.encode(TEXTS, normalize="none"), atol=1e-5)
    pictures.layers(states, TEXTS, axes=axes)
    drawn = lines(axes)
    assert list(drawn) == TEXTS
    for number, text in enumerate(TEXTS):
        cosines = similarity(states[:, number], states[-1, number])
        np.testing.assert_allclose(drawn[text], [np.arange(7), cosines], atol=1e-5)
    assert is_complete(axes)


def test_layer_norms(model: Model, axes: Axes) -> None:
    states = pictures.layer_states(model, TEXTS, "cls")
    pictures.layer_norms(states, TEXTS, legend=False, axes=axes)
    drawn = lines(axes)
    for number, text in enumerate(TEXTS):
        np.testing.assert_allclose(drawn[text][1], np.linalg.norm(states[:, number], axis=1), rtol=1e-5)
    assert axes.get_legend() is None
    assert is_complete(axes)


@pytest.mark.parametrize("method", ["pca", "umap"])
def test_text_map(method: str, embedder: Embedder, axes: Axes) -> None:
    pictures.text_map(embedder, samples.ALL, method=method, axes=axes)
    rows = embedder.encode(samples.ALL)
    points, groups = project(rows, method), clusters(rows, 4)
    assert len(axes.collections) == 4
    for group, drawn in enumerate(axes.collections):
        np.testing.assert_allclose(drawn.get_offsets(), points[groups == group], atol=1e-6)
    assert sorted(words(axes)) == sorted(samples.ALL)
    assert is_complete(axes)


def test_the_topics_are_the_clusters(embedder: Embedder, axes: Axes) -> None:
    """The four topics of the built-in texts, by labels and by k-means."""
    labels = [topic for topic, texts in samples.TOPICS.items() for _ in texts]
    pictures.text_map(embedder, samples.ALL, labels=labels, axes=axes)
    assert [str(one.get_label()) for one in axes.collections] == list(samples.TOPICS)
    by_cluster = pictures.text_map(embedder, samples.ALL)
    for one, other in zip(axes.collections, by_cluster.collections, strict=True):
        assert np.array_equal(one.get_offsets(), other.get_offsets())


@pytest.mark.parametrize("seed", range(3))
def test_words_cover_no_words(seed: int, embedder: Embedder) -> None:
    """Crowded points too: what there is no room for is left out."""
    texts = [f"text number {number} about nothing" for number in range(seed, seed + 30)]
    axes = pictures.text_map(embedder, texts)
    assert 15 < len(axes.texts) <= 30
    require_apart(axes)


def require_apart(axes: Axes) -> None:
    """No word covers another, and all are on the axes."""
    figure: Any = axes.get_figure()
    figure.draw_without_rendering()
    boxes = np.array([Text.get_window_extent(text).extents for text in axes.texts])  # without the line
    low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    np.fill_diagonal(shared, 0)
    assert not shared.any()
    inside = axes.get_window_extent().extents
    assert (boxes[:, :2] >= inside[:2]).all()
    assert (boxes[:, 2:] <= inside[2:]).all()


def test_words_without_room(axes: Axes) -> None:
    """Thirty long words on one spot: some find a place, the others are left out."""
    points = np.random.default_rng(0).uniform(0.45, 0.55, (30, 2))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    written = place_labels(axes, points, [f"a long label with the number {number}" for number in range(30)])
    assert written == len(axes.texts)
    assert 5 < written < 30
    require_apart(axes)


def test_plan(embedder: Embedder, axes: Axes) -> None:
    plan = embedder.plan(samples.of_many_lengths())
    pictures.plan(plan, axes=axes)
    tokens, padding = axes.containers
    assert [bar.get_height() for bar in tokens] == plan.tokens.tolist()
    assert [bar.get_height() for bar in padding] == (plan.sequences * plan.longest - plan.tokens).tolist()
    assert [bar.get_y() for bar in padding] == plan.tokens.tolist()
    assert words(axes) == [str(count) for count in plan.sequences.tolist()]
    assert f"{1 - plan.tokens.sum() / (plan.sequences * plan.longest).sum():.0%}" in axes.get_title()
    assert is_complete(axes)


def test_texts_of_any_kind(embedder: Embedder, axes: Axes) -> None:
    """Nothing in a text is taken for mathematics, and what is not seen has a sign."""
    pictures.similarity(embedder, ["$x^$", "", "a\n\tb\x07", "x" * 99, "日本語"], axes=axes)
    assert [tick.get_text() for tick in axes.get_yticklabels()][:3] == ["$x^$", "(empty)", "a b"]
    figure: Any = axes.get_figure()
    with with_fonts(), warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        figure.draw_without_rendering()  # mathematics would be an error


# ---- attention masks


def expected_mask(sequences: NDArray[np.int32], positions: NDArray[np.int64], window: int | None) -> NDArray[np.bool_]:
    same = sequences[:, None] == sequences
    return same if window is None else same & (np.abs(positions[:, None] - positions) <= window // 2)


def test_bidirectional_mask(model: Model, axes: Axes) -> None:
    (mask,) = pictures.masks_of(model, samples.SENTENCES)
    assert mask.sequences.tolist() == [0] * 6 + [1] * 7 + [2] * 3
    assert np.array_equal(mask.visible, mask.sequences[:, None] == mask.sequences)
    assert (mask.causal, mask.windowed) == (False, False)
    pictures.attention_mask(mask, axes=axes)
    drawn = np.ma.asarray(axes.images[0].get_array())
    assert np.array_equal(~np.ma.getmaskarray(drawn), mask.visible)
    assert np.array_equal(drawn.data, np.broadcast_to(mask.sequences[:, None], (16, 16)))
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels[:7] == ["[CLS]", "the", "cat", "sits", "outside", "[SEP]", "[CLS]"]
    assert axes.get_title().startswith("Bidirectional")
    assert is_complete(axes)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_causal_mask(name: str, tiny: Tiny) -> None:
    with Model(tiny(name)) as model:
        (mask,) = pictures.masks_of(model, ["the cat sat", "a cat"])
    assert np.array_equal(mask.visible, np.tril(mask.sequences[:, None] == mask.sequences))
    assert pictures.attention_mask(mask).get_title().startswith("Causal")


@pytest.mark.parametrize("name", ["modern-bert", "gemma-embedding"])
def test_window_mask(name: str, tiny: Tiny) -> None:
    """Some layers see a text, others the tokens at most half a window of 8 away."""
    with Model(tiny(name)) as model:
        whole, window = pictures.masks_of(model, ["the cat sat outside in the garden", "a cat"])
    positions = np.concatenate([np.arange(count) for count in np.bincount(whole.sequences)])
    assert np.array_equal(whole.visible, expected_mask(whole.sequences, positions, None))
    assert np.array_equal(window.visible, expected_mask(whole.sequences, positions, 8))
    assert (whole.windowed, window.windowed) == (False, True)
    assert pictures.attention_mask(window).get_title().startswith("Sliding window")


def test_alibi_mask(tiny: Tiny, axes: Axes) -> None:
    """Its numbers are distances, which the picture shows."""
    with Model(tiny("jina-bert-v2")) as model:
        (mask,) = pictures.masks_of(model, ["the cat sat", "a cat"])
    pictures.attention_mask(mask, axes=axes)
    drawn = np.ma.asarray(axes.images[0].get_array())
    distances = np.abs(np.subtract.outer(np.arange(len(mask.tokens)), np.arange(len(mask.tokens))))
    assert np.array_equal(drawn.compressed(), -distances[mask.visible].astype(np.float32))
    assert axes.get_title().startswith("Bidirectional")


def test_encoder_masks_are_bidirectional(tiny: Tiny) -> None:
    """Also where the context calls itself causal, as T5's does."""
    with Model(tiny("t5encoder")) as model:
        (mask,) = pictures.masks_of(model, ["the cat", "a"])
    assert np.array_equal(mask.visible, mask.sequences[:, None] == mask.sequences)


def test_many_tokens(model: Model) -> None:
    (mask,) = pictures.masks_of(model, ["word " * 20] * 30)
    axes = pictures.attention_mask(mask)
    assert image(axes).shape == (660, 660)
    assert not any(tick.get_text() for tick in axes.get_yticklabels())


# ---- refused


def empty_plan() -> Plan:
    none = np.empty(0, np.int64)
    return Plan(0, 0, none, none, none, none, none, none, np.empty(0), None)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda e: pictures.positions(n=0), "n: 0 is less than 1"),
        (lambda e: pictures.positions(d=3), "d: 3 is no even number"),
        (lambda e: pictures.positions(np.ones(3)), r"rows: shape \(3,\); \(n, d\) is wanted"),
        (lambda e: pictures.rope(7), "d: 7 is no even number"),
        (lambda e: pictures.rope(n_ctx=0), "n_ctx: 0 is less than 1"),
        (lambda e: pictures.rope_decay(factor=0.5), "factor: 0.5 is less than 1"),
        (lambda e: pictures.alibi_slopes(0), "n_head: 0"),
        (lambda e: pictures.alibi_bias(n=0), "n: 0 is less than 1"),
        (lambda e: pictures.similarity(e, "one"), r"texts: it is one text; pass a list, e.g. \[text\]"),
        (lambda e: pictures.similarity(e, []), "texts: 0 of them; at least 1 are needed"),
        (lambda e: pictures.similarity(e, ["a"], metric="x"), "metric: 'x' is none of"),
        (lambda e: pictures.text_map(e, ["a", "b"]), "texts: 2 of them; at least 3 are needed"),
        (lambda e: pictures.text_map(e, list("abc"), labels=["a"]), "labels: 1 for 3 texts"),
        (lambda e: pictures.text_map(e, list("abc"), method="x"), "method: 'x' is none of pca, umap"),
        (lambda e: pictures.text_map(e, list("abc"), n_clusters=0), "n: 0 clusters"),
        (lambda e: pictures.layers(np.ones((2, 3, 4), np.float32), ["a"]), r"states: shape \(2, 3, 4\); \(n_layer"),
        (lambda e: pictures.layer_states(e.model, ["a"], "most"), "pooling: 'most' is none of"),
        (lambda e: pictures.layer_states(e.model, ["a " * 600]), "positions"),
        (lambda e: pictures.masks_of(e.model, []), "texts: 0 of them"),
        (lambda e: pictures.plan(empty_plan()), "plan: it has no batches; plan at least one text"),
    ],
)
def test_refused(call: Any, text: str, embedder: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        call(embedder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mamba", "has no attention, so no mask"),
        ("t5", "has an encoder and a decoder; name one that has one part"),
        ("lfm2", "texts: the model computes them one after the other, with a mask each; give one text"),
    ],
)
def test_models_without_one_mask(name: str, text: str, tiny: Tiny) -> None:
    with Model(tiny(name)) as model, pytest.raises(InvalidArgumentError, match=text):
        pictures.masks_of(model, ["the cat sat outside", "a"])
