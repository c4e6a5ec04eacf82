"""One operation of ggml on numpy arrays, computed on the CPU through the raw API."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawllama.errors import LlamaError, failure
from rawllama.raw import ffi, lib

_CONTEXT_BYTES = 1 << 20  # descriptions of some tensors and a graph; the numbers are in a buffer
_KINDS = {"float32": lib.GGML_TYPE_F32, "float16": lib.GGML_TYPE_F16, "int32": lib.GGML_TYPE_I32}

Build = Callable[..., Any]


def compute(build: Build, *inputs: NDArray[Any]) -> NDArray[np.float32]:
    """What ggml makes of some arrays.

    Parameters
    ----------
    build
        `build(context, *tensors)` returns the tensor that is wanted, which is float32.
    inputs
        float32, float16 or int32, up to four dimensions. A tensor's `ne` are the array's shape from its end.

    Returns
    -------
    ndarray
        float32, shape (ne[3], ne[2], ne[1], ne[0]).

    Raises
    ------
    LlamaError
        ggml could not compute it.

    Calls: ggml_init, ggml_new_tensor, ggml_new_graph, ggml_build_forward_expand, ggml_backend_init_by_type,
    ggml_backend_alloc_ctx_tensors, ggml_backend_tensor_set, ggml_backend_graph_compute, ggml_backend_tensor_get,
    ggml_backend_buffer_free, ggml_backend_free, ggml_free
    """
    with ExitStack() as stack:
        params = ffi.new("struct ggml_init_params *", {"mem_size": _CONTEXT_BYTES, "no_alloc": True})
        context = lib.ggml_init(params[0])
        stack.callback(lib.ggml_free, context)
        backend = lib.ggml_backend_init_by_type(lib.GGML_BACKEND_DEVICE_TYPE_CPU, ffi.NULL)
        stack.callback(lib.ggml_backend_free, backend)
        tensors = [_tensor(context, values) for values in inputs]
        result = build(context, *tensors)
        graph = lib.ggml_new_graph(context)
        lib.ggml_build_forward_expand(graph, result)
        stack.callback(lib.ggml_backend_buffer_free, lib.ggml_backend_alloc_ctx_tensors(context, backend))
        for tensor, values in zip(tensors, inputs, strict=True):
            lib.ggml_backend_tensor_set(tensor, ffi.from_buffer(np.ascontiguousarray(values)), 0, values.nbytes)
        code = lib.ggml_backend_graph_compute(backend, graph)
        if code != lib.GGML_STATUS_SUCCESS:
            raise failure(LlamaError, "ggml_backend_graph_compute", "ggml did not compute the graph", code)
        return _values(result)


def _tensor(context: Any, values: NDArray[Any]) -> Any:
    ne = ffi.new("int64_t[]", values.shape[::-1])
    return lib.ggml_new_tensor(context, _KINDS[values.dtype.name], values.ndim, ne)


def _values(tensor: Any) -> NDArray[np.float32]:
    values = np.empty(tuple(tensor.ne)[::-1], np.float32)
    lib.ggml_backend_tensor_get(tensor, ffi.from_buffer(values), 0, values.nbytes)
    return values
