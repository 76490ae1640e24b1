#!/usr/bin/env python3
"""Serves models of published shapes with random weights on this machine's GPU and collects what `octet bench` reports.

Usage: bench/gpu/serving.py --octet OCTET --models bench/gpu/models --out OUT.json [CASE...]
CASEs are the names below or their first parts (none: all); a case that fails is reported and left out. Prompts are random, greedy,
without prefix sharing; loads are those that the recorded figures of vLLM were measured with.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

PRECISIONS = {
    "bf16": [],
    "fp8": ["--quantization", "fp8_tensor"],
    "fp8_kv": ["--quantization", "fp8_tensor", "--kv-cache-dtype", "fp8"],
    "fp8_head": ["--quantization", "fp8_tensor", "--quantize-lm-head"],
}
# Nobody waits for a token while prompts are read.
LARGE_STEPS = ["--max-num-batched-tokens", "8192"]
ROUNDS = ["--num-iters-warmup", "1", "--num-iters", "3"]


TWO_GPUS = ["--tensor-parallel-size", "2"]


def latency(model, precision, batches, input_len=128, output_len=256, *more):
    return ["latency", model, *PRECISIONS[precision], *ROUNDS, "--batch-size", batches, "--input-len", str(input_len),
            "--output-len", str(output_len), "--max-num-seqs", "128", *more]


def throughput(model, precision, requests, input_len, output_len, *more):
    return ["throughput", model, *PRECISIONS[precision], "--num-prompts", str(requests), "--input-len", str(input_len),
            "--output-len", str(output_len), "--max-num-seqs", str(requests), *LARGE_STEPS, *more]


CASES = {
    "8b.latency.fp8": latency("llama-3-8b", "fp8", "1,8,32,128"),
    "8b.latency.bf16": latency("llama-3-8b", "bf16", "1,8,32,128"),
    "8b.latency.fp8_kv": latency("llama-3-8b", "fp8_kv", "1,8,32,128"),
    "8b.latency.fp8_head": latency("llama-3-8b", "fp8_head", "1,8"),
    "8b.first_token.fp8.128": latency("llama-3-8b", "fp8", "1", 128, 2),
    "8b.first_token.fp8.1024": latency("llama-3-8b", "fp8", "1", 1024, 2),
    "8b.first_token.fp8.4096": latency("llama-3-8b", "fp8", "1", 4096, 2),
    "8b.throughput.fp8_kv.512_1000_1000": throughput("llama-3-8b", "fp8_kv", 512, 1000, 1000),
    "8b.throughput.fp8_kv.256_2048_128": throughput("llama-3-8b", "fp8_kv", 256, 2048, 128),
    "8b.throughput.bf16.256_2048_128": throughput("llama-3-8b", "bf16", 256, 2048, 128),
    "8b.throughput.bf16.512_1000_1000": throughput("llama-3-8b", "bf16", 512, 1000, 1000),
    "70b.latency.fp8": latency("llama-3-70b", "fp8", "1,32,128", 128, 64),
    # On two GPUs of the host.
    "tp2.8b.latency.fp8": latency("llama-3-8b", "fp8", "1,8,32,128", 128, 256, *TWO_GPUS),
    "tp2.70b.latency.fp8": latency("llama-3-70b", "fp8", "1,32,128", 128, 64, *TWO_GPUS),
    "tp2.70b.latency.bf16": latency("llama-3-70b", "bf16", "1,32", 128, 64, *TWO_GPUS),
    "tp2.70b.first_token.fp8.8192": latency("llama-3-70b", "fp8", "1", 8000, 2, *TWO_GPUS, "--max-num-batched-tokens", "8192"),
    "70b.first_token.fp8.8192": latency("llama-3-70b", "fp8", "1", 8000, 2, "--max-num-batched-tokens", "8192"),
    "tp2.70b.throughput.fp8_kv.512_1000_1000": throughput("llama-3-70b", "fp8_kv", 512, 1000, 1000, *TWO_GPUS),
    # Drawn tokens, so that mixtures route as of varied text.
    "mixtral.latency.fp8": latency("mixtral-8x7b", "fp8", "1,8,32,128", 128, 256, "--temperature", "1"),
    "mixtral.latency.bf16": latency("mixtral-8x7b", "bf16", "1,8,32,128", 128, 256, "--temperature", "1"),
    "mixtral.throughput.fp8_kv.256_1000_1000": throughput("mixtral-8x7b", "fp8_kv", 256, 1000, 1000, "--temperature", "1"),
    "mixtral.throughput.fp8_kv.512_1000_1000": throughput("mixtral-8x7b", "fp8_kv", 512, 1000, 1000, "--temperature", "1"),
    "qwen3_moe.latency.fp8": latency("qwen3-30b-a3b", "fp8", "1,8,32,128", 128, 256, "--temperature", "1"),
    "qwen3_moe.latency.bf16": latency("qwen3-30b-a3b", "bf16", "1,8,32,128", 128, 256, "--temperature", "1"),
    # Memory for both as of a GPU with 80 GB: a share of the H200's 141.
    "32b.throughput.fp8_kv.256_1000_500": throughput("qwen2.5-32b", "fp8_kv", 256, 1000, 500, "--gpu-memory-utilization", "0.567"),
    "32b.throughput.bf16.256_1000_500": throughput("qwen2.5-32b", "bf16", 256, 1000, 500, "--gpu-memory-utilization", "0.567"),
}


def run_case(octet, models, arguments):
    """What the case reports: a list of measurements."""
    kind, model, *flags = arguments
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        common = ["--device", "cuda", "--load-format", "dummy"]
        command = [str(octet.resolve()), "bench", kind, str(models / model), *common, *flags, "--output-json", report.name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[-400:])
        found = json.loads(pathlib.Path(report.name).read_text())
        return {"command": " ".join(["octet", "bench", kind, model, *common, *flags]),
                "results": found if isinstance(found, list) else [found]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--octet", required=True, type=pathlib.Path)
    parser.add_argument("--models", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    options = parser.parse_args()
    chosen = [name for prefix in options.cases or [""] for name in CASES if (name + ".").startswith(prefix + ("." if prefix else ""))]
    chosen = list(dict.fromkeys(chosen))
    if not chosen:
        parser.error(f"no case begins with {options.cases}; cases: {', '.join(CASES)}")
    collected, failures = {}, 0
    for name in chosen:
        start = time.monotonic()
        try:
            collected[name] = run_case(options.octet, options.models, CASES[name])
        except RuntimeError as error:
            failures += 1
            print(f"FAILED: {name}: {error}", flush=True)
            continue
        for result in collected[name]["results"]:
            figures = {key: result[key] for key in ("batch_size", "ttft_s", "itl_s", "output_tokens_per_second", "tokens_per_second")
                       if key in result}
            print(f"{name} ({time.monotonic() - start:.0f} s): {figures}", flush=True)
        options.out.write_text(json.dumps(collected, indent=1))
    sys.exit(failures)


if __name__ == "__main__":
    main()
