"""Writes docs/api.md: the classes, their methods, the C functions that each calls, and those that none does.

    python docs/make_api.py

Read from the docstrings' `Calls:`, which tests/api/test_api_table.py holds against the code.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from rawllama import lib

FOLDER = Path(__file__).parent
#: The modules of the Pythonic layer, from below to above.
MODULES = (
    "backend", "vocab", "model", "quantization", "adapter", "threadpool", "batch", "memory", "state", "tap",
    "results", "footprint", "context", "inspection", "sampler", "rows", "similarity", "rerank", "planning", "tuning",
    "embedder", "tensors", "layers", "geometry", "pictures", "arrow", "cache", "jobs", "ray",
)  # fmt: skip
#: Of these, the ones that let the modules below call C.
ABOVE = {f"rawllama.{name}" for name in (
    "rerank", "planning", "tuning", "embedder", "geometry", "pictures", "arrow", "cache", "jobs", "ray",
)}  # fmt: skip
_CALLS = re.compile(r"Calls: ((?:\s*(?:llama|ggml|gguf|rawllama)_\w+,?)+)")
_NAME = re.compile(r"(?:llama|ggml|gguf|rawllama)_\w+")


def calls(doc: str | None) -> list[str]:
    """The C functions that a docstring names behind `Calls:`."""
    return [name for found in _CALLS.findall(doc or "") for name in _NAME.findall(found)]


def modules() -> Iterator[ModuleType]:
    """The modules of the Pythonic layer."""
    for name in MODULES:
        yield importlib.import_module(f"rawllama.{name}")


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The module's own classes and functions; of a package, those that it offers."""
    offered = getattr(module, "__all__", ())
    for name, value in vars(module).items():
        own = inspect.getmodule(value) is module or name in offered
        if not name.startswith("_") and own and callable(value):
            yield name, value


def members(kind: type) -> Iterator[tuple[str, str | None]]:
    """A class's own public methods and properties, with their docstrings."""
    for name, value in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(value, FunctionType):
            yield f"{name}{_signature(value)}", value.__doc__
        elif isinstance(value, property):
            yield name, value.__doc__


def _signature(function: Any) -> str:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return f"({', '.join(names)})"


def first_sentence(doc: str | None) -> str:
    """What a docstring begins with, without `Calls:`."""
    line = inspect.cleandoc(doc or "").partition("\n")[0]
    return re.sub(r"\s*Calls:.*", "", line).rstrip(".")


def row(name: str, doc: str | None) -> str:
    """One line of a table."""
    named = ", ".join(f"`{one}`" for one in calls(doc))
    return f"| `{name}` | {first_sentence(doc).replace('|', chr(92) + '|')} | {named} |"


def table() -> Iterator[str]:
    """The page, line by line."""
    yield "# The API and the C functions behind it"
    yield ""
    yield "Made by `python docs/make_api.py` from the docstrings."
    for module in modules():
        yield f"\n## rawllama.{module.__name__.partition('.')[2]}\n"
        yield "| name | what it is | C functions |\n|---|---|---|"
        for name, value in public(module):
            shown = name if isinstance(value, type) else f"{name}{_signature(value)}"
            yield row(shown, value.__doc__)
            if isinstance(value, type):
                for member, doc in members(value):
                    yield row(f"{name}.{member}", doc)
    yield "\n## Functions of llama.h without a wrapper\n"
    yield "Those that are deprecated are left out. All of them are in `rawllama.lib`.\n"
    yield "| function | why |\n|---|---|"
    for name, reason in sorted(unwrapped().items()):
        yield f"| `{name}` | {reason} |"


def wrapped() -> set[str]:
    """Every C function that some docstring names."""
    found: set[str] = set()
    for module in modules():
        for _, value in public(module):
            found.update(calls(value.__doc__))
            if isinstance(value, type):
                found.update(name for _, doc in members(value) for name in calls(doc))
    return found


def current() -> set[str]:
    """The functions of llama.h that are not deprecated."""
    prefix = "rawllama_guarded_"
    return {name.removeprefix(prefix) for name in dir(lib) if name.startswith(prefix)}


def unwrapped() -> dict[str, str]:
    """The functions that no docstring names, with the reason from unwrapped.toml."""
    reasons = tomllib.loads((FOLDER / "unwrapped.toml").read_text(encoding="utf-8"))
    found = {}
    for name in current() - wrapped():
        found[name] = next((why for pattern, why in reasons.items() if re.fullmatch(pattern, name)), "")
    return found


if __name__ == "__main__":
    (FOLDER / "api.md").write_text("\n".join(table()) + "\n", encoding="utf-8")
