"""What is wanted becomes CMake's options, a local version, requirements and a build folder."""

from __future__ import annotations

import shlex
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from rawllama.errors import InvalidArgumentError
from rawllama.wheels.toolkit import Toolkit, from_pypi
from rawllama.wheels.variant import Variant

ROOT = Path(__file__).parent.parent.parent
VARIANTS: dict[str, dict[str, Any]] = {
    "": {"cpu": "portable"},
    "native": {},
    "x86.64.v3": {"cpu": "x86-64-v3"},
    "x86.64.v4": {"cpu": "x86-64-v4"},
    "armv8.2.a.dotprod": {"cpu": "armv8.2-a+dotprod"},
    "cu130.sm90": {"backend": "cuda", "arch": "90", "cpu": "portable", "toolkit": "13.0"},
    "cu130.sm86.sm89": {"backend": "cuda", "arch": "86;89", "cpu": "portable", "toolkit": "13.0"},
    "cu124": {"backend": "cuda", "cpu": "portable", "toolkit": "12.4"},
    "hip.gfx1100": {"backend": "hip", "arch": "gfx1100", "cpu": "portable"},
    "vulkan": {"backend": "vulkan", "cpu": "portable"},
    "sycl.native": {"backend": "sycl"},
    "metal.native": {"backend": "metal"},
    "mkl.native": {"blas": "mkl"},
    "openblas": {"blas": "openblas", "cpu": "portable"},
}


@pytest.mark.parametrize(("label", "arguments"), VARIANTS.items())
def test_labels(label: str, arguments: dict[str, Any]) -> None:
    assert Variant(**arguments).label == label


def test_each_set_of_options_has_its_own_folder() -> None:
    variants = [Variant(**arguments) for arguments in VARIANTS.values()]
    variants += [Variant(defines=(("GGML_LLAMAFILE", "OFF"),)), Variant(defines=(("GGML_LLAMAFILE", "ON"),))]
    for one, other in combinations(variants, 2):
        assert one.definitions() != other.definitions() or one.toolkit != other.toolkit
        assert one.folder != other.folder


def test_options_of_cmake() -> None:
    portable = Variant(cpu="portable").definitions()
    assert portable["GGML_NATIVE"] == "OFF"
    assert portable["GGML_BACKEND_DL"] == portable["GGML_CPU_ALL_VARIANTS"] == "ON"
    v3 = Variant(cpu="x86-64-v3").definitions()
    assert (v3["GGML_NATIVE"], v3["GGML_AVX2"], v3["GGML_AVX512"]) == ("OFF", "ON", "OFF")
    assert Variant(cpu="x86-64-v1").definitions()["GGML_SSE42"] == "OFF"
    cuda = Variant("cuda", "86;89", blas="mkl", toolkit_defines=(("GGML_CUDA_NO_VMM", "ON"),)).definitions()
    assert cuda["RAWLLAMA_BACKENDS"] == "cpu;cuda;blas"
    assert cuda["CMAKE_CUDA_ARCHITECTURES"] == "86;89"
    assert cuda["GGML_BLAS_VENDOR"] == "Intel10_64lp"
    assert cuda["GGML_CUDA_NO_VMM"] == "ON"
    assert Variant(defines=(("GGML_NATIVE", "OFF"),)).definitions()["GGML_NATIVE"] == "OFF", (
        "the user's word is the last"
    )


def test_the_line_for_pip_is_for_a_shell() -> None:
    words = shlex.split(Variant("cuda", "86;89", toolkit="13.0").pip_line("/a b/c"))
    assert words[:4] == ["pip", "wheel", "--no-deps", "/a b/c"]
    assert "cmake.define.CMAKE_CUDA_ARCHITECTURES=86;89" in words


def test_requirements() -> None:
    assert Variant("cuda", toolkit="13.0").requirements == ("nvidia-cuda-runtime>=13.0,<14", "nvidia-cublas>=13.0,<14")
    assert Variant("cuda", toolkit="12.4").requirements == (
        "nvidia-cuda-runtime-cu12>=12.4,<13",
        "nvidia-cublas-cu12>=12.4,<13",
    )
    assert Variant(blas="mkl", blas_requirement="mkl>=2026,<2027").requirements == ("mkl>=2026,<2027",)
    assert Variant().requirements == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backend": "tpu"}, "backend: 'tpu' is none of cpu, cuda"),
        ({"cpu": "pentium"}, "cpu: 'pentium' is none of native, portable, x86-64-v1"),
        ({"blas": "atlas"}, "blas: 'atlas' is none of mkl, openblas"),
        ({"arch": "90"}, "arch: the backend cpu is built for no single architecture"),
        ({"backend": "vulkan", "arch": "90"}, "arch: the backend vulkan is built for no single architecture"),
    ],
)
def test_what_is_no_variant(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        Variant(**arguments)


def test_a_toolkit_must_know_the_architecture(tmp_path: Any) -> None:
    toolkit = Toolkit(tmp_path / "nvcc", "12.4", ("75", "80", "90"))
    toolkit.require("80;90")
    toolkit.require("")
    toolkit.require("all-major")
    with pytest.raises(InvalidArgumentError, match=r"12\.4 .* does not compile for 120, .*a newer toolkit is needed"):
        toolkit.require("90;120")
    with pytest.raises(InvalidArgumentError, match=r"does not compile for 61, .*an older toolkit is needed"):
        toolkit.require("61")
    with pytest.raises(InvalidArgumentError, match=r"toolkit: '12\.4'; PyPI has whole CUDA toolkits from 13\.0 on"):
        from_pypi("12.4", tmp_path)


def test_wheels_built_elsewhere_are_the_portable_ones() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cibuildwheel"]
    found = {name.removeprefix("cmake.define."): value for name, value in settings["config-settings"].items()}
    assert found == Variant(cpu="portable").definitions()
