"""`rawllama wheel`: what it says it will do, and a wheel from beginning to end."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import rawllama

ROOT = Path(__file__).parent.parent.parent


def wheel(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rawllama", "wheel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cpu", "pentium"], "cpu: 'pentium' is none of"),
        (["--arch", "90"], "leave it out"),
        (["-D", "GGML_NATIVE"], "give NAME=VALUE"),
        (["--backend", "cuda", "--toolkit", "cuda"], "give pypi=13.0"),
        (["--backend", "vulkan", "--arch", "native"], "leave it out"),
        (["--source", "/nowhere"], "neither rawllama's source tree nor its .tar.gz"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_built(arguments: list[str], words: str) -> None:
    done = wheel("--dry-run", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("rawllama: ")
    assert words in done.stderr


def test_no_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("the CUDA toolkit is in its usual place")
    for name in ("CUDACXX", "CUDA_PATH", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = wheel("--dry-run", "--backend", "cuda")
    assert done.returncode == 1
    assert "no CUDA toolkit is here. Install one" in done.stderr
    assert "--toolkit pypi=13.0" in done.stderr


def test_the_plain_line(tmp_path: Path) -> None:
    done = wheel("--dry-run", "--cpu", "portable")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pip wheel --no-deps ")
    assert "-C cmake.define.GGML_CPU_ALL_VARIANTS=ON" in done.stdout
    assert "-C cmake.define.GGML_LLAMAFILE=OFF" in wheel("--dry-run", "-D", "GGML_LLAMAFILE=OFF").stdout


def test_a_source_distribution_is_a_source(tmp_path: Path) -> None:
    archive = tmp_path / "rawllama-0.1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("pyproject.toml", "CMakeLists.txt", "vendor/llama.cpp.toml", "python/rawllama/__init__.py"):
            tar.add(ROOT / name, f"rawllama-0.1.0/{name}")
    done = wheel("--dry-run", "--source", str(archive), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"wheel --no-deps \S+rawllama-0\.1\.0 ", done.stdout)


def test_from_beginning_to_end(tmp_path: Path) -> None:
    """On the libllama that is installed here: only the module is compiled."""
    system = tmp_path / "system"
    (system / "lib").mkdir(parents=True)
    for library in rawllama.LIBRARIES.iterdir():
        (system / "lib" / library.name).symlink_to(library)  # as its SONAME says
        (system / "lib" / library.name.replace("librawllama-", "lib")).symlink_to(library)
    shutil.copytree(rawllama.INCLUDE, system / "include")
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("build", ".git", "llama.cpp", "tests", "docs", "*cache*")
    shutil.copytree(ROOT, tree, ignore=ignored)
    arguments = ["-D", "RAWLLAMA_LLAMA=system", "-D", f"CMAKE_PREFIX_PATH={system}", "-o", str(tmp_path / "out")]
    done = wheel("--source", str(tree), *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [made] = (tmp_path / "out").glob("*.whl")
    assert re.fullmatch(r"rawllama-0\.1\.0\+native\.[0-9a-f]{6}-cp311-abi3-\w+\.whl", made.name)
    assert re.search(r"tried in a new environment: .*CPU \(cpu\)", done.stdout)
    assert re.search(r"cosines of its vectors: 0\.613 alike, 0\.044 not alike", done.stdout)
    assert done.stdout.endswith(f"pip install {made}\n")
    assert list(tree.glob("build/wheel-native-*/build.log"))

    # What does not compile says why, in the compiler's or CMake's words.
    (tree / "csrc" / "arrow.c").write_text("not C\n")
    done = wheel("--source", str(tree), *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert re.search(r"arrow\.c:1:\d+: error: ", done.stderr)
    assert "The whole log: " in done.stderr
    done = wheel("--source", str(tree), "-D", "RAWLLAMA_LLAMA=/nowhere", folder=tmp_path)
    assert done.returncode == 1
    assert "holds no include/llama.h" in " ".join(done.stderr.split())
