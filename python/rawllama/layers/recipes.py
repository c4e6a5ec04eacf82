"""What each architecture makes of tokens before its first layer; llama.cpp's src/models/*.cpp, in a table."""

from __future__ import annotations

from dataclasses import dataclass

from rawllama.errors import InvalidArgumentError


@dataclass(frozen=True)
class Recipe:
    """The parts that are added to the token's row, and what is done with the sum."""

    tensor: str = "embd"
    """Name of the result in libllama's graph."""
    has_segments: bool = False
    has_positions: bool = False
    norm: str = ""
    """`layer` or `rms`: the embedding norm."""
    scale: float | str | None = None
    """A number that the rows are multiplied by; `sqrt` of their width; or `key`: what `embedding_scale` says."""
    default_scale: float = 1.0
    """Where `embedding_scale` is missing."""


_PLAIN = (
    "llama", "llama4", "llama-embed", "mistral3", "deci", "falcon", "gptneox", "baichuan", "stablelm", "starcoder2",
    "refact", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "phi2", "phi3",
    "phimoe", "plamo", "codeshell", "orion", "internlm2", "xverse", "command-r", "cohere2", "dbrx", "olmo", "olmo2",
    "olmoe", "openelm", "arctic", "deepseek", "deepseek2", "chatglm", "glm4", "glm4moe", "bitnet", "jais", "nemotron",
    "exaone", "exaone4", "arcee", "ernie4_5", "ernie4_5-moe", "hunyuan-dense", "hunyuan-moe", "smollm3", "gpt-oss",
    "dream", "llada", "seed_oss", "apertus", "mamba", "mamba2", "jamba",
)  # fmt: skip
_RECIPES = {
    **{name: Recipe() for name in _PLAIN},
    "bert": Recipe("inp_norm-0", has_segments=True, has_positions=True, norm="layer"),
    "nomic-bert": Recipe("inp_norm-0", has_segments=True, norm="layer"),
    "nomic-bert-moe": Recipe("inp_norm-0", has_segments=True, norm="layer"),
    "jina-bert-v2": Recipe("inp_norm-0", has_segments=True, norm="layer"),
    "jina-bert-v3": Recipe("inp_norm-0", has_segments=True, norm="layer"),
    "modern-bert": Recipe("inp_norm-0", norm="layer"),
    "neo-bert": Recipe("inp_embd"),
    "eurobert": Recipe("inp_embd"),
    "t5": Recipe(),
    "t5encoder": Recipe(),
    "gpt2": Recipe("inpL", has_positions=True),
    "starcoder": Recipe("inpL", has_positions=True),
    "bloom": Recipe("inp_norm-0", norm="layer"),
    "lfm2": Recipe("model.embed_tokens"),
    "lfm2moe": Recipe("model.embed_tokens"),
    "talkie": Recipe("inp_norm", norm="rms"),
    "gemma": Recipe("inp_scaled", scale="sqrt"),
    "gemma2": Recipe("inp_scaled", scale="sqrt"),
    "gemma3": Recipe("inp_scaled", scale="sqrt"),
    "gemma-embedding": Recipe("inp_scaled", scale="sqrt"),
    "afmoe": Recipe("inp_embd_scaled", scale="sqrt"),
    "minicpm3": Recipe("inp_scaled", scale=12.0),
    "minicpm": Recipe(scale="key", default_scale=12.0),
    "grok": Recipe(scale="key", default_scale=78.38367176906169),
    "granite": Recipe(scale="key"),
    "granitemoe": Recipe(scale="key"),
    "granitehybrid": Recipe(scale="key"),
}


def recipe(architecture: str) -> Recipe:
    """What the architecture makes of tokens.

    Raises
    ------
    InvalidArgumentError
        It is not in the table.
    """
    if architecture in _RECIPES:
        return _RECIPES[architecture]
    words = "is not described; tap the input of its first layer with Context.tap"
    raise InvalidArgumentError(f"model: the embedding layer of the architecture {architecture!r} {words}")
