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

from .ctype import resolve
from .generate import Inputs, read
from .model import Constant, Enum, Function, Headers, Struct, Typedef
from .spelling import function_spelling, normal, spelling

# Runs in a child process, isolated (-I): PYTHONPATH, which leads to bindgen, must not lead to rawllama's source.
_PROBE = """
import json, sys
from pathlib import Path
sys.path[:0] = {path!r}
import {package}
from {package} import ffi, lib

def complete(kind):
    try:  # cffi reads a struct's fields when it is first asked for its size, and aborts when not
        return kind.kind in ("struct", "union") and ffi.sizeof(kind) > 0
    except (ValueError, ffi.error):
        return False

def typeof(name):
    try:
        return ffi.typeof(name)
    except ffi.error:  # a function, which ffi knows by a pointer only
        return ffi.typeof(name + " *")

def fields(kind):
    for field, inner in kind.fields:
        if field:
            yield field, inner.type.cname
        elif complete(inner.type):
            yield from fields(inner.type)

typedefs, structs, unions = ffi.list_types()
names = [*typedefs, *(f"struct {{tag}}" for tag in structs), *(f"union {{tag}}" for tag in unions)]
kinds = {{name: typeof(name) for name in names}}
members = {{name: ffi.typeof(getattr(lib, name)) for name in dir(lib) if callable(getattr(lib, name))}}
json.dump({{
    "folder": str(Path({package}.__file__).parent),
    "names": dir(lib),
    "functions": {{name: kind.cname for name, kind in members.items() if kind.kind == "function"}},
    "typedefs": {{name: kinds[name].cname for name in typedefs}},
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


def check(package: str, compiler: Sequence[str], nm: str, path: Sequence[Path] = ()) -> Report:
    """Compare `package` with the headers and libraries that it carries.

    It is the installed one, or the one below a folder of `path`.

    Raises
    ------
    CheckError
        The package cannot be imported, or bindgen did not make it.
    """
    module = _probe(package, path)
    folder = Path(module["folder"])
    try:
        record = json.loads((folder / "_libllama.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckError(f"{error.filename} is missing: install the package again (`pip install .`)") from None
    inputs = Inputs(compiler, nm, record["headers"], [folder / "include"], record["defines"],
                    _located(folder, record["libraries"]), _located(folder, record["plugins"]),
                    record["compiled_in"])
    headers, left_out = read(inputs)
    return Report(_table(headers, left_out, set(module["names"])),
                  list(_faults(headers, left_out, record["omitted"], module)))


def _probe(package: str, path: Sequence[Path]) -> dict[str, Any]:
    """Names and types of the module, found out in a process of its own."""
    folders = [str(one.absolute()) for one in path]
    command = [sys.executable, "-I", "-c", _PROBE.format(package=package, path=folders)]
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
    yield from _type_faults(headers, module)
    yield from _struct_faults(headers, module["structs"])


def _type_faults(headers: Headers, module: dict[str, Any]) -> Iterable[str]:
    """Functions and typedefs that are of another type than the header's."""
    built = module["functions"]
    for function in headers.functions.values():
        declared = function_spelling(function, headers)
        if function.name in built and normal(built[function.name]) != declared:
            yield f"{function.name} is {built[function.name]} in lib and {declared} in {function.origin.header}"
    built = module["typedefs"]
    for name, typedef in headers.typedefs.items():
        declared = spelling(resolve(typedef.type, headers), headers)
        if name not in built:
            yield f"{name} is a type of {typedef.origin.header}, and ffi does not know it"
        elif normal(built[name]) != declared:
            yield f"{name} is {built[name]} in ffi and {declared} in {typedef.origin.header}"


def _struct_faults(headers: Headers, structs: dict[str, list[list[str]]]) -> Iterable[str]:
    untagged_members = set(headers.untagged.values()) - headers.typedefs.keys()
    for struct in headers.structs.values():
        if struct.members is None or struct.name in untagged_members:
            continue
        name = f"{struct.kind} {struct.name}" if struct.tagged else struct.name
        declared = {one.name: spelling(resolve(one.type, headers), headers) for one in struct.members}
        if name not in structs:
            yield f"{name} has fields in {struct.origin.header}, and is not in ffi"
            continue
        built = {field: normal(cname) for field, cname in structs[name]}
        if list(built.items()) != list(declared.items()):
            yield f"{name} has the fields {_listed(built)} in ffi and {_listed(declared)} in {struct.origin.header}"


def _listed(fields: dict[str, str]) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in fields.items())


def _table(headers: Headers, left_out: dict[str, str], names: set[str]) -> str:
    """Coverage by header."""
    kinds: dict[str, Iterable[Function | Struct | Enum | Constant | Typedef]] = {
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
