"""How commands ask for a model."""

from __future__ import annotations

from rawllama.hub import NAMES
from rawllama.huggingface import FORM

#: For a help text.
HELP = f"path of a GGUF file, {', '.join(NAMES)}, or {FORM}"
