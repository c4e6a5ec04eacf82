"""A foreign libllama in the same process: neither package's calls reach the other's library.

The foreign one here is made of three libraries with llama.cpp's own names. They export every function that ours do,
C++ ones too, and each of them ends the process when it is called, but for the few that its owner calls.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rawllama import LIBRARIES

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not LIBRARIES.is_dir() or not shutil.which("nm"),
    reason="ELF's rules, for libraries of our own",
)

HEAD = """
#include <stdio.h>
#include <stdlib.h>

static void foreign(const char * name) {
    fprintf(stderr, "the foreign %s was called\\n", name);
    abort();
}
"""
# What works in the foreign library. llama_n_ctx needs all three: 77 from ggml-base and 5 from ggml.
WORKING = {
    "ggml-base": {"ggml_n_dims": "int ggml_n_dims(void * tensor) { return 77; }"},
    "ggml": {"ggml_backend_reg_count": "unsigned long ggml_backend_reg_count(void) { return 5; }"},
    "llama": {
        "llama_backend_init": "static int ready; void llama_backend_init(void) { ready = 1; }",
        "llama_n_ctx": """
            int ggml_n_dims(void *); unsigned long ggml_backend_reg_count(void);
            unsigned llama_n_ctx(void * context) { return ready * (1000 * ggml_n_dims(0) + ggml_backend_reg_count()); }
        """,
    },
}

# argv: the folder of the foreign library, its files, how it is loaded, the model. Prints the embedding.
CHILD = """
import ctypes, os, sys
folder, files, how, model = sys.argv[1:]

def load(mode=ctypes.DEFAULT_MODE):
    handles = [ctypes.CDLL(os.path.join(folder, file), mode=mode) for file in files.split()]
    if "libllama" in files:
        handles[-1].llama_backend_init()
    return handles

def owner_is_content():
    if "libllama" in files:
        assert handles[-1].llama_n_ctx(None) == 77005, handles[-1].llama_n_ctx(None)
    if "libggml-base" in files:
        assert handles[0].ggml_n_dims(None) == 77

if how == "local":
    handles = load()
elif how == "global":
    handles = load(ctypes.RTLD_GLOBAL)
elif how == "preload":
    handles = [ctypes.CDLL(None)] * len(files.split())
    if "libllama" in files:
        handles[-1].llama_backend_init()
elif how == "flags":
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
if how in ("local", "global", "preload"):
    owner_is_content()

from rawllama import Embedder, lib

if how in ("late", "flags"):
    handles = load(ctypes.RTLD_GLOBAL if how == "late" else ctypes.DEFAULT_MODE)
assert lib.llama_max_devices() > 0 and lib.llama_time_us() > 0
with Embedder(model, n_threads=1) as embedder:
    rows = embedder.encode(["a foreign library", "is not ours"])
if how != "none":
    owner_is_content()
    assert all(f"/{file}" in open("/proc/self/maps").read() for file in files.split())
print(rows.tobytes().hex())
"""

ALL = "libggml-base.so.0 libggml.so.0 libllama.so.0"


def functions(library: str) -> list[str]:
    """The functions that our library exports; a backend that is loaded at run time has ggml's own file name."""
    (file,) = LIBRARIES.glob(f"lib*{library}.so")
    listing = subprocess.run(["nm", "-D", "--defined-only", file], capture_output=True, text=True, check=True)
    return [line.split()[2] for line in listing.stdout.splitlines() if line.split()[1] == "T"]


def source(library: str, names: list[str]) -> str:
    working = WORKING[library]
    deadly = [f'void {name}(void) {{ foreign("{name}"); }}' for name in names if name not in working]
    return "\n".join([HEAD, *working.values(), *deadly])


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory, compile_c: Callable[..., Path]) -> Path:
    """The folder of the foreign libraries. `libllama-alone.so.0` has a ggml of its own inside, hidden."""
    folder = tmp_path_factory.mktemp("foreign")
    names = {
        "ggml-base": functions("ggml-base") + functions("ggml-cpu"),
        "ggml": functions("ggml"),
        "llama": functions("llama"),
    }
    assert all(len(found) > 10 for found in names.values())

    def make(library: str, text: str, *needed: str, file: str | None = None) -> None:
        file = file or f"lib{library}.so.0"
        options = [f"-Wl,-soname,{file},-rpath,$ORIGIN", *(str(folder / f"lib{other}.so.0") for other in needed)]
        shutil.copy(compile_c(file, text, "-fno-builtin", *options), folder)

    make("ggml-base", source("ggml-base", names["ggml-base"]))
    make("ggml", source("ggml", names["ggml"]), "ggml-base")
    make("llama", source("llama", names["llama"]), "ggml", "ggml-base")
    hidden = "\n".join(f"static {text}" for part in ("ggml-base", "ggml") for text in WORKING[part].values())
    alone = source("llama", names["llama"])  # its own ggml's functions come before the declarations
    make("llama", hidden + alone, file="libllama-alone.so.0")
    return folder


@pytest.fixture(scope="session")
def expected(python: Any, minilm: str) -> str:
    """The embedding where nothing foreign is loaded."""
    printed: str = python(CHILD, "", "", "none", minilm).stdout
    assert len(printed.strip()) == 2 * 384 * 8
    return printed


@pytest.mark.parametrize("how", ["local", "global", "late", "flags"])
@pytest.mark.parametrize("files", [ALL, "libggml-base.so.0", "libllama-alone.so.0"])
def test_foreign_library(python: Any, foreign: Path, expected: str, minilm: str, how: str, files: str) -> None:
    """Loaded first with local or global symbols, or after us, or after us where the program's imports are global."""
    assert python(CHILD, foreign, files, how, minilm).stdout == expected


@pytest.mark.parametrize("files", [ALL, "libggml-base.so.0", "libllama-alone.so.0"])
def test_preloaded_foreign_library(python: Any, foreign: Path, expected: str, minilm: str, files: str) -> None:
    preload = ":".join(str(foreign / file) for file in files.split())
    assert python(CHILD, foreign, files, "preload", minilm, LD_PRELOAD=preload).stdout == expected


@pytest.mark.parametrize("preload", [False, True])
def test_backends_that_are_loaded_at_run_time(
    python: Any, compile_c: Callable[..., Path], foreign: Path, preload: bool
) -> None:
    """They are bound as the libraries are, before ggml loads them with plain dlopen."""
    needs = LIBRARIES / "librawllama-ggml-base.so"
    probe = "unsigned long ggml_type_size(int); unsigned long probe(void) { return ggml_type_size(0); }"
    plugin = compile_c("libggml-probe.so", probe, str(needs), f"-Wl,-rpath,{LIBRARIES}")
    base = foreign / "libggml-base.so.0"
    code = f"""
import ctypes
from pathlib import Path
foreign = ctypes.CDLL({str(base)!r}, mode=ctypes.RTLD_GLOBAL)
from rawllama import lib, raw
bound = raw._bind([Path({str(plugin)!r}), Path("/no/such/plugin.so")])
assert len(bound) == 1
assert ctypes.CDLL({str(plugin)!r}).probe() == lib.ggml_type_size(lib.GGML_TYPE_F32) == 4
assert foreign.ggml_n_dims(None) == 77
"""
    python(code, **({"LD_PRELOAD": str(base)} if preload else {}))


def test_the_foreign_library_is_deadly(python: Any, foreign: Path) -> None:
    """Or the tests above would show nothing."""
    done = python(
        f"""
import ctypes
ctypes.CDLL({str(foreign / "libllama.so.0")!r}).llama_decode(None)
""",
        fails=True,
    )
    assert done.returncode < 0
    assert "the foreign llama_decode was called" in done.stderr


def test_no_foreign_library_no_deepbind(python: Any) -> None:
    """RTLD_DEEPBIND would also pass by a malloc that the user preloads."""
    python("""
import os, sys
used = []
setdlopenflags = sys.setdlopenflags
sys.setdlopenflags = lambda flags: (used.append(flags), setdlopenflags(flags))
before = sys.getdlopenflags()
import rawllama
assert used == [os.RTLD_NOW, before], used
""")
