"""Intel's MKL to build with: oneAPI's, or the package mkl-devel of this environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rawllama.errors import InvalidArgumentError


@dataclass(frozen=True)
class Mkl:
    """An MKL.

    Attributes
    ----------
    root
        Its folder, with include and lib.
    requirement
        The package that brings the same libraries to those who install the wheel.
    """

    root: Path
    requirement: str

    @property
    def definitions(self) -> tuple[tuple[str, str], ...]:
        """Options that it needs: libraries by name, or CMake would take Intel's OpenMP beside GCC's, which ggml has."""
        libraries = (self.root / "lib" / f"lib{name}.so" for name in ("mkl_intel_lp64", "mkl_gnu_thread", "mkl_core"))
        return (("BLAS_INCLUDE_DIRS", str(self.root / "include")), ("BLAS_LIBRARIES", ";".join(map(str, libraries))))


def find(cache: Path) -> Mkl:
    """MKL as MKLROOT names it, else as this environment has it.

    Raises
    ------
    InvalidArgumentError
        There is none.
    """
    if given := os.environ.get("MKLROOT"):
        return Mkl(Path(given), "mkl")
    try:
        found = version("mkl-devel")
    except PackageNotFoundError:
        raise InvalidArgumentError(
            "blas: MKL is not here: pip install mkl-devel in this environment, or set MKLROOT to oneAPI's"
        ) from None
    major = int(found.partition(".")[0])
    return Mkl(_linked(Path(sys.prefix), cache / f"mkl-{found}"), f"mkl>={found},<{major + 1}")


def _linked(prefix: Path, root: Path) -> Path:
    """A folder with the names that a linker looks for: packages hold libmkl_core.so.3 and no libmkl_core.so."""
    (root / "lib").mkdir(parents=True, exist_ok=True)
    for library in (prefix / "lib").glob("libmkl_*.so.*"):
        _link(root / "lib" / library.name, library)
        _link(root / "lib" / (library.name.partition(".so.")[0] + ".so"), library)
    _link(root / "include", prefix / "include")
    return root


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)  # of an environment that may be gone
    link.symlink_to(target)
