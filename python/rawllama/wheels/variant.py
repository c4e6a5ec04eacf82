"""What kind of wheel is wanted, and what that means for CMake, pip and those who install it."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from dataclasses import dataclass

from rawllama.errors import InvalidArgumentError

#: Of which a wheel has one, beside the CPU.
BACKENDS = ("cpu", "cuda", "vulkan", "metal", "hip", "sycl")
BLAS = ("mkl", "openblas")
#: What `cpu` may be on x86-64, beside `native` and `portable`; elsewhere it is a value of GGML_CPU_ARM_ARCH.
LEVELS = {
    "x86-64-v1": (),
    "x86-64-v2": ("SSE42",),
    "x86-64-v3": ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2"),
    "x86-64-v4": ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2", "AVX512"),
}
_SWITCHES = LEVELS["x86-64-v4"]
# Where the GPUs' architectures go.
_ARCHITECTURES = {"cuda": "CMAKE_CUDA_ARCHITECTURES", "hip": "GPU_TARGETS"}
_ARM = re.compile(r"armv[89](\.\d)?-a(\+\w+)*")


@dataclass(frozen=True)
class Variant:
    """One kind of wheel.

    Attributes
    ----------
    backend
        One of `BACKENDS`.
    arch
        The GPU's architectures as CMake takes them, e.g. `90`, `86;89`, `gfx1100`; empty for all that ggml knows.
    cpu
        `portable` (variants for each generation of processors, picked at run time), `native` (this machine's), one of
        `LEVELS`, or for ARM e.g. `armv8.2-a+dotprod`.
    blas
        One of `BLAS`, or empty.
    defines
        More options of CMake, as pairs.
    toolkit
        CUDA's version, e.g. `13.0`: the local version and the requirements have it. Empty for other backends.
    """

    backend: str = "cpu"
    arch: str = ""
    cpu: str = "native"
    blas: str = ""
    defines: tuple[tuple[str, str], ...] = ()
    toolkit: str = ""
    #: More options of CMake that a toolkit or library needs; they change nothing that a name should tell.
    toolkit_defines: tuple[tuple[str, str], ...] = ()
    #: The package that brings the BLAS library's files.
    blas_requirement: str = ""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise InvalidArgumentError(f"backend: {self.backend!r} is none of {', '.join(BACKENDS)}")
        if self.blas and self.blas not in BLAS:
            raise InvalidArgumentError(f"blas: {self.blas!r} is none of {', '.join(BLAS)}")
        if self.cpu not in ("native", "portable", *LEVELS) and not _ARM.fullmatch(self.cpu):
            known = ", ".join(("native", "portable", *LEVELS))
            raise InvalidArgumentError(f"cpu: {self.cpu!r} is none of {known}, nor like armv8.2-a+dotprod")
        if self.arch and self.backend not in _ARCHITECTURES:
            words = f"the backend {self.backend} is built for no single architecture; leave it out"
            raise InvalidArgumentError(f"arch: {words}")

    @property
    def is_loaded_at_run_time(self) -> bool:
        """Whether backends are plugins: then a GPU's missing driver leaves the CPU working."""
        return self.cpu == "portable"

    def definitions(self) -> dict[str, str]:
        """The options of CMake."""
        backends = ["cpu", *([] if self.backend == "cpu" else [self.backend]), *(["blas"] if self.blas else [])]
        found = {"RAWLLAMA_BACKENDS": ";".join(backends)}
        if sys.platform == "darwin" and self.backend != "metal":
            found["GGML_METAL"] = "OFF"  # it is on by default there
        found |= self._processor()
        if self.arch:
            found[_ARCHITECTURES[self.backend]] = self.arch
        if self.blas:
            found["GGML_BLAS_VENDOR"] = {"mkl": "Intel10_64lp", "openblas": "OpenBLAS"}[self.blas]
        return found | dict(self.toolkit_defines) | dict(self.defines)

    def _processor(self) -> dict[str, str]:
        if self.cpu == "native":
            return {"GGML_NATIVE": "ON"}
        if self.cpu == "portable":
            # Without OpenMP there is no libgomp to carry, nor a second one in the process. BLAS needs it anyway.
            openmp = {} if self.blas else {"GGML_OPENMP": "OFF"}
            return {"GGML_NATIVE": "OFF", **openmp, "GGML_BACKEND_DL": "ON", "GGML_CPU_ALL_VARIANTS": "ON"}
        if self.cpu in LEVELS:
            switches = {f"GGML_{name}": "ON" if name in LEVELS[self.cpu] else "OFF" for name in _SWITCHES}
            return {"GGML_NATIVE": "OFF", **switches}
        return {"GGML_NATIVE": "OFF", "GGML_CPU_ARM_ARCH": self.cpu}

    @property
    def label(self) -> str:
        """The local version, e.g. `cu130.sm90`; empty for the portable CPU wheel, which is the plain one."""
        backend = f"cu{self.toolkit.replace('.', '')}" if self.toolkit else self.backend
        parts = [] if self.backend == "cpu" else [backend]
        prefix = "sm" if self.backend == "cuda" else ""
        parts += [f"{prefix}{one}" for one in re.split(r"[;,]", self.arch) if one]
        parts += [self.blas] if self.blas else []
        parts += [] if self.cpu == "portable" else [self.cpu]
        words = ".".join(parts + ([self._digest] if self.defines else []))
        return re.sub(r"[^a-z0-9]+", ".", words.lower()).strip(".")

    @property
    def folder(self) -> str:
        """The name of its build folder: another one for each set of options."""
        return f"wheel-{self.label or 'portable'}".replace(".", "-")

    @property
    def requirements(self) -> tuple[str, ...]:
        """What the wheel needs beside cffi and numpy: GPU libraries that packages bring."""
        found: list[str] = []
        if self.backend == "cuda" and self.toolkit:
            major, minor = self.toolkit.split(".")[:2]
            suffix = "" if int(major) >= 13 else f"-cu{major}"
            found += [
                f"nvidia-cuda-runtime{suffix}>={major}.{minor},<{int(major) + 1}",
                f"nvidia-cublas{suffix}>={major}.{minor},<{int(major) + 1}",
            ]
        return (*found, *filter(None, [self.blas_requirement]))

    def pip_line(self, source: str) -> str:
        """What builds the same without this program, but for the local version, the requirements and the repair."""
        words = [f"-C cmake.define.{name}={shlex.quote(value)}" for name, value in self.definitions().items()]
        return " ".join(["pip wheel --no-deps", shlex.quote(source), *words])

    @property
    def _digest(self) -> str:
        return hashlib.sha256(repr(sorted(self.defines)).encode()).hexdigest()[:6]
