"""The embedding layer in numpy: each stage between a token id and a vector, small, with its formula and its source.

`rawllama layers MODEL` compares each with libllama. What is computed from positions and sizes alone is float64; what is
computed from rows has their dtype.

Sources: Vaswani 2017 (arXiv:1706.03762), Devlin 2019 (arXiv:1810.04805), Raffel 2020 (arXiv:1910.10683), Su 2021
(arXiv:2104.09864), Press 2022 (arXiv:2108.12409), Chen 2023 (arXiv:2306.15595), Peng 2023 (arXiv:2309.00071), Ba 2016
(arXiv:1607.06450), Zhang 2019 (arXiv:1910.07467), Reimers 2019 (arXiv:1908.10084), Hendrycks 2016 (arXiv:1606.08415).
"""

from __future__ import annotations

from .alibi import alibi_bias, alibi_slopes
from .buckets import relative_buckets
from .embedding import embedding_layer
from .norm import layer_norm, rms_norm
from .pool import ClassificationHead, pool
from .positions import sinusoidal_positions
from .recipes import Recipe, recipe
from .rope import rope, rope_frequencies
from .scaling import NTK, Linear, Scaling, YaRN
from .table import EmbeddingTable, learned_positions, learned_segments, scaled

__all__ = [
    "NTK",
    "ClassificationHead",
    "EmbeddingTable",
    "Linear",
    "Recipe",
    "Scaling",
    "YaRN",
    "alibi_bias",
    "alibi_slopes",
    "embedding_layer",
    "layer_norm",
    "learned_positions",
    "learned_segments",
    "pool",
    "recipe",
    "relative_buckets",
    "rms_norm",
    "rope",
    "rope_frequencies",
    "scaled",
    "sinusoidal_positions",
]
