"""Where the installed package has what."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent
#: libllama and ggml's backends; not there where a system's libllama is used.
LIBRARIES = PACKAGE / "lib"
INCLUDE = PACKAGE / "include"
#: How this copy was built.
BUILD = PACKAGE / "build.json"


def search_path() -> str:
    """PATH with the programs of this environment first, whether or not it is activated."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
