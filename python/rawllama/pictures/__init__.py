"""Pictures of embeddings: each function draws on axes that it is given, or on new ones, and returns them.

    from rawllama import Embedder, pictures

    with Embedder("minilm") as embedder:
        axes = pictures.similarity(embedder, ["a cat", "a kitten", "a guitar"])
    axes.figure.savefig("similarity.png")

`rawllama plot` draws the same from the shell. They need the extra `plots`, and leave pyplot alone.
"""

from __future__ import annotations

from .alibi import alibi_bias, alibi_slopes
from .attention_mask import Mask, attention_mask, masks_of
from .layers import layer_norms, layer_states, layers
from .plan import plan
from .positions import position_products, positions
from .rope import SCALINGS, rope, rope_decay
from .similarity import similarity
from .text_map import text_map

__all__ = [
    "SCALINGS",
    "Mask",
    "alibi_bias",
    "alibi_slopes",
    "attention_mask",
    "layer_norms",
    "layer_states",
    "layers",
    "masks_of",
    "plan",
    "position_products",
    "positions",
    "rope",
    "rope_decay",
    "similarity",
    "text_map",
]
