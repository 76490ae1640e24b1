"""`octet bench serve` beside guidellm as it is, on the same server with the same load: the same figures within noise. They take
turns, so that a machine whose speed changes changes both; the server leaves a core to the one that measures."""
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys

import pytest

if importlib.util.find_spec("guidellm") is None:
    pytest.skip("no guidellm here", allow_module_level=True)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from serving import Server  # noqa: E402

REQUESTS, STREAMS, INPUT, OUTPUT, TURNS = 12, 2, 64, 32, 3
NOISE = 0.25  # of the median of the turns


@pytest.fixture(scope="module")
def server(octet, model):
    server = Server(octet.program, model, "--threads", 1, "--max-num-seqs", 8, "--max-model-len", 1024, "--no-enable-prefix-caching")
    yield server
    assert server.stop() == 0, server.text_of_log()


def guidellm(server, model, folder):
    program = pathlib.Path(sys.executable).with_name("guidellm")
    result = subprocess.run(
        [program, "run", "--backend", f"kind=openai_http,target={server.url},model=smol", "--profile", f"kind=concurrent,streams={STREAMS}",
         "--constraint", f"kind=max_requests,count={REQUESTS}", "--tokenizer", f"kind=huggingface_auto,model={model}",
         "--data", f"kind=synthetic_text,prompt_tokens={INPUT},output_tokens={OUTPUT}", "--output", f"kind=json,path={folder}/guidellm.json",
         "--disable-console"], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    metrics = json.loads((folder / "guidellm.json").read_text())["benchmarks"][0]["metrics"]
    assert metrics["request_totals"] == {"successful": REQUESTS, "errored": 0, "incomplete": 0, "total": REQUESTS}
    assert metrics["output_token_count"]["successful"]["total_sum"] == REQUESTS * OUTPUT
    return {"ttft": metrics["time_to_first_token_ms"]["successful"]["median"], "tpot": metrics["inter_token_latency_ms"]["successful"]["median"],
            "latency": metrics["request_latency"]["successful"]["median"] * 1000}


def octet_bench(octet, server, model, folder):
    octet.text("bench", "serve", "--port", server.port, "--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--model", "smol",
               "--tokenizer", model, "--random-input-len", INPUT, "--random-output-len", OUTPUT, "--num-prompts", REQUESTS,
               "--max-concurrency", STREAMS, "--ignore-eos", "--percentile-metrics", "ttft,tpot,itl,e2el", "--save-result",
               "--result-filename", folder / "octet.json")
    figures = json.loads((folder / "octet.json").read_text())
    assert figures["completed"] == REQUESTS and figures["total_output_tokens"] == REQUESTS * OUTPUT
    return {"ttft": figures["median_ttft_ms"], "tpot": figures["median_tpot_ms"], "latency": figures["median_e2el_ms"]}


def test_figures_within_noise(octet, server, model, tmp_path):
    octet_bench(octet, server, model, tmp_path)  # warms the server up
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(octet_bench(octet, server, model, tmp_path))
        theirs.append(guidellm(server, model, tmp_path))
    middle = [{name: statistics.median(turn[name] for turn in turns) for name in turns[0]} for turns in (ours, theirs)]
    print(f"octet {middle[0]}, guidellm {middle[1]}")
    for name in ("tpot", "latency"):
        assert middle[0][name] == pytest.approx(middle[1][name], rel=NOISE), middle
