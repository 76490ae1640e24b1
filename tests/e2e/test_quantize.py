"""`octet quantize` on the real model: what it writes is served as what is quantised while loading, and a run that was killed
is continued to the same bytes."""
import hashlib
import json
import random
import subprocess
import time

import pytest

TOKENS = "1,504,3408,282,4649,314"


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("scheme,online", [("fp8_channel", "fp8_channel"), ("fp8_block", "fp8_block"), ("int8", "int8")])
def test_logits_are_those_of_quantising_while_loading(octet, model, tmp_path, scheme, online):
    octet.text("quantize", model, "--scheme", scheme, "--out", tmp_path / "out")
    stored = octet.json("logits", tmp_path / "out", "--tokens", TOKENS, "--json")
    assert stored == octet.json("logits", model, "--quantization", online, "--tokens", TOKENS, "--json")


def test_generates_from_one_scale_per_tensor(octet, model, tmp_path):
    octet.text("quantize", model, "--scheme", "fp8", "--out", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]}
    assert "Paris" in octet.text("chat", tmp_path / "out", "--temperature", "0", "--max-tokens", "48", "-q", "What is the capital of France?")


def test_killed_and_resumed(octet, model, tmp_path):
    octet.text("quantize", model, "--scheme", "fp8", "--out", tmp_path / "whole")
    whole = digests(tmp_path / "whole")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    out = tmp_path / "out"
    kills = 0
    for resume in [[]] + [["--resume"]] * 5:
        process = subprocess.Popen([octet.program, "quantize", str(model), "--scheme", "fp8", "--out", str(out), *resume], stdout=subprocess.DEVNULL)
        time.sleep(generator.uniform(0.02, 0.8))
        process.kill()
        kills += process.wait() != 0
        if out.exists():
            break
        assert not (out.parent / "out.partial" / "config.json").exists() or kills
    if not out.exists():
        octet.text("quantize", model, "--scheme", "fp8", "--out", out, "--resume")
    assert digests(out) == whole
    assert not (tmp_path / "out.partial").exists()


def test_errors(octet, model, tmp_path):
    octet.text("quantize", model, "--out", tmp_path / "out")
    for arguments, status, text in [
        ((tmp_path / "out", "--out", tmp_path / "again"), 3, "quantised already"),
        ((model, "--out", tmp_path / "out"), 2, "exists and is not an empty folder"),
        ((model, "--out", tmp_path / "x", "--scheme", "int4"), 2, "int4"),
        ((model, "--out", tmp_path / "x", "--scheme", "int8", "--dialect", "autofp8"), 2, "cannot say"),
    ]:
        result = octet("quantize", *arguments)
        assert result.returncode == status, result.stderr
        assert text in result.stderr
    assert not (tmp_path / "x").exists()


def test_calibrated_on_text_and_messages(octet, model, tmp_path):
    lines = [{"text": f"The number {i} is followed by {i + 1}, and that by {i + 2}."} for i in range(4)]
    lines.append({"messages": [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello!"}]})
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    out = octet.text("quantize", model, "--scheme", "fp8", "--activation-scheme", "static", "--calibration", tmp_path / "text.jsonl",
                     "--kv-cache-scheme", "tensor", "--out", tmp_path / "out")
    assert "KL divergence" in out
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["activation_scheme"] == "static"
    assert config["quantized_by"]["calibration"]["num_samples"] == 4
    assert octet.text("generate", tmp_path / "out", "-p", "The number 1 is followed by", "--temperature", "0", "--max-tokens", "8")


@pytest.mark.parametrize("text,expected", [
    ('{"text": "fine"}\n{"text": 7}\n', "line 2: text: expected a string"),
    ('{"text": "fine"}\n\n{"txt": "x"}\n', 'line 3: expected "text"'),
    ('{"text": "fine"}\n{"text": "cut', "line 2: not valid JSON"),
    ("", "the file is empty"),
])
def test_broken_calibration_files(octet, model, tmp_path, text, expected):
    (tmp_path / "text.jsonl").write_text(text)
    result = octet("quantize", model, "--calibration", tmp_path / "text.jsonl", "--out", tmp_path / "out")
    assert result.returncode != 0 and expected in result.stderr
    (tmp_path / "text.txt").write_bytes(b"fine\nnot \xff fine\n")
    result = octet("quantize", model, "--calibration", tmp_path / "text.txt", "--out", tmp_path / "out")
    assert result.returncode != 0 and "line 2: not UTF-8" in result.stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
