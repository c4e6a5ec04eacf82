"""The encoder families: which architecture becomes what, and how its tensors are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ._errors import ConvertError
from ._folder import Json
from ._safetensors import Floats, Tensor

Vocabulary = Literal["wordpiece", "bpe", "unigram", "either", "jina"]

# Tensors that have to be there: in each block, and outside of the blocks.
BERT_BLOCK = (
    "attn_q.weight attn_q.bias attn_k.weight attn_k.bias attn_v.weight attn_v.bias "
    "attn_output.weight attn_output.bias attn_output_norm.weight attn_output_norm.bias "
    "ffn_up.weight ffn_up.bias ffn_down.weight ffn_down.bias layer_output_norm.weight layer_output_norm.bias"
)
BERT_TOP = "token_embd.weight position_embd.weight token_embd_norm.weight token_embd_norm.bias"
NOMIC_BLOCK = (
    "attn_qkv.weight attn_output.weight attn_output_norm.weight attn_output_norm.bias "
    "layer_output_norm.weight layer_output_norm.bias"
)
NOMIC_TOP = "token_embd.weight token_types.weight token_embd_norm.weight token_embd_norm.bias"
PRE_NORM_BLOCK = "attn_qkv.weight attn_output.weight ffn_norm.weight ffn_up.weight ffn_down.weight"

# Heads and buffers that no graph of libllama computes with.
UNUSED = (
    "embeddings.position_ids",
    "pooler.dense.weight",
    "pooler.dense.bias",
    "cls.predictions",
    "cls.seq_relationship",
)


@dataclass(frozen=True)
class Family:
    """What sets one family apart: architecture in GGUF, vocabulary, tensors, defaults of config.json."""

    arch: str
    vocabulary: Vocabulary
    top: str
    block: str
    prefixes: tuple[str, ...] = ("bert.",)
    unused: tuple[str, ...] = ()
    pre: str = ""
    offset_positions: bool = False
    defaults: tuple[tuple[str, Any], ...] = ()

    def source_name(self, name: str) -> str | None:
        """The name that gguf's table knows, None for a tensor that is left out."""
        for prefix in self.prefixes:
            name = name.removeprefix(prefix)
        if name.startswith(UNUSED + self.unused) or name.endswith(".rotary_emb.inv_freq"):
            return None
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(old):
                name = name.removesuffix(old) + new
        return name

    def required(self, layers: int) -> set[str]:
        """Names of the tensors without which libllama or the family's own graph cannot do."""
        blocks = {f"blk.{i}.{name}" for i in range(layers) for name in self.block.split()}
        if self.arch == "modern-bert":
            blocks |= {f"blk.{i}.attn_norm.weight" for i in range(1, layers)}
        return set(self.top.split()) | blocks


BERT_DEFAULTS = (
    ("max_position_embeddings", 512),
    ("type_vocab_size", 2),
    ("layer_norm_eps", 1e-12),
)
MODERN_DEFAULTS = (
    ("max_position_embeddings", 8192),
    ("norm_eps", 1e-5),
    ("global_rope_theta", 160000.0),
    ("local_rope_theta", 10000.0),
    ("local_attention", 128),
    ("global_attn_every_n_layers", 3),
    ("hidden_activation", "gelu"),
    ("classifier_pooling", "cls"),
)

BERT = Family("bert", "wordpiece", BERT_TOP + " token_types.weight", BERT_BLOCK, defaults=BERT_DEFAULTS)
DISTILBERT = Family(
    "bert",
    "wordpiece",
    BERT_TOP,
    BERT_BLOCK,
    prefixes=("distilbert.", "bert."),
    unused=("vocab_",),
    defaults=(("max_position_embeddings", 512),),
)
ROBERTA = replace(
    BERT,
    vocabulary="bpe",
    pre="roberta-bpe",
    prefixes=("roberta.", "bert."),
    offset_positions=True,
    defaults=(*BERT_DEFAULTS, ("pad_token_id", 1)),
)
XLM_ROBERTA = replace(ROBERTA, vocabulary="unigram", pre="default")
NOMIC_GLU = f"{NOMIC_BLOCK} ffn_up.weight ffn_gate.weight ffn_down.weight"
NOMIC = Family("nomic-bert", "either", NOMIC_TOP, NOMIC_GLU)
NOMIC_MOE = replace(NOMIC, arch="nomic-bert-moe", block=NOMIC_BLOCK)
JINA = replace(
    BERT,
    arch="jina-bert-v2",
    vocabulary="jina",
    top=NOMIC_TOP,
    block=BERT_BLOCK.replace("ffn_up.bias ", ""),
    # Upstream tells Spanish, German and code apart by a hash; all three names mean GPT-2's pre-tokenizer.
    pre="jina-v2-code",
)
MODERN = Family(
    "modern-bert",
    "bpe",
    "token_embd.weight token_embd_norm.weight output_norm.weight",
    PRE_NORM_BLOCK,
    # Upstream gives up on the decoder's bias; the masked-word head computes no embedding.
    prefixes=("model.", "bert."),
    unused=("decoder.",),
    pre="modern-bert",
    defaults=MODERN_DEFAULTS,
)
NEOBERT = Family(
    "neo-bert",
    "wordpiece",
    "token_embd.weight enc.output_norm.weight",
    f"{PRE_NORM_BLOCK} attn_norm.weight",
    prefixes=("model.", "bert."),
    unused=("decoder.",),
)

FAMILIES = {
    "BertModel": BERT,
    "BertForMaskedLM": BERT,
    "BertForSequenceClassification": BERT,
    "DistilBertModel": DISTILBERT,
    "DistilBertForMaskedLM": DISTILBERT,
    "DistilBertForSequenceClassification": DISTILBERT,
    "RobertaModel": ROBERTA,
    "RobertaForSequenceClassification": ROBERTA,
    "XLMRobertaModel": XLM_ROBERTA,
    "XLMRobertaForSequenceClassification": XLM_ROBERTA,
    "NomicBertModel": NOMIC,
    "JinaBertModel": JINA,
    "JinaBertForMaskedLM": JINA,
    "ModernBertModel": MODERN,
    "ModernBertForMaskedLM": MODERN,
    "ModernBertForSequenceClassification": MODERN,
    "NeoBERT": NEOBERT,
    "NeoBERTLMHead": NEOBERT,
    "NeoBERTForSequenceClassification": NEOBERT,
}


def find(config: Json) -> tuple[str, Family]:
    """The architecture that config.json names, and its family.

    Raises
    ------
    ConvertError
        There is no such name, or the architecture is not supported.
    """
    named = config.get("architectures") or [None]
    family = FAMILIES.get(named[0])
    if family is None:
        supported = ", ".join(FAMILIES)
        raise ConvertError(f"folder: architecture {named[0]} is not supported; supported are {supported}")
    if config.get("lora_adaptations"):
        raise ConvertError(f"folder: {named[0]} with LoRA adapters (jina-embeddings-v3) is not supported")
    if family is NOMIC and config.get("moe_every_n_layers"):
        family = NOMIC_MOE
    return named[0], family


def reshaped(family: Family, tensor: Tensor, config: Json) -> Tensor:
    """`tensor` in the form libllama wants: without unused positions, experts in three dimensions."""
    if family.offset_positions and tensor.name == "embeddings.position_embeddings.weight":
        return without_rows(tensor, config["pad_token_id"] + 1)
    if ".mlp.experts.mlp.w" in tensor.name:
        return experts(tensor, config)
    return tensor


def without_rows(tensor: Tensor, count: int) -> Tensor:
    """`tensor` less its first `count` rows: RoBERTa counts positions from the padding token's id plus one."""
    return Tensor(tensor.name, (tensor.shape[0] - count, *tensor.shape[1:]), lambda: tensor.load()[count:])


def experts(tensor: Tensor, config: Json) -> Tensor:
    """A matrix of all experts' rows as (experts, rows, columns); w2 is stored transposed.

    Raises
    ------
    ConvertError
        config.json does not say how many experts there are.
    """
    count = config.get("num_local_experts", config.get("num_experts"))
    if not isinstance(count, int) or count <= 0 or tensor.shape[0] % count:
        raise ConvertError(f"folder: num_experts {count} in config.json does not divide tensor {tensor.name}")
    rows, columns = tensor.shape[0] // count, tensor.shape[1]
    transposed = tensor.name.endswith("w2")

    def load() -> Floats:
        cube = tensor.load().reshape(count, rows, columns)
        return np.ascontiguousarray(cube.transpose(0, 2, 1)) if transposed else cube

    shape = (count, columns, rows) if transposed else (count, rows, columns)
    return Tensor(f"{tensor.name}.weight", shape, load)


def rename(family: Family, tensors: Iterator[Tensor]) -> Iterator[Tensor]:
    """The tensors under names that gguf's table knows, less those that are left out."""
    for tensor in tensors:
        name = family.source_name(tensor.name)
        if name is not None and ".mlp.experts.bias" not in name:
            yield replace(tensor, name=name)
