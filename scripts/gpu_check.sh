#!/usr/bin/env bash
# Checks octet on a machine with a GPU, with the programs of a folder that scripts/gpu_bundle.sh made.
# Usage: scripts/gpu_check.sh PART BUNDLE OUT_DIR
#   PART  tests      every test of the kernels and the device that needs a GPU
#         kernels    matmul_check: every matmul row and choice of it against double sums, then a few many times
#         sanitizer  the small cases under compute-sanitizer: memcheck, then racecheck
#         parallel   two GPUs of this host: the ops over ranks, engines on them, times of the ops and of NCCL's (torch),
#                    then CASES of serving.py; OUT_DIR/collectives.jsonl, nccl.jsonl, serving.json
#         serving    CASES of serving.py (bench/gpu, copied into the bundle) with dummy weights; OUT_DIR/serving.json
# Logs go to OUT_DIR; the last line is "N passed, N failed" and the exit status 0 only when nothing failed.
# FILTER=<GoogleTest filter> narrows both; a program that hangs is ended after LIMIT seconds (60; serving 470).
set -uo pipefail
(( $# == 3 )) || { sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 2; }
part=$1 bundle=$(cd "$2" && pwd) out=$3
mkdir -p "$out"
export LD_LIBRARY_PATH=$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
passed=0 failed=0 limit=60

# check NAME COMMAND...: runs it with its output in OUT_DIR/NAME.log and counts it.
check() {
  local name=$1 start=$SECONDS status=0
  shift
  timeout "${LIMIT:-$limit}" "$@" > "$out/$name.log" 2>&1 || status=$?
  if (( status == 0 )); then
    passed=$((passed + 1))
    echo "passed: $name ($((SECONDS - start)) s)"
  else
    failed=$((failed + 1))
    echo "FAILED: $name, exit status $status after $((SECONDS - start)) s; the end of its output:"
    tail -n 40 "$out/$name.log"
  fi
}

tests() {
  for program in "$bundle"/*_tests; do
    local name
    name=$(basename "$program")
    check "$name" "$program" --gtest_filter="${FILTER:-*Gpu*:*SmolLm2Scheme*}"
    # Without a GPU every test is skipped, which here is a failure.
    if grep -q "SKIPPED" "$out/$name.log"; then
      failed=$((failed + 1))
      echo "FAILED: $name skipped tests: $(grep -m 1 -A 1 "Skipped" "$out/$name.log" | tail -n 1)"
    fi
  done
}

sanitizer() {
  local filter=${FILTER:-GpuParityTest/*.SmallCases}
  for tool in memcheck racecheck; do
    check "sanitizer_$tool" compute-sanitizer --tool "$tool" --error-exitcode 99 \
      "$bundle/ops_integration_tests" --gtest_filter="$filter"
  done
}

serving() {
  limit=470
  # shellcheck disable=SC2086  # CASES is a list
  check serving python3 "$bundle/serving.py" --octet "$bundle/octet" --models "$bundle/models" --out "$out/serving.json" \
    ${CASES:-8b.latency.fp8 8b.latency.bf16 8b.first_token}
  cat "$out/serving.log"
}

# bench NAME COMMAND...: check, whose standard output is also OUT_DIR/NAME.jsonl.
bench() {
  local name=$1
  shift
  check "$name" "$@"
  grep '^{' "$out/$name.log" | tee "$out/$name.jsonl"
}

parallel() {
  export NCCL_NVLS_ENABLE=0  # NVLink multicast stays off
  limit=120
  check peer_ops "$bundle/ops_integration_tests" --gtest_filter="${FILTER:-Peer*}"
  check peer_engine "$bundle/engine_tests" --gtest_filter="${FILTER:-Peer*}"
  for name in peer_ops peer_engine; do
    if grep -q "SKIPPED" "$out/$name.log"; then
      failed=$((failed + 1))
      echo "FAILED: $name skipped tests: $(grep -m 1 -A 1 "Skipped" "$out/$name.log" | tail -n 1)"
    fi
  done
  bench collectives "$bundle/collectives_bench"
  bench nccl python3 "$bundle/torch_collectives.py"
  CASES=${CASES:-8b.latency.fp8 tp2.8b.latency.fp8 70b.latency.fp8 tp2.70b.latency.fp8} serving
}

kernels() {
  check matmul_check "$bundle/matmul_check"
  check matmul_stress "$bundle/matmul_check" stress
}

case $part in
  tests | kernels | sanitizer | parallel | serving) $part ;;
  *) echo "gpu_check: there is no part \"$part\"; parts: tests, kernels, sanitizer, parallel, serving" >&2; exit 2 ;;
esac
echo "$passed passed, $failed failed"
(( failed == 0 && passed > 0 ))
