"""docs/api.md: what the docstrings say is called is what the code calls, and every function is accounted for."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rawllama import lib

DOCS = Path(__file__).parent.parent.parent / "docs"
MAKE: dict[str, Any] = runpy.run_path(str(DOCS / "make_api.py"))
LIBRARY = re.compile(r"(llama|ggml|gguf)_\w+")
# Some methods complete the name of a C function from a word: `self._fact("n_embd")`.
PREFIXES = ("llama_", "llama_model_", "llama_vocab_", "llama_memory_", "llama_sampler_init_")


def is_function(name: str) -> bool:
    return LIBRARY.fullmatch(name) is not None and callable(getattr(lib, name, None))


def used(module: ModuleType) -> Iterator[str]:
    """C functions of llama.cpp that a module's code names."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute) and is_function(node.attr):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_function(node.value):
            yield node.value


def completed(module: ModuleType) -> Iterator[str]:
    """C functions whose names a module may make from a prefix and one of its words."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (prefix + node.value for prefix in PREFIXES if is_function(prefix + node.value))


def documented(module: ModuleType) -> set[str]:
    names = set()
    for _, value in MAKE["public"](module):
        names.update(MAKE["calls"](value.__doc__))
        if isinstance(value, type):
            names.update(name for _, doc in MAKE["members"](value) for name in MAKE["calls"](doc))
    return names


@pytest.mark.parametrize("module", list(MAKE["modules"]()), ids=lambda module: module.__name__)
def test_the_docstrings_name_what_the_code_calls(module: ModuleType) -> None:
    said = {name for name in documented(module) if not name.startswith("rawllama_")}
    below = named_below() if module.__name__ in MAKE["ABOVE"] else set()
    assert said - set(used(module)) - set(completed(module)) - IN_C - below == set(), "named, and not called"
    assert set(used(module)) - MAKE["wrapped"]() == set(), "called, and not named"


def named_below() -> set[str]:
    """What the modules name that call C themselves."""
    return {name for module in MAKE["modules"]() if module.__name__ not in MAKE["ABOVE"] for name in documented(module)}


# csrc/*.c* calls these for the Python code.
IN_C = {
    name
    for path in (DOCS.parent / "csrc").glob("*.c*")
    for name in re.findall(r"\b(?:llama|ggml|gguf)_\w+", path.read_text(encoding="utf-8"))
}


def test_each_name_is_a_function() -> None:
    assert [name for name in MAKE["wrapped"]() if not callable(getattr(lib, name, None))] == []


def test_each_function_has_a_wrapper_or_a_reason() -> None:
    assert [name for name, reason in MAKE["unwrapped"]().items() if not reason] == []


def test_each_reason_has_a_function() -> None:
    import tomllib

    patterns = tomllib.loads((DOCS / "unwrapped.toml").read_text(encoding="utf-8"))
    names = MAKE["unwrapped"]()
    assert [one for one in patterns if not any(re.fullmatch(one, name) for name in names)] == []


def test_the_page_is_made_from_this_code() -> None:
    assert (DOCS / "api.md").read_text(encoding="utf-8") == "\n".join(MAKE["table"]()) + "\n", "run docs/make_api.py"
