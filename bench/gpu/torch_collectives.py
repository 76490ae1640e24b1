#!/usr/bin/env python3
"""NCCL's all-reduce through torch.distributed, timed as collectives_bench times octet's: CUDA graphs, one process a GPU.

Usage: torch_collectives.py [WORLD_SIZE]    (2)

Prints one JSON object a line: {"op", "kernel", "world_size", "bytes", "us"}; us is rank 0's median time of one.
"""
import json
import os
import statistics
import sys

import torch
import torch.distributed as dist

SIZES = [1 << shift for shift in (10, 12, 14, 16, 17, 18, 19, 20, 21, 22, 24, 26)]
REPLAYS = 7


def graph_us(count, work):
    """Microseconds of one of `count` launches in replays of a graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
        torch.cuda.synchronize()
        dist.barrier()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(count):
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


def run(rank, world_size):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511")
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=world_size, device_id=torch.device("cuda", rank))
    for size in SIZES:
        x = torch.ones(size // 2, dtype=torch.bfloat16, device="cuda")
        us = graph_us(20 if size > 1 << 20 else 100, lambda: dist.all_reduce(x))
        if rank == 0:
            version = ".".join(map(str, torch.cuda.nccl.version()))
            print(json.dumps({"op": "all_reduce", "kernel": f"nccl {version}", "world_size": world_size, "bytes": size,
                              "us": round(us, 3)}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    ranks = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.multiprocessing.spawn(run, args=(ranks,), nprocs=ranks)
