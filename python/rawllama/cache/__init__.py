"""Rows that were computed once are not computed again: a store on disk, by text, model and settings.

    with Cache("vectors.cache") as cache, Embedder("minilm") as embedder:
        rows = cache.encode(embedder, texts)

`rawllama.arrow.embed_batches(..., cache=cache)` uses it, and so does `rawllama embed --cache vectors.cache`.
"""

from __future__ import annotations

from .store import Cache, Stats, is_cache

__all__ = ["Cache", "Stats", "is_cache"]
