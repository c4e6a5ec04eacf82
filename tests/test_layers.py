"""The modules stand in layers: each imports only what is below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from rawllama.paths import PACKAGE


def imported(tree: ast.Module, modules: set[str]) -> Iterator[str]:
    """Modules of the package that are imported when this one is; what only type checkers read is left out."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from {node.module} if node.module else {alias.name for alias in node.names} & modules


def test_no_module_imports_one_above_it() -> None:
    files = {path.stem: path for path in Path(PACKAGE).glob("*.py") if not path.stem.startswith("__")}
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    below = {name: set(imported(tree, set(files))) for name, tree in trees.items()}
    order = list(TopologicalSorter(below).static_order())  # raises CycleError
    assert order.index("errors") < order.index("raw") < order.index("model")
    assert order.index("errors") < order.index("_handle") < order.index("model")
    assert order.index("model") < order.index("context") < order.index("embedder")


def test_what_looks_for_faults_needs_no_library() -> None:
    """`rawllama doctor` and `rawllama wheel` run where libllama does not load."""
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in (*PACKAGE.glob("doctor/*.py"), *PACKAGE.glob("wheels/*.py"))
    ]
    found = {
        node.module for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0
    }
    assert {name for name in found if name and name.startswith("rawllama")} <= {
        "rawllama", "rawllama.errors", "rawllama.paths", "rawllama.doctor.tools",
    }  # fmt: skip
