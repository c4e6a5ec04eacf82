"""`python -m bindgen --check`: right on the installed package, and it fails on any drift."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import COMPILER, ROOT, Zoo

COLUMNS = ["header", "declared", "exported", "bound", "coverage", "structs", "enums", "constants", "callbacks"]


def check(*options: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": "python", "CC": " ".join(COMPILER)}
    command = [sys.executable, "-m", "bindgen", "--check", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def drift(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [row.removeprefix("DRIFT: ") for row in done.stdout.splitlines() if row.startswith("DRIFT: ")]


def table(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    """The report's rows by header."""
    rows = [re.split(r"\s{1,}(?!%)", row.strip()) for row in done.stdout.splitlines()]
    assert rows[0] == COLUMNS
    return {row[0]: dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in rows[1:] if len(row) == len(COLUMNS)}


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old} stands {text.count(old)} times in {file.name}"
    file.write_text(text.replace(old, new), encoding="utf-8")


# ---- the installed package


@pytest.fixture(scope="module")
def installed() -> Path:
    spec = find_spec("rawllama")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture
def copy(installed: Path, tmp_path: Path) -> Path:
    """A copy of the installed package, to be spoilt. Its module loads the copy's own libraries."""
    return Path(shutil.copytree(installed, tmp_path / "rawllama", ignore=shutil.ignore_patterns("__pycache__")))


def test_installed_package() -> None:
    done = check()
    assert (done.returncode, done.stderr, drift(done)) == (0, "", [])
    rows = table(done)
    assert {"ggml.h", "ggml-alloc.h", "ggml-backend.h", "ggml-cpu.h", "ggml-opt.h", "gguf.h", "llama.h", "rawllama.h",
            "all"} <= rows.keys()
    assert {row["coverage"] for row in rows.values()} == {"100 %"}
    assert all(row["exported"] == row["bound"] for row in rows.values())
    assert (rows["llama.h"]["declared"], rows["llama.h"]["bound"]) == ("255", "255")
    assert all(int(rows["all"][name]) == sum(int(row[name]) for header, row in rows.items() if header != "all")
               for name in COLUMNS[1:] if name != "coverage")
    assert "left out: ggml_threadpool_get_n_threads (not exported)" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 faults"


def test_copy_of_the_installed_package(copy: Path) -> None:
    done = check("--path", copy.parent)
    assert (done.returncode, drift(done)) == (0, [])


def llama_library(package: Path) -> Path:
    """The library that has llama_decode."""
    from bindgen.exports import exported_symbols

    libraries = [package / "lib" / name for name in json.loads((package / "_libllama.json").read_text())["libraries"]]
    return next(library for library in libraries if "llama_decode" in exported_symbols("nm", [library]))


def test_function_the_module_has_not(copy: Path) -> None:
    """Exported by the library, declared by the header, and not in the module: as if one had been forgotten."""
    from bindgen.exports import exported_symbols

    name = min(one for one in exported_symbols("nm", [llama_library(copy)]) if not re.match("llama_|ggml_|gguf_", one))
    header = copy / "include" / "llama.h"
    header.write_text(header.read_text(encoding="utf-8") + f"\nvoid {name}(void);\n", encoding="utf-8")
    done = check("--path", copy.parent)
    assert (done.returncode, drift(done)) == (1, [f"{name} is declared and exported, and is not in lib"])
    assert (table(done)["llama.h"]["coverage"], table(done)["all"]["coverage"]) == ("99 %", "99 %")


def test_function_the_header_has_not(copy: Path) -> None:
    replace(copy / "include" / "llama.h", "LLAMA_API const char * llama_print_system_info(void);", "")
    done = check("--path", copy.parent)
    assert (done.returncode, drift(done)) == (1, ["llama_print_system_info is in lib, and no header declares it"])


def test_function_the_library_has_not(copy: Path) -> None:
    """Bound when the module was built; a library of another version came in later."""
    record = json.loads((copy / "_libllama.json").read_text(encoding="utf-8"))
    record["libraries"].remove(llama_library(copy).name)
    (copy / "_libllama.json").write_text(json.dumps(record), encoding="utf-8")
    done = check("--path", copy.parent)
    assert done.returncode == 1
    assert "llama_decode: bound when built, not exported now" in drift(done)


def test_omitted_function_that_is_exported(copy: Path) -> None:
    record = json.loads((copy / "_libllama.json").read_text(encoding="utf-8"))
    record["omitted"]["llama_decode"] = "not exported"
    (copy / "_libllama.json").write_text(json.dumps(record), encoding="utf-8")
    done = check("--path", copy.parent)
    assert (done.returncode, drift(done)) == (1, ["llama_decode: not exported when built, exported now"])


def test_field_drift(copy: Path) -> None:
    replace(copy / "include" / "llama.h", "float bias;", "double bias;")
    done = check("--path", copy.parent)
    assert done.returncode == 1
    assert [row for row in drift(done) if row.endswith("in llama.h")] == drift(done) != []
    assert all("bias: float in ffi" in row and "bias: double in llama.h" in row for row in drift(done))


def test_signature_drift(copy: Path) -> None:
    replace(copy / "include" / "llama.h", "LLAMA_API size_t llama_max_devices(void);",
            "LLAMA_API size_t llama_max_devices(bool all);")
    done = check("--path", copy.parent)
    assert (done.returncode, drift(done)) == (
        1,
        ["llama_max_devices is size_t(*)() in lib and size_t(*)(_Bool) in llama.h"],
    )


# ---- small faults, in the zoo


@pytest.fixture
def spoilt(zoo: Zoo, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Change one thing in a copy of the zoo and check it."""

    def run(old: str, new: str, file: str = "include/zoo.h") -> subprocess.CompletedProcess[str]:
        package = Path(shutil.copytree(zoo.package, tmp_path / "zoo"))
        replace(package / file, old, new)
        return check("--package", "zoo", "--path", tmp_path)

    return run


def test_zoo(zoo: Zoo) -> None:
    done = check("--package", "zoo", "--path", zoo.package.parent)
    assert (done.returncode, done.stderr, drift(done)) == (0, "", [])
    assert table(done)["zoo.h"] == {"declared": "27", "exported": "26", "bound": "26", "coverage": "100 %",
                                    "structs": "10", "enums": "4", "constants": "18", "callbacks": "3"}
    assert "left out: zoo_missing (not exported)" in done.stdout
    assert "no value, so no constant: ZOO_H, ZOO_API, DEPRECATED, ZOO_EMPTY" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("int zoo_missing(int x)", "int strange(int x)",
         "strange: bound when built, not exported now"),
        ("ZOO_API int zoo_new(int x);", "",
         "zoo_new is in lib, and no header declares it"),
        ("int zoo_new(int x)", "int zoo_new(int x, ...)",
         "zoo_new is int(*)(int) in lib and int(*)(int, ...) in zoo.h"),
        ("int zoo_new(int x)", "int zoo_new(long x)",
         "zoo_new is int(*)(int) in lib and int(*)(long) in zoo.h"),
        ("int zoo_twice(int x)", "int zoo_twice(int * x)",
         "zoo_twice is int(*)(int) in lib and int(*)(int *) in zoo.h"),
        ("int f(int), int", "int f(int, int), int",
         "zoo_apply is int(*)(int(*)(int), int) in lib and int(*)(int(*)(int, int), int) in zoo.h"),
        ("#define ZOO_CHAR 'z'", "",
         "ZOO_CHAR is in lib, and no header declares it"),
        ("#define ZOO_CHAR 'z'", "#define ZOO_CHAR 'z'\n#define ZOO_MORE 1",
         "ZOO_MORE is declared and exported, and is not in lib"),
        ("ZOO_KIND_DOG,", "ZOO_KIND_DOG, ZOO_KIND_COW,",
         "ZOO_KIND_COW is declared and exported, and is not in lib"),
        ("    zoo_id second;\n", "",
         "struct zoo_pair has the fields first: int32_t, second: int32_t in ffi and first: int32_t in zoo.h"),
        ("    float x, y;", "    double x, y;",
         "zoo_point has the fields x: float, y: float in ffi and x: double, y: double in zoo.h"),
        ("struct zoo_hidden; //", "struct zoo_hidden { int a; }; //",
         "struct zoo_hidden has fields in zoo.h, and is not in ffi"),
        ("typedef uint16_t zoo_half_t;", "typedef uint16_t zoo_half_t, zoo_new_t;",
         "zoo_new_t is a type of zoo.h, and ffi does not know it"),
        ("typedef uint16_t zoo_half_t;", "typedef uint32_t zoo_half_t;",
         "zoo_half_t is uint16_t in ffi and uint32_t in zoo.h"),
    ],
)
def test_drift(spoilt: Callable[..., subprocess.CompletedProcess[str]], old: str, new: str, fault: str) -> None:
    done = spoilt(old, new)
    assert done.returncode == 1, done.stdout + done.stderr
    assert fault in drift(done)
    assert done.stdout.splitlines()[-1] == f"{len(drift(done))} faults"


def test_changed_array_length_is_the_compilers(spoilt: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert spoilt("4 * ZOO_SUM", "ZOO_SUM * 4").returncode == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--package", "no_such_package"], "`import no_such_package` fails"),
        (["--compiler", "no-such-cc"], "no-such-cc is not installed"),
        (["--nm", "no-such-nm"], "no-such-nm is not installed"),
    ],
)
def test_check_cannot_be_made(options: list[str], said: str) -> None:
    done = check(*options)
    assert done.returncode == 2 and done.stderr.startswith(f"bindgen: {said}")


def test_package_without_a_record(zoo: Zoo, tmp_path: Path) -> None:
    package = Path(shutil.copytree(zoo.package, tmp_path / "zoo"))
    (package / "_libllama.json").unlink()
    done = check("--package", "zoo", "--path", tmp_path)
    assert done.returncode == 2 and "_libllama.json is missing" in done.stderr


def test_header_that_does_not_compile(spoilt: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = spoilt("#define ZOO_H\n", "#define ZOO_H\n#error broken\n")
    assert done.returncode == 2 and "#error broken" in done.stderr
