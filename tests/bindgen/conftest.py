"""bindgen itself, which is not installed, and a small library with one of everything, bound with it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMPILER = shlex.split(os.environ.get("CC", "cc"))


def _load_bindgen() -> None:
    """Make `import bindgen` work; on sys.path, its folder would offer rawllama's source as well."""
    folder = ROOT / "python" / "bindgen"
    spec = importlib.util.spec_from_file_location("bindgen", folder / "__init__.py",
                                                  submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    sys.modules["bindgen"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["bindgen"])


_load_bindgen()

if TYPE_CHECKING:
    from bindgen.model import Headers
    from bindgen.preprocess import Preprocessed


@pytest.fixture
def preprocessed(tmp_path: Path) -> Callable[..., Preprocessed]:
    """Write header text into `folder` below tmp_path and preprocess it."""
    from bindgen.preprocess import preprocess

    def run(text: str, *, defines: tuple[str, ...] = (), folder: str = "include") -> Preprocessed:
        include = tmp_path / folder
        include.mkdir(exist_ok=True)
        (include / "api.h").write_text(text, encoding="utf-8")
        return preprocess(COMPILER, ["api.h"], [include], defines)

    return run


@pytest.fixture
def parsed(preprocessed: Callable[..., Preprocessed]) -> Callable[..., Headers]:
    """Records of header text."""
    from bindgen.parse import parse

    return lambda text, **options: parse(preprocessed(text, **options))


@pytest.fixture
def shared_library(tmp_path: Path) -> Callable[[str, str], Path]:
    """Compile C text to a shared library."""

    def make(name: str, text: str) -> Path:
        source, library = tmp_path / f"{name}.c", tmp_path / f"lib{name}.so"
        source.write_text(text, encoding="utf-8")
        subprocess.run([*COMPILER, "-shared", "-fPIC", "-o", library, source], check=True)
        return library

    return make


@dataclass(frozen=True)
class Zoo:
    """The package that CMake would make of zoo.h and zoo.c."""

    package: Path
    summary: str

    @property
    def stub(self) -> Path:
        return self.package / "_libllama.pyi"


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """The package `zoo` with its module, stub, record, header and library, in rawllama's layout."""
    from bindgen.generate import Inputs, Outputs, generate

    package = tmp_path_factory.mktemp("site") / "zoo"
    include, libraries = package / "include", package / "lib"
    include.mkdir(parents=True)
    libraries.mkdir()
    shutil.copy(HERE / "zoo.h", include)
    library = libraries / "libzoo.so"
    subprocess.run([*COMPILER, "-shared", "-fPIC", "-w", f"-I{include}", "-o", library, HERE / "zoo.c"], check=True)

    source = package.parent / "_libllama.c"
    inputs = Inputs(COMPILER, "nm", ["zoo.h"], [include], [], [library], [], [])
    outputs = Outputs(source, package / "_libllama.pyi", package / "_libllama.json")
    summary = generate("zoo._libllama", inputs, outputs)
    module = package / "_libllama.abi3.so"
    subprocess.run([*COMPILER, "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-deprecated-declarations",
                    "-DPy_LIMITED_API=0x030b0000", f"-I{sysconfig.get_paths()['include']}", f"-I{include}",
                    "-o", module, source, library, "-Wl,-rpath,$ORIGIN/lib"], check=True)
    (package / "__init__.py").write_text("from ._libllama import ffi as ffi, lib as lib\n", encoding="utf-8")
    (package / "py.typed").touch()
    return Zoo(package, summary)


@pytest.fixture(scope="session")
def module(zoo: Zoo) -> Any:
    """The package `zoo`, imported."""
    spec = importlib.util.spec_from_file_location("zoo", zoo.package / "__init__.py")
    assert spec is not None and spec.loader is not None
    package = sys.modules["zoo"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return package


@pytest.fixture(scope="session")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Run `mypy --strict` outside the repository; return its output lines. All runs share a cache."""
    cache = tmp_path_factory.mktemp("mypy-cache")

    def run(*files: Path, path: Path | None = None) -> list[str]:
        command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", "--config-file=",
                   f"--cache-dir={cache}", *map(str, files)]
        environment = {**os.environ, "MYPYPATH": str(path or "")}
        done = subprocess.run(command, cwd=cache, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done.stdout.splitlines()

    return run
