"""Several devices without a GPU: two RPC servers on this machine stand for two GPUs, and vectors must stay the same.

So must the tensors of the graph, which a tap copies from the devices' memory.

Needs a build with RPC: rawllama wheel -D "RAWLLAMA_BACKENDS=cpu;rpc"
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

import numpy as np
from rawllama import Batch, Context, Embedder, Model, backend, lib
from rawllama.hub import resolve

ENDPOINTS = ("127.0.0.1:50161", "127.0.0.1:50162")
SERVER = """
import sys
from rawllama import ffi, lib
devices = ffi.new("ggml_backend_dev_t[]", [lib.ggml_backend_dev_by_name(b"CPU")])
lib.ggml_backend_rpc_start_server(sys.argv[1].encode(), ffi.NULL, 1, 1, devices)
"""
TEXTS = [f"text number {i} is about the things of which there are {i}" for i in range(100)]
SECONDS = 3  # until the servers answer


def settings(names: list[str]) -> list[dict[str, Any]]:
    return [
        {"devices": names},
        {"devices": names[:1]},
        {"devices": names[1:], "n_gpu_layers": 3},
        {"n_gpu_layers": 0},
        {"devices": names, "split_mode": "layer", "tensor_split": [0.7, 0.3]},
        {"devices": names, "split_mode": "none", "main_gpu": 1},
    ]


def tapped(model: Model) -> dict[str, Any]:
    """The last tensor of each name in the graph of one text, from whatever memory it lies in."""
    tokens = model.vocab.tokenize(TEXTS[0])
    batch = Batch(tokens.size)
    batch.add_sequence(tokens)
    with Context(model, embeddings=True, n_ctx=64, taps=True) as context, context.tap("*") as tap:
        context.process(batch)
    return {name: tap[name] for name in tap if "node" not in name}  # nodes are numbered, in each graph anew


def largest_difference(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Of the tensors that both graphs name, relative to the largest value of each."""
    return max(difference(found[name], expected[name]) for name in expected if name in found)


def difference(one: Any, other: Any) -> float:
    if np.array_equal(one, other):  # masks are 0 and infinite
        return 0.0
    return float(np.abs(one - other).max() / np.abs(other).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm", help="path of a GGUF file, or a known name")
    path = resolve(parser.parse_args().model)
    command = [sys.executable, "-c", SERVER]
    servers = [subprocess.Popen([*command, endpoint], stdout=subprocess.DEVNULL) for endpoint in ENDPOINTS]
    try:
        time.sleep(SECONDS)
        for endpoint in ENDPOINTS:
            lib.ggml_backend_register(lib.ggml_backend_rpc_add_server(endpoint.encode()))
        names = [device.name for device in backend.devices() if device.kind == "gpu"]
        with Model(path, devices=[]) as model, Embedder(model) as embedder:
            expected, tensors = embedder.encode(TEXTS), tapped(model)
        for chosen in settings(names):
            with Model(path, **chosen) as model, Embedder(model) as embedder:
                cosines = np.sum(embedder.encode(TEXTS) * expected, axis=1)
                found = tapped(model)
            words = f"largest difference of {len(found)} tapped tensors {largest_difference(found, tensors):.1e}"
            print(f"least cosine to the CPU's {cosines.min():.7f}, {words}: {chosen}")
    finally:
        for server in servers:
            server.kill()


if __name__ == "__main__":
    main()
