"""Why libraries do not load, and what to do about it. Nothing here needs them."""

from __future__ import annotations

import json
import platform
import re
from contextlib import suppress
from pathlib import Path

from .paths import BUILD

# What the dynamic loader says, and the remedy; \1 is what the pattern's group found.
_REMEDIES = (
    (
        r"version [`'](GLIBC_[\d.]+)' not found",
        r"this build needs \1, and the system's C library is older ({glibc}). Install a wheel with a lower "
        "manylinux tag, or build here, with a C++ compiler: pip install --no-binary rawllama rawllama",
    ),
    (
        r"version [`'](GLIBCXX_[\d.]+|CXXABI_[\d.]+)' not found",
        r"this build needs \1, and the libstdc++ that was found is older. Install a newer one (Debian, Ubuntu: apt-get "
        "install libstdc++6; conda: conda install -c conda-forge libstdcxx-ng), or build here: "
        "pip install --no-binary rawllama rawllama",
    ),
    (
        r"(libcuda\.so\.1)",
        "NVIDIA's driver is missing: it is the driver of the GPU that brings libcuda.so.1. Install it (Debian, Ubuntu: "
        "apt-get install nvidia-driver; in a container: docker run --gpus all), or install a CPU build of rawllama",
    ),
    (r"libcudart\.so\.(\d+)", r"CUDA's runtime is missing: pip install {cuda_runtime}"),
    (r"libcublas(?:Lt)?\.so\.(\d+)", r"cuBLAS is missing: pip install {cublas}"),
    (r"libvulkan\.so", "Vulkan's loader is missing (Debian, Ubuntu: apt-get install libvulkan1)"),
    (r"lib(?:amdhip64|hipblas|rocblas)\.so", "ROCm is missing: install rocm-hip-runtime and hipblas, or set "
     "LD_LIBRARY_PATH to ROCm's lib folder"),
    (r"libsycl\.so", "Intel's oneAPI runtime is missing: source its setvars.sh, or pip install intel-sycl-rt"),
    (r"libmkl_\w+\.so", "Intel's MKL is missing: pip install mkl"),
    (r"libopenblas\w*\.so", "OpenBLAS is missing (Debian, Ubuntu: apt-get install libopenblas0-openmp)"),
    (r"libgomp\.so", "OpenMP's runtime is missing (Debian, Ubuntu: apt-get install libgomp1)"),
    (r"undefined symbol|symbol not found", "the package's libraries are of different builds: "
     "pip install --force-reinstall --no-deps rawllama"),
    (r"SIGILL", "install the portable wheel, which uses what the processor has, or build here, with a C++ compiler: "
     "pip install --no-binary rawllama rawllama"),
    (r"No module named 'rawllama\._libllama'|librawllama-[\w-]+\.so: cannot open", "the installation is incomplete: "
     "pip install --force-reinstall --no-deps rawllama"),
)  # fmt: skip


def remedy(words: str) -> str:
    """What to do about a library that does not load; empty where nothing is known.

    Parameters
    ----------
    words
        What the dynamic loader says, or the name of the signal that ended the process.
    """
    for pattern, text in _REMEDIES:
        if found := re.search(pattern, words):
            text = text.replace(r"\1", found[1] if found.groups() else "")
            return _fill(text, found[1] if found.groups() else "")
    return ""


def missing_instructions() -> tuple[str, ...]:
    """Instruction sets that this build of ggml was compiled for and the processor has not got, where both are known."""
    with suppress(OSError, ValueError):
        built = json.loads(BUILD.read_text(encoding="utf-8")).get("cpu_features", "").split()
        here = instructions()
        return tuple(name for name in built if here and name not in here)
    return ()


def instructions() -> frozenset[str]:
    """The processor's instruction sets, as Linux tells; without underscores, e.g. `avx512f`, `sse42`."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE):
            return frozenset(flag.replace("_", "") for flag in found[1].split())
    return frozenset()


def _fill(text: str, version: str) -> str:
    suffix = (
        "" if version.isdigit() and int(version) >= 13 else f"-cu{version}"
    )  # NVIDIA's packages lost it with CUDA 13
    return text.format(
        glibc=" ".join(platform.libc_ver()).strip() or "another one",
        cuda_runtime=f"nvidia-cuda-runtime{suffix or '==13.*'}",
        cublas=f"nvidia-cublas{suffix or '==13.*'}",
    )
