"""octet bench serve: against a server of this file, whose times are known, and against octet serve. What the figures must be is
computed here from the figures of each request."""
import http.server
import json
import math
import statistics
import threading
import time

import pytest
from serving import Server, make_tiny_model

FIRST_S, NEXT_S, NUM_TOKENS = 0.15, 0.05, 4


class Scripted(http.server.BaseHTTPRequestHandler):
    """Streams NUM_TOKENS events, the first after FIRST_S, the others NEXT_S apart. Prompts that it is told to fail, fail."""
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(200, json.dumps({"data": [{"id": "fake", "root": str(self.server.tokenizer)}]}))

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def piece(self, body):
        data = f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((time.monotonic(), self.path, body))
            number = len(self.server.seen)
        if number in self.server.failing:
            return self.answer(400, '{"error": {"message": "no"}}')
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(NUM_TOKENS):
            time.sleep(NEXT_S if i else FIRST_S)
            self.piece({"choices": [{"text": f" {i}", "delta": {"content": f" {i}"}}]})
        if not self.server.without_usage:
            self.piece({"choices": [], "usage": {"completion_tokens": NUM_TOKENS}})
        self.piece("[DONE]")
        self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def scripted(model):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.tokenizer, server.seen, server.lock, server.failing, server.without_usage = model, [], threading.Lock(), set(), False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def bench(octet, port, folder, *flags):
    """(what it printed, its JSON file)."""
    path = folder / "result.json"
    text = octet.text("bench", "serve", "--port", port, "--random-input-len", 20, "--random-output-len", NUM_TOKENS,
                      "--result-filename", path, "--save-detailed", *flags)
    return text, json.loads(path.read_text())


def percentile(values, percent):
    """Linear, as numpy's."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def check_figures(result):
    good = [i for i, error in enumerate(result["errors"]) if not error]
    pick = lambda key: [result[key][i] for i in good]
    itls = [itl for one in pick("itls") for itl in one]
    tpots = [(latency - ttft) / (length - 1)
             for latency, ttft, length in zip(pick("latencies"), pick("ttfts"), pick("output_lens")) if length > 1]
    for name, values in {"ttft": pick("ttfts"), "tpot": tpots, "itl": itls, "e2el": pick("latencies")}.items():
        milliseconds = [value * 1e3 for value in values]
        assert result[f"mean_{name}_ms"] == pytest.approx(statistics.fmean(milliseconds))
        assert result[f"median_{name}_ms"] == pytest.approx(statistics.median(milliseconds))
        assert result[f"std_{name}_ms"] == pytest.approx(statistics.pstdev(milliseconds))
        assert result[f"p90_{name}_ms"] == pytest.approx(percentile(milliseconds, 90))
        assert result[f"p99_{name}_ms"] == pytest.approx(percentile(milliseconds, 99))
    assert result["completed"] == len(good)
    assert result["total_input_tokens"] == sum(pick("input_lens"))
    assert result["total_output_tokens"] == sum(pick("output_lens"))
    assert result["request_throughput"] == pytest.approx(len(good) / result["duration"])
    assert result["output_throughput"] == pytest.approx(sum(pick("output_lens")) / result["duration"])
    both = result["total_input_tokens"] + result["total_output_tokens"]
    assert result["total_token_throughput"] == pytest.approx(both / result["duration"])
    edges = sorted([(result["start_times"][i], 1) for i in good] +
                   [(result["start_times"][i] + result["latencies"][i], -1) for i in good])
    now = peak = 0
    for _, change in edges:
        now += change
        peak = max(peak, now)
    assert result["max_concurrent_requests"] == peak


METRICS = ("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "90,99")


def test_measures_what_the_server_does(octet, scripted, tmp_path):
    scripted.failing = {3}  # the first is the test request
    text, result = bench(octet, scripted.server_port, tmp_path, "--num-prompts", 8, "--max-concurrency", 4, *METRICS,
                         "--goodput", "ttft:10000", "e2el:10000", "--metadata", "card=none")
    check_figures(result)
    assert (result["completed"], result["failed"]) == (7, 1)
    assert result["max_concurrent_requests"] <= 4
    assert 'HTTP 400: {"error": {"message": "no"}}' in result["errors"]
    assert result["request_goodput"] == pytest.approx(7 / result["duration"])
    # No earlier than the server spoke; later only as far as a busy machine makes it.
    for ttft, itls, error in zip(result["ttfts"], result["itls"], result["errors"]):
        if error:
            continue
        assert FIRST_S <= ttft < FIRST_S + 0.5
        assert len(itls) == NUM_TOKENS - 1
        assert NEXT_S * 0.9 < statistics.median(itls) < NEXT_S + 0.3
    assert set(result["generated_texts"]) == {"", " 0 1 2 3"}
    assert result["card"] == "none" and result["model_id"] == "fake" and result["request_rate"] == "inf"
    for caption in ("Successful requests:                     7 ", "Failed requests:                         1 ",
                    "Maximum request concurrency:             4 ", "Request goodput (req/s):", "Peak concurrent requests:",
                    "---------------Time to First Token----------------", "P99 E2EL (ms):", "============ Serving Benchmark Result ============"):
        assert caption in text


def test_goodput_counts_what_keeps_the_limits(octet, scripted, tmp_path):
    for limits, share in ((["ttft:1"], 0), (["ttft:10000", "tpot:1"], 0), (["tpot:10000"], 1)):
        _, result = bench(octet, scripted.server_port, tmp_path, "--num-prompts", 3, "--goodput", *limits)
        assert result["request_goodput"] == pytest.approx(share * 3 / result["duration"])


def test_times_of_requests(octet, scripted, tmp_path):
    """All of them take num_prompts / rate; a Poisson process has intervals that deviate as much as their mean."""
    flags = ("--num-prompts", 40, "--request-rate", 20)
    _, poisson = bench(octet, scripted.server_port, tmp_path, *flags)
    _, even = bench(octet, scripted.server_port, tmp_path, *flags, "--burstiness", 100)
    for result in (poisson, even):
        due = [start - late for start, late in zip(result["start_times"], result["queue_times"])]
        assert due == sorted(due) and due[-1] == pytest.approx(2.0, abs=1e-6)
        assert all(0 <= late < 0.3 for late in result["queue_times"])
    spread = lambda result: statistics.pstdev(b - a for a, b in zip(result["start_times"], result["start_times"][1:]))
    assert spread(even) < 0.025 < spread(poisson)
    assert poisson["request_rate"] == 20


def test_what_is_sent(octet, scripted, tmp_path):
    bench(octet, scripted.server_port, tmp_path, "--num-prompts", 2, "--backend", "openai-chat", "--temperature", 0,
          "--top-p", 0.5, "--extra-body", '{"seed": 7}', "--num-warmups", 3)
    assert len(scripted.seen) == 1 + 3 + 2
    _, path, body = scripted.seen[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"][0]["role"] == "user" and body["max_completion_tokens"] == NUM_TOKENS
    assert (body["temperature"], body["top_p"], body["seed"], body["ignore_eos"]) == (0, 0.5, 7, True)
    assert body["stream"] and body["stream_options"] == {"include_usage": True}
    scripted.seen.clear()
    bench(octet, scripted.server_port, tmp_path, "--num-prompts", 2)
    _, path, body = scripted.seen[-1]
    assert path == "/v1/completions" and isinstance(body["prompt"], str) and body["max_tokens"] == NUM_TOKENS
    assert "temperature" not in body


def test_tokens_are_counted_where_the_server_does_not(octet, scripted, tmp_path):
    scripted.without_usage = True
    _, result = bench(octet, scripted.server_port, tmp_path, "--num-prompts", 1)
    line = octet.json_lines("tokenize", scripted.tokenizer, lines=[{"text": " 0 1 2 3", "add_special_tokens": False}])[0]
    assert result["output_lens"] == [len(line["ids"])]


def test_datasets_of_files(octet, scripted, tmp_path):
    say = lambda *turns: {"conversations": [{"from": "human", "value": turn} for turn in turns]}
    words = lambda count: " ".join(["cat"] * count)
    shared = tmp_path / "sharegpt.json"
    shared.write_text(json.dumps([say(words(10), words(20)), say(words(10)), say("cat", words(20)), say(words(10), "cat"),
                                  say(words(2000), words(20)), say(words(30), words(40))]))
    flags = ("--dataset-name", "sharegpt", "--dataset-path", shared, "--num-prompts", 2)
    _, result = bench(octet, scripted.server_port, tmp_path, *flags)
    lengths = {(len(body["prompt"].split()), body["max_tokens"]) for _, _, body in scripted.seen}
    assert {length for length, _ in lengths} == {10, 30}
    assert dict(lengths)[10] == pytest.approx(20, abs=2) and dict(lengths)[30] == pytest.approx(40, abs=2)
    assert all("ignore_eos" not in body for _, _, body in scripted.seen)
    lines = tmp_path / "custom.jsonl"
    lines.write_text('{"prompt": "one two", "output_tokens": 9}\n\n{"prompt": "three"}\n')
    scripted.seen.clear()
    bench(octet, scripted.server_port, tmp_path, "--dataset-name", "custom", "--dataset-path", lines, "--num-prompts", 3)
    assert [(body["prompt"], body["max_tokens"]) for _, _, body in scripted.seen[1:]].count(("one two", 9)) == 2


def test_bad_arguments(octet, scripted, tmp_path):
    port = scripted.server_port
    for flags, message in ((("--goodput", "itl:5"), "--goodput: must be of ttft, tpot, e2el, was itl"),
                           (("--request-rate", 0), "--request-rate: must be above 0, was 0"),
                           (("--metric-percentiles", "101"), "must be from 0 to 100"),
                           (("--extra-body", "[]"), "--extra-body: not a JSON object"),
                           (("--dataset-name", "sharegpt"), "--dataset-path: is needed"),
                           (("--dataset-name", "custom", "--dataset-path", tmp_path / "none"), str(tmp_path / "none"))):
        result = octet("bench", "serve", "--port", port, "--num-prompts", 2, *flags)
        assert result.returncode == 2 or message in result.stderr, result.stderr
        assert message in result.stderr
    broken = tmp_path / "broken.json"
    for text in ("{", "{}", "[]", '[{"conversations": [1, 2]}]', '[{"conversations": "x"}]', "[3]"):
        broken.write_text(text)
        result = octet("bench", "serve", "--port", port, "--dataset-name", "sharegpt", "--dataset-path", broken)
        assert result.returncode not in (0, -6, -11) and str(broken) in result.stderr, text
    for tokens in ("0", "-1", "1.5", '"9"', "4294967296", "18446744073709551615"):
        broken.write_text('{"prompt": "one"}\n{"prompt": "two", "output_tokens": %s}\n' % tokens)
        result = octet("bench", "serve", "--port", port, "--dataset-name", "custom", "--dataset-path", broken)
        assert result.returncode not in (0, -6, -11) and f"{broken}: line 2: output_tokens" in result.stderr, tokens
    scripted.failing = set(range(1, 100))
    result = octet("bench", "serve", "--port", port, "--num-prompts", 2)
    assert result.returncode != 0 and "HTTP 400" in result.stderr


def test_octet_serve(octet, model, tmp_path):
    """Counts agree with the server's own; lengths are as asked for."""
    server = Server(octet.program, make_tiny_model(model, tmp_path / "tiny"), "--load-format", "dummy", "--threads", 1,
                    "--max-num-seqs", 8)
    try:
        before = server.metrics()
        _, result = bench(octet, server.port, tmp_path, "--num-prompts", 12, "--random-range-ratio", 0.5,
                          "--random-prefix-len", 8, *METRICS)
        after = server.metrics()
    finally:
        assert server.stop() == 0
    check_figures(result)
    assert result["completed"] == 12 and result["model_id"] == "smol"
    assert all(10 + 8 - 2 <= length <= 30 + 8 + 2 for length in result["input_lens"])
    assert len(set(result["input_lens"])) > 1 and all(2 <= length <= 6 for length in result["output_lens"])
    difference = lambda name: sum(value - before.get(key, 0) for key, value in after.items() if key.split("{")[0] == name)
    first = result["output_lens"][0]  # of the test request, sent before
    assert difference("vllm:generation_tokens_total") == result["total_output_tokens"] + first
    assert difference("vllm:prompt_tokens_total") == result["total_input_tokens"] + result["input_lens"][0]
    assert all(math.isfinite(ttft) and 0 < ttft < 60 for ttft in result["ttfts"])
