"""Text from the real model, by the commands a user types."""
import json

import pytest

PROMPT = "The capital of France is"
GREEDY = ["--temperature", "0", "--max-tokens", "24"]


@pytest.mark.parametrize("flags", [[], ["--quantization", "fp8"]], ids=["bf16", "fp8"])
def test_greedy_text_is_sensible_and_repeats(octet, model, flags):
    first = octet.text("generate", model, *flags, *GREEDY, "-p", PROMPT)
    assert "Paris" in first
    assert octet.text("generate", model, *flags, *GREEDY, "-p", PROMPT) == first


@pytest.mark.parametrize("flag", ["--seed", "--sampling-seed"])
def test_seeded_sampling_repeats(octet, model, flag):
    flags = ["--temperature", "1.0", "--max-tokens", "24", "-p", PROMPT]
    first = octet.text("generate", model, flag, "7", *flags)
    assert octet.text("generate", model, flag, "7", *flags) == first
    others = {octet.text("generate", model, flag, str(seed), *flags) for seed in (8, 9)}
    assert others != {first}


def test_chat_answers_one_question(octet, model):
    answer = octet.text("chat", model, "--temperature", "0", "--max-tokens", "48", "-q", "What is the capital of France?")
    assert "Paris" in answer
    assert "<|im_" not in answer


def test_logits_agree_with_greedy_text(octet, model):
    [encoded] = octet.json_lines("tokenize", model, lines=[{"text": PROMPT, "add_special_tokens": False}])
    report = octet.json("logits", model, "--tokens", ",".join(map(str, encoded["ids"])), "--json")
    logits = report["logits"]
    assert len(logits) == 49152
    best = max(range(len(logits)), key=logits.__getitem__)
    [decoded] = octet.json_lines("detokenize", model, lines=[{"ids": [best], "skip_special_tokens": False}])
    text = octet.text("generate", model, "--temperature", "0", "--max-tokens", "1", "-p", PROMPT)
    assert decoded["text"].strip() in text


def test_a_name_of_the_hugging_face_cache(octet, model, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--HuggingFaceTB--SmolLM2-135M-Instruct"
    (repo / "snapshots").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir()
    for path in model.iterdir():
        (repo / "snapshots" / commit / path.name).hardlink_to(path)
    env = {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    by_name = octet.text("generate", "HuggingFaceTB/SmolLM2-135M-Instruct", *GREEDY, "-p", PROMPT, env=env)
    assert by_name == octet.text("generate", model, *GREEDY, "-p", PROMPT)


def test_fp8_weights_are_smaller(octet, model):
    """Every linear is one byte a weight; the tied embedding (49152 x 576) and the norms stay BF16."""
    bf16 = octet.json("inspect", model, "--json")
    fp8 = octet.json("inspect", model, "--quantization", "fp8", "--json")
    assert 0.55 < fp8["weight_bytes"] / bf16["weight_bytes"] < 0.65


def test_inspect_says_who_holds_what(octet, model):
    """Three ranks: a third of every matrix each, and all of the 61 norms of 576 F32."""
    one = octet.json("inspect", model, "--json", "--device", "cpu")
    three = octet.json("inspect", model, "--tensor-parallel-size", "3", "--json", "--device", "cpu")
    assert [rank["num_kv_heads"] for rank in three["ranks"]] == [1, 1, 1]
    assert [rank["kv_bytes_per_token"] for rank in three["ranks"]] == [30 * 2 * 1 * 64 * 2] * 3
    assert three["kv_bytes_per_token"] == one["kv_bytes_per_token"] and three["num_parameters"] == one["num_parameters"]
    assert three["weight_bytes"] == sum(rank["weight_bytes"] for rank in three["ranks"]) == one["weight_bytes"] + 2 * 61 * 576 * 4
    down = [linear for linear in three["ranks"][2]["linears"] if linear["module"] == "model.layers.29.mlp.down_proj"]
    assert [(linear["n"], linear["k"]) for linear in down] == [(576, 512)]
    text = octet.text("inspect", model, "--tensor-parallel-size", "3", "--device", "cpu")
    assert "each of ranks 0 to 2" in text


def test_bench_latency_report(octet, model, tmp_path):
    report = tmp_path / "latency.json"
    octet.text("bench", "latency", model, "--input-len", "32", "--output-len", "8", "--batch-size", "1", "--num-iters", "2",
               "--num-iters-warmup", "1", "--output-json", report)
    values = json.loads(report.read_text())
    assert len(values["latencies"]) == 2
    assert values["avg_latency"] == pytest.approx(sum(values["latencies"]) / 2)
    assert set(values["percentiles"]) == {"10", "25", "50", "75", "90", "99"}
    for key in ("ttft_s", "itl_s", "prefill_tokens_per_second", "decode_tokens_per_second", "load_seconds"):
        assert values[key] > 0, key
    assert values["weight_bytes"] > 100e6
    assert values["kv_bytes_per_token"] == 30 * 2 * 3 * 64 * 2  # layers, K and V, heads, head_dim, BF16


def test_kl_divergence_of_a_model_from_itself_is_zero(octet, model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("It was a bright cold day in April, and the clocks were striking thirteen. " * 4)
    same = octet.json("eval", "kld", "--model", model, "--reference-model", model, "--text", text, "--json")
    assert abs(same["kl_divergence_mean"]) < 1e-6 and same["top1_agreement"] == 1.0 and same["num_tokens"] > 40
    fp8 = octet.json("eval", "kld", "--model", model, "--reference-model", model, "--quantization", "fp8", "--text", text, "--json")
    assert 1e-6 < fp8["kl_divergence_mean"] < 0.1 and fp8["top1_agreement"] > 0.8
