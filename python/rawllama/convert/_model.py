"""Puts a model together: its keys, and its tensors under their GGUF names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import gguf

from . import _families, _keys, _safetensors
from ._errors import ConvertError
from ._families import NOMIC_MOE, Family
from ._folder import Folder, Json
from ._keys import Keys
from ._safetensors import Tensor, some
from ._vocab import add_vocabulary, is_unigram

FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
QUANTIZATION_VERSION = 2


@dataclass(frozen=True)
class Model:
    """A model that is ready to be written."""

    arch: str
    keys: Keys
    tensors: list[Tensor]


def load(path: Path, outtype: str) -> Model:
    """Read the folder `path`; tensors are loaded when they are written.

    Raises
    ------
    ConvertError
        The folder is incomplete or damaged, or its architecture is not supported.
    """
    folder = Folder.open(path)
    architecture, family = _families.find(folder.config)
    config = _keys.complete(family, folder.config)
    if family.arch.startswith("nomic-bert") and is_unigram(family, folder):
        config = without_offset(config)
    labels = _keys.labels(architecture, config)
    keys = general(path, outtype)
    keys.notes += differences(family, architecture, config)
    _keys.add_hyperparameters(keys, family, folder, config, labels)
    layers = keys.values[f"{family.arch}.block_count"][1]
    tensors = named(family, path, config, layers=layers, direct=labels is not None)
    rows = check(family, architecture, tensors, layers)
    if config.get("vocab_size", rows) != rows:
        size = config["vocab_size"]
        raise ConvertError(f"folder: vocab_size is {size}, but embeddings have {rows} rows; correct it")
    size = add_vocabulary(keys, family, folder, config)
    if size != rows:
        raise ConvertError(f"folder: {size} tokens, but embeddings have {rows} rows; take its own tokenizer")
    return Model(family.arch, keys, tensors)


def without_offset(config: Json) -> Json:
    """config.json of a NomicBert with XLM-RoBERTa's vocabulary, with positions counted from 0."""
    padding, positions = config.get("pad_token_id"), config.get("max_position_embeddings")
    if padding is None or positions is None:
        return config
    return {**config, "max_position_embeddings": positions - padding - 1}


def general(path: Path, outtype: str) -> Keys:
    """The keys that every GGUF file has."""
    keys = Keys()
    keys.set("general.type", "string", "model")
    keys.set("general.name", "string", path.resolve().name)
    keys.set("general.file_type", "uint32", FILE_TYPES[outtype])
    keys.set("general.quantization_version", "uint32", QUANTIZATION_VERSION)
    return keys


def named(family: Family, path: Path, config: Json, *, layers: int, direct: bool) -> list[Tensor]:
    """The folder's tensors under their GGUF names; `direct` when one projection leads to the labels.

    Raises
    ------
    ConvertError
        A tensor has no place in the architecture, or two have the same.
    """
    arch = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch)
    sources = list(_families.rename(family, _safetensors.read(path)))
    if layers > len(sources):
        raise ConvertError(f"folder: {layers} layers, but {len(sources)} tensors; correct num_hidden_layers")
    table = gguf.get_tensor_name_map(arch, layers)
    found: dict[str, Tensor] = {}
    extra: list[str] = []
    for tensor in sources:
        shaped = _families.reshaped(family, tensor, config)
        name = shaped.name
        if direct and name in ("classifier.weight", "classifier.bias"):
            name = name.replace("classifier", "classifier.out_proj")
        target = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            extra.append(name)
        elif target in found:
            raise ConvertError(f"folder: {found[target].name} and {name} are both {target}; remove one")
        else:
            found[target] = shaped
    if extra:
        raise ConvertError(f"folder: {family.arch} has no tensors {some(extra)}; remove them")
    return [replace(tensor, name=target) for target, tensor in found.items()]


def check(family: Family, architecture: str, tensors: list[Tensor], layers: int) -> int:
    """Check that all tensors are there, and return how many tokens have an embedding.

    Raises
    ------
    ConvertError
        A tensor is missing.
    """
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    needed = family.required(layers)
    if architecture.endswith("ForSequenceClassification"):
        needed.add("cls.output.weight")
    if missing := needed - shapes.keys():
        raise ConvertError(f"folder: tensors are missing ({some(missing)}); download the model again")
    return shapes["token_embd.weight"][0]


def differences(family: Family, architecture: str, config: Json) -> list[str]:
    """What libllama's graph computes in another way than the model; upstream converts it silently."""
    activation = config.get("hidden_act") or config.get("activation") or "gelu"
    heads = {
        "BertForSequenceClassification": "libllama classifies without BERT's pooler: other scores",
        "DistilBertForSequenceClassification": "libllama uses tanh, DistilBERT ReLU: other scores",
    }
    notes = [heads[architecture]] if architecture in heads else []
    if family.arch in ("bert", NOMIC_MOE.arch) and not str(activation).startswith("gelu"):
        notes.append(f"libllama computes GELU where the model has {activation}: other vectors")
    return notes
