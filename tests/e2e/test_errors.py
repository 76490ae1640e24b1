"""What a user meets when something is wrong: one clear message on standard error and the right exit status, never a crash."""
import json
import os
import shutil
import struct

import pytest

RUNTIME, USAGE, MODEL = 1, 2, 3
COMMANDS = [["generate"], ["chat"], ["convert"], ["inspect"], ["tokenize"], ["detokenize"], ["render"], ["logits"],
            ["bench"], ["bench", "latency"], ["bench", "throughput"], ["eval"], ["eval", "perplexity"], ["eval", "kld"],
            ["eval", "task"]]


def failed(result, status, *words):
    assert result.returncode == status, (result.returncode, result.stderr)
    for word in words:
        assert word in result.stderr, result.stderr
    assert "terminate called" not in result.stderr


def read_header(model):
    with open(model / "model.safetensors", "rb") as file:
        [length] = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


def write_hollow(folder, header):
    """A safetensors file with this header whose data are a hole: enough for errors found before any weight is used."""
    text = json.dumps(header).encode()
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def generate(octet, folder, *more):
    return octet("generate", folder, "--temperature", "0", "--max-tokens", "2", "-p", "Hello", *more)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(octet, command):
    out = octet.text(*command, "--help")
    assert len(out) > 100


def test_top_help_names_every_command(octet):
    out = octet.text("--help")
    for command in COMMANDS:
        assert command[0] in out


def test_version_has_build_details(octet):
    out = octet.text("--version")
    assert "octet" in out and "GNU" in out


@pytest.mark.parametrize("arguments", [["nonsense"], ["generate"], ["generate", "m", "--no-such-flag"],
                                       ["bench", "latency", "m", "--input-len", "many"]])
def test_usage(octet, arguments):
    failed(octet(*arguments), USAGE)


def test_missing_model_says_where_it_looked(octet, tmp_path):
    result = octet("generate", "no-such/model", "-p", "x", env={"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")})
    failed(result, MODEL, "no-such/model", str(tmp_path))


def test_truncated_weights(octet, model, broken):
    shutil.copy(model / "model.safetensors", broken)
    size = (broken / "model.safetensors").stat().st_size
    os.truncate(broken / "model.safetensors", size // 2)
    failed(generate(octet, broken), MODEL, "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x10", b"\xff" * 64, struct.pack("<Q", 1 << 40), struct.pack("<Q", 2) + b"[]",
                                     struct.pack("<Q", 8) + b'{"a":{}}'], ids=range(6))
def test_rubbish_weights(octet, broken, content):
    (broken / "model.safetensors").write_bytes(content)
    failed(generate(octet, broken), MODEL, "model.safetensors")


def test_no_weights(octet, broken):
    failed(generate(octet, broken), MODEL)


def test_missing_tensor_is_named(octet, model, broken):
    header = read_header(model)
    header["model.layers.3.mlp.nobody.weight"] = header.pop("model.layers.3.mlp.up_proj.weight")
    write_hollow(broken, header)
    failed(generate(octet, broken), MODEL, "model.layers.3.mlp.up_proj")


def test_wrong_shape_names_both(octet, model, broken):
    header = read_header(model)
    header["model.layers.0.self_attn.o_proj.weight"]["shape"] = [288, 1152]
    write_hollow(broken, header)
    failed(generate(octet, broken), MODEL, "model.layers.0.self_attn.o_proj.weight", "576", "1152")


def test_missing_shard_is_named(octet, model, broken):
    names = [name for name in read_header(model) if name != "__metadata__"]
    index = {"metadata": {}, "weight_map": {name: "model-00002-of-00002.safetensors" for name in names}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    failed(generate(octet, broken), MODEL, "model-00002-of-00002.safetensors")


def test_unknown_architecture_names_the_supported(octet, model, broken):
    (broken / "model.safetensors").symlink_to(model / "model.safetensors")
    config = json.loads((broken / "config.json").read_text())
    config["architectures"] = ["FancyForCausalLM"]
    (broken / "config.json").write_text(json.dumps(config))
    failed(generate(octet, broken), MODEL, "FancyForCausalLM", "LlamaForCausalLM")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"architectures": 3}', "\x00" * 100, '{"hidden_size": -1}'], ids=range(6))
def test_rubbish_config(octet, model, broken, content):
    (broken / "model.safetensors").symlink_to(model / "model.safetensors")
    (broken / "config.json").write_text(content)
    failed(generate(octet, broken), MODEL, "config.json")


def test_rubbish_tokenizer(octet, model, broken):
    (broken / "model.safetensors").symlink_to(model / "model.safetensors")
    (broken / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": []}}')
    failed(generate(octet, broken), MODEL, "tokenizer.json")


def test_too_long_a_prompt_says_how_long(octet, model):
    result = octet("generate", model, "--max-model-len", "64", "-p", "word " * 500)
    assert result.returncode in (RUNTIME, USAGE), result.stderr
    assert "64" in result.stderr


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, b"PK\x03\x04" * 10], ids=range(4))
def test_rubbish_gguf(octet, tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    failed(octet("convert", tmp_path / "x.gguf", "--out", tmp_path / "out"), MODEL, "x.gguf")
    assert not (tmp_path / "out" / "config.json").exists()
