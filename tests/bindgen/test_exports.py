"""What libraries really offer, and what is left out because they do not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bindgen.bindings import Symbols, omitted
from bindgen.exports import ExportsError, exported_symbols
from bindgen.generate import Inputs, MismatchError, Outputs, generate
from bindgen.model import Headers

from .conftest import COMPILER, Zoo

Library = Callable[[str, str], Path]

SOURCE = """
#include <stdlib.h>
int plain(void) { return abs(-1); }
__attribute__((weak)) int weak(void) { return 1; }
__attribute__((visibility("hidden"))) int hidden(void) { return 1; }
static int local(void) { return 1; }
int data = 1;
const int constant = 1;
int zeroed;
extern int elsewhere(void);
int (*keep[])(void) = { local, hidden };
int calls(void) { return elsewhere ? 1 : 0; }
"""


def test_exported_symbols(shared_library: Library) -> None:
    first, second = shared_library("first", SOURCE), shared_library("second", "int other(void) { return 1; }\n")
    found = exported_symbols("nm", [first, second])
    assert {"plain", "weak", "data", "constant", "zeroed", "calls", "other"} <= found
    assert not {"hidden", "local", "elsewhere", "abs"} & found


def test_versions_are_no_part_of_the_name(shared_library: Library, tmp_path: Path) -> None:
    (tmp_path / "map").write_text("ONE { global: plain; local: *; };\n")
    library = tmp_path / "libversioned.so"
    (tmp_path / "versioned.c").write_text("int plain(void) { return 1; }\n")
    subprocess.run([*COMPILER, "-shared", "-fPIC", f"-Wl,--version-script={tmp_path / 'map'}", "-o", library,
                    tmp_path / "versioned.c"], check=True)
    found = exported_symbols("nm", [library])
    assert "plain" in found and "ONE" not in found


def test_no_library_no_symbols() -> None:
    assert exported_symbols("nm", []) == set()


def test_nm_fails(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(ExportsError, match=r"text\.so"):
        exported_symbols("nm", [tmp_path / "text.so"])
    with pytest.raises(ExportsError, match="no-such-nm is not installed"):
        exported_symbols("no-such-nm", [tmp_path / "text.so"])


def test_omitted_with_the_reason(parsed: Callable[..., Headers], tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "ours.h").write_text("void ours(void);\n")
    headers = parsed("""
        #include "ours.h"
        void linked(void);
        void plugin(void);
        void both(void);
        void nowhere(void);
        static inline int inlined(void) { return 1; }
    """)
    assert omitted(headers, Symbols({"linked", "both"}, {"plugin", "both"}, ["ours.h"])) == {
        "plugin": "only in a backend that is loaded at run time",
        "nowhere": "not exported",
    }


def test_omitted_is_reported_and_not_bound(zoo: Zoo, module: object) -> None:
    assert zoo.summary == "bindgen: 26 of 27 functions; left out: zoo_missing (not exported)"
    assert "zoo_missing" not in dir(module.lib)  # type: ignore[attr-defined]
    assert "zoo_missing" not in zoo.stub.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("int llama_one(void);\n", r"Only declared: \[\]. Only exported: \['llama_two'\]"),
        ("int llama_one(void);\nint llama_two(void);\nint llama_three(void);\n", r"Only declared: \['llama_three'\]"),
        ("int llama_one(void);\nint llama_two(void);\nstatic inline int llama_inline(void) { return 1; }\n", None),
    ],
)
def test_strict_refuses_another_version(shared_library: Library, tmp_path: Path, header: str, said: str | None) -> None:
    library = shared_library("llama", "int llama_one(void) { return 1; } int llama_two(void) { return 2; } int more;")
    (tmp_path / "llama.h").write_text(header)
    inputs = Inputs(COMPILER, "nm", ["llama.h"], [tmp_path], [], [library], [], [])
    outputs = Outputs(tmp_path / "m.c", tmp_path / "m.pyi", tmp_path / "m.json")
    if said is None:
        assert "3 of 3 functions" in generate("m", inputs, outputs, strict=True)
        return
    with pytest.raises(MismatchError, match=said):
        generate("m", inputs, outputs, strict=True)
    assert not outputs.source.exists()
    generate("m", inputs, outputs)
