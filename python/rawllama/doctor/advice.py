"""The build that fits this machine best, and the command for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .machine import Gpu, Processor
from .tools import Tool


@dataclass(frozen=True)
class Advice:
    """What to build here.

    Attributes
    ----------
    command
        What builds it.
    why
        In a few words.
    needs
        What must be installed first; empty if nothing.
    """

    command: str
    why: str
    needs: str = ""


def best(gpus: Sequence[Gpu], processor: Processor, tools: Sequence[Tool]) -> Advice:
    """The build for the first GPU that has a driver, else for the processor."""
    have = {tool.name for tool in tools if tool.path is not None}
    needs = "" if tools[0].path is not None else "a C++ compiler (Debian, Ubuntu: apt-get install g++)"
    for gpu in gpus:
        if gpu.vendor == "NVIDIA" and gpu.driver:
            return _cuda(gpu, have, needs)
        if gpu.vendor == "Apple":
            return Advice("rawllama wheel --backend metal", f"for Metal on {processor.name}", needs)
        if gpu.vendor == "AMD" and gpu.driver:
            missing = "" if "hipconfig" in have else "ROCm's HIP SDK"
            command = f"rawllama wheel --backend hip --arch {gpu.arch}"
            return Advice(command, f"for {gpu.name} ({gpu.arch})", missing or needs)
        if gpu.vendor == "Intel":
            missing = "" if "glslc" in have else "Vulkan's SDK (Debian, Ubuntu: libvulkan-dev glslc spirv-headers)"
            return Advice("rawllama wheel --backend vulkan", f"for the {gpu.name}", missing or needs)
    words = f"for this {processor.level or 'processor'}; it runs on no older one"
    return Advice("rawllama wheel --cpu native", words, needs)


def _cuda(gpu: Gpu, have: set[str], needs: str) -> Advice:
    command = f"rawllama wheel --backend cuda --arch {gpu.arch or 'native'}"
    why = f"for {gpu.name}, compute capability {gpu.arch}, whose driver {gpu.driver} runs CUDA up to {gpu.cuda or '?'}"
    if "nvcc" not in have:
        if gpu.cuda and float(gpu.cuda) >= 13:
            command += " --toolkit pypi=13.0"
            return Advice(command, f"{why}; no CUDA toolkit is here, so NVIDIA's packages from PyPI compile it", needs)
        needs = f"a CUDA toolkit of at most {gpu.cuda or 'what the driver runs'}"
    return Advice(command, why, needs)
