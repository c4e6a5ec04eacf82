"""The geometry of embeddings: neighbours, analogies, senses of a word, clusters, maps, and what a table takes.

The functions on arrays know no model. `Words` gives rows names: a model's own token table, read from its file, or texts
that an Embedder has embedded. Similarity itself is `rawllama.similarity.similarity`.
"""

from __future__ import annotations

from rawllama.similarity import similarity

from .maps import METHODS, clusters, project
from .memory import table_bytes, table_sizes
from .nearest import Table, analogy, nearest
from .senses import Senses, WordVectors, senses, word_vectors
from .words import PIECES, Neighbour, Words

__all__ = [
    "METHODS",
    "PIECES",
    "Neighbour",
    "Senses",
    "Table",
    "WordVectors",
    "Words",
    "analogy",
    "clusters",
    "nearest",
    "project",
    "senses",
    "similarity",
    "table_bytes",
    "table_sizes",
    "word_vectors",
]
