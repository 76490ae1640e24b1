#!/usr/bin/env python3
"""What octet costs besides the model's own arithmetic, on SmolLM2-135M and this machine's CPU: start-up, resident memory, the
program's size, the engine's work per step, the tokenizers' speed. Writes JSON and a Markdown table with the targets.

Usage: bench/measure_start.py --build build/bench --out bench/results/NAME [--tokenizers FOLDER]
Needs .cache/models/SmolLM2-135M-Instruct (quickstart.sh), a build with OCTET_BENCH, and for real vocabularies the FOLDER that
tests/slow/tokenizers_vs_hf.py leaves. Keep other load off the machine.
"""
import argparse
import array
import datetime
import json
import math
import multiprocessing
import os
import pathlib
import re
import shutil
import statistics
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / ".cache/models/SmolLM2-135M-Instruct"
MIB = 1 << 20
PROMPT, OUTPUT, ROUNDS_RUN = 512, 16, 2  # of the memory measurement: one round to warm up, one measured


def e4m3_code(value):
    """Round to nearest even, saturating, as octet and torch do."""
    sign, value = (0x80, -value) if math.copysign(1.0, value) < 0 else (0, value)
    if value >= 448:
        return sign | 0x7e
    exponent = max(math.frexp(value)[1] - 1, -6) if value else -6
    return sign | (round(value / 2.0 ** (exponent - 3)) + (exponent + 6) * 8)


def write_fp8_checkpoint(folder):
    """SmolLM2 with its linears stored in E4M3, one scale (a power of two) per tensor, as AutoFP8 lays them out."""
    blob = (MODEL / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", blob[:8])[0]
    header, data = json.loads(blob[8:8 + length]), memoryview(blob)[8 + length:]
    tables, out_header, out = {}, {}, []

    def add(name, dtype, shape, content):
        begin = sum(len(part) for part in out)
        out.append(bytes(content))
        out_header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + len(out[-1])]}

    for name, entry in header.items():
        if name == "__metadata__":
            continue
        content = data[slice(*entry["data_offsets"])]
        if not name.endswith("_proj.weight"):
            add(name, entry["dtype"], entry["shape"], content)
            continue
        values = array.array("H", bytes(content))
        largest = struct.unpack("<f", struct.pack("<HH", 0, max(v & 0x7fff for v in set(values))))[0]
        power = math.ceil(math.log2(largest / 448))
        if power not in tables:
            reals = struct.unpack("<65536f", b"".join(struct.pack("<HH", 0, v) for v in range(1 << 16)))
            tables[power] = [e4m3_code(r / 2.0 ** power) if math.isfinite(r) else 0x7f for r in reals]
        add(name, "F8_E4M3", entry["shape"], bytes(map(tables[power].__getitem__, values)))
        add(name + "_scale", "F32", [], struct.pack("<f", 2.0 ** power))
    folder.mkdir(parents=True, exist_ok=True)
    for path in MODEL.glob("*.json"):
        shutil.copy(path, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config))
    text = json.dumps(out_header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(out))


def run(*command):
    """Wall-clock and processor seconds, the largest resident memory (shared file pages included) and what was printed."""
    start = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command}: {text}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text


def measure_start(octet, models, rounds):
    results = {}
    for name, flags in models.items():
        runs = [run(octet, "generate", *flags, "-p", "Hi", "--max-tokens", 1) for _ in range(rounds)]
        loads = [float(re.search(r"loaded in ([\d.]+) s", text).group(1)) for *_, text in runs]
        results[name] = {"seconds": statistics.median(r[0] for r in runs), "load_seconds": statistics.median(loads),
                         "processor_seconds": statistics.median(r[1] for r in runs)}
    return results


def measure_memory(octet, models):
    """What is resident besides the weights and the KV of all tokens that were computed: pages of the cache that nobody wrote
    are not there."""
    results, report = {}, ROOT / "build/measure_start.json"
    for name, flags in models.items():
        _, _, resident, _ = run(octet, "bench", "latency", *flags, "--max-model-len", 2048, "--batch-size", 1,
                             "--input-len", PROMPT, "--output-len", OUTPUT, "--num-iters", ROUNDS_RUN - 1, "--num-iters-warmup", 1,
                             "--output-json", report)
        facts = json.loads(report.read_text())
        weights, kv = facts["weight_bytes"], facts["kv_bytes_per_token"] * (PROMPT + OUTPUT) * ROUNDS_RUN
        results[name] = {"resident_mib": resident / MIB, "weights_mib": weights / MIB, "written_kv_mib": kv / MIB,
                         "rest_mib": (resident - weights - kv) / MIB}
    return results


def measure_engine(program, rounds):
    lines = [json.loads(line) for _ in range(rounds) for line in run(program)[-1].splitlines()]
    return {f"{'with' if overlap else 'without'} overlap": {
        key: statistics.median(line[key] for line in lines if line["overlap"] == overlap) for key in ("us_per_step", "us_ranks_wait")}
        for overlap in (True, False)}


def measure_tokenizers(program, folders):
    """On the repository's own sources: text that does not repeat. Prose is one small book three times over."""
    sources = ROOT / "build/measure_start.txt"
    names = run("git", "ls-files", "*.cc", "*.h", "*.md", "*.py")[-1].split()
    sources.write_bytes(b"".join((ROOT / name).read_bytes() for name in names))
    prose = ROOT / "build/measure_start_prose.txt"
    prose.write_bytes((ROOT / "tests/text/northanger_abbey.txt").read_bytes() * 3)
    results = {}
    for folder in folders:
        results[folder.name] = {kind: max(float(v) for v in re.findall(r"([\d.]+) MB/s", run(program, folder, path, 4096)[-1]))
                                for kind, path in (("source code", sources), ("prose", prose))}
    return results


def stripped_mib(octet):
    copy = ROOT / "build/measure_start.octet"
    run("strip", "-o", copy, octet)
    return copy.stat().st_size / MIB


def table(rows):
    return ["| | measured | target | |", "| --- | --- | --- | --- |"] + [
        f"| {name} | {value:.{digits}f} {unit} | {sign} {target} {unit} | {'ok' if (value <= target) == (sign == '<=') else 'MISSED'} |"
        for name, value, digits, sign, target, unit in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizers", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    octet, bench = args.build.resolve() / "tools/octet", args.build.resolve() / "bench"
    stored = ROOT / "build/SmolLM2-135M-Instruct-FP8"
    if not (stored / "model.safetensors").exists():
        # In a process of its own: a child's largest resident size counts from its parent's.
        writer = multiprocessing.Process(target=write_fp8_checkpoint, args=(stored,))
        writer.start()
        writer.join()
    models = {"BF16": [MODEL], "FP8, quantised while loading": [MODEL, "--quantization", "fp8"], "FP8, stored": [stored]}
    folders = [MODEL] + sorted(path.parent for path in args.tokenizers.glob("*/tokenizer.json")) if args.tokenizers else [MODEL]
    run(octet, "generate", *models["BF16"], "-p", "Hi", "--max-tokens", 1)  # the files are in the page cache from here on
    result = {"start": measure_start(octet, models, args.rounds), "memory": measure_memory(octet, models),
              "engine": measure_engine(bench / "engine_bench", args.rounds),
              "tokenizers": measure_tokenizers(bench / "tokenizer_bench", folders), "program_mib": stripped_mib(octet)}
    rows = [(f"start to first token, {name}", r["seconds"], 2, "<=", 1, "s") for name, r in result["start"].items()]
    rows.append(("loading FP8, stored", result["start"]["FP8, stored"]["load_seconds"], 2, "<=", 0.4, "s"))
    rows += [(f"resident memory besides weights and written KV, {name}", r["rest_mib"], 0, "<=", 100, "MiB")
             for name, r in result["memory"].items()]
    rows.append(("program, stripped", result["program_mib"], 1, "<=", 30, "MiB"))
    rows += [(f"engine without a model, 256 sequences, {name}", r["us_per_step"], 0, "<=", 100, "us a step")
             for name, r in result["engine"].items()]
    rows += [(f"tokenizer {name}, {kind}", speed, 1, ">=", 10, "MB/s")
             for name, r in result["tokenizers"].items() for kind, speed in r.items()]
    facts = {"date": datetime.date.today().isoformat(), "command": " ".join(["bench/measure_start.py", *sys.argv[1:]]),
             "version": run(octet, "--version")[-1], "load_average_1_min": os.getloadavg()[0]}
    processor = ", ".join(f"{r['processor_seconds']:.2f} s ({name})" for name, r in result["start"].items())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps({**facts, **result}, indent=1) + "\n")
    lines = [f"# Start, memory and overheads on the CPU, {facts['date']}", "", "```", facts["version"].strip(), "```", "",
             f"`{facts['command']}`", "",
             f"Wall-clock times are medians of {args.rounds}, with the files in the page cache; the engine's and the tokenizers' are "
             f"processor time of one thread. Load average at the end: {facts['load_average_1_min']:.1f}. Processor time from start to first token: "
             f"{processor}. Memory is "
             f"the largest resident size, shared file pages included, of `octet bench latency` with {ROUNDS_RUN} rounds of {PROMPT} + {OUTPUT} "
             "tokens.", ""] + table(rows)
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
