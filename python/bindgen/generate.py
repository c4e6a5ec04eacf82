"""Headers and libraries in; C source, stub and a record of both out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cffi

from .bindings import Symbols, omitted
from .cdef import write_cdef
from .exports import exported_symbols
from .guard import PREFIX, write_guard
from .model import Headers
from .parse import parse
from .preprocess import preprocess
from .stub import write_stub


@dataclass(frozen=True)
class Inputs:
    """What a module is made from.

    `compiled_in` names the headers whose functions are compiled into the module; `plugins` are the
    libraries that are loaded at run time and cannot be linked.
    """

    compiler: Sequence[str]
    nm: str
    headers: Sequence[str]
    include: Sequence[Path]
    defines: Sequence[str]
    libraries: Sequence[Path]
    plugins: Sequence[Path]
    compiled_in: Sequence[str]


class MismatchError(RuntimeError):
    """Header and library are of different versions."""


@dataclass(frozen=True)
class Outputs:
    """Where the results go."""

    source: Path
    stub: Path
    record: Path


def read(inputs: Inputs) -> tuple[Headers, dict[str, str]]:
    """Parse the headers; return them and the functions that cannot be bound, with reasons."""
    headers = parse(preprocess(inputs.compiler, inputs.headers, inputs.include, inputs.defines))
    symbols = Symbols(
        exported_symbols(inputs.nm, inputs.libraries),
        exported_symbols(inputs.nm, inputs.plugins),
        inputs.compiled_in,
    )
    return headers, omitted(headers, symbols)


def require_same_version(inputs: Inputs, headers: Headers) -> None:
    """Refuse a llama.h that names other functions than the library exports.

    Raises
    ------
    MismatchError
        With the names that only one of them has.
    """
    exported = {name for name in exported_symbols(inputs.nm, inputs.libraries) if name.startswith("llama_")}
    declared = {one.name for one in headers.functions.values() if one.origin.header == "llama.h" and not one.inline}
    if exported != declared:
        raise MismatchError(
            "llama.h and the library are of different versions of llama.cpp."
            f" Only declared: {sorted(declared - exported)}. Only exported: {sorted(exported - declared)}."
            " Install both from one version."
        )


def generate(module: str, inputs: Inputs, outputs: Outputs, *, strict: bool = False) -> str:
    """Write the module's C source, stub and record; return a summary in one line.

    `strict` is for a library that was not built from these headers: see `require_same_version`.
    """
    headers, left_out = read(inputs)
    if strict:
        require_same_version(inputs, headers)
    bound = headers.functions.keys() - left_out.keys()
    ffi = cffi.FFI()
    ffi.cdef(write_cdef(headers, bound))
    ffi.set_source(module, "".join(f'#include "{name}"\n' for name in inputs.headers))
    for path in (outputs.source, outputs.stub, outputs.record):
        path.parent.mkdir(parents=True, exist_ok=True)
    ffi.emit_c_code(str(outputs.source))
    outputs.stub.write_text(write_stub(headers, bound), encoding="utf-8")
    record = _record(inputs, left_out, installed_apart=strict)
    outputs.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    rest = f"; left out: {', '.join(f'{name} ({why})' for name, why in left_out.items())}" if left_out else ""
    return f"bindgen: {len(bound)} of {len(headers.functions)} functions{rest}"


def generate_guard(inputs: Inputs, folder: Path) -> str:
    """Write the guarded twins of the first header's functions into `folder`; return a summary in one line."""
    headers, left_out = read(inputs)
    functions = [one for one in headers.functions.values() if one.name not in left_out]
    header, source = write_guard(inputs.headers[0], functions)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rawllama_guarded.h").write_text(header, encoding="utf-8")
    (folder / "rawllama_guarded.cpp").write_text(source, encoding="utf-8")
    return f"bindgen: {header.count(PREFIX)} guarded functions"


def _record(inputs: Inputs, left_out: dict[str, str], *, installed_apart: bool) -> dict[str, Any]:
    """What `check` must know to read the same headers again; libraries in the package are named without a folder."""
    return {
        "headers": list(inputs.headers),
        "compiled_in": list(inputs.compiled_in),
        "defines": list(inputs.defines),
        "libraries": [str(path) if installed_apart else path.name for path in inputs.libraries],
        "plugins": [path.name for path in inputs.plugins],
        "omitted": left_out,
    }
