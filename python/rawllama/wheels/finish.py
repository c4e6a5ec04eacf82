"""A wheel as pip made it to one that says the truth: local version, requirements, platform tag, glibc."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rawllama.paths import search_path

from .build import BuildError

# Of the system or of other packages, and so not copied into the wheel.
_OUTSIDE = (
    "libcuda.so.*", "libcudart.so.*", "libcublas.so.*", "libcublasLt.so.*", "libnvrtc.so.*", "libvulkan.so.*",
    "libamdhip64.so.*", "libhipblas.so.*", "librocblas.so.*", "libsycl.so.*", "libOpenCL.so.*", "libmkl_*",
    "libze_loader.so.*",
)  # fmt: skip
# What copies foreign libraries into a wheel and tells its platform, by sys.platform.
_REPAIR = {
    "linux": ["-m", "auditwheel", "repair", *(f"--exclude={name}" for name in _OUTSIDE), "-w", "{output}", "{wheel}"],
    "darwin": ["-m", "delocate.cmd.delocate_wheel", "-w", "{output}", "{wheel}"],
    "win32": ["-m", "delvewheel", "repair", "--no-mangle-all", "--exclude=nvcuda.dll", "-w", "{output}", "{wheel}"],
}


@dataclass(frozen=True)
class Contents:
    """What a wheel has in it.

    Attributes
    ----------
    size
        Bytes.
    plugins
        Backends that are loaded at run time, e.g. `cpu-haswell`.
    libraries
        The other libraries of rawllama.
    copied
        Libraries of the system that were copied into it.
    glibc
        The C library that its symbols need, e.g. `(2, 28)`; None elsewhere than on Linux.
    """

    size: int
    plugins: tuple[str, ...]
    libraries: tuple[str, ...]
    copied: tuple[str, ...]
    glibc: tuple[int, int] | None


def finish(wheel: Path, output: Path, label: str, requirements: Sequence[str]) -> Path:
    """The finished wheel, in `output`.

    Raises
    ------
    BuildError
        A tool failed, or the tag promises an older C library than the symbols need.
    """
    with tempfile.TemporaryDirectory(prefix="rawllama-wheel-") as scratch:
        labelled = relabel(wheel, Path(scratch), label, requirements) if label or requirements else wheel
        repaired = _repair(labelled, Path(scratch, "repaired"))
        if sys.platform == "linux":
            _restore_search_paths(labelled, repaired)
        finished = Path(shutil.copy(repaired, output))
    need, promised = contents(finished).glibc, promised_glibc(finished.name)
    if need is not None and (promised is None or need > promised):
        raise BuildError(f"{finished.name} promises glibc {promised}, and its symbols need {need}")
    return finished


def relabel(wheel: Path, folder: Path, label: str, requirements: Sequence[str]) -> Path:
    """A copy with a local version, as in `0.1.0+cu130`, and more requirements."""
    _tool(["-m", "wheel", "unpack", "--dest", str(folder), str(wheel)])
    [tree] = [path for path in folder.iterdir() if path.is_dir()]
    [info] = tree.glob("*.dist-info")
    metadata = info / "METADATA"
    head, _, body = metadata.read_text(encoding="utf-8").partition("\n\n")
    version = re.search(r"^Version: (\S+)$", head, re.MULTILINE)
    assert version is not None, "pip has read this wheel's metadata"
    local = f"{version[1].partition('+')[0]}+{label}" if label else version[1]
    lines = [f"Version: {local}" if line.startswith("Version: ") else line for line in head.splitlines()]
    lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
    metadata.write_text("\n".join([*lines, "", body]), encoding="utf-8")
    info.rename(tree / f"rawllama-{local}.dist-info")
    (folder / "packed").mkdir()
    _tool(["-m", "wheel", "pack", "--dest-dir", str(folder / "packed"), str(tree)])
    [packed] = (folder / "packed").glob("*.whl")
    return packed


def contents(wheel: Path) -> Contents:
    """What is in it, and which C library that needs."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.search(r"\.(so|dylib|dll|pyd)(\.\d+)*$", name)]
        needs = [need for name in names for need in _glibc(archive, name)]
    inside = sorted(Path(name).name for name in names if name.startswith("rawllama/lib/"))
    plugins = [name for name in inside if not re.match(r"(lib)?rawllama-", name)]
    return Contents(
        wheel.stat().st_size,
        tuple(re.sub(r"^(lib)?ggml-|\.\w+$", "", name) for name in plugins),
        tuple(name for name in inside if name not in plugins),
        tuple(sorted(Path(name).name for name in names if ".libs/" in name or ".dylibs/" in name)),
        max(needs, default=None),
    )


def promised_glibc(name: str) -> tuple[int, int] | None:
    """The oldest C library that a wheel's name promises to run with."""
    found = re.findall(r"manylinux_(\d+)_(\d+)_", name)
    return min(((int(major), int(minor)) for major, minor in found), default=None)


def _repair(wheel: Path, output: Path) -> Path:
    output.mkdir()
    _tool([word.format(output=output, wheel=wheel) for word in _REPAIR[sys.platform]])
    [repaired] = output.glob("*.whl")
    return repaired


def _restore_search_paths(before: Path, after: Path) -> None:
    """Give libraries back the folders of other packages: auditwheel drops them where it copies a library."""
    with zipfile.ZipFile(before) as archive:
        wanted = {name: paths for name in archive.namelist() if (paths := _search_paths(archive, name))}
    with zipfile.ZipFile(after) as archive:
        lost = {name: paths for name, paths in wanted.items() if not set(paths) <= set(_search_paths(archive, name))}
        found = {name: _search_paths(archive, name) for name in lost}
    if not lost:
        return
    folder = after.parent / "unpacked"
    _tool(["-m", "wheel", "unpack", "--dest", str(folder), str(after)])
    [tree] = folder.iterdir()
    for name, paths in lost.items():
        everything = ":".join(dict.fromkeys([*found[name], *paths]))
        command = ["patchelf", "--set-rpath", everything, str(tree / name)]
        subprocess.run(command, check=True, env={**os.environ, "PATH": search_path()})
    _tool(["-m", "wheel", "pack", "--dest-dir", str(after.parent), str(tree)])


def _search_paths(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Where an ELF file looks for the libraries that it needs; empty for other files."""
    if not re.search(r"\.so(\.\d+)*$", name):
        return []
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile

    with archive.open(name) as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, DynamicSection):
                names = {"DT_RUNPATH": "runpath", "DT_RPATH": "rpath"}
                tags = [tag for tag in section.iter_tags() if tag.entry.d_tag in names]
                found = [getattr(tag, names[tag.entry.d_tag]) for tag in tags]
                return ":".join(found).split(":") if found else []
    return []


def _glibc(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[int, int]]:
    """Versions of the C library that an ELF file asks for."""
    if sys.platform != "linux":
        return
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    with archive.open(name) as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for _, versions in section.iter_versions():
                    for version in versions:
                        if found := re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", version.name):
                            yield int(found[1]), int(found[2])


def _tool(arguments: Sequence[str]) -> None:
    environment = {**os.environ, "PATH": search_path()}  # auditwheel looks for patchelf
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        name = " ".join(arguments[1:3])
        said = f"{done.stdout}\n{done.stderr}".strip()
        if f"No module named {arguments[1]}" in said:
            said = "it is not installed: pip install 'rawllama[wheel]'"
        raise BuildError(f"{name}: {said[-2000:]}")
