"""The library files inside the package: names nobody else has, found wherever the package lies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rawllama
from rawllama import LIBRARIES

PACKAGE = Path(rawllama.__file__).parent

pytestmark = [
    pytest.mark.skipif(not LIBRARIES.is_dir(), reason="built with a system's libllama"),
    pytest.mark.skipif(sys.platform != "linux" or not shutil.which("readelf"), reason="reads ELF files with readelf"),
]


def libraries() -> list[Path]:
    """Those that the module links; run-time backends (GGML_BACKEND_DL) are loaded by path and keep ggml's names."""
    return sorted(LIBRARIES.glob("librawllama-*"))


def binaries() -> list[Path]:
    return [*sorted(LIBRARIES.iterdir()), *PACKAGE.glob("_libllama*.so")]


def dynamic(path: Path, tag: str) -> list[str]:
    """The values of one tag in the file's dynamic section."""
    listing = subprocess.run(["readelf", "-dW", path], capture_output=True, text=True, check=True).stdout
    return re.findall(rf"\({tag}\).*\[(.*)\]", listing)


def test_one_real_file_each() -> None:
    assert {"librawllama-llama.so", "librawllama-ggml.so", "librawllama-ggml-base.so"} <= {
        path.name for path in libraries()
    }
    for path in [LIBRARIES, *binaries()]:
        assert not path.is_symlink()
    contents = [path.read_bytes() for path in binaries()]
    assert len(set(contents)) == len(contents)  # nor copies of each other, which wheels make of symlinks
    assert all(content.startswith(b"\x7fELF") for content in contents)


def test_sonames_are_our_own() -> None:
    for path in libraries():
        assert dynamic(path, "SONAME") == [path.name]


def test_what_they_need_is_ours_or_the_systems() -> None:
    needed = {name for path in binaries() for name in dynamic(path, "NEEDED")}
    ours = {name for name in needed if re.search("llama|ggml", name)}
    assert "librawllama-llama.so" in ours
    assert ours <= {path.name for path in libraries()}


def test_they_find_each_other_by_their_place() -> None:
    for path in binaries():
        found = [*dynamic(path, "RUNPATH"), *dynamic(path, "RPATH")]
        assert found, path
        for entry in found[0].split(":"):
            assert re.match(r"\$ORIGIN(/|$)", entry), path
            folder = Path(entry.replace("$ORIGIN", str(path.parent)))
            assert folder.resolve() in (LIBRARIES.resolve(), PACKAGE.resolve())


def test_no_symbol_is_unique_in_the_process() -> None:
    """STB_GNU_UNIQUE is shared with every other library of the process, local or not, and keeps ours from unloading."""
    for path in binaries():
        symbols = subprocess.run(
            ["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True
        ).stdout
        assert symbols.strip(), path
        assert [line for line in symbols.splitlines() if line.split()[-2] == "u"] == [], path


def test_each_binds_to_itself_first() -> None:
    for path in libraries():
        listing = subprocess.run(["readelf", "-dW", path], capture_output=True, text=True, check=True).stdout
        assert "SYMBOLIC" in listing, path


@pytest.mark.parametrize("folder", ["moved", "a folder, with späces 🦙"])
def test_the_package_can_be_moved(tmp_path: Path, python: Any, minilm: str, folder: str) -> None:
    code = f"""
import rawllama
from pathlib import Path
with rawllama.Embedder({minilm!r}, n_threads=1) as embedder:
    print(embedder.encode(["moved"]).tobytes().hex())
print(rawllama.__file__)
maps = [line.split(maxsplit=5) for line in open("/proc/self/maps") if "rawllama" in line and ".so" in line]
loaded = {{fields[5].strip() for fields in maps}}
print(len(loaded))
assert all(Path(path).is_relative_to(Path(rawllama.__file__).parent) for path in loaded), loaded
"""
    shutil.copytree(PACKAGE, tmp_path / folder / "rawllama")
    here = python(code).stdout.splitlines()
    there = python(code, PYTHONPATH=str(tmp_path / folder)).stdout.splitlines()
    assert there[0] == here[0]
    assert Path(here[1]).parent == PACKAGE
    assert Path(there[1]).parent == tmp_path / folder / "rawllama"
    assert there[2] == here[2] == str(len(binaries()))
