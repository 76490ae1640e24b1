"""/metrics as Prometheus' own Python parser reads it: vLLM's names, types, labels and buckets, and what they count. Expected are
the rows of vLLM's metrics documentation; octet's histograms may have further, finer buckets."""
import math

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Server, make_tiny_model

ENGINE = {"model_name", "engine"}
GAUGES = {"vllm:num_requests_running": ENGINE, "vllm:num_requests_waiting": ENGINE, "vllm:kv_cache_usage_perc": ENGINE,
          "vllm:gpu_cache_usage_perc": ENGINE, "vllm:num_requests_waiting_by_reason": ENGINE | {"reason"},
          "process_resident_memory_bytes": set(), "process_open_fds": set(), "process_start_time_seconds": set()}
COUNTERS = {"vllm:prefix_cache_queries": ENGINE, "vllm:prefix_cache_hits": ENGINE, "vllm:num_preemptions": ENGINE,
            "vllm:prompt_tokens": ENGINE, "vllm:generation_tokens": ENGINE, "vllm:prompt_tokens_cached": ENGINE,
            "vllm:request_success": ENGINE | {"finished_reason"}, "http_requests": {"handler", "method", "status"},
            "process_cpu_seconds": set()}
FIRST_TOKEN = [.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560]
BETWEEN_TOKENS = [.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
REQUEST = [.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
TOKENS = [1, 2, 5, 10, 20, 50, 100, 200]
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": FIRST_TOKEN, "vllm:inter_token_latency_seconds": BETWEEN_TOKENS,
    "vllm:request_time_per_output_token_seconds": BETWEEN_TOKENS, "vllm:e2e_request_latency_seconds": REQUEST,
    "vllm:request_queue_time_seconds": REQUEST, "vllm:request_inference_time_seconds": REQUEST,
    "vllm:request_prefill_time_seconds": REQUEST, "vllm:request_decode_time_seconds": REQUEST,
    "vllm:request_prompt_tokens": TOKENS, "vllm:request_generation_tokens": TOKENS,
    "vllm:request_max_num_generation_tokens": TOKENS, "vllm:request_params_max_tokens": TOKENS, "vllm:request_params_n": [1, 2, 5, 10, 20],
    "vllm:iteration_tokens_total": [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]}
REQUESTS, MAX_TOKENS = 3, 7


def families(server):
    return {family.name: family for family in text_string_to_metric_families(server.get("/metrics")[1])}


@pytest.fixture(scope="module")
def server(octet, model, tmp_path_factory):
    server = Server(octet.program, make_tiny_model(model, tmp_path_factory.mktemp("metrics") / "tiny"), "--load-format", "dummy",
                    "--threads", 1, "--max-model-len", 256)
    server.before = families(server)
    for _ in range(REQUESTS):
        assert server.post("/v1/completions", {"prompt": "The capital of France", "max_tokens": MAX_TOKENS, "ignore_eos": True})[0] == 200
    server.after = families(server)
    yield server
    assert server.stop() == 0, server.text_of_log()


def test_every_series_is_there_from_the_start(server):
    for kind, names in [("gauge", GAUGES), ("counter", COUNTERS)]:
        for name, labels in names.items():
            family = server.before[name]
            assert family.type == kind, name
            assert family.samples and family.documentation, name
            for sample in family.samples:
                assert set(sample.labels) == labels, sample
    assert {s.labels["finished_reason"] for s in server.before["vllm:request_success"].samples} == {"stop", "length", "abort", "error", "repetition"}
    assert {s.labels["reason"] for s in server.before["vllm:num_requests_waiting_by_reason"].samples} == {"capacity", "deferred"}
    assert {"block_size", "num_gpu_blocks", "cache_dtype", "gpu_memory_utilization", "enable_prefix_caching", "kv_cache_size_tokens",
            "kv_cache_max_concurrency"} <= set(server.before["vllm:cache_config_info"].samples[0].labels)


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_histograms_have_vllms_buckets(server, name):
    family = server.after[name]
    assert family.type == "histogram"
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.name == f"{name}_bucket"]
    bounds = [bound for bound, _ in buckets]
    assert set(HISTOGRAMS[name]) <= set(bounds) and bounds == sorted(bounds) and math.isinf(bounds[-1])
    values = [value for _, value in buckets]
    assert values == sorted(values)
    count = next(s.value for s in family.samples if s.name == f"{name}_count")
    assert values[-1] == count
    assert any(s.name == f"{name}_sum" for s in family.samples)


def test_what_is_counted(server):
    def grown(family, name, **labels):
        def total(families):
            return sum(s.value for s in families[family].samples if s.name == name and labels.items() <= s.labels.items())
        return total(server.after) - total(server.before)

    def count(name):
        return grown(name, f"{name}_count")

    assert grown("vllm:request_success", "vllm:request_success_total", finished_reason="length") == REQUESTS
    assert grown("vllm:generation_tokens", "vllm:generation_tokens_total") == REQUESTS * MAX_TOKENS
    assert count("vllm:inter_token_latency_seconds") == REQUESTS * (MAX_TOKENS - 1)
    for name in ["time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds", "request_prompt_tokens",
                 "request_decode_time_seconds", "request_params_n", "request_params_max_tokens"]:
        assert count(f"vllm:{name}") == REQUESTS, name
    assert grown("vllm:request_generation_tokens", "vllm:request_generation_tokens_sum") == REQUESTS * MAX_TOKENS
    assert sum(s.value for s in server.after["vllm:num_requests_running"].samples) == 0
