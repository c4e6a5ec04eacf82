"""`rawllama wheel`: a wheel for one GPU, one processor, or every processor of a kind."""

from __future__ import annotations

import argparse
import shlex
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rawllama.doctor import machine
from rawllama.errors import InvalidArgumentError
from rawllama.wheels import mkl, source, toolkit
from rawllama.wheels.build import build
from rawllama.wheels.finish import contents, finish
from rawllama.wheels.trial import trial
from rawllama.wheels.variant import BACKENDS, BLAS, LEVELS, Variant

_OPTIONS: dict[str, dict[str, Any]] = {
    "--backend": {"choices": BACKENDS, "default": "cpu", "help": "beside the CPU (default: none)"},
    "--arch": {
        "default": "",
        "metavar": "A",
        "help": "the GPU's: 90 or 86;89 for CUDA, gfx1100 for HIP, native for the one that is here; without it, all "
        "that ggml knows",
    },
    "--cpu": {
        "metavar": "C",
        "help": f"native, portable (picks at run time), {', '.join(LEVELS)}, or armv8.2-a+dotprod and so on (default: "
        "native; beside CUDA, Vulkan, HIP and SYCL: portable)",
    },
    "--blas": {"choices": BLAS, "default": "", "help": "a BLAS library beside the CPU's own kernels"},
    "--toolkit": {
        "metavar": "T",
        "help": "CUDA's: pypi=13.0 takes NVIDIA's packages (default: the installed one)",
    },
    "-D": {
        "dest": "defines",
        "action": "append",
        "default": [],
        "metavar": "NAME=VALUE",
        "help": "an option of CMake",
    },
    "--source": {
        "metavar": "S",
        "help": "rawllama's source: a clone, or its .tar.gz (default: the current folder, if it is one, else this "
        "version's from PyPI)",
    },
    "-o --output": {"type": Path, "default": Path("dist"), "help": "folder of the wheel (default: dist)"},
    "--dry-run": {"action": "store_true", "help": "print what would be called, and build nothing"},
    "--no-trial": {"action": "store_true", "help": "do not install and run the new wheel"},
}


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    text = "build a wheel for one GPU, one processor, or every processor"
    about = "`rawllama doctor` says which one fits this machine best."
    parser: argparse.ArgumentParser = commands.add_parser("wheel", help=text, description=about)
    for name, how in _OPTIONS.items():
        parser.add_argument(*name.split(), **how)
    parser.set_defaults(run=run, verbose=False)


def run(options: argparse.Namespace) -> int:
    """Build the wheel; return the exit status."""
    from rawllama.hub import cache_folder

    tree = source.find(options.source, version("rawllama").partition("+")[0], cache_folder() / "sources")
    tools = _toolkit(options, cache_folder())
    library = mkl.find(cache_folder()) if options.blas == "mkl" else None
    variant = _variant(options, tools, library)
    environment = tools.environment if tools else {}
    variables = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    print(" ".join([*variables, variant.pip_line(str(tree))]))
    if options.dry_run:
        return 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rawllama-wheel-") as scratch:
        wheel = build(variant, tree, Path(scratch), environment)
        options.output.mkdir(parents=True, exist_ok=True)
        finished = finish(wheel, options.output, variant.label, variant.requirements)
    _report(finished, time.perf_counter() - start, variant)
    if not options.no_trial:
        _try(finished)
    print(f"pip install {shlex.quote(str(finished))}")
    return 0


def _toolkit(options: argparse.Namespace, cache: Path) -> toolkit.Toolkit | None:
    if options.backend != "cuda":
        return None
    if options.toolkit:
        name, _, wanted = options.toolkit.partition("=")
        if name != "pypi":
            raise InvalidArgumentError(f"toolkit: {options.toolkit!r}; give pypi=13.0, or set CUDACXX to an nvcc")
        return toolkit.from_pypi(wanted, cache)
    found = toolkit.installed()
    if found is None:
        raise InvalidArgumentError(
            "backend: no CUDA toolkit is here. Install one, then put nvcc on PATH or set CUDACXX to its full name; or "
            "let NVIDIA's packages from PyPI compile: --toolkit pypi=13.0"
        )
    return found


def _variant(options: argparse.Namespace, tools: toolkit.Toolkit | None, library: mkl.Mkl | None) -> Variant:
    defines = []
    for define in options.defines:
        name, equals, value = define.partition("=")
        if not equals or not name:
            raise InvalidArgumentError(f"-D {define}: give NAME=VALUE")
        defines.append((name, value))
    arch = _native_arch(options.backend) if options.arch == "native" else options.arch
    has_driver = options.backend in ("cuda", "vulkan", "hip", "sycl")
    if tools is not None:
        tools.require(arch)
    return Variant(
        options.backend,
        arch,
        options.cpu or ("portable" if has_driver else "native"),
        options.blas,
        tuple(defines),
        toolkit=tools.version if tools else "",
        toolkit_defines=(*(tools.definitions if tools else ()), *(library.definitions if library else ())),
        blas_requirement=library.requirement if library else "",
    )


def _native_arch(backend: str) -> str:
    found = {"cuda": machine.nvidia, "hip": machine.amd}
    if backend not in found:
        raise InvalidArgumentError(f"arch: the backend {backend} is built for no single architecture; leave it out")
    gpus = sorted({gpu.arch for gpu in found[backend]()})
    if not gpus:
        raise InvalidArgumentError(
            "arch: native, and no GPU answers here; name its architecture, e.g. --arch 90 for H100, 89 for RTX 40, 86 "
            "for RTX 30, 80 for A100, or gfx1100 for Radeon RX 7900"
        )
    return ";".join(gpus)


def _report(wheel: Path, seconds: float, variant: Variant) -> None:
    found = contents(wheel)
    print(wheel.name)
    print(f"    {found.size / 1e6:.1f} MB, built in {seconds:.0f} s")
    if found.glibc:
        print(f"    needs glibc {'.'.join(map(str, found.glibc))}, read from its symbols")
    if found.plugins:
        print(f"    loaded at run time: {' '.join(found.plugins)}")
    print(f"    libraries: {' '.join(found.libraries)}")
    if found.copied:
        print(f"    copied from this system: {' '.join(found.copied)}")
    if variant.requirements:
        print(f"    requires: {', '.join(variant.requirements)}")


def _try(wheel: Path) -> None:
    from rawllama.hub import resolve

    found = trial(wheel, Path(resolve("minilm")))
    print(f"    tried in a new environment: {'; '.join(found.devices)}")
    for fault in found.faults:
        print(f"    what is not right there: {fault}")
    print(f"    cosines of its vectors: {found.alike:.3f} alike, {found.unlike:.3f} not alike")
