"""Devices and build information, against libllama's own words and the operating system's."""

from __future__ import annotations

import json
import platform
import re
import threading
from pathlib import Path

import pytest
from rawllama import LIBRARIES, InvalidArgumentError, LlamaError, backend, ffi, lib
from rawllama.paths import PACKAGE


def names() -> list[str]:
    count = lib.ggml_backend_dev_count()
    return [ffi.string(lib.ggml_backend_dev_name(lib.ggml_backend_dev_get(i))).decode() for i in range(count)]


def test_devices_are_libllamas() -> None:
    found = backend.devices()
    assert [device.name for device in found] == names()
    assert [device.kind for device in found].count("cpu") == 1
    assert all(device.kind in ("cpu", "gpu", "igpu", "accel", "meta") for device in found)


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_cpu() -> None:
    cpu = backend.device("CPU")
    total = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text("ascii"))
    assert total
    assert cpu.memory_total == int(total[1]) * 1024
    assert 0 < cpu.memory_free <= cpu.memory_total
    assert (cpu.kind, cpu.backend, cpu.device_id, cpu.buffer_type) == ("cpu", "CPU", None, "CPU")
    assert "mmap_support" in cpu.capabilities
    model_name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text("utf-8"))
    assert model_name is None or cpu.description == model_name[1]


def test_lookup() -> None:
    for name in names():
        assert backend.device(name).name == name
        assert backend.device(name.lower()).name == name
        assert backend.device_pointer(name) == lib.ggml_backend_dev_by_name(name.encode())


@pytest.mark.parametrize("name", ["", "CUDA99", "no such device", "CPU ", 0, None])
def test_unknown_names(name: str) -> None:
    for find in (backend.device, backend.device_pointer, backend.buffer_type):
        with pytest.raises(ValueError, match=re.escape(repr(name)) + r" is none of .*CPU") as caught:
            find(name)
        assert isinstance(caught.value, LlamaError)


def test_buffer_types() -> None:
    memory = backend.buffer_type("CPU")
    assert memory == lib.ggml_backend_dev_buffer_type(backend.device_pointer("CPU"))
    assert ffi.string(lib.ggml_backend_buft_name(memory)) == b"CPU"
    for name, pointer in backend._buffer_types():
        assert backend.buffer_type(name)
        assert pointer


def test_no_memory_for_some_tensors_only() -> None:
    """libllama would end the process for all other tensors."""
    with pytest.raises(InvalidArgumentError, match="'CPU_REPACK' is none of CPU"):
        backend.buffer_type("CPU_REPACK")


def test_features_are_those_of_the_summary() -> None:
    words = ffi.string(lib.llama_print_system_info()).decode()
    found = backend.features()
    assert "CPU" in found
    for name, features in found.items():
        assert features
        assert f"{name} : " in words
        for feature, value in features.items():
            assert f"{feature} = {value} | " in words
    assert sum(map(len, found.values())) == words.count(" = ")


@pytest.mark.skipif(platform.machine() != "x86_64" or platform.system() != "Linux", reason="reads x86's /proc/cpuinfo")
def test_features_are_the_processors() -> None:
    flags = re.search(r"flags\s*: (.*)", Path("/proc/cpuinfo").read_text("utf-8"))
    assert flags
    for feature in {"AVX", "AVX2", "FMA", "F16C", "BMI2", "SSSE3"} & backend.features()["CPU"].keys():
        assert feature.lower() in flags[1].split()


def test_build() -> None:
    found = backend.build()
    written = json.loads((PACKAGE / "build.json").read_text("utf-8"))
    assert found.items() >= written.items()
    assert found["ggml_version"] == ffi.string(lib.ggml_version()).decode()
    assert found["ggml_commit"]
    assert found["system_info"].startswith("CPU : ")
    if written["llama"] == "vendored":
        assert found["ggml_commit"].startswith(written["commit"][:7])


def test_system() -> None:
    found = backend.system()
    assert found["supports_mmap"] is lib.llama_supports_mmap()
    assert found["supports_gpu_offload"] is lib.llama_supports_gpu_offload()
    assert found["max_devices"] == lib.llama_max_devices()
    assert found["max_parallel_sequences"] == lib.llama_max_parallel_sequences()
    assert set(found) == {
        "supports_mmap", "supports_mlock", "supports_gpu_offload", "supports_rpc", "max_devices",
        "max_parallel_sequences", "libraries",
    }  # fmt: skip
    assert all(Path(path).is_file() for path in found["libraries"])
    if LIBRARIES.is_dir():
        assert len(found["libraries"]) == len(list(LIBRARIES.iterdir()))


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_libraries_are_those_that_are_loaded() -> None:
    maps = Path("/proc/self/maps").read_text("utf-8")
    assert backend.system()["libraries"]
    for path in backend.system()["libraries"]:
        assert path in maps


def test_several_threads() -> None:
    expected = backend.build(), backend.features()
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(50):
            if (found := (backend.build(), backend.features())) != expected:
                wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
