#!/usr/bin/env bash
# Builds octet and runs every quick test; the last line is "N passed, N failed". Exit status 0 only when nothing failed.
# Usage: ./test.sh [--all]
#   --all  also the slow ones: address, undefined-behaviour and thread sanitizers, fuzzers, tests/slow, clang-tidy
set -euo pipefail
cd "$(dirname "$0")"
case ${1:-} in
  "") packages=--tests ;;
  --all) packages=--all ;;
  *) echo "usage: ./test.sh [--all]" >&2; exit 2 ;;
esac
echo "== Packages"
scripts/install_packages.sh $packages
exec /usr/bin/python3 -u scripts/run_tests.py "$@"
