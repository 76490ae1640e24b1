#!/usr/bin/env bash
# Formats every C++ file with clang-format 14 (versions differ in their output). Usage: scripts/format.sh [--check]
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.h' '*.cc' '*.cu' '*.cuh')
if [[ ${1:-} == --check ]]; then
  clang-format-14 --dry-run -Werror "${files[@]}" 2>&1 | sed -n 's/^\([^:]*\):.*clang-format-violations.*/\1/p' | sort | uniq -c |
    sed 's/$/: not formatted (scripts\/format.sh)/'
else
  clang-format-14 -i "${files[@]}"
fi
