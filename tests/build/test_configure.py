"""CMake's configuration step: what is missing stops it with a remedy, and what will be built is said."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rawllama

ROOT = Path(__file__).parent.parent.parent


def configure(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Run CMake; return its status and its words with single spaces, as it breaks lines where it likes."""
    command = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DSKBUILD_PROJECT_VERSION=0.0.0",
               f"-DPython_EXECUTABLE={sys.executable}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-DRAWLLAMA_BACKENDS=cpu;tpu"], "names tpu, which is none of cpu, cuda, metal, vulkan"),
        (["-DRAWLLAMA_LLAMA=/nowhere"], "give vendored, system, or the top folder of a llama.cpp checkout"),
        (["-DBUILD_SHARED_LIBS=OFF"], "rawllama links shared libraries: leave BUILD_SHARED_LIBS=OFF out"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_remedy(tmp_path: Path, options: list[str], words: str) -> None:
    status, output = configure(tmp_path, *options)
    assert status != 0
    assert words in output


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has Metal")
def test_metal_is_refused_elsewhere(tmp_path: Path) -> None:
    status, output = configure(tmp_path, "-DRAWLLAMA_BACKENDS=metal")
    assert status != 0
    assert "build there, or leave it out" in output


def test_a_missing_compiler_is_named_with_the_package_that_brings_it(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("cmake", "ninja"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    status, output = configure(tmp_path / "build", PATH=str(tools), CC="", CXX="")
    assert status != 0
    assert "apt-get install g++" in output


def test_the_summary_says_what_will_be_built(tmp_path: Path) -> None:
    status, output = configure(tmp_path, "-DRAWLLAMA_BACKENDS=cpu;rpc", "-DGGML_NATIVE=OFF")
    assert status == 0, output
    assert "rawllama will build:" in output
    assert re.search(r"commit: [0-9a-f]{9} backends: rpc cpu|commit: [0-9a-f]{9} backends: cpu rpc", output)
    assert "GGML_NATIVE" not in output.partition("rawllama will build:")[2], "an option that the user switched off"


def as_system(folder: Path) -> Path:
    """The installed package's libraries and headers, laid out as a system would have them."""
    (folder / "lib").mkdir(parents=True)
    for library in rawllama.LIBRARIES.iterdir():
        (folder / "lib" / library.name).symlink_to(library)  # as its SONAME says
        (folder / "lib" / library.name.replace("librawllama-", "lib")).symlink_to(library)
    shutil.copytree(rawllama.INCLUDE, folder / "include")
    return folder


def test_an_installed_libllama_is_found(tmp_path: Path) -> None:
    system = as_system(tmp_path / "system")
    status, output = configure(tmp_path / "build", "-DRAWLLAMA_LLAMA=system", f"-DCMAKE_PREFIX_PATH={system}")
    assert status == 0, output
    assert "llama: system" in output


def test_a_header_of_another_version_than_the_library_is_noticed(tmp_path: Path) -> None:
    system = as_system(tmp_path / "system")
    header = system / "include" / "llama.h"
    text = header.read_text()
    assert "uint32_t n_ubatch;" in text
    header.write_text(text.replace("uint32_t n_ubatch;", "uint32_t n_ubatch; uint64_t of_a_later_version[2];"))
    status, output = configure(tmp_path / "build", "-DRAWLLAMA_LLAMA=system", f"-DCMAKE_PREFIX_PATH={system}")
    assert status != 0
    assert "do not fit together" in output
    assert re.search(r"llama_context_params: \d+ bytes in the header, \d+ in the library", output)


def test_no_installed_libllama(tmp_path: Path) -> None:
    status, output = configure(
        tmp_path, "-DRAWLLAMA_LLAMA=system", "-DCMAKE_FIND_ROOT_PATH=/nowhere", "-DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY"
    )
    assert status != 0
    assert "set CMAKE_PREFIX_PATH" in output
