"""Texts for pictures of which none are given."""

from __future__ import annotations

TOPICS = {
    "animals": (
        "The cat sleeps on the sofa",
        "My dog barks at the cat",
        "Dogs and cats make good pets",
        "The cat caught a mouse",
    ),
    "music": (
        "She plays the violin in an orchestra",
        "He gave a concert on the piano",
        "The band recorded a new album",
        "The orchestra plays a symphony",
    ),
    "food": (
        "She cooks pasta with tomatoes",
        "Bake the bread in a hot oven",
        "Roast the vegetables with garlic",
        "A recipe for fish soup",
    ),
    "money": (
        "The bank raised its interest rates",
        "Shares fell on the stock market",
        "Investors buy government bonds",
        "Inflation worries the central bank",
    ),
}
"""Short English sentences by topic."""

ALL = tuple(text for texts in TOPICS.values() for text in texts)
"""The texts of all topics, 16."""

PAIRS = (
    "The cat sits outside",
    "A feline rests outdoors",
    "A man plays the guitar",
    "Somebody strums an instrument",
    "The bank raised its rates",
    "Loans have become dearer",
    "He bakes bread in the oven",
    "Fresh loaves for breakfast",
)
"""Four things, each said twice."""

SENTENCES = ("The cat sits outside", "A man plays the guitar", "Hello")
"""A batch that is small enough to see its tokens."""


def of_many_lengths(count: int = 120) -> list[str]:
    """Texts of 1 to 12 sentences, none equal to another."""
    texts = []
    for number in range(count):
        sentences = [ALL[(number + step) % len(ALL)] for step in range(1 + 7 * number % 12)]
        texts.append(f"{number + 1}. {'. '.join(sentences)}.")
    return texts
