"""Compilers and toolkits of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 20  # that a tool may take to say its version


@dataclass(frozen=True)
class Tool:
    """A program, and what it is for.

    Attributes
    ----------
    name
        Of the program.
    purpose
        For people.
    path
        Where it is; None if it is not here.
    version
        What it says; empty where it does not.
    """

    name: str
    purpose: str
    path: Path | None
    version: str


def lines(command: Sequence[str]) -> list[str]:
    """What a command prints, if it succeeds; else nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def find_nvcc() -> Path | None:
    """CUDA's compiler: of CUDACXX, PATH, CUDA_PATH or /usr/local/cuda, as CMake looks for it."""
    places = [os.environ.get("CUDACXX"), shutil.which("nvcc")]
    folders = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places += [str(Path(folder, "bin", "nvcc")) for folder in folders if folder]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def tools() -> tuple[Tool, ...]:
    """Those that building rawllama may need."""
    compilers = filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++", "cl"))
    compiler = next(filter(shutil.which, compilers), "c++")
    return (
        _tool(compiler, "the C++ compiler, for every build", r"(\d+\.\d+[.\d]*)"),
        _tool("nvcc", "CUDA's compiler, for NVIDIA GPUs", r"release (\d+\.\d+)", find_nvcc()),
        _tool("hipconfig", "ROCm, for AMD GPUs", r"(\d+\.\d+[.\d]*)"),
        _tool("glslc", "shaders for Vulkan", r"(v?\d{4}\.\d+)"),
        _tool("icpx", "Intel's compiler, for SYCL", r"(\d{4}\.\d+[.\d]*)"),
    )


def _tool(name: str, purpose: str, pattern: str, path: Path | None = None) -> Tool:
    found = path or (Path(which) if (which := shutil.which(name)) else None)
    said = "\n".join(lines([str(found), "--version"])) if found else ""
    version = re.search(pattern, said)
    return Tool(name, purpose, found, version[1] if version else "")
