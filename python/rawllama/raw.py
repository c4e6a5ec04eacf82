"""The door to C: `ffi` and `lib`, with the library's backends started once.

Names are C's, letter for letter: `lib` has every function and constant of llama.h, ggml*.h and gguf.h,
`ffi` every struct, enum and callback type. Functions that begin with `rawllama_` are csrc/rawllama.h's own.
The GIL is released during each call.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from . import faults
from .errors import LibraryLoadError
from .paths import LIBRARIES

if TYPE_CHECKING:
    from ._libllama import FFI, Lib


# One name of each library. A foreign libllama may hide its ggml, or bring only ggml.
_SYMBOLS = ("llama_decode", "ggml_init", "ggml_backend_load_all", "ggml_backend_cpu_init")


def _load() -> tuple[FFI, Lib]:
    """Import the cffi module so that its libraries bind to each other and to nobody else's.

    Their names are their own, so a foreign `libllama.so.0` in the process is a different library. A foreign one
    whose symbols are global (RTLD_GLOBAL, LD_PRELOAD) would still answer the calls between ours, because ELF
    looks there first; RTLD_DEEPBIND turns that order round. It is used only then, as it would also bypass a
    preloaded malloc. Ours are never global, and bound at once, whatever flags the program has set for its imports.
    """
    if sys.platform == "win32":
        os.add_dll_directory(str(LIBRARIES))
        from ._libllama import ffi, lib

        return ffi, lib
    before = sys.getdlopenflags()
    sys.setdlopenflags(_dlopen_flags())
    try:
        from ._libllama import ffi, lib
    finally:
        sys.setdlopenflags(before)
    return ffi, lib


def _dlopen_flags() -> int:
    flags = os.RTLD_NOW | os.RTLD_LOCAL
    if hasattr(os, "RTLD_DEEPBIND") and any(map(_is_global, _SYMBOLS)):
        flags |= os.RTLD_DEEPBIND
    return flags


def _is_global(symbol: str) -> bool:
    """Whether some library of the process offers this symbol to all others."""
    backend = import_module("_cffi_backend")  # cffi's own front would load its C parser
    function = backend.new_function_type((), backend.new_void_type())
    try:
        backend.load_library(None, os.RTLD_NOW).load_function(function, symbol)
    except AttributeError:
        return False
    return True


def _start_backends() -> None:
    """Load the run-time backends, where the build has any, and start libllama."""
    lib.rawllama_log_install()  # first, or the backends would greet on standard error
    if not LIBRARIES.is_dir():  # a system's libllama: its backends are where it looks for them
        lib.ggml_backend_load_all()
    elif plugins := [path for path in LIBRARIES.iterdir() if not path.name.startswith(("librawllama-", "rawllama-"))]:
        bound = _bind(plugins)
        lib.ggml_backend_load_all_from_path(os.fsencode(LIBRARIES))
        del bound  # ggml holds those that it uses
    lib.rawllama_cpu_install()
    lib.llama_backend_init()


def _bind(plugins: list[Path]) -> list[object]:
    """Load backends as the module was, where that matters: ggml's dlopen would bind them to the global symbols."""
    if sys.platform == "win32" or not hasattr(os, "RTLD_DEEPBIND"):
        return []
    flags = _dlopen_flags()
    bound: list[object] = []
    if flags & os.RTLD_DEEPBIND:
        backend = import_module("_cffi_backend")
        for path in plugins:
            with suppress(OSError):  # its driver is missing, say, which ggml finds too
                bound.append(backend.load_library(str(path), flags))
    return bound


def _open() -> tuple[FFI, Lib]:
    """`_load`, or why not, and what to do.

    Raises
    ------
    LibraryLoadError
        The processor lacks instructions of this build, or a library is missing or does not fit.
    """
    if missing := faults.missing_instructions():
        words = f"it was built for processors with {', '.join(missing)}, which this one has not got"
        raise LibraryLoadError(f"libllama cannot run here: {words}: {faults.remedy('SIGILL')}")
    try:
        return _load()
    except ImportError as error:
        remedy = faults.remedy(str(error)) or "`rawllama doctor` looks further"
        raise LibraryLoadError(f"libllama does not load: {error}: {remedy}") from error


ffi, lib = _open()
_start_backends()
