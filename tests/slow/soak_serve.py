#!/usr/bin/env python3
"""Soak of `octet serve`: for as long as it is told, streams, whole answers, cancels, drops, malformed input, long prompts and
structured output, in rounds. Between rounds the server is left until it is idle; then its memory and descriptors are taken and a
canary is asked. In the end it fails unless

- memory grew by at most 1 % an hour after warm-up (median of all slopes between two rounds: one odd round does not matter), or by
  less than half a MiB in all, which a run of ten minutes cannot tell from a step,
- as many descriptors are open as after warm-up, no request is left and every KV block is free,
- the canary's answer was the same bytes each time, and no request got another status than it should have.

Weights are random ones of a tiny model with the real tokenizer: more requests in the same time, hence more to leak from.
Usage: soak_serve.py --octet PROGRAM --model FOLDER [--minutes 10] [--clients 4] [--pause 0.05] [--seed N] [--report FILE]"""
import argparse
import collections
import http.client
import json
import os
import pathlib
import platform
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from serving import Server, http_post, make_tiny_model  # noqa: E402

ROUND_S = 20
WARM_UP_S = 300  # at most half of the run; until then a process of 50 MiB still takes pages that it then keeps
MOST_GROWTH_PER_HOUR = 0.01
MOST_STEPS_KIB = 512  # in all: memory comes in steps of 40 to 160 KiB, of which one in ten minutes would count as 1 to 4 % an hour
TIMEOUT_S = 60
CONTEXT = 1024
WORDS = "the rain bread sea iron letter winter bees clock salt map river stone bird engine cloud lamp ship".split()
CANARY = {"prompt": "The capital of France is", "max_tokens": 48, "temperature": 0, "ignore_eos": True, "logprobs": 2}
SCHEMAS = [{"type": "object", "properties": {name: {"type": "string", "minLength": 1, "maxLength": 8}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": [name, "n"], "additionalProperties": False} for name in WORDS[1:7]]
MALFORMED = [
    b"", b"{", b"[]", b"null", b'{"prompt":', b'{"prompt": 5}', b'{"prompt": [-1]}', b'{"prompt": "a", "max_tokens": 0}',
    b'{"prompt": "a", "temperature": 1e999}', b'{"prompt": "a", "n": 100000}', b'{"prompt": "a", "stop": [""]}', b"[" * 5000,
    b'{"prompt": "\xff\xfe"}', b'{"prompt": "a", "logit_bias": {"99999999": 1}}', b'{"prompt": "a", "guided_regex": "(a"}',
    b'{"prompt": "a", "response_format": {"type": "json_schema"}}', b'{"prompt": "a", "guided_grammar": "root ::= root"}',
    json.dumps({"prompt": "a", "guided_json": {"type": "object", "not": {}}}).encode(),
    json.dumps({"prompt": "x " * 5000}).encode()]


class Wrong(Exception):
    """An answer that should have been another."""


class Client:
    """Does one thing after another with the server; what it did is counted, what went wrong is kept."""

    def __init__(self, server, seed):
        self.server, self.random = server, random.Random(seed)
        self.counts, self.wrong = collections.Counter(), []
        self.actions = [(6, self.stream), (4, self.whole), (3, self.cancel), (2, self.reset), (3, self.malformed), (2, self.junk),
                        (2, self.half), (1, self.long_prompt), (2, self.structured), (1, self.chat), (1, self.small)]

    def run(self, until, pause):
        weights, actions = zip(*self.actions)
        while time.monotonic() < until:
            action = self.random.choices(actions, weights)[0]
            try:
                action()
            except Exception as error:  # whatever it is, it is the soak's finding
                self.wrong.append(f"{action.__name__}: {type(error).__name__}: {error}"[:500])
            self.counts[action.__name__] += 1
            time.sleep(pause)

    def text(self, most):
        return " ".join(self.random.choices(WORDS, k=self.random.randrange(1, most)))

    def body(self, **fields):
        return {"prompt": self.text(40), "max_tokens": self.random.randrange(1, 48), "seed": self.random.randrange(99), "ignore_eos": True, **fields}

    def ask(self, path, body, expected=200):
        status, answer = self.server.post(path, body)
        if status == 503 and answer["error"]["code"] == "queue_full":
            self.counts["refused because full"] += 1
            return None
        if status != expected:
            raise Wrong(f"{path}: status {status} instead of {expected}: {answer}")
        return answer

    def start_stream(self, **fields):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT_S)
        connection.request("POST", "/v1/completions", json.dumps(self.body(stream=True, **fields)))
        answer = connection.getresponse()
        if answer.status not in (200, 503):
            raise Wrong(f"stream: status {answer.status}: {answer.read()}")
        return connection, answer

    def stream(self):
        connection, answer = self.start_stream(stream_options={"include_usage": True})
        data = answer.read()
        connection.close()
        if answer.status == 200 and not data.endswith(b"data: [DONE]\n\n"):
            raise Wrong(f"a stream ends with {data[-200:]}")

    def whole(self):
        self.ask("/v1/completions", self.body(n=self.random.randrange(1, 4), logprobs=self.random.choice([None, 0, 3])))

    def cancel(self):
        connection, answer = self.start_stream(max_tokens=900)
        for _ in range(self.random.randrange(4)):
            answer.readline()
        answer.close()
        connection.close()

    def reset(self):
        connection = self.server.open(http_post("/v1/completions", self.body(stream=self.random.random() < 0.5, max_tokens=900)))
        time.sleep(self.random.random() * 0.05)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    def malformed(self):
        path = self.random.choice(["/v1/completions", "/v1/chat/completions", "/v1/messages", "/tokenize"])
        body = self.random.choice(MALFORMED)
        status, answer = self.server.post(path, body)
        readable = path == "/tokenize" and status == 200  # of whose fields only the prompt is read there
        if not 400 <= status < 500 and status != 503 and not readable:
            raise Wrong(f"{path} {body[:80]}: status {status}: {answer}")

    def junk(self):
        connection = self.server.open(self.random.randbytes(self.random.randrange(1, 400)) + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(12)
        connection.close()
        if answer and answer[:10] != b"HTTP/1.1 4" and answer[:10] != b"HTTP/1.1 5":
            raise Wrong(f"junk is answered {answer}")

    def half(self):
        data = http_post("/v1/completions", self.body())
        self.server.open(data[:self.random.randrange(len(data))]).close()

    def long_prompt(self):
        self.ask("/v1/completions", self.body(prompt=[self.random.randrange(1000) for _ in range(CONTEXT - 64)], max_tokens=8))

    def structured(self):
        answer = self.ask("/v1/completions", self.body(guided_json=self.random.choice(SCHEMAS), max_tokens=200, ignore_eos=False))
        if answer and answer["choices"][0]["finish_reason"] == "stop":
            json.loads(answer["choices"][0]["text"])

    def chat(self):
        self.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": self.text(30)}], "max_tokens": 16, "logprobs": True})

    def small(self):
        tokens = self.ask("/tokenize", {"prompt": self.text(30)})["tokens"]
        self.ask("/detokenize", {"tokens": tokens})
        self.server.metrics()


class Process:
    """What the system knows of the server's process."""

    def __init__(self, pid):
        self.folder = pathlib.Path(f"/proc/{pid}")

    def memory_kib(self):
        rows = dict(line.split(":", 1) for line in (self.folder / "status").read_text().splitlines())
        return int(rows["RssAnon"].split()[0])

    def descriptors(self):
        return len(list((self.folder / "fd").iterdir()))


def growth_per_hour(samples):
    """Share of the median memory, an hour: the median of the slopes between all pairs of rounds (Theil and Sen)."""
    slopes = [(b["memory_kib"] - a["memory_kib"]) / (b["seconds"] - a["seconds"]) for i, a in enumerate(samples) for b in samples[i + 1:]]
    return statistics.median(slopes) * 3600 / statistics.median(sample["memory_kib"] for sample in samples)


class Soak:
    def __init__(self, server, options):
        self.server, self.options, self.process = server, options, Process(server.process.pid)
        self.clients = [Client(server, options.seed * 1000 + i) for i in range(options.clients)]
        self.samples, self.findings = [], []
        self.canary = None

    def is_idle(self):
        values = self.server.metrics()
        busy = sum(value for name, value in values.items() if name.split("{")[0] in ("vllm:num_requests_running", "vllm:num_requests_waiting"))
        return busy == 0 and self.server.get("/load")[1]["server_load"] == 0

    def ask_canary(self):
        answer = self.server.post("/v1/completions", CANARY)[1]["choices"]
        if self.canary is None:
            self.canary = answer
        elif answer != self.canary:
            self.findings.append(f"round {len(self.samples)}: the canary answers {answer[0]['text']!r}, before {self.canary[0]['text']!r}")

    def one_round(self, started):
        until = time.monotonic() + ROUND_S
        threads = [threading.Thread(target=client.run, args=(until, self.options.pause)) for client in self.clients]
        for thread in threads:
            thread.start()
        time.sleep(ROUND_S / 2)
        self.ask_canary()  # among the others
        for thread in threads:
            thread.join()
        self.server.wait_for(self.is_idle)
        self.ask_canary()
        time.sleep(0.5)  # until connections just closed are gone
        self.samples.append({"seconds": round(time.monotonic() - started, 1), "memory_kib": self.process.memory_kib(),
                             "descriptors": self.process.descriptors()})
        print(self.samples[-1], flush=True)

    def run(self):
        started = time.monotonic()
        self.ask_canary()
        while time.monotonic() - started < self.options.minutes * 60:
            self.one_round(started)
            if self.server.process.poll() is not None:
                self.findings.append(f"the server ended with {self.server.process.returncode}: {self.server.text_of_log()[-2000:]}")
                break
        return self.judge()

    def judge(self):
        for client in self.clients:
            self.findings += client.wrong
        warm_up = min(WARM_UP_S, self.samples[-1]["seconds"] / 2)
        steady = [sample for sample in self.samples if sample["seconds"] > warm_up]
        growth = growth_per_hour(steady) if len(steady) > 1 else float("nan")
        if len(steady) < 2:
            self.findings.append("too short: memory cannot be judged by one round")
        elif growth > MOST_GROWTH_PER_HOUR and steady[-1]["memory_kib"] - steady[0]["memory_kib"] > MOST_STEPS_KIB:
            self.findings.append(f"memory grows by {growth:.2%} an hour after warm-up, at most {MOST_GROWTH_PER_HOUR:.0%} allowed")
        if steady[-1]["descriptors"] > steady[0]["descriptors"]:
            self.findings.append(f"descriptors: {steady[0]['descriptors']} after warm-up, {steady[-1]['descriptors']} in the end")
        usage = self.server.metric("vllm:kv_cache_usage_perc")
        if usage != 0:
            self.findings.append(f"KV cache usage is {usage} though nothing runs")
        counts = sum((client.counts for client in self.clients), collections.Counter())
        return {"minutes": self.samples[-1]["seconds"] / 60, "growth_per_hour": growth, "kv_cache_usage": usage,
                "actions": dict(sorted(counts.items())), "samples": self.samples, "findings": self.findings}


def facts(options):
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True,
                            cwd=pathlib.Path(__file__).parent).stdout.strip()
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return {"command": f"soak_serve.py --minutes {options.minutes:g} --clients {options.clients} --pause {options.pause:g} --seed {options.seed}",
            "commit": commit, "machine": f"{model}, {os.cpu_count()} cores", "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--octet", required=True)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds that a client rests between two things")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 20))
    parser.add_argument("--report", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(options.octet, make_tiny_model(options.model, pathlib.Path(folder) / "tiny"), "--load-format", "dummy", "--threads", 1,
                        "--max-num-seqs", 8, "--max-model-len", CONTEXT, "--kv-cache-memory-bytes", 4 << 20, "--no-access-log")
        result = facts(options) | Soak(server, options).run()
        status = server.stop()
    if status != 0:
        result["findings"].append(f"the server's exit status is {status}")
    if options.report:
        options.report.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "samples"}, indent=1))
    sys.exit(1 if result["findings"] else 0)


if __name__ == "__main__":
    main()
