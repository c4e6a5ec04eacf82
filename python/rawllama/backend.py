"""Devices that compute, and how this copy of libllama was built."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._params import enum_name, text
from .errors import InvalidArgumentError
from .paths import BUILD, LIBRARIES
from .raw import ffi, lib

_KIND = "GGML_BACKEND_DEVICE_TYPE_"
# llama_print_system_info and the backends' features write to memory that all their callers share.
_mutex = threading.Lock()


@dataclass(frozen=True)
class Device:
    """A device that computes, as it was when it was asked.

    Attributes
    ----------
    name
        As `Model(devices=...)` takes it, e.g. `CUDA0`.
    description
        Of the hardware, e.g. the processor's name.
    kind
        `cpu`, `gpu`, `igpu` (with the host's memory), `accel` (helps the CPU, as BLAS does) or `meta`.
    backend
        Of which backend, e.g. `CUDA`.
    memory_free, memory_total
        Bytes; 0 where the backend does not know.
    device_id
        PCI address; None where unknown.
    buffer_type
        The name of its memory, e.g. `CUDA0`; `tensor_buft_overrides` takes it too. None where it has none.
    capabilities
        Of `async`, `host_buffer`, `buffer_from_host_ptr`, `events` and `mmap_support`, those that it has.
    """

    name: str
    description: str
    kind: str
    backend: str
    memory_free: int
    memory_total: int
    device_id: str | None
    buffer_type: str | None
    capabilities: tuple[str, ...]


def devices() -> tuple[Device, ...]:
    """All devices, in libllama's order.

    Calls: ggml_backend_dev_count, ggml_backend_dev_get, ggml_backend_dev_get_props, ggml_backend_dev_backend_reg
    """
    return tuple(map(_describe, _devices()))


def device(name: str) -> Device:
    """The device of that name, in any case.

    Raises
    ------
    InvalidArgumentError
        There is none; the message lists those that there are.

    Calls: ggml_backend_dev_get, ggml_backend_dev_get_props
    """
    return _describe(device_pointer(name))


def device_pointer(name: str, argument: str = "device") -> Any:
    """The `ggml_backend_dev_t` of that name. Raises as `device`. Calls: ggml_backend_dev_get, ggml_backend_dev_name."""
    return _by_name(argument, name, ((_name(one), one) for one in _devices()))


def buffer_type(name: str, argument: str = "buffer type") -> Any:
    """The `ggml_backend_buffer_type_t` of that name, or of the device of that name, for `tensor_buft_overrides`.

    Memory for some tensors only, as `CPU_REPACK`, is not among them: libllama would end the process for all others, and
    uses it by itself where `use_extra_bufts` is on.

    Raises
    ------
    InvalidArgumentError
        There is none; the message lists those that there are.

    Calls: ggml_backend_dev_buffer_type, ggml_backend_dev_host_buffer_type, ggml_backend_buft_name
    """
    return _by_name(argument, name, _buffer_types())


def features() -> dict[str, dict[str, str]]:
    """What each backend makes use of, e.g. `{"CPU": {"AVX2": "1"}}`; backends that do not say it are left out.

    Calls: ggml_backend_reg_count, ggml_backend_reg_get, ggml_backend_reg_name, ggml_backend_reg_get_proc_address
    """
    with _mutex:
        return {
            text(lib.ggml_backend_reg_name(one)) or "": found for one in _registries() if (found := _features(one))
        }


def build() -> dict[str, str]:
    """How this copy was built: build.json's facts, and the versions and the summary that the libraries give.

    Calls: llama_version, ggml_version, ggml_commit, llama_print_system_info
    """
    facts: dict[str, str] = json.loads(BUILD.read_text(encoding="utf-8"))
    with _mutex:
        # A llama.cpp of one's own may be older than some of these.
        for function in ("llama_version", "ggml_version", "ggml_commit", "llama_print_system_info"):
            if said := text(getattr(lib, function, lambda: ffi.NULL)()):
                facts[function.replace("llama_print_", "")] = said.strip(" |")
    return facts


def system() -> dict[str, Any]:
    """What libllama can do here, and the libraries that it consists of.

    Calls: llama_supports_mmap, llama_supports_mlock, llama_supports_gpu_offload, llama_supports_rpc, llama_max_devices,
    llama_max_parallel_sequences
    """
    can = ("supports_mmap", "supports_mlock", "supports_gpu_offload", "supports_rpc")
    limits = ("max_devices", "max_parallel_sequences")
    facts: dict[str, Any] = {name: bool(getattr(lib, f"llama_{name}")()) for name in can}
    facts |= {name: int(getattr(lib, f"llama_{name}")()) for name in limits}
    return facts | {"libraries": sorted(map(str, LIBRARIES.iterdir())) if LIBRARIES.is_dir() else _loaded_libraries()}


def _loaded_libraries() -> list[str]:
    """The system's libraries of llama.cpp in this process, where Linux tells."""
    with suppress(OSError):
        paths = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text("utf-8").splitlines()}
        return sorted(path for path in paths if Path(path).name.startswith(("libllama", "libggml")))
    return []


def _devices() -> Iterator[Any]:
    for i in range(lib.ggml_backend_dev_count()):
        yield lib.ggml_backend_dev_get(i)


def _registries() -> Iterator[Any]:
    for i in range(lib.ggml_backend_reg_count()):
        yield lib.ggml_backend_reg_get(i)


def _name(pointer: Any) -> str:
    return text(lib.ggml_backend_dev_name(pointer)) or ""


def _by_name(what: str, name: str, known: Iterator[tuple[str, Any]]) -> Any:
    pointers: dict[str, Any] = {}
    for one, pointer in known:
        pointers.setdefault(one, pointer)
    for one, pointer in pointers.items():
        if isinstance(name, str) and one.lower() == name.lower():
            return pointer
    raise InvalidArgumentError(f"{what}: {name!r} is none of {', '.join(pointers)}")


def _describe(pointer: Any) -> Device:
    props = ffi.new("struct ggml_backend_dev_props *")
    lib.ggml_backend_dev_get_props(pointer, props)
    registry = lib.ggml_backend_dev_backend_reg(pointer)
    memory = lib.ggml_backend_dev_buffer_type(pointer)
    return Device(
        name=text(props.name) or "",
        description=text(props.description) or "",
        kind=enum_name(_KIND, props.type),
        backend=(text(lib.ggml_backend_reg_name(registry)) or "") if registry else "",
        memory_free=int(props.memory_free),
        memory_total=int(props.memory_total),
        device_id=text(props.device_id) if hasattr(props, "device_id") else None,  # newer than some llama.cpp
        buffer_type=text(lib.ggml_backend_buft_name(memory)) if memory else None,
        capabilities=tuple(name for name, _ in ffi.typeof(props.caps).fields if getattr(props.caps, name)),
    )


def _buffer_types() -> Iterator[tuple[str, Any]]:
    """Each buffer type by its own name and by its device's."""
    for one in _devices():
        default = lib.ggml_backend_dev_buffer_type(one)
        host = lib.ggml_backend_dev_host_buffer_type(one)
        found = [pointer for pointer in (default, host) if pointer]
        if default:
            yield _name(one), default
        for pointer in found:
            yield text(lib.ggml_backend_buft_name(pointer)) or "", pointer


def _features(registry: Any) -> dict[str, str]:
    get = _function(registry, "ggml_backend_get_features")
    found: dict[str, str] = {}
    feature = get(registry) if get else None
    while feature and feature.name:
        found[text(feature.name) or ""] = text(feature.value) or ""
        feature += 1
    return found


def _function(registry: Any, name: str) -> Callable[..., Any] | None:
    """A function that only some backends have."""
    address = lib.ggml_backend_reg_get_proc_address(registry, name.encode())
    function: Callable[..., Any] | None = ffi.cast(f"{name}_t", address) if address else None
    return function
