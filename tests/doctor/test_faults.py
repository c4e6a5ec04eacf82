"""What the dynamic loader says becomes what to do; the sentences are glibc's and Python's own."""

from __future__ import annotations

import pytest
from rawllama import faults

HERE = "cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            "libc.so.6: version `GLIBC_2.38' not found (required by x.so)",
            "needs GLIBC_2.38, and the system's C library is",
        ),
        ("libstdc++.so.6: version `GLIBCXX_3.4.32' not found", "needs GLIBCXX_3.4.32"),
        (f"libcuda.so.1: {HERE}", "NVIDIA's driver is missing"),
        (f"libcudart.so.13: {HERE}", "pip install nvidia-cuda-runtime==13.*"),
        (f"libcudart.so.12: {HERE}", "pip install nvidia-cuda-runtime-cu12"),
        (f"libcublas.so.13: {HERE}", "pip install nvidia-cublas==13.*"),
        (f"libcublasLt.so.12: {HERE}", "pip install nvidia-cublas-cu12"),
        (f"libvulkan.so.1: {HERE}", "apt-get install libvulkan1"),
        (f"libamdhip64.so.6: {HERE}", "ROCm is missing"),
        (f"libmkl_rt.so.2: {HERE}", "pip install mkl"),
        (f"libopenblas.so.0: {HERE}", "libopenblas0-openmp"),
        (f"libgomp.so.1: {HERE}", "apt-get install libgomp1"),
        (f"librawllama-ggml.so: {HERE}", "the installation is incomplete"),
        ("x.so: undefined symbol: ggml_nothing", "of different builds"),
        ("SIGILL", "install the portable wheel"),
    ],
)
def test_remedies(said: str, remedy: str) -> None:
    assert remedy in faults.remedy(said)
    assert "{" not in faults.remedy(said)


def test_what_is_not_known_has_none() -> None:
    assert faults.remedy("libsomething.so.7: cannot open shared object file") == ""


def test_this_machine_can_run_this_build() -> None:
    assert faults.missing_instructions() == ()
