"""The built module held against the headers and the libraries' exported symbols."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .generate import Inputs, read
from .model import Headers

# Runs in a child process, isolated (-I): PYTHONPATH, which leads to bindgen, must not lead to rawllama's source.
_PROBE = """
import json, sys
from pathlib import Path
import {package}
from {package} import ffi, lib

def complete(kind):
    try:  # cffi reads a struct's fields when it is first asked for its size, and aborts when not
        return kind.kind in ("struct", "union") and ffi.sizeof(kind) > 0
    except (ValueError, ffi.error):
        return False

def fields(kind):
    for field, inner in kind.fields:
        if field:
            yield field
        elif complete(inner.type):
            yield from fields(inner.type)

typedefs, structs, unions = ffi.list_types()
names = [*typedefs, *(f"struct {{tag}}" for tag in structs), *(f"union {{tag}}" for tag in unions)]
kinds = {{name: ffi.typeof(name) for name in names}}
json.dump({{
    "folder": str(Path({package}.__file__).parent),
    "names": dir(lib),
    "typedefs": typedefs,
    "structs": {{name: list(fields(kind)) for name, kind in kinds.items() if complete(kind)}},
}}, sys.stdout)
"""


@dataclass(frozen=True)
class Report:
    """The comparison's outcome; no `faults` means that header, libraries and module agree."""

    text: str
    faults: list[str]


class CheckError(RuntimeError):
    """The comparison could not be made."""


def check(package: str, compiler: Sequence[str], nm: str) -> Report:
    """Compare the installed `package` with the headers and libraries that it carries.

    Raises
    ------
    CheckError
        The package cannot be imported, or has no headers.
    """
    module = _probe(package)
    folder = Path(module["folder"])
    record = json.loads((folder / "_libllama.json").read_text(encoding="utf-8"))
    inputs = Inputs(compiler, nm, record["headers"], [folder / "include"], record["defines"],
                    _located(folder, record["libraries"]), _located(folder, record["plugins"]),
                    record["compiled_in"])
    headers, left_out = read(inputs)
    return Report(_table(headers, left_out, set(module["names"])),
                  list(_faults(headers, left_out, record["omitted"], module)))


def _probe(package: str) -> dict[str, Any]:
    """Names and struct fields of the module, found out in a process of its own."""
    command = [sys.executable, "-I", "-c", _PROBE.format(package=package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CheckError(f"`import {package}` fails; is it installed (`pip install .`)?\n{done.stderr.strip()}")
    probe: dict[str, Any] = json.loads(done.stdout)
    return probe


def _located(folder: Path, libraries: Iterable[str]) -> list[Path]:
    """Paths of libraries: inside the package, unless the record names a folder."""
    return [folder / "lib" / name for name in libraries]  # an absolute name replaces the folder


def _faults(
    headers: Headers, left_out: dict[str, str], recorded: dict[str, str], module: dict[str, Any]
) -> Iterable[str]:
    """Every disagreement, a line each."""
    names = set(module["names"])
    declared = set(headers.functions) | set(headers.constants)
    declared |= {one.name for enum in headers.enums for one in enum.constants}
    for name in sorted(declared - left_out.keys() - names):
        yield f"{name} is declared and exported, and is not in lib"
    for name in sorted(names - declared):
        yield f"{name} is in lib, and no header declares it"
    for name in sorted(left_out.keys() ^ recorded.keys()):
        yield f"{name}: {recorded.get(name, 'bound')} when built, {left_out.get(name, 'exported')} now"
    for name in sorted(headers.callbacks.keys() - set(module["typedefs"])):
        yield f"{name} is a callback type, and ffi does not know it"
    yield from _struct_faults(headers, module["structs"])


def _struct_faults(headers: Headers, structs: dict[str, list[str]]) -> Iterable[str]:
    untagged_members = set(headers.untagged.values()) - headers.typedefs.keys()
    for struct in headers.structs.values():
        if struct.members is None or struct.name in untagged_members:
            continue
        spelling = f"{struct.kind} {struct.name}" if struct.tagged else struct.name
        fields = [one.name for one in struct.members]
        if spelling not in structs:
            yield f"{spelling} has fields in {struct.origin.header}, and is not in ffi"
        elif structs[spelling] != fields:
            yield f"{spelling} has the fields {structs[spelling]} in ffi and {fields} in {struct.origin.header}"


def _table(headers: Headers, left_out: dict[str, str], names: set[str]) -> str:
    """Coverage by header."""
    kinds = {
        "exported": [one for one in headers.functions.values() if one.name not in left_out],
        "bound": [one for one in headers.functions.values() if one.name in names],
        "structs": headers.structs.values(),
        "enums": headers.enums,
        "constants": headers.constants.values(),
        "callbacks": headers.callbacks.values(),
    }
    counts = {kind: Counter(one.origin.header for one in records) for kind, records in kinds.items()}
    declared = Counter(one.origin.header for one in headers.functions.values())
    row = "{:<18}{:>9}{:>9}{:>7}{:>9}{:>9}{:>7}{:>11}{:>11}".format
    lines = [row("header", "declared", "exported", "bound", "coverage", "structs", "enums", "constants", "callbacks")]
    for header in [*headers.files, "all"]:
        numbers = [counter.total() if header == "all" else counter[header] for counter in (declared, *counts.values())]
        lines.append(row(header, *numbers[:3], _percent(numbers[2], numbers[1]), *numbers[3:]))
    lines += [f"left out: {name} ({why})" for name, why in left_out.items()]
    lines.append(f"no value, so no constant: {', '.join(headers.function_macros)}")
    return "\n".join(lines)


def _percent(part: int, whole: int) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{100 * part // whole} %" if whole else "-"
