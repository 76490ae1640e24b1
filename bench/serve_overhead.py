#!/usr/bin/env python3
"""What serving costs beside the model: processor time per streamed token of the HTTP, output and worker threads, latency of
/health under that load, memory of streams that wait. Usage: serve_overhead.py OCTET MODEL [--tiny] [--streams N] [--tokens N]
[--idle N]; prints JSON. With --tiny the model's tokenizer with a tiny model of random weights, so that the engine takes
little of the machine."""
import argparse
import json
import os
import pathlib
import selectors
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "e2e"))
from serving import Server, http_post, make_tiny_model  # noqa: E402

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def thread_seconds(pid):
    """Processor seconds by thread name."""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        seconds[name] = seconds.get(name, 0) + (int(fields[11]) + int(fields[12])) * TICK_S
    return seconds


def resident_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024


def probe_health(server, stop, times):
    while not stop.is_set():
        started = time.perf_counter()
        assert server.get("/health")[0] == 200
        times.append(time.perf_counter() - started)
        time.sleep(0.05)


def stream(server, count, tokens):
    """Runs `count` streams together to their ends; their chunks' bytes."""
    body = {"prompt": [17, 23, 42, 99], "max_tokens": tokens, "ignore_eos": True, "stream": True}
    ready = selectors.DefaultSelector()
    for _ in range(count):
        ready.register(server.open(http_post("/v1/completions", body, "Connection: close\r\n")), selectors.EVENT_READ)
    num_bytes = 0
    while ready.get_map():
        for key, _ in ready.select():
            piece = key.fileobj.recv(1 << 16)
            num_bytes += len(piece)
            if not piece:
                ready.unregister(key.fileobj)
                key.fileobj.close()
    return num_bytes


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def measure_streams(options):
    server = Server(options.octet, options.model, *options.flags, "--max-num-seqs", options.streams, "--no-access-log")
    stream(server, options.streams, 2)  # warm
    stop, times = threading.Event(), []
    probe = threading.Thread(target=probe_health, args=(server, stop, times))
    probe.start()
    before, generated = thread_seconds(server.process.pid), server.metric("vllm:generation_tokens_total")
    started = time.monotonic()
    num_bytes = stream(server, options.streams, options.tokens)
    wall = time.monotonic() - started
    after = thread_seconds(server.process.pid)
    stop.set()
    probe.join()
    num_tokens = server.metric("vllm:generation_tokens_total") - generated
    spent = {name: after.get(name, 0) - before.get(name, 0) for name in ("octet-http", "octet-output", "octet-worker")}
    server.stop()
    return {"streams": options.streams, "tokens": num_tokens, "wall_s": round(wall, 2), "tokens_per_s": round(num_tokens / wall, 1),
            "us_per_token": {name: round(1e6 * value / num_tokens, 2) for name, value in spent.items()},
            "us_per_token_together": round(1e6 * sum(spent.values()) / num_tokens, 2),
            "bytes_per_token": round(num_bytes / num_tokens),
            "health_ms": {"n": len(times), "p50": round(1e3 * percentile(times, 0.5), 2), "p99": round(1e3 * percentile(times, 0.99), 2)}}


def measure_idle(options):
    """Memory of streams that wait for their turn behind two that run."""
    server = Server(options.octet, options.model, *options.flags, "--max-num-seqs", 2, "--max-num-queued-reqs", options.idle + 10,
                    "--no-access-log")
    stream(server, 2, 2)
    before = resident_mib(server.process.pid)
    body = {"prompt": [17, 23, 42, 99], "max_tokens": 1000, "ignore_eos": True, "stream": True}
    connections = [server.open(http_post("/v1/completions", body)) for _ in range(options.idle)]
    server.wait_for(lambda: server.get("/load")[1]["server_load"] == options.idle, timeout=120)
    after = resident_mib(server.process.pid)
    started = time.monotonic()
    for connection in connections:
        connection.close()
    server.wait_for(lambda: server.get("/load")[1]["server_load"] == 0, timeout=120)
    freed = time.monotonic() - started
    server.stop()
    return {"streams": options.idle, "mib": round(after - before, 1), "kib_per_stream": round((after - before) * 1024 / options.idle, 2),
            "s_until_all_aborted": round(freed, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("octet")
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    options.flags = ["--load-format", "dummy", "--threads", 1] if options.tiny else []
    with tempfile.TemporaryDirectory() as folder:
        if options.tiny:
            options.model = make_tiny_model(pathlib.Path(options.model), pathlib.Path(folder) / "tiny")
        print(json.dumps({"streaming": measure_streams(options), "waiting": measure_idle(options)}, indent=2))


if __name__ == "__main__":
    main()
