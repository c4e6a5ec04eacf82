"""Processor, GPUs and drivers of this machine."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rawllama import faults

from .tools import lines

# What each level of x86-64 adds: the psABI's names, as /proc/cpuinfo writes them without underscores.
_LEVELS = (
    ("x86-64-v2", {"cx16", "popcnt", "sse41", "sse42", "ssse3"}),
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}),
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_DISPLAY = "0x03"  # the PCI class of display controllers
_ACCELERATOR = "0x12"
_PCI = Path("/sys/bus/pci/devices")
_KFD = Path("/sys/class/kfd/kfd/topology/nodes")


@dataclass(frozen=True)
class Processor:
    """The processor.

    Attributes
    ----------
    name
        As the system says it.
    cores
        That this process may use.
    level
        `x86-64-v3` and so on; empty elsewhere.
    """

    name: str
    cores: int
    level: str


@dataclass(frozen=True)
class Gpu:
    """A GPU that the system shows.

    Attributes
    ----------
    vendor
        NVIDIA, AMD, Intel or Apple.
    name
        As its driver says it; the vendor's where there is no driver.
    arch
        What a build is for: `90` (compute capability 9.0), `gfx1100`; empty where unknown.
    driver
        Its version; empty where there is none, or it does not answer.
    cuda
        The newest CUDA that the driver runs; empty where unknown.
    """

    vendor: str
    name: str
    arch: str = ""
    driver: str = ""
    cuda: str = ""


def processor() -> Processor:
    """The processor of this machine."""
    name = platform.processor() or platform.machine()
    if sys.platform == "darwin":
        name = next(iter(lines(["sysctl", "-n", "machdep.cpu.brand_string"])), name)
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE):
            name = found[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processor(name, cores, level(faults.instructions()))


def level(instructions: frozenset[str]) -> str:
    """The highest level of x86-64 that has all its instruction sets among these."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ""
    found = "x86-64-v1"
    for name, wanted in _LEVELS:
        if not wanted <= instructions:
            break
        found = name
    return found


def gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine, with or without a driver; virtual displays of other vendors are left out."""
    if sys.platform == "darwin":
        return (Gpu("Apple", "Metal", driver=platform.mac_ver()[0]),) if platform.machine() == "arm64" else ()
    found = [*nvidia(), *amd()]
    with_driver = {gpu.vendor for gpu in found}
    return (*found, *(Gpu(vendor, f"{vendor} GPU") for vendor in _on_the_bus() if vendor not in with_driver))


def nvidia() -> list[Gpu]:
    """GPUs that NVIDIA's driver tells of."""
    fields = "name,compute_cap,driver_version"
    rows = lines(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"])
    newest = re.search(r"CUDA Version:\s*(\d+\.\d+)", "\n".join(lines(["nvidia-smi"]))) if rows else None
    found = []
    for row in rows:
        name, capability, driver = (field.strip() for field in row.split(","))
        found.append(Gpu("NVIDIA", name, capability.replace(".", ""), driver, newest[1] if newest else ""))
    return found


def amd() -> list[Gpu]:
    """GPUs that AMD's kernel driver tells of."""
    found = []
    for node in sorted(_KFD.glob("*/properties")):
        with suppress(OSError):
            text = node.read_text(encoding="ascii", errors="replace")
            version = re.search(r"^gfx_target_version (\d+)$", text, re.MULTILINE)
            if version and int(version[1]):  # processors are nodes too, with 0
                number = int(version[1])
                arch = f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"
                found.append(Gpu("AMD", "AMD GPU", arch, "amdgpu"))
    return found


def _on_the_bus() -> list[str]:
    """Vendors of the display controllers and accelerators on the PCI bus."""
    found = []
    for device in sorted(_PCI.glob("*")):
        with suppress(OSError):
            kind = (device / "class").read_text(encoding="ascii").strip()
            vendor = _VENDORS.get((device / "vendor").read_text(encoding="ascii").strip())
            if vendor and kind.startswith((_DISPLAY, _ACCELERATOR)):
                found.append(vendor)
    return found
