#!/usr/bin/env bash
# Installs what building octet needs on Debian 12 and Ubuntu 24.04, and only what is missing.
# Usage: scripts/install_packages.sh [--tests] [--all] [--deb]
#   --tests  also what ./test.sh needs          --all  also what ./test.sh --all needs (clang, its sanitizers, clang-tidy, Prometheus, Chromium, nginx)
#   --deb    also what makes a Debian package
# Installs nothing and needs no rights when everything is there already.
set -euo pipefail

packages=(cmake ninja-build g++ ccache pkg-config git ca-certificates python3 python3-venv
          nlohmann-json3-dev libcli11-dev libfmt-dev libpcre2-dev libutf8proc-dev libcurl4-openssl-dev libssl-dev
          libboost-dev prometheus-cpp-dev)
tests=(libgtest-dev libgmock-dev python3-dev)
deb=(dpkg-dev)
slow=(clang clang-tidy llvm prometheus nginx-light "${deb[@]}")
# Ubuntu has Chromium as a snap alone: the test of the page is skipped there.
if [[ $(. /etc/os-release; echo "$ID") == debian ]]; then slow+=(chromium chromium-driver); fi

for option in "$@"; do
  case $option in
    --tests) packages+=("${tests[@]}") ;;
    --all) packages+=("${tests[@]}" "${slow[@]}") ;;
    --deb) packages+=("${deb[@]}") ;;
    *) echo "usage: scripts/install_packages.sh [--tests] [--all] [--deb]" >&2; exit 2 ;;
  esac
done

if [[ ${OCTET_SKIP_PACKAGES:-} == 1 ]]; then
  echo "  packages: not looked at (OCTET_SKIP_PACKAGES=1)"
  exit 0
fi
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install_packages.sh: this is for Debian 12 and Ubuntu 24.04 (no apt here). Install what these packages hold by hand:" >&2
  echo "  ${packages[*]}" >&2
  echo "then run the command again with OCTET_SKIP_PACKAGES=1 in the environment." >&2
  exit 1
fi

missing_of() {
  local package
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || echo "$package"
  done
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

check_rights() {
  if ((EUID != 0)) && ! command -v sudo >/dev/null; then
    echo "install_packages.sh: installing packages needs root, and there is no sudo here. Missing: $*" >&2
    exit 1
  fi
}

install() {
  local log
  check_rights "$@"
  log=$(mktemp)
  echo "  packages to install: $*"
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1; then
    cat "$log" >&2
    echo "install_packages.sh: apt-get install failed (its output is above)" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

refresh() {
  local log
  log=$(mktemp)
  echo "  reading the package lists"
  if ! as_root apt-get update -q >"$log" 2>&1; then
    cat "$log" >&2
    echo "install_packages.sh: apt-get update failed (its output is above); going on with the lists at hand" >&2
  fi
  rm -f "$log"
}

mapfile -t missing < <(missing_of "${packages[@]}")
if ((${#missing[@]})); then
  check_rights "${missing[@]}"
  refresh
  install "${missing[@]}"
fi

# The run-time libraries of clang's sanitizers and fuzzer are named after clang's version.
if [[ " $* " == *" --all "* ]]; then
  major=$(clang -dumpversion | cut -d. -f1)
  mapfile -t missing < <(missing_of "libclang-rt-$major-dev")
  if ((${#missing[@]})); then install "${missing[@]}"; fi
fi

have=$(cmake --version | sed -n '1s/[^0-9]*//p')
if [[ $(printf '%s\n' 3.25 "$have" | sort -V | head -1) != 3.25 ]]; then
  echo "install_packages.sh: cmake $have found ($(command -v cmake)), 3.25 or newer is needed" >&2
  exit 1
fi
echo "  packages: all there (cmake $have, $(g++ --version | head -1))"
