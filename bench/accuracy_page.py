#!/usr/bin/env python3
"""Quantises a model in every scheme and recipe, and in the incumbents' arithmetic, measures each against the source and
writes docs/accuracy.md from that.

Usage: bench/accuracy_page.py --octet PROGRAM --model FOLDER --calibration FILE|DIR --text FILE
       bench/accuracy_page.py --page        (only the page, from the results that are there)

--text: what all are judged on, in samples of --max-seq-len tokens; nothing is learned from it. Every row is one run of
`octet quantize`, which runs source and result over that text layer by layer, with the kernels and formats that serving uses,
and reports the KL divergence with its 95 % interval (Student's t over samples), top-1 agreement and perplexity. Rows that
RESULTS has of the same commit and sizes are not run again. RESULTS: bench/results/accuracy-<model>.json, with every command."""
import argparse
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "accuracy.md"

# name: arguments. What needs no calibration text but for measuring gets a single sample of it.
ROWS = {
    "FP8 per tensor, AutoFP8's arithmetic": ["--scheme", "fp8", "--recipe", "baseline-autofp8"],
    "FP8 per tensor, llm-compressor's": ["--scheme", "fp8", "--recipe", "baseline-llmc"],
    "FP8 per channel, llm-compressor's": ["--scheme", "fp8_channel", "--recipe", "baseline-llmc"],
    "FP8 per channel, llm-compressor's GPTQ": ["--scheme", "fp8_channel", "--recipe", "baseline-llmc-gptq"],
    "FP8 in blocks, llm-compressor's": ["--scheme", "fp8_block", "--recipe", "baseline-llmc"],
    "INT8, llm-compressor's": ["--scheme", "int8", "--recipe", "baseline-llmc"],
    "INT8, llm-compressor's GPTQ": ["--scheme", "int8", "--recipe", "baseline-llmc-gptq"],
    "`fp8`": ["--scheme", "fp8"],
    "`fp8_channel`": ["--scheme", "fp8_channel"],
    "`fp8_channel --recipe fast`": ["--scheme", "fp8_channel", "--recipe", "fast"],
    "`fp8_channel --recipe best`": ["--scheme", "fp8_channel", "--recipe", "best"],
    "`fp8_channel --recipe best --smooth off`": ["--scheme", "fp8_channel", "--recipe", "best", "--smooth", "off"],
    "`fp8_block`": ["--scheme", "fp8_block"],
    "`fp8_block --recipe best`": ["--scheme", "fp8_block", "--recipe", "best"],
    "`int8`": ["--scheme", "int8"],
    "`int8 --smooth auto`": ["--scheme", "int8", "--smooth", "auto"],
    "`int8 --recipe best --smooth off`": ["--scheme", "int8", "--recipe", "best", "--smooth", "off"],
    "`int8 --recipe best`": ["--scheme", "int8", "--recipe", "best"],
    "`mixed --recipe best --plain-share 0`": ["--scheme", "mixed", "--recipe", "best", "--plain-share", "0"],
    "`mixed --recipe best`": ["--scheme", "mixed", "--recipe", "best"],
    "`mixed --recipe best --plain-share 0.1`": ["--scheme", "mixed", "--recipe", "best", "--plain-share", "0.1"],
    "`w8a16`": ["--scheme", "w8a16"],
    "`w8a16 --recipe best`": ["--scheme", "w8a16", "--recipe", "best"],
}
# (what, of which rows the best, against which rows the best, at most so many times its divergence)
TARGETS = [
    ("the best FP8 recipe, against FP8 by llm-compressor without GPTQ", ["`fp8_channel --recipe best`", "`fp8_block --recipe best`",
     "`fp8_channel --recipe best --smooth off`"], ["FP8 per tensor, llm-compressor's", "FP8 per channel, llm-compressor's", "FP8 in blocks, llm-compressor's"], 0.7),
    ("INT8 or mixed, against the same", ["`int8 --recipe best`", "`mixed --recipe best`", "`mixed --recipe best --plain-share 0`"],
     ["FP8 per tensor, llm-compressor's", "FP8 per channel, llm-compressor's", "FP8 in blocks, llm-compressor's"], 0.3),
    ("FP8 per tensor to the nearest, against AutoFP8's", ["`fp8`"], ["FP8 per tensor, AutoFP8's arithmetic"], 1.0),
    ("FP8 per tensor to the nearest, against llm-compressor's", ["`fp8`"], ["FP8 per tensor, llm-compressor's"], 1.0),
    ("FP8 per channel to the nearest, against llm-compressor's", ["`fp8_channel`"], ["FP8 per channel, llm-compressor's"], 1.0),
    ("FP8 in blocks to the nearest, against llm-compressor's", ["`fp8_block`"], ["FP8 in blocks, llm-compressor's"], 1.0),
    ("INT8 to the nearest, against llm-compressor's", ["`int8`"], ["INT8, llm-compressor's"], 1.0),
]


def learns(arguments):
    return any(word in arguments for word in ("fast", "best", "baseline-llmc-gptq", "auto", "mixed"))


def measure(options, arguments):
    samples = options.num_samples if learns(arguments) else 1
    command = [options.octet, "quantize", options.model, *arguments, "--calibration", options.calibration, "--num-samples", str(samples),
               "--max-seq-len", str(options.max_seq_len), "--held-out", options.text, "--num-held-out", str(options.num_held_out),
               "--num-threads", str(options.num_threads)]
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "out"
        start = time.monotonic()
        subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        report = json.loads((out / "report.json").read_text())
        files = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    shown = [pathlib.Path(word).name if word in (options.octet, options.model, options.calibration, options.text) else word for word in command]
    return {"command": " ".join([*shown, "--out", "OUT"]), "seconds": round(seconds, 1), "bytes": files, **report["model"],
            "calibration_tokens": report["calibration"]["num_tokens"] if learns(arguments) else 0}


def cells(row):
    low, high = row["kl_divergence_interval"]
    return (f"{row['kl_divergence']:.5f} ({low:.5f} to {high:.5f}) | {row['kl_divergence_p99']:.4f} | {100 * row['top1_agreement']:.2f} % | "
            f"{row['perplexity']:.3f} | {row['bytes'] / 2**20:.1f}")


def target_lines(rows):
    for what, ours, theirs, most in TARGETS:
        ours, theirs = [name for name in ours if name in rows], [name for name in theirs if name in rows]
        if not ours or not theirs:
            continue
        a = min(ours, key=lambda name: rows[name]["kl_divergence"])
        b = min(theirs, key=lambda name: rows[name]["kl_divergence"])
        ratio = rows[a]["kl_divergence"] / rows[b]["kl_divergence"]
        higher = rows[a]["top1_agreement"] >= rows[b]["top1_agreement"]
        yield (f"| {what} | {a} | {b} | {ratio:.3f} | {most} | {'yes' if ratio <= most else 'no'} | "
               f"{100 * rows[a]['top1_agreement']:.2f} %, {100 * rows[b]['top1_agreement']:.2f} %{'' if higher else ' (lower)'} |")


def write_page():
    text = ["# Accuracy", "", "Written by `bench/accuracy_page.py`; `bench/results/accuracy-*.json` has every number with its command. KL divergence from the source",
            "(BF16 weights, activations and cache in F32 on this machine) in nats a token over text that nothing was learned from, with its 95 % interval",
            "(Student's t over samples); perplexity of the same tokens. All rows are octet's engine with the same kernels: the incumbents' rows have the weights and scales that",
            "their arithmetic gives (`octet/quantizer/baseline_rounding.h`, checked bit for bit against compressed-tensors and, for AutoFP8, its published expression in torch; GPTQ's baseline is not checked against its package), not their whole pipelines.", ""]
    for path in sorted(RESULTS.glob("accuracy-*.json")):
        results = json.loads(path.read_text())
        rows, facts = results["rows"], results["facts"]
        first = next(iter(rows.values()))
        text += [f"## {facts['model']}", "", f"{facts['machine']}, {facts['commit']}, {facts['date']}. Judged on {first['num_tokens']:,} tokens of {facts['text']} in "
                 f"{first['num_samples']} samples of {facts['max_seq_len']}, where the source has a perplexity of {first['source_perplexity']:.3f}; recipes learned from "
                 f"{max(row['calibration_tokens'] for row in rows.values()):,} tokens of {facts['calibration']}.", "", facts.get("note", ""), "",
                 "| | KL divergence | p99 | top-1 agreement | perplexity | MiB |", "| --- | --- | --- | --- | --- | --- |",
                 f"| source, BF16 | 0 | 0 | 100 % | {first['source_perplexity']:.3f} | {facts['source_bytes'] / 2**20:.1f} |"]
        text += [f"| {name} | {cells(rows[name])} |" for name in ROWS if name in rows]
        text += ["", "Targets:", "", "| what | octet's | theirs | ratio of divergences | target | met | top-1 agreement |", "| --- | --- | --- | --- | --- | --- | --- |",
                 *target_lines(rows), ""]
    PAGE.write_text("\n".join(text).rstrip() + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("octet", "model", "calibration", "text"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--num-samples", type=int, default=32)
    parser.add_argument("--num-held-out", type=int, default=16)
    parser.add_argument("--max-seq-len", type=int, default=512)
    parser.add_argument("--num-threads", type=int, default=0)
    parser.add_argument("--rows", default="", help="only these, by their names as on the page, separated by semicolons")
    parser.add_argument("--note", default="", help="a sentence for the page")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.page:
        return write_page()
    if not (options.octet and options.model and options.calibration and options.text):
        parser.error("--octet, --model, --calibration and --text are needed")
    version = subprocess.run([options.octet, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    model = pathlib.Path(options.model)
    facts = {"model": model.name, "commit": version, "text": pathlib.Path(options.text).name, "calibration": pathlib.Path(options.calibration).name,
             "num_samples": options.num_samples, "num_held_out": options.num_held_out, "max_seq_len": options.max_seq_len,
             "source_bytes": sum(path.stat().st_size for path in model.glob("*.safetensors"))}
    path = RESULTS / f"accuracy-{model.name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    rows = known["rows"] if all(known.get("facts", {}).get(key) == value for key, value in facts.items()) else {}
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    facts |= {"machine": cpu, "date": time.strftime("%Y-%m-%d", time.gmtime()), "note": options.note}
    for name, arguments in ROWS.items():
        if name in rows or (options.rows and name not in options.rows.split(";")):
            continue
        rows[name] = measure(options, arguments)
        path.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")
        write_page()
        print(f"{name}: {cells(rows[name])}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
