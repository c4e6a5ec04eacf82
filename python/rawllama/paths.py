"""Where the installed package has what."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
#: libllama and ggml's backends; not there where a system's libllama is used.
LIBRARIES = PACKAGE / "lib"
INCLUDE = PACKAGE / "include"
#: How this copy was built.
BUILD = PACKAGE / "build.json"
