"""Turns an encoder folder in Hugging Face layout into a GGUF file, without torch or transformers.

The tensors and keys are those that llama.cpp's own converter writes; `tests/data/convert` holds the proof.
Deliberate differences are confined to folders for which upstream fails, or writes a file that libllama
refuses to load: see `_families.py` and `_keys.py` where a comment says so.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Literal, get_args

from ._errors import ConvertError, ConvertWarning, MissingExtraError, require

__all__ = ["VERSION", "ConvertError", "ConvertWarning", "MissingExtraError", "OutType", "convert"]

OutType = Literal["f32", "f16", "q8_0"]

VERSION = 1
"""Goes up when the same folder would give another file, so that caches are made anew."""


def convert(folder: str | os.PathLike[str], out: str | os.PathLike[str], *, outtype: OutType = "f32") -> Path:
    """Write the encoder in `folder` as one GGUF file.

    Parameters
    ----------
    folder
        A folder with config.json, tokenizer.json (or vocab.txt, or sentencepiece.bpe.model) and
        model.safetensors, whole or in shards; modules.json, 1_Pooling/config.json and the prompts of
        config_sentence_transformers.json are read if present.
    out
        The file to write. It appears under this name only when it is complete.
    outtype
        Type of the weight matrices: "f32", "f16" or "q8_0" (blocks of 32 values in 34 bytes; matrices whose
        rows do not fill such blocks become F16). Vectors, norms, position and type embeddings stay F32.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ConvertError
        The folder is incomplete or damaged, or its architecture is not supported.
    MissingExtraError
        The packages of the extra ``rawllama[minilm]`` are not installed.
    OSError
        `out` cannot be written.

    Warns
    -----
    ConvertWarning
        The file is what upstream writes, and its results differ from Hugging Face's all the same.
    """
    if outtype not in get_args(OutType):
        raise ConvertError(f"outtype: {outtype!r} is not one of {', '.join(get_args(OutType))}")
    source, target = Path(folder), Path(out)
    if not source.is_dir():
        raise ConvertError(f"folder: {source} is not a folder; pass the one that holds config.json")
    if target.is_dir() or not target.parent.is_dir():
        raise ConvertError(f"out: {target} has to be a file name in a folder that exists")
    require("gguf", "numpy", "safetensors")

    from ._model import load
    from ._write import write

    try:
        model = load(source, outtype)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        # JSON of the right syntax and the wrong structure surfaces as any of these.
        raise ConvertError(f"folder: {source} is not laid out as expected ({error!r})") from error
    for note in model.keys.notes:
        warnings.warn(note, ConvertWarning, stacklevel=2)
    write(target, model.arch, model.keys, model.tensors, outtype)
    return target
