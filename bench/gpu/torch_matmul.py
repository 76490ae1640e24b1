#!/usr/bin/env python3
"""octet's and torch's matmuls side by side, in one run on one GPU.

Usage: torch_matmul.py MATMUL_BENCH OUT_DIR [--commit COMMIT] [--quick]

Runs MATMUL_BENCH (bench/gpu/matmul_bench.cu) first and then times torch on the same shapes the same way: CUDA graphs of
many launches over weights that rotate through a pool much larger than the L2 cache, random values, the median of five
replays. torch._scaled_mm runs with a scale per tensor and with one per row (of both operands), with use_fast_accum as
torch's users set it. Writes matmul.json and matmul.md to OUT_DIR.
"""
import argparse
import datetime
import json
import pathlib
import statistics
import subprocess

import torch

REPLAYS = 5
POOL_BYTES = 2684354560


def octet_rows(program, mode):
    """What the benchmark printed: one JSON object a line."""
    lines = subprocess.run([program] + mode, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def graph_us(count, work):
    """Microseconds of one of the `count` launches that `work` queues, in replays of a graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()  # libraries choose their kernels outside the graph
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            work()
        graph.replay()
        times = []
        for _ in range(REPLAYS):
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            graph.replay()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) * 1e3 / count)
    return statistics.median(times)


def num_launches(n, k, m, element_bytes):
    """As matmul_bench counts them."""
    about_us = max(n * k * element_bytes / 3e6, 2 * n * k * m / 6e8)
    return int(min(max(min(POOL_BYTES / (n * k * element_bytes), 20000 / about_us), 2), 200))


class Torch:
    """Random operands in memory, and torch's matmuls of them."""

    def __init__(self, element_bytes):
        self.element_bytes = element_bytes
        count = POOL_BYTES // element_bytes
        self.pool = torch.empty(count, dtype=torch.float8_e4m3fn if element_bytes == 1 else torch.bfloat16, device="cuda")
        for begin in range(0, count, 1 << 28):
            part = self.pool[begin:begin + (1 << 28)]
            part.copy_(torch.randn(part.numel(), device="cuda") * (100 if element_bytes == 1 else 1))

    def weight(self, n, k, index):
        size = n * k
        begin = index % max(self.pool.numel() // size, 1) * size
        return self.pool[begin:begin + size].view(n, k)

    def us(self, kind, n, k, m, count):
        x = self.pool[-m * k:].view(m, k)
        one = torch.ones((), device="cuda")
        scale_x, scale_w = torch.ones(m, 1, device="cuda"), torch.ones(1, n, device="cuda")

        def work():
            for i in range(count):
                weight = self.weight(n, k, i).t()
                if kind == "bf16":
                    torch.mm(x, weight)
                elif kind == "tensor":
                    torch._scaled_mm(x, weight, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)
                else:
                    torch._scaled_mm(x, weight, scale_x, scale_w, out_dtype=torch.bfloat16, use_fast_accum=True)

        return graph_us(count, work)


def time_torch(rows):
    """The linears that octet timed, with what torch takes for them added."""
    result = []
    for dtype, kinds in (("f8_e4m3", ("tensor", "row")), ("bf16", ("bf16",))):
        operands = Torch(1 if dtype == "f8_e4m3" else 2)
        for row in rows:
            if row["what"] != "linear" or row["dtype"] != dtype or row["linear"] == "lm_head":
                continue
            count = num_launches(row["n"], row["k"], row["m"], operands.element_bytes)
            times = {f"torch_{kind}_us": round(operands.us(kind, row["n"], row["k"], row["m"], count), 3) for kind in kinds}
            result.append(row | times)
        del operands
        torch.cuda.empty_cache()
    return result


def layer_sums(linears):
    """torch's four linears of a layer, each timed alone, added up: (layer, m, dtype) -> fastest kind's microseconds."""
    sums = {}
    for row in linears:
        best = min(value for key, value in row.items() if key.startswith("torch_"))
        key = (row["layer"], row["m"], row["dtype"])
        sums[key] = sums.get(key, 0.0) + best
    return sums


def markdown(header, reads, layers, linears):
    read = statistics.median(reads)
    lines = [f"# Matmul: octet and torch\n\n{header}\n", f"Read bandwidth in the same run: {read:.0f} GB/s.\n",
             "## The four linears of a layer, back to back\n",
             "torch: each linear timed alone, the faster kind of each, added up.\n",
             "| layer | dtype | tokens | octet us | GB/s | of the read bandwidth | torch us |", "|---|---|---|---|---|---|---|"]
    sums = layer_sums(linears)
    for row in layers:
        torch_us = sums.get((row["layer"], row["m"], row["dtype"]))
        lines.append(f"| {row['layer']} | {row['dtype']} | {row['m']} | {row['us']:.1f} | {row['gb_s']:.0f} | "
                     f"{row['gb_s'] / read:.1%} | {'' if torch_us is None else format(torch_us, '.1f')} |")
    lines += ["\n## Single linears\n", "| linear | N x K | dtype | tokens | kernel | octet us | TFLOP/s | GB/s | torch us |",
              "|---|---|---|---|---|---|---|---|---|"]
    for row in linears:
        times = " / ".join(f"{value:.1f}" for key, value in row.items() if key.startswith("torch_"))
        lines.append(f"| {row['layer']}.{row['linear']} | {row['n']} x {row['k']} | {row['dtype']} | {row['m']} | "
                     f"{row['kernel']} | {row['us']:.1f} | {row['tflop_s']:.0f} | {row['gb_s']:.0f} | {times} |")
    lines.append("\ntorch us: torch._scaled_mm per tensor / per row for f8_e4m3, torch.mm for bf16.")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matmul_bench")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    rows = octet_rows(arguments.matmul_bench, ["quick"] if arguments.quick else [])
    linears = time_torch(rows)
    layers = [row for row in rows if row["what"] == "layer"]
    reads = [row["gb_s"] for row in rows if row["what"] == "read"]
    gpu = torch.cuda.get_device_name()
    header = (f"{gpu}, octet {arguments.commit}, torch {torch.__version__}, {datetime.date.today()}; "
              f"`bench/gpu/torch_matmul.py MATMUL_BENCH OUT_DIR`.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "matmul.json").write_text(
        json.dumps({"header": header, "read_gb_s": reads, "layers": layers, "linears": linears}, indent=1) + "\n")
    (arguments.out / "matmul.md").write_text(markdown(header, reads, layers, linears))
    print((arguments.out / "matmul.md").read_text())


if __name__ == "__main__":
    main()
