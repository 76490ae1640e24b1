#!/usr/bin/env bash
# From a bare Debian 12 or Ubuntu 24.04 (root or sudo; no GPU, no compiler) to a running model: installs packages, builds
# octet, brings SmolLM2-135M-Instruct, asks it something in BF16 and in FP8, and ends with a table that compares the two.
# The first run mostly compiles; a second one starts answering within seconds.
# Usage: ./quickstart.sh [QUESTION]
set -euo pipefail
cd "$(dirname "$0")"
question=${1:-What is the capital of France, and what is it known for?}
started=$SECONDS
build=build/release
reports=$build/quickstart
octet=$build/tools/octet
step() { printf '\n[%s/5] %s\n' "$1" "$2"; }

step 1 "Packages"
scripts/install_packages.sh

step 2 "Building the program ($build)"
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
mkdir -p $reports
cmake --preset release -DOCTET_TESTS=OFF >$build/configure.log || { cat $build/configure.log >&2; exit 1; }
cmake --build $build --target octet --parallel "$(nproc)"
$octet --version

step 3 "The model: SmolLM2-135M-Instruct"
model=$(scripts/fetch_model.sh $octet)
echo "  $model"

step 4 "Asking it: $question"
for precision in bf16 fp8; do
  flags=()
  [[ $precision == fp8 ]] && flags=(--quantization fp8)
  printf '\n--- %s\n' "octet chat MODEL ${flags[*]:+${flags[*]} }-q \"...\""
  $octet chat "$model" "${flags[@]}" --temperature 0 --max-tokens 96 -q "$question"
  echo
done

step 5 "Measuring BF16 against FP8"
for precision in bf16 fp8; do
  flags=()
  [[ $precision == fp8 ]] && flags=(--quantization fp8)
  echo "  latency, $precision"
  $octet bench latency "$model" "${flags[@]}" --input-len 512 --output-len 64 --batch-size 1 --num-iters 3 \
    --num-iters-warmup 1 --output-json $reports/$precision.json >$reports/$precision.log
done
echo "  KL divergence of FP8 from BF16 on tests/text/northanger_abbey.txt"
$octet eval kld --model "$model" --reference-model "$model" --quantization fp8 --text tests/text/northanger_abbey.txt \
  --json >$reports/kld.json
/usr/bin/python3 scripts/quickstart_table.py $reports
printf '\nDone in %d min %02d s. Talk to it: %s chat %s --quantization fp8\n' \
  $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$octet" "${model#"$PWD"/}"
