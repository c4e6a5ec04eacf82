"""Processors, GPUs and tools, as the system's own programs tell of them."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from rawllama.doctor import machine, tools
from rawllama.doctor.advice import best
from rawllama.doctor.machine import Gpu, Processor
from rawllama.doctor.tools import Tool

CPU = Processor("a processor", 8, "x86-64-v3")
H100 = Gpu("NVIDIA", "H100", "90", "580", "13.0")
RADEON = Gpu("AMD", "AMD GPU", "gfx1100", "amdgpu")
V2 = {"cx16", "popcnt", "sse41", "sse42", "ssse3"}
V3 = V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
def test_levels() -> None:
    assert machine.level(frozenset()) == "x86-64-v1"
    assert machine.level(frozenset(V2)) == "x86-64-v2"
    assert machine.level(frozenset(V3)) == "x86-64-v3"
    assert machine.level(frozenset(V3 - {"popcnt"})) == "x86-64-v1"


def script(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def test_nvidia_as_its_driver_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "nvidia-smi", """case "$1" in
--query-gpu=*) echo "NVIDIA H100 80GB HBM3, 9.0, 580.65.06"; echo "NVIDIA L4, 8.9, 580.65.06";;
*) echo "| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: 13.0 |";;
esac""")  # fmt: skip
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    first, second = machine.nvidia()
    assert first == Gpu("NVIDIA", "NVIDIA H100 80GB HBM3", "90", "580.65.06", "13.0")
    assert second.arch == "89"
    script(tmp_path, "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    assert machine.nvidia() == []


def test_tools_say_their_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'")
    monkeypatch.setenv("CUDACXX", str(tmp_path / "nvcc"))
    found = {tool.name: tool for tool in tools.tools()}
    assert found["nvcc"].version == "12.4"
    assert found["nvcc"].path == tmp_path / "nvcc"


def have(*names: str) -> list[Tool]:
    everything = ("c++", "nvcc", "hipconfig", "glslc", "icpx")
    return [Tool(name, "", Path(name) if name in names else None, "") for name in everything]


@pytest.mark.parametrize(
    ("gpus", "tools", "command", "needs"),
    [
        ([], have("c++"), "rawllama wheel --cpu native", ""),
        ([], have(), "rawllama wheel --cpu native", "a C++ compiler"),
        ([H100], have("c++", "nvcc"), "rawllama wheel --backend cuda --arch 90", ""),
        ([H100], have("c++"), "rawllama wheel --backend cuda --arch 90 --toolkit pypi=13.0", ""),
        ([Gpu("NVIDIA", "T4", "75", "535", "12.2")], have("c++"), "rawllama wheel --backend cuda --arch 75",
         "a CUDA toolkit of at most 12.2"),
        ([Gpu("NVIDIA", "NVIDIA GPU")], have("c++"), "rawllama wheel --cpu native", ""),
        ([RADEON], have("c++"), "rawllama wheel --backend hip --arch gfx1100", "ROCm"),
        ([Gpu("Intel", "Intel GPU")], have("c++", "glslc"), "rawllama wheel --backend vulkan", ""),
        ([Gpu("Apple", "Metal", driver="15")], have("c++"), "rawllama wheel --backend metal", ""),
    ],
)  # fmt: skip
def test_advice(gpus: list[Gpu], tools: list[Tool], command: str, needs: str) -> None:
    found = best(gpus, CPU, tools)
    assert found.command == command
    assert found.needs.startswith(needs)
    assert bool(found.needs) == bool(needs)
