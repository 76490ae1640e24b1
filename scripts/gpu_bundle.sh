#!/usr/bin/env bash
# Gathers programs of a CUDA build with the libraries they need, stripped, so that they run on another machine with a GPU
# and as new a C and C++ library: BUNDLE/PROGRAM, started with LD_LIBRARY_PATH=BUNDLE/lib, and BUNDLE/gpu_check.sh.
# Usage: scripts/gpu_bundle.sh BUILD_DIR BUNDLE PROGRAM...    (programs by name, wherever they lie in BUILD_DIR)
set -euo pipefail
(( $# >= 3 )) || { sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 2; }
build=$1 bundle=$2
shift 2
mkdir -p "$bundle/lib"
for name in "$@"; do
  program=$(find "$build" -type f -name "$name" -perm -u+x -print -quit)
  [[ -n $program ]] || { echo "gpu_bundle: $build has no program $name; build it first" >&2; exit 1; }
  strip -o "$bundle/$name" "$program"
  # The target's own: the C library, and libstdc++, which other programs there need as new as theirs.
  ldd "$program" | awk '$2 == "=>" && $1 !~ /^(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so/ {print $3}' |
    while read -r library; do strip -o "$bundle/lib/$(basename "$library")" "$(readlink -f "$library")"; done
done
cp "$(dirname "$0")/gpu_check.sh" "$bundle/"
cp -r "$(dirname "$0")"/../bench/gpu/{models,serving.py,torch_collectives.py} "$bundle/"
du -sh "$bundle"
