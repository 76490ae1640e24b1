#!/usr/bin/env bash
# Brings the source of xgrammar: downloads the release pinned in scripts/pins/xgrammar.txt and unpacks what octet builds.
# Prints the directory on standard output, progress on standard error. What is there already is kept. Called by
# cmake/xgrammar.cmake.
# Usage: scripts/fetch_xgrammar.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
pins=$root/scripts/pins
cache=$root/.cache
release=$(sed -n 's/^xgrammar==\([^ ]*\).*/xgrammar-\1/p' "$pins/xgrammar.txt")
source=$cache/$release

if [[ ! -d $source ]]; then
  echo "  downloading the source of $release (2.7 MB)" >&2
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  # pip looks into a source release with that release's own builder; the builder's packages are pinned too.
  # -I: whoever runs CMake may have a PYTHONPATH.
  /usr/bin/python3 -I -m venv "$work/venv" >&2
  pip=("$work/venv/bin/python" -I -m pip --disable-pip-version-check --quiet)
  grep -v '^xgrammar==' "$pins/xgrammar.txt" >"$work/tools.txt"
  grep '^xgrammar==' "$pins/xgrammar.txt" >"$work/release.txt"
  "${pip[@]}" install --require-hashes --no-deps --requirement "$pins/python.txt" --requirement "$work/tools.txt" >&2
  "${pip[@]}" download --no-deps --require-hashes --no-build-isolation --no-binary xgrammar \
    --requirement "$work/release.txt" --dest "$work" >&2
  tar -xzf "$work/$release.tar.gz" -C "$work" \
    "$release"/{LICENSE,NOTICE,include,cpp,3rdparty/picojson,3rdparty/dlpack/include,3rdparty/dlpack/LICENSE}
  mkdir -p "$cache"
  mv "$work/$release" "$source.part.$$"
  mv -T "$source.part.$$" "$source" 2>/dev/null || rm -rf "$source.part.$$"  # another build may have been quicker
fi
echo "$source"
