#!/usr/bin/env python3
"""octet beside llama.cpp on SmolLM2-135M, on this machine's CPU, in one run: rounds alternate between the programs, because
the machine's bandwidth moves within minutes; medians over rounds. Writes JSON and a Markdown table.

Usage: bench/compare_cpu.py --octet build/release/tools/octet --probe build/bench/bench/kernels_bench --out bench/results/NAME
Needs .cache/models/SmolLM2-135M-Instruct (quickstart.sh) and builds llama.cpp (bench/peers/build_llama_cpp.sh).
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / ".cache/models/SmolLM2-135M-Instruct"
GGUF = ROOT / ".cache/SmolLM2-135M-Instruct.Q4_1.gguf"
PREFILL, DECODE = 512, 128
EMBEDDING_BYTES = 49152 * 576 * 2  # BF16; read row by row, so not streamed per token unless it is the lm_head too


def output_of(*command):
    return subprocess.run([str(part) for part in command], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def peer_models(programs):
    """SmolLM2 in Q8_0 and BF16 for llama.cpp, requantised from the published file."""
    models = {}
    for kind in ("Q8_0", "BF16"):
        path = ROOT / f".cache/peers/SmolLM2-135M-Instruct.{kind}.gguf"
        if not path.exists():
            output_of(programs / "llama-quantize", "--allow-requantize", GGUF, path, kind)
        models[kind] = path
    return models


def run_llama(programs, model, threads):
    rows = json.loads(output_of(programs / "llama-bench", "-m", model, "-t", threads, "-p", PREFILL, "-n", DECODE, "-r", 1, "-o", "json"))
    return {"prefill": next(r["avg_ts"] for r in rows if r["n_prompt"]), "decode": next(r["avg_ts"] for r in rows if r["n_gen"])}


def bench_latency(octet, flags, threads, input_len, output_len, batch_size):
    report = ROOT / "build/compare_cpu.json"
    report.parent.mkdir(exist_ok=True)
    output_of(octet, "bench", "latency", MODEL, *flags, "-t", threads, "--input-len", input_len, "--output-len", output_len, "--batch-size", batch_size,
              "--num-iters", 1, "--num-iters-warmup", 1, "--max-model-len", 2048, "--output-json", report)
    return json.loads(report.read_text())


def run_octet(octet, flags, threads, batch_size=1, prefill=True):
    """Prefill and decode apart, as llama-bench measures them: decode starts from an empty context."""
    decode = bench_latency(octet, flags, threads, 1, DECODE + 1, batch_size)
    result = {"decode": decode["decode_tokens_per_second"], "weight_bytes": decode["weight_bytes"]}
    if prefill:
        result["prefill"] = bench_latency(octet, flags, threads, PREFILL, 2, batch_size)["prefill_tokens_per_second"]
    return result


def run_probe(probe, threads):
    text = output_of(probe, threads, "probe")
    return {"read_gb_s": float(re.search(r"([\d.]+) GB/s", text).group(1)), "gflop_s": float(re.search(r"([\d.]+) GFLOP/s", text).group(1))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--octet", required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    programs = pathlib.Path(output_of("bench/peers/build_llama_cpp.sh").splitlines()[-1])
    peers = peer_models(ROOT / programs)
    fp8, head = ["--quantization", "fp8"], ["--quantize-lm-head"]
    cases = {
        "llama.cpp Q8_0": lambda: run_llama(ROOT / programs, peers["Q8_0"], args.threads),
        "octet FP8": lambda: run_octet(args.octet, fp8, args.threads),
        "llama.cpp BF16": lambda: run_llama(ROOT / programs, peers["BF16"], args.threads),
        "octet BF16": lambda: run_octet(args.octet, [], args.threads),
        "octet FP8 + lm_head": lambda: run_octet(args.octet, fp8 + head, args.threads),
        "octet FP8, batch 16": lambda: run_octet(args.octet, fp8, args.threads, batch_size=16, prefill=False),
        "probe": lambda: run_probe(args.probe, args.threads),
    }
    rounds = []
    for number in range(args.rounds):
        rounds.append({name: case() for name, case in cases.items()})
        print(f"round {number + 1}: " + ", ".join(f"{n} {r['decode']:.1f}" for n, r in rounds[-1].items() if "decode" in r), file=sys.stderr)

    def median(name, key):
        return statistics.median(r[name][key] for r in rounds)

    def ratio(a, b, key):
        return statistics.median(r[a][key] / r[b][key] for r in rounds)

    summary = {name: {key: median(name, key) for key in rounds[0][name]} for name in cases}
    ratios = {
        "decode: octet FP8 / llama.cpp Q8_0 (target 1.35)": ratio("octet FP8", "llama.cpp Q8_0", "decode"),
        "decode: octet FP8 / octet BF16 (target 1.5)": ratio("octet FP8", "octet BF16", "decode"),
        "decode: octet FP8 + lm_head / llama.cpp Q8_0 (target 1.55)": ratio("octet FP8 + lm_head", "llama.cpp Q8_0", "decode"),
        "decode: octet FP8 + lm_head / octet BF16 (target 1.8)": ratio("octet FP8 + lm_head", "octet BF16", "decode"),
        "decode: octet BF16 / llama.cpp BF16 (target 1.05)": ratio("octet BF16", "llama.cpp BF16", "decode"),
        "prefill 512: octet FP8 / llama.cpp Q8_0 (target 1.5)": ratio("octet FP8", "llama.cpp Q8_0", "prefill"),
        "decode at batch 16 / batch 1 (target 3.5)": ratio("octet FP8, batch 16", "octet FP8", "decode"),
    }
    for name, unread in (("octet FP8", 0), ("octet BF16", 0), ("octet FP8 + lm_head", EMBEDDING_BYTES)):
        ratios[f"weight bytes per second / read bandwidth: {name} (target 0.75)"] = statistics.median(
            r[name]["decode"] * (r[name]["weight_bytes"] - unread) / 1e9 / r["probe"]["read_gb_s"] for r in rounds)
    out = pathlib.Path(args.out)
    facts = {"date": datetime.date.today().isoformat(), "command": " ".join(["bench/compare_cpu.py", *sys.argv[1:]]),
             "version": output_of(args.octet, "--version"), "threads": args.threads}
    out.with_suffix(".json").write_text(json.dumps({**facts, "medians": summary, "ratios": ratios, "rounds": rounds}, indent=1) + "\n")
    lines = [f"# SmolLM2-135M on the CPU beside llama.cpp, {facts['date']}", "", "```", facts["version"].strip(), "```", "",
             f"`{facts['command']}`: {args.rounds} alternating rounds, {args.threads} threads, medians. Prefill of {PREFILL} tokens; "
             f"decode of {DECODE} tokens from an empty context; random prompts, end of sequence ignored.", "",
             "| | prefill tok/s | decode tok/s |", "| --- | --- | --- |"]
    lines += [f"| {n} | {r['prefill']:.1f} | {r['decode']:.1f} |" if "prefill" in r else f"| {n} | | {r['decode']:.1f} |"
              for n, r in summary.items() if "decode" in r]
    lines += ["", f"Probe: reads {summary['probe']['read_gb_s']:.1f} GB/s, multiplies {summary['probe']['gflop_s']:.0f} GFLOP/s (F32).", "",
              "| ratio, median of rounds | |", "| --- | --- |"]
    lines += [f"| {n} | {v:.2f} |" for n, v in ratios.items()]
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
