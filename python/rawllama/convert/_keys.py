"""The hyperparameters of a model as GGUF keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from ._errors import ConvertError
from ._families import NEOBERT, NOMIC_MOE, Family
from ._folder import POOLINGS, Folder, Json

Kind = Literal["uint32", "float32", "bool", "string", "array"]

ROPE_THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
LOCAL_ROPE_THETA = ("local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta")

# GGUF key, the names that config.json may have for it, and whether it has to be there.
COUNTS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("block_count", ("n_layers", "num_hidden_layers", "n_layer", "num_layers"), True),
    ("context_length", ("max_position_embeddings", "n_ctx", "n_positions", "max_length"), True),
    ("embedding_length", ("hidden_size", "n_embd", "dim"), True),
    ("feed_forward_length", ("intermediate_size", "n_inner", "hidden_dim"), True),
    ("attention.head_count", ("num_attention_heads", "n_head", "n_heads"), True),
    ("expert_count", ("num_local_experts", "num_experts"), False),
)

# More than any classifier has, and few enough to list.
MOST_LABELS = 2**16

EPSILONS = (
    ("attention.layer_norm_rms_epsilon", ("rms_norm_eps", "norm_eps")),
    ("attention.layer_norm_epsilon", ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")),
)

# The only values for which libllama's graph of NomicBert is the model's own.
NOMIC_FIXED = {
    "causal": False,
    "prenorm": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
}


@dataclass
class Keys:
    """GGUF keys with their types, in the order in which they are written, and notes for the caller."""

    values: dict[str, tuple[Kind, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set(self, name: str, kind: Kind, value: Any) -> None:
        """Set one key, over an earlier value of it.

        Raises
        ------
        ConvertError
            The value is not of the key's type.
        """
        fits = {
            "uint32": isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32,
            "float32": isinstance(value, (int, float)) and not isinstance(value, bool),
            "bool": isinstance(value, bool),
            "string": isinstance(value, str),
            "array": isinstance(value, (list, bytes)),
        }
        if not fits[kind]:
            raise ConvertError(f"folder: {name} would be {value!r}, no {kind}; correct the JSON files")
        self.values[name] = (kind, value)


def first(config: Json, names: Iterable[str]) -> Any:
    """The value under the first of `names` that is in `config`, None where none is."""
    return next((config[name] for name in names if name in config), None)


def need(config: Json, name: str) -> Any:
    """The value of `name` in `config`.

    Raises
    ------
    ConvertError
        There is none.
    """
    if config.get(name) is None:
        raise ConvertError(f"folder: config.json has no {name}; add it")
    return config[name]


def complete(family: Family, config: Json) -> Json:
    """config.json with the family's defaults for what it leaves out, and RoBERTa's positions counted from 0.

    Raises
    ------
    ConvertError
        A value is missing, or libllama's graph does not compute it.
    """
    filled = {**dict(family.defaults), **config}
    if family.offset_positions:
        filled["max_position_embeddings"] -= need(filled, "pad_token_id") + 1
    if family.arch.startswith("nomic-bert"):
        filled["n_positions"] = nomic_positions(family, filled)
    if family.arch == "modern-bert":
        # Upstream leaves the key out where the name is missing, and libllama refuses the file.
        filled.setdefault("layer_norm_eps", filled["norm_eps"])
    return filled


def nomic_positions(family: Family, config: Json) -> int:
    """The number of positions (tokens) that a NomicBert was trained for.

    Raises
    ------
    ConvertError
        The configuration is one that libllama's graph does not compute.
    """
    moe = family is NOMIC_MOE
    biases = dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), moe)
    wanted = {"activation_function": "gelu" if moe else "swiglu", **biases, **NOMIC_FIXED}
    wrong = [f"{name} {config.get(name)}" for name, value in wanted.items() if config.get(name) != value]
    trained = {(8192, 2048): 2048, (2048, 2048): 512}
    positions = (config.get("n_positions"), config.get("max_trained_positions", 2048))
    if wrong or positions not in trained:
        found = ", ".join(wrong) or f"n_positions {positions[0]}, max_trained_positions {positions[1]}"
        raise ConvertError(f"folder: libllama computes no NomicBert with {found} (see config.json)")
    return trained[positions]


def labels(architecture: str, config: Json) -> list[str] | None:
    """The classifier's labels by number; None where they are only the two that transformers makes up.

    A classifier with these two keeps them: upstream drops them, and libllama then refuses its file.
    """
    named = config.get("id2label")
    if named is None:
        count = config.get("num_labels")
        named = {i: f"LABEL_{i}" for i in range(2 if count is None else min(count, MOST_LABELS))}
    ordered = [str(named[key]) for key in sorted(named, key=int)]
    made_up = len(ordered) == 2 and ordered[0] == "LABEL_0"
    if made_up and not architecture.endswith("ForSequenceClassification"):
        return None
    return ordered or None


def add_hyperparameters(
    keys: Keys,
    family: Family,
    folder: Folder,
    config: Json,
    names: list[str] | None,
) -> None:
    """Add the model's keys, without those of its tokenizer; `config` is complete, `names` are the labels.

    Raises
    ------
    ConvertError
        config.json lacks a value, or has one that libllama's graph does not compute.
    """
    at = family.arch
    for name, sources, needed in COUNTS:
        value = first(config, sources)
        if value is None and needed:
            raise ConvertError(f"folder: config.json has no {sources[0]}; add it")
        if value is not None:
            keys.set(f"{at}.{name}", "uint32", value)
    rope(keys, at, config)
    for name, sources in EPSILONS:
        if (value := first(config, sources)) is not None:
            keys.set(f"{at}.{name}", "float32", value)
    if family.prefixes[0] == "distilbert.":
        keys.set(f"{at}.attention.layer_norm_epsilon", "float32", 1e-12)
    keys.set(f"{at}.attention.causal", "bool", False)
    pooling(keys, family, folder, config)
    prompts(keys, folder)
    if names:
        keys.set(f"{at}.classifier.output_labels", "array", names)
    special_cases(keys, family, config)


def pooling(keys: Keys, family: Family, folder: Folder, config: Json) -> None:
    """The pooling of embeddings, and that before a classifier.

    Raises
    ------
    ConvertError
        The pooling is one that libllama has not.
    """
    for path, kind in folder.modules().items():
        if kind not in ("Transformer", "Pooling", "Normalize"):
            keys.notes.append(f"module {path} ({kind}) is left out: vectors are those before it")
    number = POOLINGS["cls"] if family is NEOBERT else folder.pooling()
    if number is not None:
        keys.set(f"{family.arch}.pooling_type", "uint32", number)
    before_classifier = config.get("classifier_pooling")
    if before_classifier is None:
        return
    if before_classifier not in ("cls", "mean"):
        raise ConvertError(f"folder: classifier_pooling {before_classifier} is neither cls nor mean")
    keys.set(f"{family.arch}.classifier.pooling_type", "uint32", POOLINGS[before_classifier])


def prompts(keys: Keys, folder: Folder) -> None:
    """What sentence-transformers puts before texts, by name, where `rawllama.Embedder` looks for it.

    Raises
    ------
    ConvertError
        A prompt is no text, or the default is the name of none.
    """
    content = folder.prompts()
    listed = content.get("prompts") or {}
    for name, text in listed.items():
        if text:  # libllama has no empty values
            keys.set(f"rawllama.prompts.{name}", "string", text)
    default = content.get("default_prompt_name")
    if default is not None and default not in listed:
        raise ConvertError(f"folder: default_prompt_name {default!r} is the name of no prompt; correct it")
    if default is not None and listed[default]:
        keys.set("rawllama.default_prompt", "string", default)


def rope(keys: Keys, at: str, config: Json) -> None:
    """The base frequencies of rotary positions, global and of the sliding window.

    Raises
    ------
    ConvertError
        The positions are scaled.
    """
    given = config.get("rope_parameters", config.get("rope_scaling")) or {}
    full, sliding = given.get("full_attention"), given.get("sliding_attention")
    if full is None and sliding is None:
        full = {"rope_theta": first(config, ROPE_THETA), **given}
        sliding = {"rope_theta": first(config, LOCAL_ROPE_THETA)}
    kind = (full or {}).get("rope_type", given.get("type"))
    if kind not in (None, "default"):
        raise ConvertError(f"folder: rope scaling {kind} in config.json is not supported for encoders")
    for name, part in (("freq_base", full), ("freq_base_swa", sliding)):
        if (theta := (part or {}).get("rope_theta")) is not None:
            keys.set(f"{at}.rope.{name}", "float32", theta)


def special_cases(keys: Keys, family: Family, config: Json) -> None:
    """Keys that one architecture alone has."""
    at = family.arch
    if family is NOMIC_MOE:
        keys.set(f"{at}.moe_every_n_layers", "uint32", need(config, "moe_every_n_layers"))
        keys.set(f"{at}.expert_used_count", "uint32", need(config, "moe_top_k"))
    if at == "modern-bert":
        keys.set(f"{at}.attention.sliding_window", "uint32", need(config, "local_attention"))
        if (pattern := config["global_attn_every_n_layers"]) is not None:
            keys.set(f"{at}.attention.sliding_window_pattern", "uint32", pattern)
        keys.set(f"{at}.vocab_size", "uint32", need(config, "vocab_size"))
        if config["hidden_activation"]:
            keys.set(f"{at}.hidden_activation", "string", config["hidden_activation"])
    if family is NEOBERT:
        # The gated feed-forward keeps the parameter count of an ungated one with `intermediate_size`.
        keys.set(f"{at}.feed_forward_length", "uint32", int(2 * config["intermediate_size"] / 3))
        keys.set(f"{at}.rope.freq_base", "float32", 10000.0)
        keys.set(f"{at}.attention.layer_norm_rms_epsilon", "float32", config.get("norm_eps", 1e-6))
    if at in ("modern-bert", "neo-bert"):
        keys.set(f"{at}.rope.scaling.type", "string", "none")
