#!/usr/bin/env bash
# Builds llama.cpp's llama-bench and llama-quantize for the CPU comparison, from the copy inside the PyPI source package
# llama-cpp-python 0.3.36. Nothing of it becomes part of octet. Prints the folder of the programs.
# Usage: bench/peers/build_llama_cpp.sh [FOLDER=.cache/peers/llama.cpp]
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.cache/peers/llama.cpp}
version=0.3.36
mkdir -p "$folder"
if [[ ! -x $folder/build/bin/llama-bench ]]; then
  python3 -m pip download -q --no-deps --no-binary llama-cpp-python "llama-cpp-python==$version" -d "$folder" >&2 || {
    echo "cannot download llama-cpp-python $version" >&2; exit 1; }
  tar -xzf "$folder"/llama_cpp_python-$version.tar.gz -C "$folder"
  cmake -S "$folder"/llama_cpp_python-$version/vendor/llama.cpp -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DBUILD_SHARED_LIBS=OFF >&2
  nice cmake --build "$folder/build" --target llama-bench llama-quantize -j "$(nproc)" >&2
fi
echo "$folder/build/bin"
