"""A wheel's local version, its requirements, and what it promises of the C library."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from rawllama import LIBRARIES
from rawllama.wheels.build import BuildError
from rawllama.wheels.finish import contents, finish, promised_glibc, relabel

METADATA = """Metadata-Version: 2.4
Name: rawllama
Version: 0.1.0
Requires-Dist: cffi>=2.0
Provides-Extra: minilm
Requires-Dist: gguf; extra == 'minilm'

# A heading

Version: 9 stands in the text too.
"""
WHEEL = """Wheel-Version: 1.0
Generator: tests
Root-Is-Purelib: false
Tag: cp311-abi3-{platform}
"""


def make_wheel(folder: Path, *libraries: Path, platform: str = "linux_x86_64") -> Path:
    """A wheel of rawllama with these libraries and nothing else."""
    info = folder / "tree" / "rawllama-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA)
    (info / "WHEEL").write_text(WHEEL.format(platform=platform))
    (folder / "tree" / "rawllama" / "lib").mkdir(parents=True)
    for library in libraries:
        shutil.copy(library, folder / "tree" / "rawllama" / "lib")
    command = [sys.executable, "-m", "wheel", "pack", "--dest-dir", str(folder), str(folder / "tree")]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_a_local_version_and_requirements(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    wheel = relabel(make_wheel(tmp_path), tmp_path / "new", "cu130.sm90", ["nvidia-cublas>=13.0,<14"])
    assert wheel.name == "rawllama-0.1.0+cu130.sm90-cp311-abi3-linux_x86_64.whl"
    found = PathDistribution(zipfile.Path(wheel, "rawllama-0.1.0+cu130.sm90.dist-info/"))
    assert found.version == "0.1.0+cu130.sm90"
    assert found.requires == ["cffi>=2.0", "gguf; extra == 'minilm'", "nvidia-cublas>=13.0,<14"]
    assert "Version: 9 stands in the text too." in found.metadata.get_payload()
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", str(wheel)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rawllama-0.1.0+cu130.sm90" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="ELF")
def test_the_c_library_is_read_from_the_symbols(tmp_path: Path) -> None:
    libraries = [path for path in LIBRARIES.iterdir() if path.suffix == ".so"]
    found = contents(make_wheel(tmp_path, *libraries))
    said = subprocess.run(["readelf", "-V", *libraries], capture_output=True, text=True, check=True).stdout
    versions = {(int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", said)}
    assert found.glibc == max(versions)
    assert set(found.libraries) | {f"libggml-{name}.so" for name in found.plugins} == {path.name for path in libraries}


@pytest.mark.skipif(sys.platform != "linux", reason="auditwheel")
def test_a_finished_wheel_keeps_its_promise(tmp_path: Path) -> None:
    libraries = [path for path in LIBRARIES.iterdir() if path.suffix == ".so"]
    (tmp_path / "out").mkdir()
    wheel = finish(make_wheel(tmp_path, *libraries), tmp_path / "out", "native", ())
    need, promised = contents(wheel).glibc, promised_glibc(wheel.name)
    assert "+native-" in wheel.name
    assert need is not None and promised is not None
    assert need <= promised
    names = [Path(name).name.split("-")[0] for name in zipfile.ZipFile(wheel).namelist() if ".so" in name]
    assert len([name for name in names if name.startswith("libggml")]) == len(contents(wheel).plugins), "no copies"


@pytest.mark.skipif(sys.platform != "linux", reason="auditwheel")
def test_the_folders_of_other_packages_are_still_looked_in(tmp_path: Path) -> None:
    """auditwheel forgets them in a library that needs one of the system's, which it copies."""
    (tmp_path / "g.c").write_text("#include <omp.h>\nint g(void) { return omp_get_max_threads(); }\n")
    library, outside = tmp_path / "libggml-cuda.so", "$ORIGIN/../../nvidia/cu13/lib"
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-fopenmp", f"-Wl,-rpath,$ORIGIN:{outside}"]
    subprocess.run([*command, "-o", library, tmp_path / "g.c"], check=True)
    (tmp_path / "out").mkdir()
    wheel = finish(make_wheel(tmp_path, library), tmp_path / "out", "cu130", ())
    assert any(name.startswith("libgomp") for name in contents(wheel).copied)
    with zipfile.ZipFile(wheel) as archive:
        archive.extract("rawllama/lib/libggml-cuda.so", tmp_path / "unpacked")
    made = tmp_path / "unpacked" / "rawllama" / "lib" / "libggml-cuda.so"
    said = subprocess.run(["readelf", "-d", made], capture_output=True, text=True, check=True).stdout
    paths = re.search(r"R(?:UN)?PATH.*\[(.*)\]", said)
    assert paths is not None
    assert outside in paths[1].split(":")
    assert any(path.endswith("rawllama.libs") for path in paths[1].split(":")), "where the copy is"


def test_promises() -> None:
    assert promised_glibc("rawllama-0.1.0-cp311-abi3-manylinux_2_28_x86_64.whl") == (2, 28)
    both = "rawllama-0.1.0-cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    assert promised_glibc(both) == (2, 17)
    assert promised_glibc("rawllama-0.1.0-cp311-abi3-macosx_11_0_arm64.whl") is None


@pytest.mark.skipif(sys.platform != "linux", reason="auditwheel")
def test_what_is_no_wheel_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "rawllama-0.1.0-cp311-abi3-linux_x86_64.whl"
    broken.write_bytes(b"PK")
    with pytest.raises(BuildError, match="auditwheel repair"):
        finish(broken, tmp_path, "", ())
