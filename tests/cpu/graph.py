"""Small graphs for ggml's CPU backend, with weights packed for rawllama's own kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rawllama import ffi, lib

Floats = NDArray[np.float32]


def packed_buffers() -> Any:
    """The buffer type of packed weights, from ggml's list."""
    device = lib.ggml_backend_dev_by_type(lib.GGML_BACKEND_DEVICE_TYPE_CPU)
    registry = lib.ggml_backend_dev_backend_reg(device)
    found = lib.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    types = ffi.cast("ggml_backend_buffer_type_t *(*)(ggml_backend_dev_t)", found)(device)
    names = {}
    while types[0]:
        names[ffi.string(lib.ggml_backend_buft_name(types[0]))] = types[0]
        types += 1
    return names[b"CPU_RAWLLAMA"]


class Graph:
    """Tensors of a graph. Numpy's shapes are ggml's reversed."""

    def __init__(self) -> None:
        self.context = lib.ggml_init({"mem_size": 1 << 20, "mem_buffer": ffi.NULL, "no_alloc": True})
        self._buffers: list[Any] = []
        self._values: list[tuple[Any, bytes]] = []

    def close(self) -> None:
        for buffer in self._buffers:
            lib.ggml_backend_buffer_free(buffer)
        lib.ggml_free(self.context)

    def weight(self, values: bytes, kind: int, rows: int, columns: int) -> Any:
        """A packed weight of these bytes, in ggml's layout."""
        tensor = lib.ggml_new_tensor_2d(self.context, kind, columns, rows)
        buffers = packed_buffers()
        buffer = lib.ggml_backend_buft_alloc_buffer(buffers, lib.ggml_backend_buft_get_alloc_size(buffers, tensor))
        self._buffers.append(buffer)
        assert lib.ggml_backend_tensor_alloc(buffer, tensor, lib.ggml_backend_buffer_get_base(buffer)) == 0
        lib.ggml_backend_tensor_set(tensor, values, 0, len(values))
        return tensor

    def input(self, values: NDArray[Any]) -> Any:
        """A tensor with these float32 or float16 values."""
        kind = lib.GGML_TYPE_F16 if values.dtype == np.float16 else lib.GGML_TYPE_F32
        shape = [*reversed(values.shape), 1, 1, 1][:4]
        tensor = lib.ggml_new_tensor_4d(self.context, kind, *shape)
        self._values.append((tensor, np.ascontiguousarray(values).tobytes()))
        return tensor

    def compute(self, result: Any, n_threads: int = 1) -> Floats:
        """Values of a float32 tensor of the graph."""
        graph = lib.ggml_new_graph(self.context)
        lib.ggml_build_forward_expand(graph, result)
        backend = lib.ggml_backend_cpu_init()
        lib.ggml_backend_cpu_set_n_threads(backend, n_threads)
        self._buffers.append(lib.ggml_backend_alloc_ctx_tensors(self.context, backend))
        for tensor, values in self._values:
            lib.ggml_backend_tensor_set(tensor, values, 0, len(values))
        assert lib.ggml_backend_graph_compute(backend, graph) == lib.GGML_STATUS_SUCCESS
        shape = [result.ne[i] for i in range(4)]
        values = np.empty(shape[::-1], np.float32)
        lib.ggml_backend_tensor_get(result, ffi.from_buffer(values), 0, values.nbytes)
        lib.ggml_backend_free(backend)
        return values.squeeze()


@contextmanager
def graph() -> Iterator[Graph]:
    made = Graph()
    try:
        yield made
    finally:
        made.close()
