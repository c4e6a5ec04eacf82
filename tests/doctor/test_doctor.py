"""`rawllama doctor` on this installation, and on copies of it that are broken as users' are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rawllama import LIBRARIES
from rawllama.paths import PACKAGE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what glibc's loader says")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the installed package, whose libraries are its own."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "rawllama", ignore=shutil.ignore_patterns("__pycache__", "bench")))


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy.parent)}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=environment, cwd=copy.parent
    )


def doctor(copy: Path) -> tuple[int, str]:
    done = run(copy, "-m", "rawllama", "doctor")
    assert not done.stderr
    return done.returncode, done.stdout


def test_this_installation_is_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rawllama", "doctor", "--json"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert {Path(one["path"]).name for one in found["libraries"]} >= {path.name for path in LIBRARIES.iterdir()}
    assert [one for one in found["devices"] if one["kind"] == "cpu"]
    assert found["processor"]["cores"] == len(os.sched_getaffinity(0))
    assert found["advice"]["command"].startswith("rawllama wheel ")


def test_a_processor_that_lacks_instructions(copy: Path) -> None:
    build = json.loads((copy / "build.json").read_text())
    (copy / "build.json").write_text(json.dumps({**build, "cpu_features": "sse42 avx1024"}))
    if not re.search(r"^flags\s*:.*sse4_2", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
        pytest.skip("another kind of processor")
    done = run(copy, "-c", "import rawllama; rawllama.lib")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "rawllama.errors.LibraryLoadError: libllama cannot run here: it was built for processors with avx1024"
    )
    assert "portable wheel" in last
    status, said = doctor(copy)
    assert status == 1
    assert "1. the processor lacks avx1024, which this build was compiled for\n" in said
    done = run(copy, "-m", "rawllama", "embed", "hello")
    assert done.returncode == 1
    assert done.stderr.startswith("rawllama: libllama cannot run here")


def test_a_missing_library(copy: Path) -> None:
    (copy / "lib" / "librawllama-ggml-base.so").unlink()
    done = run(copy, "-c", "from rawllama import Embedder")
    assert "LibraryLoadError: libllama does not load: librawllama-ggml-base.so: cannot open" in done.stderr
    assert "pip install --force-reinstall" in done.stderr
    status, said = doctor(copy)
    assert status == 1
    assert re.search(r"\d\. librawllama-llama\.so: librawllama-ggml-base\.so: cannot open shared object file", said)
    assert "the installation is incomplete" in said


def needing(folder: Path, name: str, soname: str) -> Path:
    """A library that needs another one, which is not there when it is loaded."""
    (folder / "f.c").write_text("int f(void) { return 0; }\n")
    (folder / "g.c").write_text("int f(void); int g(void) { return f(); }\n")
    cc = os.environ.get("CC", "cc")
    other = folder / soname
    subprocess.run([cc, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", other, folder / "f.c"], check=True)
    subprocess.run([cc, "-shared", "-fPIC", "-o", folder / name, folder / "g.c", other], check=True)
    other.unlink()
    return folder / name


@pytest.mark.parametrize(
    ("soname", "remedy"),
    [("libcublas.so.13", "pip install nvidia-cublas==13.*"), ("libcuda.so.1", "NVIDIA's driver is missing")],
)
def test_a_plugin_that_does_not_load_leaves_the_rest(copy: Path, tmp_path: Path, soname: str, remedy: str) -> None:
    """What a wheel for CUDA meets on a machine without cuBLAS, or without a driver."""
    (tmp_path / "made").mkdir()
    shutil.copy(needing(tmp_path / "made", "libggml-cuda.so", soname), copy / "lib")
    status, said = doctor(copy)
    assert status == 1
    assert f"1. libggml-cuda.so: {soname}: cannot open shared object file" in said
    assert "(the rest works)" in said
    assert remedy in said
    assert "device: CPU (cpu)" in said
