"""All that `rawllama doctor` finds, and the faults among it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rawllama import faults

from . import advice, installed, machine, tools

# What ggml's plugins and backends are called, for the GPUs of each vendor.
_BACKENDS = {"NVIDIA": ("cuda", "vulkan"), "AMD": ("hip", "vulkan"), "Intel": ("sycl", "vulkan"), "Apple": ("metal",)}


@dataclass(frozen=True)
class Fault:
    """Something that is wrong.

    Attributes
    ----------
    what
        In the words of whoever found it.
    remedy
        What to do.
    fatal
        Whether rawllama does not work at all because of it.
    """

    what: str
    remedy: str
    fatal: bool = False


@dataclass(frozen=True)
class Examination:
    """What was found; the attributes are named as the modules that find them."""

    processor: machine.Processor
    gpus: tuple[machine.Gpu, ...]
    tools: tuple[tools.Tool, ...]
    build: dict[str, str]
    libraries: tuple[installed.Library, ...]
    devices: tuple[dict[str, Any], ...]
    no_devices: str
    faults: tuple[Fault, ...]
    advice: advice.Advice

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        for one in (*found["tools"], *found["libraries"]):
            one["path"] = None if one["path"] is None else str(one["path"])
        return found


def examine() -> Examination:
    """Look at everything; takes a few seconds, as each library is tried in a process of its own."""
    processor, gpus, found_tools = machine.processor(), machine.gpus(), tools.tools()
    build, libraries = installed.build(), installed.libraries()
    devices, no_devices = installed.devices()
    return Examination(
        processor,
        gpus,
        found_tools,
        build,
        libraries,
        tuple(devices),
        no_devices,
        tuple(_faults(gpus, build, libraries, devices, no_devices)),
        advice.best(gpus, processor, found_tools),
    )


def _faults(
    gpus: tuple[machine.Gpu, ...],
    build: dict[str, str],
    libraries: tuple[installed.Library, ...],
    devices: list[dict[str, Any]],
    no_devices: str,
) -> Iterator[Fault]:
    if missing := faults.missing_instructions():
        words = f"the processor lacks {', '.join(missing)}, which this build was compiled for"
        yield Fault(words, faults.remedy("SIGILL"), fatal=True)
    for library in libraries:
        if library.fault:
            # A generation of processors that this one does not belong to is no fault: another variant is used.
            if library.plugin and library.path.name.startswith("libggml-cpu-") and library.fault == "SIGILL":
                continue
            yield Fault(f"{library.path.name}: {library.fault}", library.remedy, fatal=not library.plugin)
    if no_devices and not missing and not any(library.fault and not library.plugin for library in libraries):
        yield Fault(f"no devices: {no_devices}", faults.remedy(no_devices), fatal=True)
    yield from _idle(gpus, build.get("backends", "").split(), devices)


def _idle(gpus: tuple[machine.Gpu, ...], backends: list[str], devices: list[dict[str, Any]]) -> Iterator[Fault]:
    """GPUs that are not used."""
    if any(device["kind"] in ("gpu", "igpu") for device in devices):
        return
    for gpu in gpus:
        fitting = [name for name in _BACKENDS[gpu.vendor] if name in backends]
        if not gpu.driver and gpu.vendor == "NVIDIA":
            remedy = "install NVIDIA's driver (Debian, Ubuntu: apt-get install nvidia-driver); then nvidia-smi names it"
            yield Fault(f"{gpu.name}: no driver answers", remedy)
        elif not fitting:
            yield Fault(f"{gpu.name}: this build has no backend for it", "build one that has: see the advice")
        else:
            yield Fault(f"{gpu.name}: the backend {fitting[0]} finds no device", "see the libraries, and its driver")
