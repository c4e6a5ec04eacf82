"""Several devices without a GPU: two RPC servers on this machine stand for two GPUs, and vectors must stay the same.

Needs a build with RPC: rawllama wheel -D "RAWLLAMA_BACKENDS=cpu;rpc"
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

import numpy as np
from rawllama import Embedder, Model, backend, lib
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
        with Embedder(path, devices=[]) as embedder:
            expected = embedder.encode(TEXTS)
        for chosen in settings(names):
            with Model(path, **chosen) as model, Embedder(model) as embedder:
                cosines = np.sum(embedder.encode(TEXTS) * expected, axis=1)
            print(f"least cosine to the CPU's {cosines.min():.7f}: {chosen}")
    finally:
        for server in servers:
            server.kill()


if __name__ == "__main__":
    main()
