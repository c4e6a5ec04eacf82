"""CUDA's compiler: the one that is installed, or NVIDIA's packages from PyPI in an environment of their own."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rawllama.doctor.tools import find_nvcc, lines
from rawllama.errors import DownloadError, InvalidArgumentError

# Each part of the toolkit that ggml needs, as NVIDIA names its packages from CUDA 13 on.
_PACKAGES = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl", "nvidia-cuda-runtime")
# cuBLAS counts its own versions; those of one major version go with each other.
_CUBLAS = "nvidia-cublas"


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit.

    Attributes
    ----------
    nvcc
        Its compiler.
    version
        E.g. `13.0`.
    architectures
        What it compiles for, e.g. `("75", "80", ...)`.
    root
        Its folder, where CMake must be told; else None.
    """

    nvcc: Path
    version: str
    architectures: tuple[str, ...]
    root: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What CMake must find it by."""
        found = {"CUDACXX": str(self.nvcc)}
        return found if self.root is None else found | {"CUDAToolkit_ROOT": str(self.root)}

    @property
    def definitions(self) -> tuple[tuple[str, str], ...]:
        """Options that it needs: NVIDIA's packages have no libcuda to link with, which ggml's virtual memory needs."""
        return () if self.root is None else (("GGML_CUDA_NO_VMM", "ON"),)

    def require(self, arch: str) -> None:
        """Raise InvalidArgumentError unless it compiles for these architectures."""
        for one in re.findall(r"\d+", arch):
            if self.architectures and one not in self.architectures:
                newest = max(map(int, self.architectures))
                which = "a newer toolkit is needed" if int(one) > newest else "an older toolkit is needed, CUDA 12"
                known = ", ".join(self.architectures)
                raise InvalidArgumentError(
                    f"arch: the CUDA toolkit {self.version} ({self.nvcc}) does not compile for {one}, only for "
                    f"{known}: "
                    f"{which}, or another --arch"
                )


def installed() -> Toolkit | None:
    """The toolkit of this machine: of CUDACXX, PATH, CUDA_PATH or /usr/local/cuda."""
    nvcc = find_nvcc()
    return None if nvcc is None else _describe(nvcc)


def from_pypi(version: str, cache: Path) -> Toolkit:
    """NVIDIA's packages of this version, in an environment in the cache; half a gigabyte is downloaded, once.

    Raises
    ------
    DownloadError
        pip could not bring them.
    """
    if not re.fullmatch(r"1[3-9]\.\d+", version):
        raise InvalidArgumentError(f"toolkit: {version!r}; PyPI has whole CUDA toolkits from 13.0 on, e.g. pypi=13.0")
    folder = cache / f"cuda-{version}"
    major = version.partition(".")[0]
    pattern = f"lib/python*/site-packages/nvidia/cu{major}"
    if not list(folder.glob(f"{pattern}/complete")):
        requirements = [*(f"{name}=={version}.*" for name in _PACKAGES), f"{_CUBLAS}=={major}.*"]
        _install(folder, requirements)
        for root in folder.glob(pattern):
            _link(root)
            (root / "complete").touch()
    roots = list(folder.glob(pattern))
    toolkit = _describe(roots[0] / "bin" / "nvcc", roots[0]) if roots else None
    if toolkit is None:
        raise DownloadError(f"toolkit: the packages of CUDA {version} in {folder} are incomplete; remove that folder")
    return toolkit


def _install(folder: Path, requirements: Sequence[str]) -> None:
    venv.create(folder, clear=True, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    command = [*pip, "install", "--no-deps", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DownloadError(f"toolkit: pip could not bring {', '.join(requirements)}:\n{done.stderr.strip()[-2000:]}")


def _link(root: Path) -> None:
    """The names that a linker looks for: packages hold libcudart.so.13 and no libcudart.so, and lib but no lib64."""
    for library in (root / "lib").glob("lib*.so.*"):
        name = library.with_name(library.name.partition(".so.")[0] + ".so")
        if not name.exists():
            name.symlink_to(library.name)
    if not (root / "lib64").exists():
        (root / "lib64").symlink_to("lib")


def _describe(nvcc: Path, root: Path | None = None) -> Toolkit | None:
    said = re.search(r"release (\d+\.\d+)", "\n".join(lines([str(nvcc), "--version"])))
    if said is None:
        return None
    known = re.findall(r"compute_(\d+)", "\n".join(lines([str(nvcc), "--list-gpu-arch"])))
    return Toolkit(nvcc.absolute(), said[1], tuple(dict.fromkeys(known)), root)
