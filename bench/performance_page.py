#!/usr/bin/env python3
"""Writes docs/performance.md and its plots from what bench/gpu/serving.py measured, beside the recorded figures of vLLM.

Usage: bench/performance_page.py [RESULTS.json]    (bench/results/serving_h200.json)
"""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEER = json.loads((ROOT / "bench/results/vllm_h200.json").read_text())
NAMES = {"8b": "Llama-3-8B", "70b": "Llama-3-70B", "32b": "Qwen2.5-32B"}
FOLDERS = {"8b": "llama-3-8b", "70b": "llama-3-70b", "32b": "qwen2.5-32b"}
PRECISIONS = {"bf16": "BF16", "fp8": "FP8", "fp8_kv": "FP8, FP8 cache", "fp8_head": "FP8, FP8 lm_head"}
COLOURS = {"octet": "#2563eb", "vLLM": "#9ca3af", "floor": "#d1d5db"}


def embedding_bytes(model):
    config = json.loads((ROOT / "bench/gpu/models" / FOLDERS[model] / "config.json").read_text())
    return config["vocab_size"] * config["hidden_size"] * 2


def floor_ms(model, result):
    """What a step must read, at the read bandwidth: weights but for the embedding's table, and the cache half-way through."""
    context = result["input_len"] + result["output_len"] / 2
    num_bytes = result["weight_bytes"] - embedding_bytes(model) + result["batch_size"] * context * result["kv_bytes_per_token"]
    return num_bytes / PEER["read_bandwidth"] * 1e3


def bar_plot(path, title, unit, groups):
    """groups: [(label, {series: value})]; horizontal bars, as SVG."""
    bar, gap, left, width = 16, 12, 190, 720
    most = max(value for _, bars in groups for value in bars.values())
    rows, y = [], 40
    for label, bars in groups:
        rows.append(f'<text x="{left - 10}" y="{y + bar * len(bars) / 2 + 5}" text-anchor="end">{label}</text>')
        for series, value in bars.items():
            length = value / most * (width - left - 150)
            rows.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 2}" fill="{COLOURS[series]}"/>')
            rows.append(f'<text x="{left + length + 6:.1f}" y="{y + bar - 4}">{series} {value:,.4g}</text>')
            y += bar
        y += gap
    body = "\n".join(rows)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" font-family="sans-serif" font-size="12">\n'
                    f'<rect width="100%" height="100%" fill="white"/>\n<text x="10" y="20" font-size="14">{title} ({unit})</text>\n{body}\n</svg>\n')


def commits_of(results):
    """The commit of the first case, and which cases are of others."""
    cases = {}
    for name, case in results.items():
        first = case["results"][0] if isinstance(case["results"], list) else case["results"]
        cases.setdefault(first["build"]["commit"], []).append(name)
    newest, *others = cases
    return newest + "".join(f" ({', '.join(cases[commit])}: {commit})" for commit in others)


def latency_rows(results):
    for name, case in results.items():
        parts = name.split(".")
        if parts[1] != "latency":
            continue
        model, precision = parts[0], parts[2]
        for result in case["results"]:
            peer = PEER["itl_ms"].get(f"{model}.{precision}", {}).get(str(result["batch_size"]))
            yield model, precision, result["batch_size"], floor_ms(model, result), result["itl_s"] * 1e3, peer


def table(head, rows):
    cells = [[("–" if cell is None else f"{cell:,.2f}" if isinstance(cell, float) else str(cell)) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *cells])


def main():
    source = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bench/results/serving_h200.json"
    results = json.loads(source.read_text())
    first = next(case["results"][0] for case in results.values() if "device" in case["results"][0])
    itl = list(latency_rows(results))
    throughput = [(name.split(".")[0], name.split(".")[2], name.split(".")[3], case["results"][0]["output_tokens_per_second"],
                   PEER["output_tokens_per_second"].get(name.replace("throughput.", "")))
                  for name, case in results.items() if ".throughput." in name]
    ttft = [(name.split(".")[0], name.split(".")[2], int(name.split(".")[3]), case["results"][0]["ttft_s"] * 1e3,
             PEER["first_token_ms"].get(f"{name.split('.')[0]}.{name.split('.')[2]}", {}).get(name.split(".")[3]))
            for name, case in results.items() if ".first_token." in name]
    figures = ROOT / "docs/figures"
    figures.mkdir(parents=True, exist_ok=True)
    bar_plot(figures / "itl.svg", "Time per token of a batch, 128 tokens in", "ms, less is better",
             [(f"{NAMES[m]} {PRECISIONS[p]}, batch {b}", {"floor": f, "octet": o, **({"vLLM": v} if v else {})}) for m, p, b, f, o, v in itl if m == "8b"])
    bar_plot(figures / "throughput.svg", "Many requests", "output tokens/s, more is better",
             [(f"{NAMES[m]} {PRECISIONS[p]} {load.replace('_', '/')}", {"octet": o, **({"vLLM": v} if v else {})}) for m, p, load, o, v in throughput])
    ratio = lambda a, b: None if not b else a / b
    text = f"""# Performance

One {first["device"].split(" (")[0]}, octet {commits_of(results)}; written by `bench/performance_page.py` from
`{source.relative_to(ROOT)}`, which holds every number and command (`bench/gpu/serving.py`). Random weights of the published shapes, random
prompts, greedy, nothing shared between requests; weights E4M3 (one scale a tensor), activations quantised per token while running, lm_head BF16
unless it says otherwise. Floor: the bytes that a step must read at {PEER["read_bandwidth"] / 1e12:.2f} TB/s. vLLM's column is not of the same run:
{PEER["source"]}.

## Time per token

![ITL](figures/itl.svg)

{table(["model", "precision", "batch", "floor, ms", "octet, ms", "vLLM 0.22, ms", "vLLM / octet", "floor / octet"],
       [[NAMES[m], PRECISIONS[p], b, f, o, v, ratio(v or 0, o) if v else None, f / o] for m, p, b, f, o, v in itl])}

## First token, batch 1

{table(["model", "precision", "prompt", "octet, ms", "vLLM 0.22, ms", "vLLM / octet"],
       [[NAMES[m], PRECISIONS[p], n, o, v, ratio(v or 0, o) if v else None] for m, p, n, o, v in ttft])}

## Many requests

![Throughput](figures/throughput.svg)

{table(["model", "precision", "requests_prompt_output", "octet, output tokens/s", "vLLM 0.22", "octet / vLLM"],
       [[NAMES[m], PRECISIONS[p], load, round(o), v, o / v if v else None] for m, p, load, o, v in throughput])}

Matmuls beside torch's: [bench/results/matmul_h100.md](../bench/results/matmul_h100.md). The CPU beside llama.cpp:
[bench/results](../bench/results).
"""
    (ROOT / "docs/performance.md").write_text(text)


if __name__ == "__main__":
    main()
